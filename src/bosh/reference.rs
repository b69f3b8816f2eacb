//! References, and the normalisation of attribute values (XML 1.0 §3.3.3, §4.1).
//!
//! Owns what `&…;` stands for. Never expands an entity beyond the five that XML predefines, since
//! no wrapper may declare one; so a value never grows.

use std::borrow::Cow;

use super::chars;
use super::malformed::Malformed;

/// The character that a reference stands for; `name` is what lies between `&` and `;`.
pub(super) fn resolve(name: &str) -> Result<char, Malformed> {
    let number = match name {
        "amp" => return Ok('&'),
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => name.strip_prefix('#').ok_or(Malformed::BadReference)?,
    };
    let code = match number.strip_prefix('x') {
        Some(hex) => code_point(hex, 16),
        None => code_point(number, 10),
    };
    code.and_then(char::from_u32)
        .filter(|&c| chars::is_legal(c))
        .ok_or(Malformed::BadReference)
}

/// The reference at the start of `text`, and its length in bytes with `&` and `;`.
pub(super) fn at_start(text: &str) -> Result<(char, usize), Malformed> {
    let (name, _) = text
        .strip_prefix('&')
        .and_then(|rest| rest.split_once(';'))
        .ok_or(Malformed::BadReference)?;
    Ok((resolve(name)?, name.len() + 2))
}

/// An attribute value as an application sees it: references decoded, each tab, line feed, carriage
/// return or CR LF a space; those that came as references stay what they are.
pub(super) fn normalise(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    let plain = |byte: u8| !matches!(byte, b'&' | b'\t' | b'\r' | b'\n');
    // Without an early end, so that the compiler makes vector code of it.
    if raw.bytes().fold(true, |all, byte| all & plain(byte)) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '&' => {
                let (meant, taken) = at_start(rest)?;
                value.push(meant);
                taken
            }
            '\t' | '\n' | '\r' => {
                value.push(' ');
                if rest.starts_with("\r\n") { 2 } else { 1 }
            }
            other => {
                value.push(other);
                other.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(Cow::Owned(value))
}

/// Digits of one radix as a number; `None` for no digit, another character or beyond Unicode.
fn code_point(digits: &str, radix: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().try_fold(0_u32, |code, c| {
        let next = code * radix + c.to_digit(radix)?;
        (next <= 0x10_FFFF).then_some(next)
    })
}
