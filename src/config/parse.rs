//! From a file's bytes to settings, and from a fault to the line it stands on.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::error::{ConfigError, Source, one_line};
use super::read::{Fault, Value};
use super::sections;
use super::settings::Settings;
use super::tree::{self, Tree, Unreadable};

/// The largest configuration file, in bytes: 256 KiB, enough for 1024 nodes twice over. The YAML
/// library's time grows with the square of how deep brackets nest, and this bounds it.
pub const MAX_FILE: usize = 256 * 1024;

/// Reads the configuration file at `path`.
///
/// # Errors
/// The first fault found: the file cannot be read, is no YAML, or says something that it may not.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| ConfigError {
            reason: format!("cannot be read: {error}"),
            source: Some(Source::Io(error)),
            ..whole_file(&name)
        })?;
    check_size(bytes.len(), &name)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            Err(ConfigError {
                line: Some(line),
                reason: "is not UTF-8".to_owned(),
                ..whole_file(&name)
            })
        }
    }
}

/// Reads a configuration from its text; `name` stands for the file in messages.
///
/// # Errors
/// The first fault found, with the line it stands on.
pub fn parse(text: &str, name: &str) -> Result<Settings, ConfigError> {
    check_size(text.len(), name)?;
    // The YAML library counts a byte order mark as a column, and then finds the indent wrong.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = tree::read(text).map_err(|unreadable| not_yaml(unreadable, name))?;
    if tree == Tree::Null {
        return Err(ConfigError {
            reason: "is empty: `listen` and `nodes` are required".to_owned(),
            ..whole_file(name)
        });
    }
    Value::root(&tree)
        .section()
        .and_then(|root| sections::settings(&root))
        .map_err(|fault| located(fault, text, name))
}

fn located(fault: Fault, text: &str, name: &str) -> ConfigError {
    let line = if fault.way.is_empty() {
        None
    } else {
        tree::line_of(text, &fault.way, fault.side)
    };
    ConfigError {
        line,
        key: fault.key,
        reason: fault.reason,
        ..whole_file(name)
    }
}

fn not_yaml(unreadable: Unreadable, name: &str) -> ConfigError {
    match unreadable {
        Unreadable::Yaml(error) => ConfigError {
            line: error.location().map(|location| location.line()),
            reason: one_line(&format!("cannot be read as YAML: {error}")),
            source: Some(Source::Yaml(error)),
            ..whole_file(name)
        },
        Unreadable::Documents(line) => ConfigError {
            line,
            reason: "a second YAML document begins here; one is allowed".to_owned(),
            ..whole_file(name)
        },
    }
}

fn check_size(bytes: usize, name: &str) -> Result<(), ConfigError> {
    if bytes <= MAX_FILE {
        return Ok(());
    }
    Err(ConfigError {
        reason: "is larger than 256KiB".to_owned(),
        ..whole_file(name)
    })
}

fn whole_file(name: &str) -> ConfigError {
    ConfigError {
        file: name.to_owned(),
        line: None,
        key: String::new(),
        reason: String::new(),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::keys;
    use super::*;

    const LISTEN: &str = "listen: [{ address: '127.0.0.1:0' }]\n";
    const NODES: &str = "nodes: [{ name: t1, address: 't1:5280' }]\n";

    fn message(text: &str) -> String {
        parse(text, "f").expect_err("a fault").to_string()
    }

    #[test]
    fn defaults_are_those_of_for_nodes() {
        let mut settings = parse(&format!("{LISTEN}{NODES}"), "f").expect("good");
        assert_eq!(
            settings.admin.take().map(|admin| admin.address.to_string()),
            Some("127.0.0.1:9280".to_owned())
        );
        let nodes = settings.nodes.clone();
        let expected = Settings {
            admin: None,
            ..Settings::for_nodes(nodes)
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn every_key_in_the_table_is_read() {
        for key in keys() {
            let text = match key.split_once('.') {
                None => {
                    format!("{LISTEN}{NODES}").replace(&format!("{key}:"), "#") + &key + ": [[]]"
                }
                Some((place, key)) => match place.strip_suffix("[]") {
                    None => {
                        let nested = key.rsplit('.').fold("[[]]".to_owned(), |value, name| {
                            format!("{{ {name}: {value} }}")
                        });
                        format!("{LISTEN}{NODES}{place}: {nested}")
                    }
                    Some(list) => {
                        let rest = ["name: t1", "address: 't1:1'"];
                        let rest = rest.iter().filter(|entry| !entry.starts_with(key));
                        let rest: Vec<&str> = rest
                            .copied()
                            .filter(|entry| list == "nodes" || !entry.starts_with("name"))
                            .collect();
                        let entry = [&[&*format!("{key}: [[]]")], &*rest].concat().join(", ");
                        let others = if list == "nodes" { LISTEN } else { NODES };
                        format!("{others}{list}: [{{ {entry} }}]")
                    }
                },
            };
            let error = parse(&text, "f").expect_err(&key);
            let found = error.key().replace("[0]", "[]");
            assert!(found.starts_with(&key), "{key}: {text}: {error}");
        }
    }

    #[test]
    fn a_fault_has_file_line_key_and_reason() {
        let error = parse(&format!("{LISTEN}{NODES}health:\n  rise: 0\n"), "f").expect_err("0");
        assert_eq!(error.file(), "f");
        assert_eq!(error.line(), Some(4));
        assert_eq!(error.key(), "health.rise");
        assert_eq!(error.reason(), "must be at least 1, is 0");
        assert_eq!(
            error.to_string(),
            "f:4: health.rise: must be at least 1, is 0"
        );
    }

    #[test]
    fn no_document_is_no_configuration() {
        for text in ["", "\n", "# note\n", "---\n", "~", "---\n...\n", "\u{feff}"] {
            assert_eq!(
                message(text),
                "f: is empty: `listen` and `nodes` are required"
            );
        }
    }

    #[test]
    fn documents_beyond_the_first_are_refused() {
        let text = format!("{LISTEN}{NODES}---\n{LISTEN}");
        assert_eq!(
            message(&text),
            "f:4: a second YAML document begins here; one is allowed"
        );
    }

    #[test]
    fn a_fault_is_told_in_one_line_whatever_its_key_is() {
        let told = message("? |-\n  a\n  b\n: [!x y]\n");
        assert!(
            told.contains("a\\n") && !told.contains(char::is_control),
            "{told}"
        );
    }

    #[test]
    fn aliases_without_end_are_refused() {
        assert!(message("a: &a [*a]").contains("recursion limit"));
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            let row = vec![format!("*{from}"); 9].join(", ");
            bomb.push_str(&format!("{to}: &{to} [{row}]\n"));
        }
        assert!(message(&bomb).contains("repetition limit"));
    }

    /// Below the library's limit, which lets through fifty times the file and more.
    #[test]
    fn aliases_that_multiply_the_file_are_refused() {
        let aliases = |count: usize| vec!["*a"; count].join(", ");
        let many = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(1000), aliases(1000));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), aliases(200));
        for bomb in [many, long] {
            let told = message(&bomb);
            assert!(told.contains("aliases stand for more"), "{told}");
        }
        // A file that is as full as can be without any.
        let full = format!("a: [{}]", "x,".repeat(MAX_FILE / 2 - 10));
        assert!(message(&full).contains("unknown key `a`"));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(message(&"[".repeat(1000)).contains("recursion limit"));
        assert_eq!(
            message(&" ".repeat(MAX_FILE + 1)),
            "f: is larger than 256KiB"
        );
    }

    #[test]
    fn nodes_are_bounded() {
        let node = |i| format!("  - {{ name: t{i}, address: 't{i}:5280' }}\n");
        let nodes = |count: usize| (0..count).map(node).collect::<String>();
        let most = format!("{LISTEN}nodes:\n{}", nodes(1024));
        assert_eq!(parse(&most, "f").expect("good").nodes.len(), 1024);
        assert_eq!(
            message(&format!("{LISTEN}nodes:\n{}", nodes(1025))),
            "f:2: nodes: must have at most 1024 entries, has 1025"
        );
    }

    #[test]
    fn an_alias_is_read_as_what_it_stands_for() {
        let text = format!("{LISTEN}{NODES}timeouts: {{ head: &t 3s, body: *t }}\n");
        let settings = parse(&text, "f").expect("good");
        assert_eq!(settings.timeouts.body.as_secs(), 3);
    }

    fn pieces() -> impl Strategy<Value = String> {
        let words: Vec<String> = keys()
            .map(|key| key.rsplit('.').next().unwrap_or_default().to_owned())
            .chain(
                [
                    ": ",
                    "\n",
                    "\n  ",
                    "\n- ",
                    "- ",
                    "[",
                    "]",
                    "{",
                    "}",
                    ", ",
                    "'",
                    "\"",
                    "#",
                    "&a ",
                    "*a",
                    "!x ",
                    "? ",
                    "|\n",
                    ">\n",
                    "---\n",
                    "...\n",
                    "%",
                    "~",
                    "0",
                    "1",
                    "-1",
                    "2s",
                    "25h",
                    "1KiB",
                    "t1:5280",
                    "127.0.0.1:0",
                    "bosh",
                    "http",
                    "/",
                    "é",
                    "\0",
                    "\t",
                    "\r\n",
                    "<<: ",
                    "off",
                    "18446744073709551616",
                    "1e9",
                    ".nan",
                ]
                .map(str::to_owned),
            )
            .collect();
        proptest::collection::vec(proptest::sample::select(words), 0..60)
            .prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).*") {
            let _ = parse(&text, "f").map_err(|error| error.to_string());
        }

        #[test]
        fn any_mixture_of_yaml_is_read_or_refused(text in pieces()) {
            let _ = parse(&text, "f").map_err(|error| error.to_string());
            let _ = parse(&format!("{LISTEN}{NODES}{text}"), "f").map_err(|error| error.to_string());
        }

        #[test]
        fn a_range_fault_names_its_own_line(before in 0usize..20, flow: bool) {
            let notes = "# note\n".repeat(before);
            let health = if flow { "health: {\n rise: 1,\n fall: 0 }" } else { "health:\n rise: 1\n fall: 0" };
            let error = parse(&format!("{notes}{LISTEN}{NODES}{health}"), "f").expect_err("0");
            prop_assert_eq!(error.line(), Some(before + 5));
        }
    }
}
