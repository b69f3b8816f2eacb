//! Every seed, and every input that once broke a check, in an ordinary `cargo test`.

use std::fs;
use std::path::Path;

/// Runs `check` over the seeds of a target.
fn hold(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(target);
    let seeds =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for seed in seeds {
        let path = seed.expect("a readable entry").path();
        let bytes = fs::read(&path).expect("a readable seed");
        let held = std::panic::catch_unwind(|| check(&bytes));
        assert!(held.is_ok(), "{} breaks the check", path.display());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {}", folder.display());
}

#[test]
fn requests() {
    hold("request", super::request::check);
}

#[test]
fn answers() {
    hold("answer", super::answer::check);
}

#[test]
fn heads() {
    hold("head", super::head::check);
}

#[test]
fn proxy_headers() {
    hold("proxy_header", super::proxy_header::check);
}

/// The same bytes without the first, which says how they are cut.
#[test]
fn parsers() {
    hold("head", |bytes| {
        super::parsers::check(bytes.get(1..).unwrap_or_default())
    });
    hold("parsers", super::parsers::check);
}

#[test]
fn configurations() {
    hold("config", super::config::check);
}

#[test]
fn snapshots() {
    hold("snapshot", super::snapshot::check);
}

#[test]
fn addresses() {
    hold("address", super::address::check);
}

#[test]
fn frames() {
    hold("frames", super::frames::check);
}
