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

/// A session's id: 1 to 256 bytes of printable ASCII without space, quotes, `&`, `<` and `>`, and
/// no reference. Tigase compares sids as they are written, other nodes decode them first; this way
/// there is one reading. No node makes other sids.
pub(super) fn sid<'a>(attribute: &Attribute<'a>) -> Result<Cow<'a, str>, Malformed> {
    let sid = attribute.raw;
    let literal = |byte: u8| matches!(byte, b'!' | b'#'..=b'%' | b'('..=b';' | b'=' | b'?'..=b'~');
    if sid.is_empty() || sid.len() > MAX_SID || !sid.bytes().all(literal) {
        return Err(Malformed::BadSid);
    }
    Ok(Cow::Borrowed(sid))
}

/// A request's id: digits, up to 2^53 − 1. As a sid, it is written with no reference.
pub(super) fn rid(attribute: &Attribute<'_>) -> Result<u64, Malformed> {
    let rid = attribute.raw;
    if rid.len() > MAX_RID_DIGITS {
        return Err(Malformed::BadRid);
    }
    digits(rid)
        .filter(|&rid| rid <= MAX_RID)
        .ok_or(Malformed::BadRid)
}

/// Checks that the value of a root's attribute cannot be taken for something else by a reader that
/// looks for `sid=` without minding quotes, or for the end of the tag.
pub(super) fn hides_nothing(attribute: &Attribute<'_>) -> Result<(), Malformed> {
    let raw = attribute.raw.as_bytes();
    let misleads = |at: usize| {
        let name = raw[..at].trim_ascii_end();
        raw[at] == b'>' || name.ends_with(b"sid") || name.ends_with(b"rid")
    };
    if memchr::memchr2_iter(b'=', b'>', raw).any(misleads) {
        return Err(Malformed::HiddenAttribute);
    }
    Ok(())
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
