//! The line of the file on which an error stands, with a caret below the place. What may be a secret
//! is never shown.

use std::fmt;

use super::keys::nearest;

/// What ends a line in YAML 1.1.
pub(super) const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
/// The most characters of a line that are shown, and how many of them lead up to the caret.
const MOST_SHOWN: usize = 120;
const LEAD: usize = 60;
/// How many lines up a value may begin that is cut over several lines.
const MOST_LINES_UP: usize = 20;

/// A place in the file, and its line as it is shown.
#[derive(Debug)]
pub(super) struct Excerpt {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    shown: String,
    indent: usize,
    carets: usize,
}

impl Excerpt {
    /// The place at this offset in bytes.
    pub(super) fn at(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let (above, rest) = text.split_at(offset);
        let start = line_start(above);
        let (upper, before) = above.split_at(start);
        let rest = &rest[..rest.find(BREAKS).unwrap_or(rest.len())];
        let line = &text[start..offset + rest.len()];
        let (column, marked) = (before.chars().count(), &rest[..word(before, rest)]);
        let is_long = line.chars().count() > MOST_SHOWN;
        let from = if is_long {
            column.saturating_sub(LEAD)
        } else {
            0
        };
        let hidden = hidden_from(upper, line).unwrap_or(line.len());
        let show = |(at, c): (usize, char)| match c {
            _ if at >= hidden => "*".to_owned(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        };
        let window = line.char_indices().skip(from).take(MOST_SHOWN);
        let shown: Vec<String> = window.map(show).collect();
        let width = |parts: &[String]| parts.iter().map(|part| part.chars().count()).sum();
        let (lead, tail) = shown.split_at(column - from);
        Self {
            line: 1 + above.matches(BREAKS).count() - upper.matches("\r\n").count(),
            column: column + 1,
            indent: width(lead),
            carets: width(&tail[..marked.chars().count().min(tail.len())]),
            shown: shown.concat(),
        }
    }

    /// As [`Excerpt::at`], in the line that the YAML library gives: behind a last line without an end
    /// there is one more.
    pub(super) fn of_line(text: &str, offset: usize, line: usize) -> Self {
        let place = Self::at(text, offset);
        if place.line < line && offset >= text.len() {
            return Self::at(&format!("{text}\n"), text.len() + 1);
        }
        place
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (indent, carets) = (" ".repeat(self.indent), "^".repeat(self.carets.max(1)));
        writeln!(f, "{:>4} | {}", self.line, self.shown.trim_end())?;
        write!(f, "{:>4} | {indent}{carets}", "")
    }
}

/// Where the line begins in which `above` ends.
pub(super) fn line_start(above: &str) -> usize {
    let last = above.char_indices().rfind(|(_, c)| BREAKS.contains(c));
    last.map_or(0, |(at, c)| at + c.len_utf8())
}

/// How many bytes the word has with which the rest of a line begins: a quoted one to its quote, a plain
/// one to what ends it in YAML.
fn word(before: &str, rest: &str) -> usize {
    let mut chars = rest.char_indices().peekable();
    let Some((_, first)) = chars.next() else {
        return 0;
    };
    if let '"' | '\'' = first {
        let quote = chars.find(|(_, c)| *c == first);
        return quote.map_or(rest.len(), |(at, _)| at + 1);
    }
    if "[]{},\t".contains(first) {
        return 1;
    }
    let in_flow = before.contains(['[', '{']);
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        let gap = chars.peek().is_none_or(|(_, next)| next.is_whitespace());
        let comment = c.is_whitespace() && chars.peek().is_some_and(|(_, next)| *next == '#');
        let ends = match c {
            ':' => gap,
            ',' => gap || in_flow,
            ']' | '}' => true,
            _ => comment,
        };
        if ends {
            end = at;
            break;
        }
    }
    rest[..end].trim_end().len()
}

/// `text` without what may be a secret in it.
pub(super) fn masked(text: &str) -> String {
    let hidden = secret_from(text).unwrap_or(text.len());
    let show = |(at, c): (usize, char)| if at >= hidden { '*' } else { c };
    text.char_indices().map(show).collect()
}

/// From where a line may have a secret in it: behind the name of one, and everywhere in the lines below
/// such a name that may go on with its value.
fn hidden_from(above: &str, line: &str) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut least = indent(line);
    let is_blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let lines = above.split(BREAKS).rev().filter(|line| !is_blank(line));
    for (steps, upper) in lines.take(MOST_LINES_UP).enumerate() {
        let secret = secret_from(upper);
        let opens = |from: usize| !upper[from..].contains(char::is_alphanumeric);
        if secret.is_some_and(|from| indent(upper) < least || steps == 0 && opens(from)) {
            return Some(indent(line));
        }
        least = least.min(indent(upper));
    }
    secret_from(line)
}

/// The offset behind the first word in `text` that is, or was meant as, the name of a secret, and behind
/// its colon.
fn secret_from(text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let word = &rest[start..];
        let word = &word[..word.find(|c| !is_part(c)).unwrap_or(word.len())];
        rest = &rest[start + word.len()..];
        // Shorter and longer words are no slip for one of the names.
        let near = (4..=14).contains(&word.len());
        let lower = word.to_ascii_lowercase();
        let names_one = ["key", "token", "passw"]
            .iter()
            .any(|name| lower.contains(name))
            || near && nearest(&lower, &["session_key", "token"]).is_some();
        if names_one && lower != "token_file" {
            let value = rest.strip_prefix(':').unwrap_or(rest).trim_start();
            return Some(text.len() - value.len());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, offset: usize) -> String {
        Excerpt::at(text, offset).to_string()
    }

    /// The excerpt at the first `§`, which is taken out.
    fn at_mark(text: &str) -> String {
        let offset = text.find('§').expect("a mark");
        shown(&text.replace('§', ""), offset)
    }

    #[test]
    fn the_caret_marks_the_word() {
        assert_eq!(
            at_mark("a: 1\nb: §20s # x\n"),
            "   2 | b: 20s # x\n     |    ^^^"
        );
        for (text, carets) in [
            ("a: §node one # x", 8),
            ("a: §'x # y' # x", 7),
            ("a: §\"x", 2),
            ("§a_b: 1", 3),
            ("{ a: §1, b: 2 }", 1),
            ("{ a: §1,b: 2 }", 1),
            ("a: §info,x=y", 8),
            ("a: [§::1]", 3),
            ("a: §[1, 2]", 1),
            ("a:§", 1),
            ("a: §é:1\r\n", 3),
        ] {
            let carets_shown = at_mark(text).matches('^').count();
            assert_eq!(carets_shown, carets, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_as_yaml_counts_them() {
        for ends in ["\n", "\r\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"] {
            let text = format!("a: 1{ends}{ends}b: §2{ends}c: 3");
            assert_eq!(at_mark(&text), "   3 | b: 2\n     |    ^", "{ends:?}");
        }
    }

    #[test]
    fn control_characters_are_escaped_and_long_lines_cut() {
        assert_eq!(at_mark("\ta: §1"), "   1 | \\ta: 1\n     |      ^");
        let long = format!("a: [{}§word, {}]", "x, ".repeat(500), "y, ".repeat(500));
        let shown = at_mark(&long);
        let (text, carets) = shown.split_once('\n').expect("two lines");
        assert!(text.chars().count() <= 7 + MOST_SHOWN, "{shown}");
        let from = carets.find('^').expect("a caret");
        assert_eq!(&text[from..from + 4], "word");
    }

    #[test]
    fn no_place_is_out_of_reach() {
        for offset in 0..20 {
            shown("é: 'ü\u{2028}\r\nx", offset);
        }
        assert_eq!(shown("", 0), "   1 | \n     | ^");
    }

    #[test]
    fn secrets_are_masked() {
        for text in [
            "log: { session_key: '5ec4e7', format: §JSON }",
            "  session_key: §5ec4e7",
            "  session_key §5ec4e7",
            "  sesion_kye: §5ec4e7",
            "  token: §'5ec4e7'",
            "  session_key:\n    §5ec4e7",
            "  session_key: >\n\n    a\n    §5ec4e7",
            "log: { session_key:\n§5ec4e7 }",
            "log:\n  session_key: # note\n  # note\n    §5ec4e7",
        ] {
            let shown = at_mark(text);
            assert!(!shown.contains("5ec4e7") && shown.contains('*'), "{shown}");
        }
        assert_eq!(
            at_mark("a:\n  token_file: §x"),
            "   2 |   token_file: x\n     |               ^"
        );
        assert_eq!(masked("session_key:5ec4e7 x"), "session_key:********");
    }

    #[test]
    fn what_follows_a_secret_is_shown() {
        let shown = at_mark("log:\n  session_key: 5ec4e7\n# A key.\n  format: §JSON");
        assert_eq!(shown, "   4 |   format: JSON\n     |           ^^^^");
    }
}
