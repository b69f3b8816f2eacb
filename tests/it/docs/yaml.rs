//! YAML in the documents: a block ` ```yaml ` is a configuration of Bowline, or a part of one. A block
//! of another program says so: ` ```yaml prometheus `.

use bowline::config;

use super::{Block, Page, assert_none, documents, planted};

/// What completes a part of a configuration, by the key that it may lack.
const REQUIRED: [(&str, &str); 2] = [
    ("listen", "listen: [{ address: '127.0.0.1:0' }]\n"),
    ("nodes", "nodes: [{ name: t1, address: '127.0.0.1:1' }]\n"),
];

/// What is wrong with the blocks of these pages.
fn findings(pages: &[Page]) -> (usize, Vec<String>) {
    let (mut checked, mut findings) = (0, Vec::new());
    for page in pages {
        for block in page.blocks() {
            let mut words = block.info.split(' ');
            if words.next() != Some("yaml") {
                continue;
            }
            let place = format!("{}:{}", page.path, block.line);
            checked += 1;
            match words.next() {
                None | Some("defaults") => {
                    if let Err(errors) = config::parse(&complete(&block), &place) {
                        findings.push(errors.to_string());
                    }
                }
                Some(_) => {
                    let parsed = serde_yaml::from_str::<serde_json::Value>(&block.text);
                    findings.extend(parsed.err().map(|error| format!("{place}: {error}")));
                }
            }
        }
    }
    (checked, findings)
}

/// The block with the required keys that it lacks.
fn complete(block: &Block) -> String {
    let mut text = block.text.clone();
    for (key, line) in REQUIRED {
        let mut lines = block.text.lines();
        if !lines.any(|line| line.starts_with(key) && line[key.len()..].starts_with(':')) {
            text.push_str(line);
        }
    }
    text
}

#[test]
fn every_configuration_is_right() {
    let (checked, findings) = findings(&documents());
    assert_none(&findings);
    assert!(checked >= 3, "{checked}");
}

#[test]
fn a_wrong_configuration_is_found() {
    let block = |text| planted("p.md", &format!("```yaml\n{text}\n```\n"));
    for wrong in [
        "helth: { probe: tcp }",
        "health: { rise: 0 }",
        "nodes:\n  - { name: t1 }",
    ] {
        assert_eq!(findings(&[block(wrong)]).1.len(), 1, "{wrong}");
    }
    assert_none(&findings(&[block("health: { rise: 1 }")]).1);
    let foreign = planted(
        "p.md",
        "```yaml prometheus\na: [\n```\n```yaml other\na: 1\n```\n",
    );
    assert_eq!(findings(&[foreign]).1.len(), 1);
}
