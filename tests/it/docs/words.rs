//! The length of the documents, and words that their readers stumble over.

use super::{Page, assert_none, documents, page, pages_below, planted};

/// The most words that README.md and `docs/` may have together, as `wc -w` counts them. A longer
/// text is read by fewer people: cut elsewhere before this number grows.
const MOST: usize = 20_920;

/// Words and phrases that make readers stop and decode. Use a noun and an active verb instead.
const UNUSED: [&str; 7] = [
    "whoever",
    "nobody",
    "so many",
    "goes before",
    "go before",
    "all the same",
    "told",
];

fn count(pages: &[Page]) -> usize {
    let counts = pages
        .iter()
        .map(|page| page.text.split_whitespace().count());
    counts.sum()
}

/// Where these pages use an unused phrase. Line ends count as spaces.
fn findings(pages: &[Page]) -> Vec<String> {
    let mut findings = Vec::new();
    for page in pages {
        let mut text = String::new();
        // A code span may hold a name of the code.
        let prose = match page.path.ends_with(".md") {
            true => page
                .text
                .split('`')
                .step_by(2)
                .collect::<Vec<_>>()
                .join("code"),
            false => page.text.clone(),
        };
        for word in prose.split_whitespace() {
            text.push(' ');
            text.push_str(&word.to_lowercase());
        }
        text.push(' ');
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        for phrase in UNUSED {
            for (at, _) in text.match_indices(phrase) {
                let after = text[at + phrase.len()..].starts_with(part_of_word);
                if !text[..at].ends_with(part_of_word) && !after {
                    let start = text[..at]
                        .char_indices()
                        .rev()
                        .nth(30)
                        .map_or(0, |(at, _)| at);
                    let place = &text[start..at + phrase.len()];
                    findings.push(format!("{}: …{place}", page.path));
                }
            }
        }
    }
    findings
}

#[test]
fn the_documents_are_short() {
    let pages = documents();
    let total = count(&pages);
    let each = pages.iter().map(|page| {
        let words = page.text.split_whitespace().count();
        format!("{words:6} {}", page.path)
    });
    let each = each.collect::<Vec<_>>().join("\n");
    assert!(total <= MOST, "{total} words, {MOST} are allowed:\n{each}");
}

#[test]
fn words_are_counted_as_wc_counts_them() {
    let pages = [
        planted("a.md", "# One\n\n| a | `b c` |\n"),
        planted("b.md", "x\ty"),
    ];
    assert_eq!(count(&pages), 2 + 6 + 2);
}

#[test]
fn the_documents_use_plain_words() {
    let mut pages = documents();
    pages.push(page("SECURITY.md"));
    pages.extend(pages_below("config", &["yaml"]));
    let deploy = ["yaml", "yml", "json", "service", "tdsl"];
    pages.extend(pages_below("deploy", &deploy));
    pages.push(page("deploy/docker/Dockerfile"));
    assert_none(&findings(&pages));
}

#[test]
fn an_unused_word_is_found() {
    for wrong in [
        "Whoever asks.",
        "there are so\nmany",
        "It is `x` told.",
        "(nobody)",
    ] {
        assert_eq!(findings(&[planted("p.md", wrong)]).len(), 1, "{wrong}");
    }
    let right = planted(
        "p.md",
        "told_lines, untold, a nobody-free text, so-many, `told`",
    );
    assert_none(&findings(&[right]));
}
