//! Slips that YAML reports in its own terms or takes for something else, and the words that name the
//! fix.

use super::excerpt::{BREAKS, line_start};
use super::keys::keys;

/// How many lines up a colon is looked for that is missing at an error of the syntax.
const MOST_LINES_UP: usize = 3;

/// The place, as an offset, and the fix of an error of the syntax at `offset`, if its cause is a known
/// slip.
pub(super) fn hint(text: &str, offset: usize) -> Option<(usize, String)> {
    let above = text.get(..offset)?;
    if text[offset..].starts_with('\t') {
        let fix = "YAML cannot be indented with tabs: use spaces";
        return Some((offset, fix.to_owned()));
    }
    let start = line_start(above);
    if let Some(at) = unquoted_ipv6(&above[start..], &text[offset..]) {
        let fix = "put the IPv6 address in quotes, and in brackets if a port follows, such as \
            `'[2001:db8::1]:5280'`";
        return Some((start + at, fix.to_owned()));
    }
    // Without its colon a key goes on in the lines below it.
    let keys: Vec<String> = keys().collect();
    let last = |key| str::rsplit(key, '.').next();
    let known: Vec<&str> = keys.iter().filter_map(|key| last(key)).collect();
    let mut end = start;
    for _ in 0..MOST_LINES_UP {
        end = above[..end].trim_end().len();
        let start = line_start(&above[..end]);
        let line = &above[start..end];
        let entry = line.trim_start_matches([' ', '-']);
        if let Some((_, fix)) = missing(entry, &known) {
            return Some((start + line.len() - entry.len(), fix));
        }
        end = start;
    }
    None
}

/// The known key with which `text` begins, and what is missing behind it: its colon, or the space
/// behind the colon.
pub(super) fn missing<'k>(text: &str, known: &[&'k str]) -> Option<(&'k str, String)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (word, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    let key = known.iter().find(|key| **key == word)?;
    let fix = match rest.strip_prefix(':') {
        Some(value) if value.starts_with(|c: char| !c.is_whitespace()) => {
            format!("a space is missing after `{key}:`")
        }
        None if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
            format!("a colon is missing after `{key}`")
        }
        _ => return None,
    };
    Some((key, fix))
}

/// The end of a refusal of `text`, if it seems to have a variable of the environment in it.
pub(super) fn unexpanded(text: &str) -> Option<&'static str> {
    let named =
        |rest: &str| rest.starts_with(|c: char| c == '{' || c == '(' || c.is_ascii_uppercase());
    let mut after = text.split('$').skip(1);
    after
        .any(named)
        .then_some(": variables are not expanded here")
}

/// What is said of a key that other programs have and Bowline does not.
pub(super) fn unsupported(key: &str) -> Option<&'static str> {
    let includes = matches!(
        key,
        "include" | "includes" | "import" | "imports" | "!include"
    );
    includes.then_some("not supported, see docs/out-of-scope.md")
}

/// Where the word begins that is cut in two by the error, if it looks like an IPv6 address.
fn unquoted_ipv6(before: &str, rest: &str) -> Option<usize> {
    let is_other = |c: char| !(c.is_ascii_hexdigit() || ":[].".contains(c));
    let start = before.rfind(is_other).map_or(0, |at| {
        at + before[at..].chars().next().map_or(0, char::len_utf8)
    });
    let end = rest.find(is_other).unwrap_or(rest.len());
    let colons = [&before[start..], &rest[..end]]
        .concat()
        .matches(':')
        .count();
    let follows = rest[end..].is_empty() || rest[end..].starts_with([' ', ',', '}', '/']);
    let quoted = before[..start].ends_with(['"', '\'']);
    let ends = follows || rest[end..].starts_with(BREAKS);
    (colons > 1 && ends && !quoted).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;

    const LISTEN: &str = "listen: [{ address: '127.0.0.1:0' }]\n";
    const NODES: &str = "nodes: [{ name: t1, address: 't1:5280' }]\n";

    /// What is said of a file that ends with this text, with its line and column.
    fn said(text: &str) -> String {
        let errors = parse(&format!("{LISTEN}{NODES}{text}"), "f").expect_err(text);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        said.join("\n")
    }

    #[test]
    fn tabs_are_named() {
        let fix = "YAML cannot be indented with tabs: use spaces";
        for (text, place) in [
            ("health:\n\trise: 2\n", "4:1"),
            ("health:\n  rise: 2\n  \tfall: 2\n", "5:3"),
            ("affinity:\n\tsid\n", "4:1"),
            ("trusted_proxies:\n  -\t10.0.0.1\n  - \tx: y", "4:4"),
        ] {
            assert_eq!(said(text), format!("f:{place}: {fix}"));
        }
    }

    #[test]
    fn ipv6_addresses_without_quotes_are_named() {
        for (text, place) in [
            ("admin: { address: ::1:9280 }", "3:19"),
            ("admin: { address: [::1]:9280 }", "3:19"),
            ("admin:\n  address: [::1]:9280", "4:12"),
            ("admin:\n  address: [2001:db8::1]:9280", "4:12"),
            ("admin: { address: [2001:db8::1]:9280 }", "3:19"),
            ("trusted_proxies: [::1]", "3:18"),
            ("trusted_proxies: [10.0.0.1, ::1, ::/0]", "3:29"),
        ] {
            let said = said(text);
            let start = format!("f:{place}: put the IPv6 address in quotes");
            assert!(said.starts_with(&start), "{text}: {said}");
        }
        for text in [
            "admin: { address: 2001:db8::1:9280 }",
            "admin:\n  address: ::1:9280",
        ] {
            let said = said(text);
            assert!(
                said.contains("in brackets and the whole in quotes"),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn a_missing_colon_is_named() {
        for (text, place, key) in [
            ("health\n  rise: 2\n", "3:1", "health"),
            ("affinity sid\nhealth:\n  rise: 2\n", "3:1", "affinity"),
            ("threads 2\n", "3:1", "threads"),
            ("health:\n  fall: 3\n  # note\n  rise 2\n\n", "6:3", "rise"),
            ("health:\n  rise 2\n  fall: 3\n", "4:3", "rise"),
            (
                "cors:\n  origins:\n    - x\n  headers\n    - y: z",
                "6:3",
                "headers",
            ),
        ] {
            let fix = format!("f:{place}: a colon is missing after `{key}`");
            assert_eq!(said(text), fix, "{text}");
        }
        let fix = "a colon is missing after `rise`";
        assert_eq!(said("health:\n  rise 2"), format!("f:4:3: health: {fix}"));
        assert_eq!(said("health: { rise 2 }"), format!("f:3:11: health: {fix}"));
    }

    #[test]
    fn a_missing_space_is_named() {
        let fix = "a space is missing after `rise:`";
        assert_eq!(
            said("health:\n  rise:2\n  fall: 3"),
            format!("f:4:3: {fix}")
        );
        assert_eq!(said("health:\n  rise:2"), format!("f:4:3: health: {fix}"));
    }

    #[test]
    fn other_errors_of_the_syntax_stay_yaml_s_own() {
        for text in [
            "affinity: 'a' b",
            "health: [a",
            "health: }",
            "a: b: c",
            "12:30: [",
        ] {
            let said = said(text);
            assert!(said.contains("cannot be read as YAML"), "{text}: {said}");
        }
    }
}
