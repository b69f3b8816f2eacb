//! What XML 1.0 (fifth edition) and its namespaces say of characters and names.
//!
//! Owns those tables. Never looks at markup.

/// White space as XML 1.0 §2.3 has it; not what Unicode calls so.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether `text` is white space only (also when it is empty).
pub(super) fn is_blank(text: &str) -> bool {
    text.bytes().all(is_space)
}

/// Whether a character may stand in a document at all (XML 1.0 §2.2).
pub(super) const fn is_legal(c: char) -> bool {
    matches!(c,
        '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// Whether every character of `text` may stand in a document.
pub(super) fn all_legal(text: &str) -> bool {
    // Without an early end, so that the compiler makes vector code of it. Of what is not ASCII only
    // U+FFFE and U+FFFF are illegal (a `str` has no surrogates); they begin with this byte.
    let doubtful = |byte: u8| (byte < 0x20 && !is_space(byte)) || byte == 0xEF;
    let doubts = text
        .bytes()
        .fold(false, |doubts, byte| doubts | doubtful(byte));
    !doubts || text.chars().all(is_legal)
}

/// What an ASCII character may be in a name: 0 nothing, 1 all but its start, 2 anywhere.
const IN_NAME: [u8; 128] = {
    let mut all = [0; 128];
    let mut at = 0;
    while at < 128 {
        let c = at as u8 as char;
        all[at] = if starts_name(c) {
            2
        } else {
            continues_name(c) as u8
        };
        at += 1;
    }
    all
};

/// The name at the start of `text` up to a space or `=`, split at its colon, and its length; none
/// if it is not of ASCII only, or no QName: [`split_name`] tells which.
pub(super) fn plain_name(text: &str) -> Option<((&str, &str), usize)> {
    let mut colon = None;
    let mut starts = true;
    let mut length = text.len();
    for (at, byte) in text.bytes().enumerate() {
        if is_space(byte) || byte == b'=' {
            length = at;
            break;
        }
        if byte == b':' && colon.is_none() && !starts {
            colon = Some(at);
            starts = true;
            continue;
        }
        let least = if starts { 2 } else { 1 };
        if IN_NAME
            .get(usize::from(byte))
            .is_none_or(|&kind| kind < least)
        {
            return None;
        }
        starts = false;
    }
    if starts {
        return None;
    }
    let name = text.get(..length)?;
    let split = match colon {
        Some(colon) => (name.get(..colon)?, name.get(colon + 1..)?),
        None => ("", name),
    };
    Some((split, length))
}

/// Splits a name at its colon, if it is a QName (Namespaces 1.0 §4): prefix (empty if none), local.
pub(super) fn split_name(name: &str) -> Option<(&str, &str)> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, local)) => (Some(prefix), local),
        None => (None, name),
    };
    let good = is_ncname(local) && prefix.is_none_or(is_ncname);
    good.then(|| (prefix.unwrap_or_default(), local))
}

/// Whether `name` is a name without a colon (Namespaces 1.0 §3, XML 1.0 §2.3).
fn is_ncname(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(starts_name) && chars.all(continues_name)
}

const fn starts_name(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | '_'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}'
        | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}'
        | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

const fn continues_name(c: char) -> bool {
    starts_name(c)
        || matches!(c,
            '-' | '.' | '0'..='9' | '\u{B7}'
            | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}
