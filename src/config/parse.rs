//! From a file's bytes to settings, and from a fault to its place in the text.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::error::{ConfigError, ConfigErrors, Source, one_line};
use super::excerpt::{Excerpt, masked};
use super::hints::hint;
use super::read::{Fault, Faults, MOST_FAULTS, Section, Value};
use super::settings::{NodeSettings, Settings};
use super::tree::{self, ALIASES, Node, TAGS, Tree, Unreadable};
use super::{nodes, sections};

/// The largest configuration file, in bytes: 256 KiB, enough for 1024 nodes twice over. The YAML
/// library's time grows with the square of how deep brackets nest, and this bounds it.
pub const MAX_FILE: usize = 256 * 1024;

/// Reads the configuration file at `path`.
///
/// # Errors
/// All that is wrong with it, up to 20 errors: it cannot be read, is no YAML, or says what it may not.
pub fn load(path: &Path) -> Result<Settings, ConfigErrors> {
    let name = path.display().to_string();
    parse(&read_file(path, &name)?, &name)
}

/// Reads the file of nodes at `path`: YAML with the list `nodes` as a configuration has it, and no other key.
///
/// # Errors
/// As [`load`].
pub fn load_nodes(path: &Path) -> Result<Vec<NodeSettings>, ConfigErrors> {
    let name = path.display().to_string();
    read_as(
        &read_file(path, &name)?,
        &name,
        "`nodes` is",
        nodes::only_nodes,
    )
}

fn read_file(path: &Path, name: &str) -> Result<String, ConfigErrors> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let errors = one(name, format!("cannot be read: {error}"), None);
            ConfigErrors {
                source: Some(Source::Io(error)),
                ..errors
            }
        })?;
    check_size(bytes.len(), name)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let place = Excerpt::at(&String::from_utf8_lossy(error.as_bytes()), valid);
        one(name, "is not UTF-8".to_owned(), Some(place))
    })
}

/// Reads a configuration from its text; `name` stands for the file in messages.
///
/// # Errors
/// All that is wrong with it, up to 20 errors. What is no YAML has one.
pub fn parse(text: &str, name: &str) -> Result<Settings, ConfigErrors> {
    read_as(text, name, "`listen` and `nodes` are", sections::settings)
}

fn read_as<T>(
    text: &str,
    name: &str,
    required: &str,
    sections: impl FnOnce(&Section<'_>) -> T,
) -> Result<T, ConfigErrors> {
    check_size(text.len(), name)?;
    // The YAML library counts a byte order mark as a column, and then finds the indent wrong.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = tree::read(text).map_err(|unreadable| not_yaml(unreadable, text, name))?;
    if tree.tree == Tree::Null {
        let reason = format!("is empty: {required} required");
        return Err(one(name, reason, None));
    }
    let faults = Faults::default();
    let root = Value::root(&tree, &faults).section();
    let read = root.map(|root| sections(&root));
    let faults = faults.into_inner();
    match read {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(located(faults, &tree, text, name)),
    }
}

fn located(faults: Vec<Fault>, tree: &Node, text: &str, name: &str) -> ConfigErrors {
    let stopped = faults.len() == MOST_FAULTS;
    let place = |fault: Fault| {
        // The file as a whole has no line.
        let offset = (fault.number > 0).then(|| tree::offset(text, tree, fault.number));
        (offset.flatten(), fault)
    };
    let mut faults: Vec<_> = faults.into_iter().map(place).collect();
    faults.sort_by_key(|(offset, _)| *offset);
    let error = |(offset, fault): (Option<usize>, Fault)| ConfigError {
        file: name.to_owned(),
        key: fault.key,
        reason: fault.reason,
        excerpt: offset.map(|offset| Excerpt::at(text, offset)),
    };
    ConfigErrors {
        errors: faults.into_iter().map(error).collect(),
        stopped,
        source: None,
    }
}

fn not_yaml(unreadable: Unreadable, text: &str, name: &str) -> ConfigErrors {
    match unreadable {
        Unreadable::Yaml(error) => {
            let location = error.location();
            let hinted = location.as_ref().and_then(|at| hint(text, at.index()));
            let (place, reason) = match hinted {
                Some((offset, reason)) => (Some(Excerpt::at(text, offset)), reason),
                None => {
                    let place = location.map(|at| Excerpt::of_line(text, at.index(), at.line()));
                    (place, format!("cannot be read as YAML: {}", told(&error)))
                }
            };
            let errors = one(name, one_line(&reason), place);
            ConfigErrors {
                source: Some(Source::Yaml(error)),
                ..errors
            }
        }
        Unreadable::Documents(offset) => {
            let reason = "a second YAML document begins here; one is allowed";
            one(
                name,
                reason.to_owned(),
                offset.map(|offset| Excerpt::at(text, offset)),
            )
        }
    }
}

/// The library's words without what may be a secret: a path has keys in it as they stand.
fn told(error: &serde_yaml::Error) -> String {
    let told = error.to_string();
    let own = [ALIASES, TAGS].iter().find_map(|own| told.find(own));
    let (path, words) = told.split_at(own.unwrap_or(0));
    format!("{}{words}", masked(path))
}

fn check_size(bytes: usize, name: &str) -> Result<(), ConfigErrors> {
    if bytes <= MAX_FILE {
        return Ok(());
    }
    Err(one(name, "is larger than 256KiB".to_owned(), None))
}

/// One error of the file as a whole.
fn one(name: &str, reason: String, excerpt: Option<Excerpt>) -> ConfigErrors {
    ConfigErrors {
        errors: vec![ConfigError {
            file: name.to_owned(),
            key: String::new(),
            reason,
            excerpt,
        }],
        stopped: false,
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

    fn first(errors: &ConfigErrors) -> &ConfigError {
        errors.iter().next().expect("an error")
    }

    fn message(text: &str) -> String {
        let errors = parse(text, "f").expect_err("a fault");
        first(&errors).to_string()
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
        let nest = |value: String, name: &str| match name.strip_suffix("[]") {
            Some(list) => format!("{{ {list}: [{value}] }}"),
            None => format!("{{ {name}: {value} }}"),
        };
        let nested = |key: &str| key.rsplit('.').fold("[[]]".to_owned(), nest);
        for key in keys() {
            let nodes = if key.starts_with("nodes.") { "" } else { NODES };
            let text = match key.split_once('.') {
                None => {
                    format!("{LISTEN}{NODES}").replace(&format!("{key}:"), "#") + &key + ": [[]]"
                }
                Some((place, key)) => match place.strip_suffix("[]") {
                    None => {
                        let nested = nested(key);
                        format!("{LISTEN}{nodes}{place}: {nested}")
                    }
                    Some(list) => {
                        let rest = ["name: t1", "address: 't1:1'"];
                        let rest = rest.iter().filter(|entry| !entry.starts_with(key));
                        let rest: Vec<&str> = rest
                            .copied()
                            .filter(|entry| list == "nodes" || !entry.starts_with("name"))
                            .collect();
                        let nested = nested(key);
                        let nested = nested.trim_start_matches("{ ");
                        let nested = nested.strip_suffix(" }").unwrap_or(nested);
                        let entry = [&[nested], &*rest].concat().join(", ");
                        let others = if list == "nodes" { LISTEN } else { NODES };
                        format!("{others}{list}: [{{ {entry} }}]")
                    }
                },
            };
            let errors = parse(&text, "f").expect_err(&key);
            let error = |error: &ConfigError| error.key().replace("[0]", "[]").starts_with(&key);
            assert!(errors.iter().any(error), "{key}: {text}: {errors}");
        }
    }

    #[test]
    fn a_fault_has_file_line_key_and_reason() {
        let errors = parse(&format!("{LISTEN}{NODES}health:\n  rise: 0\n"), "f").expect_err("0");
        let error = first(&errors);
        assert_eq!(error.file(), "f");
        assert_eq!((error.line(), error.column()), (Some(4), Some(9)));
        assert_eq!(error.key(), "health.rise");
        assert_eq!(error.reason(), "must be at least 1, is 0");
        assert_eq!(
            error.to_string(),
            "f:4:9: health.rise: must be at least 1, is 0"
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
            "f:4:1: a second YAML document begins here; one is allowed"
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
        let full = format!("{LISTEN}{NODES}a: [{}]", "x,".repeat(MAX_FILE / 2 - 60));
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
    fn all_errors_are_told_at_once_in_the_order_of_the_file() {
        let text = format!(
            "health:\n  fall: 0\n{LISTEN}{NODES}threads: x\nlimits:\n  exempt: [a, 10.0.0.1, b]\n  burst: 1\n"
        );
        let errors = parse(&text, "f").expect_err("four errors");
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let network = "must be an IP address or a network such as `10.0.0.0/8`, is";
        let expected = [
            "f:2:9: health.fall: must be at least 1, is 0".to_owned(),
            "f:5:10: threads: must be a whole number, is `x`".to_owned(),
            format!("f:7:12: limits.exempt[0]: {network} `a`"),
            format!("f:7:25: limits.exempt[2]: {network} `b`"),
        ];
        assert_eq!(told[..4], expected);
        assert!(told[4].starts_with("f:8:3: limits: unknown key `burst`"));
        assert!(errors.to_string().ends_with("\n5 errors in f"), "{errors}");
    }

    /// What follows from a refused value alone is not an error of its own.
    #[test]
    fn one_cause_is_one_error() {
        let nodes = "nodes: [{ name: t1, adress: 't1:5280', public_url: 'http://t1' }]\n";
        for text in [
            format!("{LISTEN}{NODES}health: {{ interval: 5, timeout: 3s, fast_interval: 2s }}"),
            format!("{LISTEN}{NODES}health: {{ timeout: 1, silence: 20ms }}"),
            format!("{LISTEN}{NODES}health: {{ penalty_max: 1, penalty: 20m }}"),
            format!("{LISTEN}{NODES}health: {{ probe: htpp, path: /x }}"),
            format!("{LISTEN}{NODES}cors: {{ origins: [x], credentials: true }}"),
            format!("{LISTEN}{NODES}admin: {{ address: '[::]:1', token_file: '' }}"),
            format!("{LISTEN}{nodes}node_list: {{ path: /n }}"),
            format!("{LISTEN}nodes: x\nnode_list: {{ path: /n }}"),
            format!("{LISTEN}nodes: [x]\nnode_list: {{ path: /n }}"),
            format!("lisen: x\n{NODES}"),
            format!("{LISTEN}nodes: [{{ name: t1, address: x }}, {{ name: t2, address: 't2:1' }}]"),
        ] {
            let errors = parse(&text, "f").expect_err(&text);
            assert_eq!(errors.iter().count(), 1, "{errors}");
        }
    }

    #[test]
    fn the_number_of_errors_is_bounded() {
        let keys: String = (0..1000).map(|i| format!("k{i}:\n")).collect();
        let errors = parse(&format!("{LISTEN}{NODES}{keys}"), "f").expect_err("unknown keys");
        assert_eq!(errors.iter().count(), 20);
        assert!(errors.to_string().ends_with("\n20 errors or more in f"));
    }

    #[test]
    fn no_error_shows_a_secret() {
        let secret = "5ec4e700000000000000000000000000f";
        for log in [
            format!("log:\n  session_key: {secret}"),
            format!("log:\n  session_key: '{secret}'\n  format: x"),
            format!("log: {{ session_key: '{secret}', format: x }}"),
            format!("log: {{ format: x, session_key: '{secret}' }}"),
            format!("log:\n  session_key:\n    {secret}"),
            format!("log:\n  sesion_key: {secret}"),
            format!("log:\n  session_key {secret}\n  format: text"),
            format!("log:\n  session_key {secret}"),
            format!("log:\n  session_key:{secret}"),
            format!("log: {{ session_key {secret}: x }}"),
            format!("log: {{ session_key: [{secret}] }}"),
            format!("log:\n\tsession_key: {secret}"),
            format!("log:\n  session_key: '{secret}"),
            format!("admin: {{ token: {secret} }}"),
            format!("admin: {{ token: {secret}, address: x }}"),
            format!("session_key: {secret}"),
            format!("log: {{ session_key {secret}: !x y }}"),
        ] {
            let errors = parse(&format!("{LISTEN}{NODES}{log}"), "f").expect_err(&log);
            assert!(!errors.to_string().contains("5ec4e7"), "{log}: {errors}");
        }
    }

    #[test]
    fn nodes_are_bounded() {
        let node = |i| format!("  - {{ name: t{i}, address: 't{i}:5280' }}\n");
        let nodes = |count: usize| (0..count).map(node).collect::<String>();
        let most = format!("{LISTEN}nodes:\n{}", nodes(1024));
        assert_eq!(parse(&most, "f").expect("good").nodes.len(), 1024);
        assert_eq!(
            message(&format!("{LISTEN}nodes:\n{}", nodes(1025))),
            "f:2:1: nodes: must have at most 1024 entries, has 1025"
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
            let errors = parse(&format!("{notes}{LISTEN}{NODES}{health}"), "f").expect_err("0");
            prop_assert_eq!(first(&errors).line(), Some(before + 5));
        }
    }
}
