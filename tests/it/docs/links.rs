//! Links in the documents: each relative one leads to a file of the repository, and its anchor to a
//! heading there. Files of the repository that name a page of `docs/` name one that exists.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Page, assert_none, documents, page, pages_below, planted, root};

/// The targets of the links and pictures of a line of prose.
fn targets(line: &str) -> Vec<String> {
    // A code span shows a link, it is none.
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let rests = text.split("](").skip(1);
    let inner = rests.filter_map(|rest| rest.split_once(')'));
    let sources = text.split("src=\"").chain(text.split("srcset=\"")).skip(1);
    let sources = sources.filter_map(|rest| rest.split_once('"'));
    inner
        .chain(sources.filter(|(target, _)| !target.contains(['<', ' '])))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Page) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = page.prose().into_iter().filter_map(|(_, line)| {
        let text = line.trim_start_matches('#');
        (line.starts_with('#') && text.starts_with(' ')).then(|| text.trim().to_owned())
    });
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
            let slug: String = heading.to_lowercase().chars().filter(kept).collect();
            let slug = slug.replace(' ', "-");
            let count = seen.entry(slug.clone()).or_default();
            *count += 1;
            match *count {
                1 => slug,
                more => format!("{slug}-{}", more - 1),
            }
        })
        .collect()
}

/// The path from the root of what `target` means on the page `from`.
fn resolve(from: &str, target: &str) -> PathBuf {
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The links of these pages that lead nowhere, and how many there are.
fn findings(pages: &[Page]) -> (usize, Vec<String>) {
    let (mut checked, mut findings) = (0, Vec::new());
    for from in pages {
        for (number, line) in from.prose() {
            for target in targets(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                checked += 1;
                let (file, anchor) = target.split_once('#').unwrap_or((target.as_str(), ""));
                let path = match file {
                    "" => PathBuf::from(&from.path),
                    file => resolve(&from.path, file),
                };
                let path = path.to_str().expect("UTF-8");
                let known = pages.iter().find(|page| page.path == path);
                if known.is_none() && !root().join(path).exists() {
                    findings.push(format!("{}:{number}: there is no {path}", from.path));
                    continue;
                }
                if anchor.is_empty() {
                    continue;
                }
                let there = known.map_or_else(|| anchors(&page(path)), anchors);
                if !there.iter().any(|heading| heading == anchor) {
                    let what = format!("{path} has no heading for #{anchor}");
                    findings.push(format!("{}:{number}: {what}", from.path));
                }
            }
        }
    }
    (checked, findings)
}

/// The pages of `docs/` that a text names and that do not exist.
fn missing_pages(named_in: &Page) -> Vec<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c));
    let mentions = named_in.text.match_indices("docs/").filter_map(|(at, _)| {
        let rest = &named_in.text[at..];
        let name = rest.split(ends).next()?.trim_end_matches('.');
        (name.ends_with(".md") && !named_in.text[..at].ends_with("://")).then_some(name)
    });
    let missing = mentions.filter(|name| !root().join(name).is_file());
    missing
        .map(|name| format!("{}: there is no {name}", named_in.path))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = documents();
    pages.extend(["SECURITY.md", "CHANGELOG.md"].map(page));
    let (checked, findings) = findings(&pages);
    assert_none(&findings);
    assert!(checked >= 20, "{checked}");
}

#[test]
fn a_dead_link_is_found() {
    let other = planted(
        "docs/other.md",
        "# A heading, `coded`\n\n```sh\n# no heading\n```\n## Two\n## Two\n",
    );
    for (text, count) in [
        (
            "[a](other.md) [b](other.md#a-heading-coded) [c](../README.md) [d](https://x/y)",
            0,
        ),
        ("[a](other.md#two-1) [b](#here)\n# Here", 0),
        ("`[a](nowhere.md)`\n```\n[a](nowhere.md)\n```", 0),
        ("[a](nowhere.md)", 1),
        ("![a](nowhere.png) and [b](other.md#no-heading)", 2),
        ("<img src=\"nowhere.svg\">", 1),
        ("[a](other.md#two-2)", 1),
        ("[a](#there)\n# Here", 1),
    ] {
        let from = planted("docs/from.md", text);
        let other = planted(&other.path, &other.text);
        let (_, findings) = findings(&[from, other]);
        assert_eq!(findings.len(), count, "{text}: {findings:?}");
    }
}

#[test]
fn every_page_that_the_code_names_is_there() {
    let endings = [
        "rs", "toml", "yaml", "yml", "json", "service", "tdsl", "mjs", "html",
    ];
    let mut files = vec![page("Cargo.toml")];
    for folder in ["src", "tests", "deploy", "config"] {
        files.extend(pages_below(folder, &endings));
    }
    // The planted faults of this file.
    files.retain(|file| !file.path.starts_with("tests/it/docs"));
    assert_none(&files.iter().flat_map(missing_pages).collect::<Vec<_>>());
    let wrong = planted("src/x.rs", "//! See docs/nowhere.md, and docs/protocol.md.");
    assert_eq!(missing_pages(&wrong).len(), 1);
}
