//! What comes from others: where it comes from, under which licence, and how old it may be. The rules
//! are those of `.deny.toml`, which cargo-deny reads as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The lock files, and the packages in each that are ours.
const LOCKS: [(&str, &[&str]); 3] = [
    ("Cargo.lock", &["bowline"]),
    ("tests/fuzz/Cargo.lock", &["bowline", "bowline-fuzz"]),
    ("tests/shuttle/Cargo.lock", &["bowline-shuttle"]),
];

/// A version's three numbers; none for a pre-release.
type Version = Option<[u64; 3]>;

/// A package in a lock file.
#[derive(Debug)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: bool,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The packages of a lock file.
fn locked(text: &str) -> Vec<Locked> {
    let packages = text.split("[[package]]").skip(1).map(|package| {
        let value = |key: &str| {
            let line = package
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        Locked {
            name: value("name").expect("a name"),
            version: value("version").expect("a version"),
            source: value("source"),
            checksum: value("checksum").is_some(),
        }
    });
    packages.collect()
}

fn version(text: &str) -> Version {
    let plain = text.split('+').next()?;
    let mut numbers = plain.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

/// What `.deny.toml` bans: a name, and the version below which it is banned; none for any version.
fn bans(rules: &str) -> Vec<(String, Version)> {
    let crates = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    let bans = crates.map(|line| {
        let (spec, _) = line.split_once('"').expect("a closing quote");
        match spec.split_once(":<") {
            Some((name, floor)) => {
                let floor = version(floor);
                assert!(floor.is_some(), "{spec} is no version");
                (name.to_owned(), floor)
            }
            None => (spec.to_owned(), None),
        }
    });
    bans.collect()
}

/// The licences that `.deny.toml` allows.
fn allowed(rules: &str) -> BTreeSet<&str> {
    let (_, list) = rules.split_once("\nallow = [").expect("a list of licences");
    let (list, _) = list.split_once(']').expect("its end");
    let quoted = list.split('"').skip(1).step_by(2);
    quoted.collect()
}

/// Whether an SPDX expression can be satisfied with `allowed` licences: `OR`, `AND` and `WITH`,
/// brackets, and `/` as old manifests write `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let good = either(&words, &mut at, allowed);
    good && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut good = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= both(words, at, allowed);
    }
    good
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut good = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, allowed);
    }
    good
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(&word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if word == "(" {
        let good = either(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return good && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        // An exception only adds to what is allowed.
        *at += 2;
    }
    allowed.contains(word)
}

/// What is wrong with the packages of a lock file.
fn faults(packages: &[Locked], ours: &[&str], bans: &[(String, Version)]) -> Vec<String> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let mut faults = Vec::new();
    for Locked {
        name,
        version: text,
        source,
        checksum,
    } in packages
    {
        let here = source.is_none() && ours.contains(&&**name);
        if !here && (source.as_deref() != Some(REGISTRY) || !checksum) {
            faults.push(format!(
                "{name} {text} does not come from crates.io: {source:?}"
            ));
        }
        let Some(numbers) = version(text) else {
            faults.push(format!("{name} {text} is a pre-release"));
            continue;
        };
        for (banned, floor) in bans.iter().filter(|(banned, _)| banned == name) {
            match floor {
                Some(floor) if numbers < *floor => {
                    faults.push(format!("{banned} {text} is older than {floor:?}"));
                }
                Some(_) => {}
                None => faults.push(format!("{banned} is banned")),
            }
        }
    }
    faults
}

#[test]
fn every_package_is_a_release_from_the_registry_and_new_enough() {
    let bans = bans(&read(".deny.toml"));
    for floor in [
        "bytes",
        "h2",
        "quick-xml",
        "rustls",
        "rustls-webpki",
        "tracing-subscriber",
    ] {
        let there = bans
            .iter()
            .any(|(name, version)| name == floor && version.is_some());
        assert!(there, "no floor for {floor}");
    }
    for (lock, ours) in LOCKS {
        let packages = locked(&read(lock));
        assert!(
            packages.len() > 40,
            "{lock} has {} packages",
            packages.len()
        );
        let faults = faults(&packages, ours, &bans);
        assert!(faults.is_empty(), "{lock}: {}", faults.join("\n"));
    }
}

/// Of the packages for this platform, which are those that the tests have built.
#[test]
fn every_licence_is_an_allowed_one() {
    let rules = read(".deny.toml");
    let allowed = allowed(&rules);
    assert!(allowed.contains("MIT") && allowed.len() < 20, "{allowed:?}");
    let host = Command::new("rustc").arg("-vV").output().expect("rustc");
    let host = String::from_utf8(host.stdout).expect("UTF-8");
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
        ])
        .arg(host.expect("a host"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let told = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{told}");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "{} packages", packages.len());
    for package in packages {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(satisfied(licence, &allowed), "{name}: {licence:?}");
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    for manifest in [
        "Cargo.toml",
        "tests/fuzz/Cargo.toml",
        "tests/shuttle/Cargo.toml",
    ] {
        let text = read(manifest);
        assert!(text.contains("\nunsafe_code = \"forbid\"\n"), "{manifest}");
    }
}

#[test]
fn planted_faults_are_found() {
    let bans = bans(
        "    { crate = \"bytes:<1.11.1\", reason = \"x\" },\n{ crate = \"openssl\", reason = \"y\" },",
    );
    let package = |name: &str, version: &str, rest: &str| {
        let text = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{rest}");
        faults(&locked(&text), &["bowline"], &bans)
    };
    let registry =
        "source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"0\"\n";
    assert_eq!(package("bowline", "0.1.0", ""), Vec::<String>::new());
    assert_eq!(package("bytes", "1.11.1", registry), Vec::<String>::new());
    assert_eq!(package("bytes", "1.12.0+x", registry), Vec::<String>::new());
    assert_eq!(package("bytes", "1.11.0", registry).len(), 1);
    assert_eq!(package("openssl", "9.9.9", registry).len(), 1);
    assert_eq!(package("a", "1.0.0-rc.1", registry).len(), 1);
    assert_eq!(package("a", "1.0.0", "").len(), 1);
    assert_eq!(
        package("a", "1.0.0", "source = \"git+https://example.com/a\"\n").len(),
        1
    );

    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0"]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT",
        "MIT MIT",
        "GPL-3.0 AND (MIT OR MIT)",
    ] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}
