//! Readers that know no HTTP: Tigase's XML parser, and a regular expression.

use super::{Reading, Seen};

/// Tigase hands the bytes of a connection, heads and all, to its stream parser: everything outside
/// of a root is skipped, `<!…` and `<?…` end at the next `>` (a CDATA section as well), attribute
/// values are not decoded, and each root `body` is a request.
pub(crate) fn tigase(bytes: &[u8]) -> Reading {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Reading::new();
    };
    let mut reading = Reading::new();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with(['!', '?']) {
            let Some(end) = rest.find('>') else { break };
            rest = &rest[end + 1..];
        } else if let Some(closing) = rest.strip_prefix('/') {
            let Some((name, after)) = closing.split_once('>') else {
                break;
            };
            if open.pop() != Some(name.trim()) {
                break;
            }
            rest = after;
        } else {
            let Some(tag) = Tag::read(rest) else { break };
            if open.is_empty() {
                let local = tag.name.rsplit(':').next();
                if local == Some("body") {
                    reading.push(tag.seen());
                }
            }
            if !tag.empty {
                open.push(tag.name);
            }
            rest = tag.after;
        }
    }
    reading
}

/// A start tag, read with Tigase's lenience.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    empty: bool,
    after: &'a str,
}

impl<'a> Tag<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>')?;
        let (name, mut rest) = text.split_at(end);
        let mut tag = Self {
            name,
            attributes: Vec::new(),
            empty: false,
            after: "",
        };
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if let Some(after) = rest.strip_prefix('>') {
                tag.after = after;
                return Some(tag);
            }
            if let Some(after) = rest.strip_prefix('/') {
                tag.empty = true;
                rest = after;
                continue;
            }
            // Between a name and its quote everything is skipped.
            let name = rest.split(['=', ' ', '\t', '\r', '\n']).next()?;
            if name.contains(['<', '?', '&']) {
                return None;
            }
            let quoted = rest.get(name.len()..)?;
            let at = quoted.find(['\'', '"'])?;
            let quote = quoted[at..].chars().next()?;
            let (value, after) = quoted[at + 1..].split_once(quote)?;
            if value.contains('<') {
                return None;
            }
            tag.attributes.push((name, value));
            rest = after;
        }
    }

    fn seen(&self) -> Seen {
        let value = |name: &str| {
            // A later attribute of the same name overwrites the one before.
            let same = self.attributes.iter().rev().find(|(n, _)| *n == name);
            same.map(|(_, value)| (*value).to_owned())
        };
        Seen {
            sid: value("sid"),
            rid: value("rid").unwrap_or_default(),
        }
    }
}

/// `<body\s[^>]*>` wherever it stands, if `\srid=` is in it; then the first `\s(sid|rid)\s*=\s*` and
/// what is between quotes behind it, whatever is open there.
pub(crate) fn expression(bytes: &[u8]) -> Reading {
    let text = String::from_utf8_lossy(bytes);
    let mut reading = Reading::new();
    let mut rest = &text[..];
    while let Some(at) = rest.find("body") {
        let (before, from) = rest.split_at(at);
        rest = &from[4..];
        let prefixed = before.rsplit('<').next().unwrap_or_default();
        let opens = before.contains('<')
            && prefixed
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b':');
        if !opens || !rest.starts_with([' ', '\t', '\r', '\n']) {
            continue;
        }
        let tag = rest.split('>').next().unwrap_or_default();
        if let Some(rid) = first_quoted(tag, "rid") {
            let sid = first_quoted(tag, "sid");
            reading.push(Seen { sid, rid });
        }
    }
    reading
}

fn first_quoted(tag: &str, name: &str) -> Option<String> {
    tag.match_indices(name).find_map(|(at, _)| {
        let before = tag[..at].chars().next_back()?;
        if !before.is_ascii_whitespace() && before != '\'' && before != '"' {
            return None;
        }
        let value = tag[at + name.len()..].trim_start().strip_prefix('=')?;
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        Some(value[1..].split_once(quote)?.0.to_owned())
    })
}
