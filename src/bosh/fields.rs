//! From one attribute's value to a field: sid, rid, numbers.
//!
//! Owns what counts as one. Never decides what a field means for a session.

use std::borrow::Cow;

use super::attributes::Attribute;
use super::malformed::Malformed;

/// A sid is at most this many bytes long.
const MAX_SID: usize = 256;

/// The largest rid (XEP-0124 §7): 2^53 − 1.
const MAX_RID: u64 = (1 << 53) - 1;

/// A rid has at most as many digits as the largest.
const MAX_RID_DIGITS: usize = 16;

/// A session's id: 1 to 256 bytes of printable ASCII without space.
pub(super) fn sid<'a>(attribute: &Attribute<'a>) -> Result<Cow<'a, str>, Malformed> {
    let sid = attribute.value()?;
    let printable = sid.bytes().all(|byte| byte.is_ascii_graphic());
    if sid.is_empty() || sid.len() > MAX_SID || !printable {
        return Err(Malformed::BadSid);
    }
    Ok(sid)
}

/// A request's id: digits, up to 2^53 − 1.
pub(super) fn rid(attribute: &Attribute<'_>) -> Result<u64, Malformed> {
    let rid = attribute.value()?;
    if rid.len() > MAX_RID_DIGITS {
        return Err(Malformed::BadRid);
    }
    digits(&rid)
        .filter(|&rid| rid <= MAX_RID)
        .ok_or(Malformed::BadRid)
}

/// A count or a number of seconds; one too large for 32 bits is the largest.
pub(super) fn number(attribute: &Attribute<'_>) -> Result<u32, Malformed> {
    let number = digits(&attribute.value()?).ok_or(Malformed::BadNumber)?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Checks `content`, which Tigase copies into a header of its answer as it is. The raw value is
/// looked at as well, since a node may not turn a line feed into a space as XML asks.
pub(super) fn content(attribute: &Attribute<'_>) -> Result<(), Malformed> {
    let good = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'<');
    (good(attribute.raw) && good(&attribute.value()?))
        .then_some(())
        .ok_or(Malformed::BadContent)
}

/// Digits alone as a number; the largest if there are too many of them.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}
