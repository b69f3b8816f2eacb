//! The shape of the repository: rooms import downward only, every source file says what it is and
//! stays readable, and nothing unexpected stands at the top.
//!
//! The floors are read from the table in the documentation of `src/lib.rs`. A room is a module of
//! the crate's root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The longest source file, in lines.
const LONGEST: usize = 500;

/// Source files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[];

/// What stands at the top, besides dot-files and `LICENSE*`.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "SECURITY.md",
    "config",
    "deploy",
    "docs",
    "src",
    "tests",
];

/// What tools leave at the top.
const IGNORED: &[&str] = &["node_modules", "target"];

/// The rooms whose decisions read no metrics: those that need a count keep it themselves.
const DECIDING: &[&str] = &["cluster", "health", "limits", "proxy", "sessions"];

/// The rooms whose `mod.rs` is a facade: it names the files of the room, and none of them needs it.
const FACADES: &[&str] = &["proxy"];

type Floors = BTreeMap<String, u32>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder: their paths from the root, with `/`, and their text.
fn rust_below(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = read(&path);
                files.push((from_root(&path), text));
            }
        }
    }
    files.sort();
    files
}

fn from_root(path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root()).expect("below the root").into();
    path.to_str().expect("UTF-8").replace('\\', "/")
}

/// The table in a crate's documentation: lines such as `//! 3  proxy      one request: …`.
fn floors(documentation: &str) -> Floors {
    let rows = documentation.lines().filter_map(|line| {
        let mut words = line.strip_prefix("//! ")?.split_whitespace();
        let floor = words.next()?.parse().ok()?;
        Some((words.next()?.to_owned(), floor))
    });
    let mut floors: Floors = rows.collect();
    let highest = floors.values().max().copied().unwrap_or(0);
    floors.insert("main".into(), highest + 1);
    floors
}

/// The room of `src/room.rs` or `src/room/….rs`.
fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let end = inside.find(['/', '.']).unwrap_or(inside.len());
    &inside[..end]
}

/// The rooms that a source text names: `crate::room`, `super::room::`, `crate::{room, other::Thing}`,
/// and `bowline::room` in `main`, which is outside the library; line comments aside.
fn named(from: &str, text: &str, floors: &Floors) -> BTreeSet<String> {
    let code: String = text.lines().fold(String::new(), |mut code, line| {
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
        code
    });
    let mut names = BTreeSet::new();
    let library = if from == "main" {
        "bowline::"
    } else {
        "crate::"
    };
    for start in [library, "super::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            let members = match rest.strip_prefix('{') {
                Some(group) => members(group),
                None => vec![rest],
            };
            for member in members {
                let (name, rest) = first_word(member);
                let reaches = start != "super::" || rest.starts_with("::");
                if reaches && floors.contains_key(name) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    names
}

/// The members of a group, from behind its opening brace.
fn members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 1, 0);
    for (at, letter) in group.char_indices() {
        depth += match letter {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 || (depth == 1 && letter == ',') {
            members.push(group[start..at].trim());
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn first_word(text: &str) -> (&str, &str) {
    let other = |letter: char| !letter.is_alphanumeric() && letter != '_';
    text.split_at(text.find(other).unwrap_or(text.len()))
}

/// What is wrong with the imports of one source file; nothing if all point downward.
fn upward(path: &str, text: &str, floors: &Floors) -> Vec<String> {
    let from = room(path);
    let Some(floor) = floors.get(from) else {
        return vec![format!("{path}: {from} stands on no floor in src/lib.rs")];
    };
    let downward = |to: &String| to == from || floors[to] < *floor;
    let names = named(from, text, floors).into_iter();
    names
        .filter(|to| !downward(to))
        .map(|to| format!("{path}: {from} ({floor}) imports {to} ({})", floors[&to]))
        .collect()
}

/// What is wrong with a source file in itself.
fn unreadable(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{path}: does not open with `//!`"));
    }
    let lines = text.lines().count();
    let excepted = LONGER.iter().any(|(longer, _)| *longer == path);
    if path.starts_with("src/") && lines > LONGEST && !excepted {
        faults.push(format!("{path}: {lines} lines, more than {LONGEST}"));
    }
    faults
}

/// Where the product part of a source text reads a metric: `metrics.name.get()`, over several lines too.
fn metrics_read(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = product
        .lines()
        .filter_map(|line| line.split("//").next())
        .flat_map(|line| line.chars().filter(|letter| !letter.is_whitespace()))
        .collect();
    let chains = code.match_indices("metrics.").map(|(at, _)| {
        let chain = &code[at..];
        let part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
        let (name, rest) = chain.split_at(chain.find(|c| !part(c)).unwrap_or(chain.len()));
        (name.to_owned(), rest.starts_with("()"))
    });
    let read = |(name, called): &(String, bool)| *called && name.ends_with(".get");
    chains.filter(read).map(|(name, _)| name).collect()
}

/// What a file of a room with a facade takes from the facade: a name that is not a file of the room.
fn from_facade(path: &str, text: &str) -> Vec<String> {
    let depth = path.matches('/').count() - 1;
    let up = format!(" {}", "super::".repeat(depth));
    let uses = text.lines().filter(|line| line.starts_with("use super::"));
    let names = uses.filter_map(|line| line.split_once(&up).map(|(_, name)| name));
    names
        .filter(|name| name.starts_with(|first: char| first.is_uppercase() || first == '{'))
        .map(|name| format!("{path}: {name}"))
        .collect()
}

/// What is at the top but must not be, and what must be but is not.
fn misplaced(top: &BTreeSet<String>) -> Vec<String> {
    let expected =
        |name: &str| TOP.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE");
    let surplus = top.iter().filter(|name| !expected(name));
    let mut faults: Vec<String> = surplus.map(|name| format!("surplus: {name}")).collect();
    let missing = TOP.iter().filter(|name| !top.contains(**name));
    faults.extend(missing.map(|name| format!("missing: {name}")));
    if !top.iter().any(|name| name.starts_with("LICENSE")) {
        faults.push("missing: LICENSE*".into());
    }
    faults
}

/// The names at the top: those that git tracks, or, outside a repository, those that are there.
fn top() -> BTreeSet<String> {
    if root().join(".git").exists() {
        let git = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(root())
            .output();
        if let Ok(listed) = git
            && listed.status.success()
        {
            let names = String::from_utf8(listed.stdout).expect("UTF-8");
            let tops = names.split_terminator('\0').map(|name| {
                let top = name.split('/').next();
                top.expect("a split has a first part").to_owned()
            });
            return tops.collect();
        }
    }
    let entries = fs::read_dir(root()).expect("a readable folder");
    entries
        .map(|entry| entry.expect("a readable entry").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| !IGNORED.contains(&name.as_str()))
        .collect()
}

fn documented_floors() -> Floors {
    floors(&read(&root().join("src/lib.rs")))
}

#[test]
fn every_room_has_its_floor() {
    let rooms: BTreeSet<String> = rust_below("src")
        .iter()
        .map(|(path, _)| room(path).to_owned())
        .filter(|room| room != "lib")
        .collect();
    let documented: BTreeSet<String> = documented_floors().into_keys().collect();
    assert_eq!(rooms, documented);
}

#[test]
fn imports_point_downward() {
    let floors = documented_floors();
    let files = rust_below("src");
    let faults: Vec<String> = files
        .iter()
        .filter(|(path, _)| path != "src/lib.rs")
        .flat_map(|(path, text)| upward(path, text, &floors))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_arrow_points_up_into_a_facade() {
    let files = rust_below("src").into_iter();
    let faults: Vec<String> = files
        .filter(|(path, _)| FACADES.contains(&room(path)) && !path.ends_with("/mod.rs"))
        .flat_map(|(path, text)| from_facade(&path, &text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_planted_arrow_into_a_facade_is_found() {
    let planted = [
        ("src/proxy/route.rs", "use super::Proxy;"),
        ("src/proxy/route.rs", "use super::{Answer, create};"),
        ("src/proxy/create/pin.rs", "use super::super::Proxy;"),
    ];
    for (path, text) in planted {
        assert_eq!(from_facade(path, text).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/proxy/route.rs", "use super::shared::Proxy;"),
        ("src/proxy/create/pin.rs", "use super::Step;"),
        (
            "src/proxy/create/pin.rs",
            "use super::super::shared::Proxy;",
        ),
    ];
    for (path, text) in good {
        assert_eq!(
            from_facade(path, text),
            Vec::<String>::new(),
            "{path}: {text}"
        );
    }
}

#[test]
fn no_decision_reads_a_metric() {
    let files = rust_below("src").into_iter();
    let deciding = files.filter(|(path, _)| {
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        DECIDING.contains(&room(path)) && !is_test
    });
    let faults: Vec<String> = deciding
        .flat_map(|(path, text)| {
            let reads = metrics_read(&text).into_iter();
            reads.map(move |read| format!("{path}: {read}()"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_planted_metric_is_found() {
    let planted = [
        "if node.metrics.held.get() > 0 {}",
        "let metrics = &node.metrics;\nmetrics\n    .sessions\n    .get()",
    ];
    for text in planted {
        assert_eq!(metrics_read(text).len(), 1, "{text}");
    }
    let good = [
        "node.metrics.held.inc(); node.held.get()",
        "// node.metrics.held.get()",
        "#[cfg(test)]\nmod tests { fn f() { node.metrics.held.get() } }",
        "metrics.get_or_make(name)",
    ];
    for text in good {
        assert_eq!(metrics_read(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn every_source_file_says_what_it_is_and_stays_readable() {
    let mut files = rust_below("src");
    files.extend(rust_below("tests"));
    let faults: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| unreadable(path, text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_missing_or_surplus_at_the_top() {
    let faults = misplaced(&top());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_planted_import_is_found() {
    let table = [
        "6 cli x",
        "3  proxy x",
        "2  sessions",
        "2  health x",
        "1  cluster x",
        "0  bosh x",
    ];
    let floors = floors(&table.map(|row| format!("//! {row}")).join("\n"));
    assert_eq!(floors["main"], 7);
    let faults = |path: &str, text: &str| upward(path, text, &floors);

    let planted = [
        ("src/bosh/mod.rs", "use crate::proxy::Request;"),
        ("src/bosh.rs", "fn f() { crate::cluster::place() }"),
        ("src/bosh/read.rs", "use crate::{bosh::X, cluster::Y};"),
        (
            "src/bosh/read.rs",
            "use crate::{\n    bosh::{X, Z},\n    cluster,\n};",
        ),
        ("src/bosh/mod.rs", "use super::cluster::Node;"),
        ("src/cluster/node.rs", "pub(in crate::proxy) fn f() {}"),
        ("src/cluster/node.rs", "use crate::sessions::Pin;"),
        ("src/health/mod.rs", "use crate::sessions::Pin;"),
        ("src/attic.rs", ""),
    ];
    for (path, text) in planted {
        assert_eq!(faults(path, text).len(), 1, "{path}: {text}");
    }
    let wanted = "src/bosh/mod.rs: bosh (0) imports proxy (3)";
    assert_eq!(faults(planted[0].0, planted[0].1), [wanted]);

    let good = [
        ("src/main.rs", "bowline::cli::main()"),
        (
            "src/proxy/mod.rs",
            "use crate::{bosh::Wrapper, sessions::{Pin, Turn}};",
        ),
        ("src/sessions/mod.rs", "use crate::cluster::NodeId;"),
        (
            "src/bosh/mod.rs",
            "//! See [`crate::proxy`].\nuse super::Thing; // not crate::cli",
        ),
        ("src/bosh/read.rs", "use super::proxy;"),
        (
            "src/bosh/read.rs",
            "use crate::bosh::Wrapper; use crate::proxyish::X;",
        ),
    ];
    for (path, text) in good {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn a_planted_file_is_found() {
    assert_eq!(unreadable("src/a.rs", "//! A.\n"), Vec::<String>::new());
    assert_eq!(unreadable("src/a.rs", "use x;\n").len(), 1);
    let long = "//! A.\n".repeat(LONGEST + 1);
    assert_eq!(
        unreadable("src/a.rs", &long),
        ["src/a.rs: 501 lines, more than 500"]
    );
    assert_eq!(unreadable("tests/it/a.rs", &long), Vec::<String>::new());

    let mut top: BTreeSet<String> = TOP.iter().map(|name| (*name).to_owned()).collect();
    top.extend([".gitignore".to_owned(), "LICENSE-MIT".to_owned()]);
    assert_eq!(misplaced(&top), Vec::<String>::new());
    top.remove("docs");
    top.insert("scripts".into());
    assert_eq!(misplaced(&top), ["surplus: scripts", "missing: docs"]);
}
