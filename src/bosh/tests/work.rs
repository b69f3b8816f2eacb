//! Bodies of 1 MiB that are made to be expensive. Without optimisation the bound on time is a generous
//! one, which a reader that is not linear misses by far.

use std::fmt::Write as _;
use std::time::Duration;

use super::body;
use crate::bosh::{MAX_CHILD_ATTRIBUTES, MAX_DEPTH, read_request, read_response};

const SIZE: usize = 1 << 20;

/// What reading one may take.
const BOUND: Duration = if cfg!(debug_assertions) {
    Duration::from_secs(2)
} else {
    Duration::from_millis(50)
};

/// How long this thread has been at work, whoever else the machine works for (Linux; else nothing,
/// and then nothing is held to a bound).
fn worked() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// `piece` again and again inside a wrapper.
fn filled(start: &str, piece: &str, end: &str) -> String {
    let inside = piece.repeat(SIZE / piece.len());
    body(&format!("<body {{N}} rid='1'>{start}{inside}{end}</body>"))
}

fn attributes(count: usize, prefix: &str) -> String {
    (0..count).fold(String::new(), |mut text, i| {
        write!(text, " {prefix}{i:x}=''").expect("a string");
        text
    })
}

/// Bodies that cost the most for their size; some are good, some are refused at their end.
fn bombs() -> Vec<(&'static str, String)> {
    let nest = "<a>".repeat(MAX_DEPTH - 1) + &"</a>".repeat(MAX_DEPTH - 1);
    let namespaces: String = (0..64)
        .map(|i| format!("<n{i} xmlns:p{i}='u{i}'>"))
        .collect();
    let ends: String = (0..64).rev().map(|i| format!("</n{i}>")).collect();
    let prefixed = attributes(MAX_CHILD_ATTRIBUTES - 1, "p0:x");
    let declarations: String = (0..63)
        .map(|i| format!(" xmlns:q{i:02}='urn:q{i:02}'"))
        .collect();
    vec![
        ("elements", filled("", "<a/>", "")),
        ("nesting", filled("", &nest, "")),
        ("unclosed nesting", filled("", "<a>", "")),
        (
            "attributes",
            filled(
                "",
                &format!("<a{}/>", attributes(MAX_CHILD_ATTRIBUTES, "a")),
                "",
            ),
        ),
        (
            "prefixed attributes",
            filled(&namespaces, &format!("<a{prefixed}/>"), &ends),
        ),
        ("prefixed elements", filled(&namespaces, "<p0:a/>", &ends)),
        (
            "declarations",
            filled("", &format!("<a{declarations}/>"), ""),
        ),
        ("text and references", filled("", "&amp;a", "")),
        ("brackets", filled("", "]]", "")),
        ("ampersands in a value", filled("<a b='", "&", "'/>")),
        ("references in a value", filled("<a b='", "&#x41;", "'/>")),
        ("one long reference", filled("<a b='&#", "0", "65;'/>")),
        ("open quotes", filled("", "<a b='", "")),
        ("less-than signs", filled("", "<", "")),
        ("sections", filled("", "<![CDATA[]]>", "")),
        ("one section", filled("<![CDATA[", "]", "]]>")),
        ("bodies", filled("", "<body/>", "")),
        ("signs in a value", format!("<body a='{}", "=".repeat(SIZE))),
        ("one long name", filled("<", "a", "/>")),
        ("white space in a tag", filled("<a", " ", "/>")),
        (
            "a root of attributes",
            body(&format!("<body {{N}}{}/>", attributes(SIZE / 8, "a"))),
        ),
        (
            "a long sid",
            body(&format!("<body {{N}} rid='1' sid='{}'/>", "s".repeat(SIZE))),
        ),
        (
            "a long prologue",
            " ".repeat(SIZE) + &body("<body {N} rid='1'/>"),
        ),
        (
            "a long end",
            body("<body {N} rid='1'/>") + &" ".repeat(SIZE),
        ),
    ]
}

#[test]
fn bombs_of_one_mebibyte_take_linear_time() {
    for (name, bomb) in bombs() {
        // The best of three: others on the machine make it slower, never faster.
        let tries = [(); 3].map(|()| {
            let begun = worked();
            let _ = read_request(bomb.as_bytes());
            worked() - begun
        });
        let took = tries.into_iter().min().expect("three tries");
        println!("{took:>12.1?} {name}");
        assert!(took < BOUND, "{name}: {took:?}");
        let begun = worked();
        let _ = read_response(bomb.as_bytes());
        assert!(worked() - begun < BOUND, "{name}, as an answer");
    }
}

#[test]
fn a_bomb_within_the_bounds_is_read_to_its_end() {
    let good = |name: &str| {
        let bomb = bombs().into_iter().find(|(other, _)| *other == name);
        let (_, bomb) = bomb.expect("a bomb of that name");
        read_request(bomb.as_bytes()).expect("a good body");
    };
    good("elements");
    good("nesting");
    good("attributes");
    good("prefixed attributes");
    good("prefixed elements");
    good("declarations");
    good("references in a value");
    good("one long reference");
}
