//! What an X.509 certificate says of its issuer, its subject and its validity (RFC 5280 §4.1), as far
//! as rustls does not say it. The files are the operator's; nothing from the network comes here.

use std::ops::RangeInclusive;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Parts of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// The name of the issuer, as bytes.
    pub(super) issuer: &'a [u8],
    /// The name of the subject, as bytes.
    pub(super) subject: &'a [u8],
    /// The first second of its validity, since 1970.
    pub(super) not_before: u64,
    /// The last second of its validity, since 1970.
    pub(super) not_after: u64,
}

/// Reads the parts of a certificate in DER; none if it is no certificate.
pub(super) fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let (mut certificate, _) = element(der, SEQUENCE)?;
    let mut fields = take(&mut certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        take(&mut fields, VERSION)?;
    }
    let _serial = take(&mut fields, INTEGER)?;
    let _algorithm = take(&mut fields, SEQUENCE)?;
    let issuer = take(&mut fields, SEQUENCE)?;
    let mut validity = take(&mut fields, SEQUENCE)?;
    let subject = take(&mut fields, SEQUENCE)?;
    Some(Parts {
        issuer,
        subject,
        not_before: time(&mut validity)?,
        not_after: time(&mut validity)?,
    })
}

/// Takes the next element from the front, which must have this tag; returns its content.
fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (content, behind) = element(rest, tag)?;
    *rest = behind;
    Some(content)
}

/// The content of the element at the front, and what is behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&is, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A length of one to four bytes follows.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = length
                .iter()
                .fold(0, |sum, &byte| (sum << 8) | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    (is == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// Takes a time: `YYMMDDhhmmssZ`, or the same with a year of four digits.
fn time(rest: &mut &[u8]) -> Option<u64> {
    let tag = *rest.first()?;
    let text = take(rest, tag)?;
    let (century, text) = match tag {
        UTC_TIME if text.len() == 13 => {
            let century = if text[0] < b'5' { 20 } else { 19 };
            (century, text)
        }
        GENERALIZED_TIME if text.len() == 15 => (number(text, 0, 0..=99)?, &text[2..]),
        _ => return None,
    };
    if text.last() != Some(&b'Z') {
        return None;
    }
    let year = century * 100 + number(text, 0, 0..=99)?;
    let (month, day) = (number(text, 2, 1..=12)?, number(text, 4, 1..=31)?);
    let (hour, minute) = (number(text, 6, 0..=23)?, number(text, 8, 0..=59)?);
    let second = number(text, 10, 0..=60)?;
    let days = days_since_1970(year, month, day)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Two digits.
fn number(text: &[u8], at: usize, range: RangeInclusive<u64>) -> Option<u64> {
    let digits = std::str::from_utf8(text.get(at..at + 2)?).ok()?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain)?;
    range.contains(&number).then_some(number)
}

/// Days from 1970-01-01 in the Gregorian calendar; none for an earlier day.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years begin in March here, so that a leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_certificate_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["chat.example.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 1, 2);
        let certificate = params.self_signed(&key).unwrap();
        let parts = parts(certificate.der()).unwrap();
        assert_eq!(parts.issuer, parts.subject);
        assert_eq!(parts.not_before, 1_709_164_800);
        assert_eq!(parts.not_after, 2_556_230_400);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let whole = parts(&der).unwrap();
        for cut in 0..der.len() {
            let read = parts(&der[..cut]);
            assert_eq!(read, None, "the first {cut} bytes");
        }
        for at in 0..der.len() {
            let mut other = der.clone();
            other[at] = !other[at];
            let _ = parts(&other);
        }
        assert!(whole.not_before < whole.not_after);
        assert_eq!(parts(b"\x30\x85\x01\x01\x01\x01\x01"), None);
    }

    #[test]
    fn days_are_counted() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 3, 1), Some(11_017));
        assert_eq!(days_since_1970(2026, 11, 28), Some(20_785));
        assert_eq!(days_since_1970(1969, 12, 31), None);
        assert_eq!(days_since_1970(0, 1, 1), None);
    }
}
