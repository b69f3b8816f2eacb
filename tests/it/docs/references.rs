//! The references against the code: reject causes, termination states, reasons of failed probes,
//! alerts. tests/it/monitoring.rs compares metrics, tests/it/config.rs configuration keys.

use std::collections::BTreeSet;

use bowline::observe::metrics::{CAUSES, PROBE_FAILURES};
use serde_json::Value;

use super::{page, pages_below, spans};

/// The code spans in the first cells of the tables below a heading of a page.
fn first_cells(text: &str, heading: &str) -> BTreeSet<String> {
    let (_, below) = text.split_once(heading).expect("the heading");
    let section = below.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(spans).map(str::to_owned).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn protocol_names_every_cause_of_a_reject_and_no_other() {
    let named = first_cells(&page("docs/protocol.md").text, "\n## Rejects\n");
    // A cause that the program does not know is counted as `other`; there is none.
    let known = CAUSES.iter().copied().filter(|cause| *cause != "other");
    assert_eq!(named, set(known));
}

#[test]
fn metrics_name_every_reason_of_a_failed_probe() {
    let text = page("docs/metrics.md").text;
    let row = text
        .lines()
        .find(|line| line.contains("bowline_probe_failures_total"));
    let named: BTreeSet<&str> = spans(row.expect("its row")).collect();
    for reason in PROBE_FAILURES {
        assert!(named.contains(reason), "{reason}");
    }
}

#[test]
fn the_log_reference_names_every_termination_state_and_no_other() {
    let named = first_cells(&page("docs/log.md").text, "\n## Termination states\n");
    let source = page("src/proxy/termination_state.rs").text;
    let (product, _) = source.split_once("#[cfg(test)]").expect("tests");
    let literals = product.split('"').skip(1).step_by(2);
    let states = literals.filter(|literal| literal.len() == 2);
    let states: BTreeSet<String> = set(states);
    assert!(states.len() > 20, "{states:?}");
    assert_eq!(named, states);
}

/// The headings below `## Alerts` of a page, as anchors.
fn alert_anchors(text: &str) -> BTreeSet<String> {
    let (_, below) = text.split_once("\n## Alerts\n").expect("the heading");
    let section = below.split("\n## ").next().unwrap_or_default();
    let headings = section.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(str::to_lowercase).collect()
}

#[test]
fn each_alert_leads_to_its_place_in_the_runbook() {
    let anchors = alert_anchors(&page("docs/operations.md").text);
    let rules: Value = serde_yaml::from_str(&page("deploy/prometheus/alerts.yaml").text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().expect("a list");
    let mut linked = BTreeSet::new();
    for rule in rules {
        let alert = rule["alert"].as_str().expect("a name");
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or("");
        assert_eq!(
            url,
            format!("docs/operations.md#{}", alert.to_lowercase()),
            "{alert}"
        );
        linked.insert(alert.to_lowercase());
    }
    assert_eq!(anchors, linked);
}

/// The texts that are no part of any string of the program; `…` stands for something variable.
fn unsaid<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let source: String = pages_below("src", &["rs"])
        .iter()
        .flat_map(|page| page.text.lines().map(str::trim_start))
        // A string that goes on in the next line.
        .map(|line| match line.strip_suffix('\\') {
            Some(start) => start.to_owned(),
            None => format!("{line}\n"),
        })
        .collect();
    let is_said = |text: &&str| text.split('…').all(|part| source.contains(part.trim()));
    texts.into_iter().filter(|text| !is_said(text)).collect()
}

#[test]
fn the_program_says_what_the_runbook_quotes() {
    let text = page("docs/operations.md").text;
    let (_, below) = text
        .split_once("\n| last failure | do |\n")
        .expect("the table");
    let table = below.split("\n\n").next().unwrap_or_default();
    let cells = table.lines().filter_map(|row| row.split('|').nth(1));
    let failures: Vec<&str> = cells.flat_map(spans).collect();
    assert!(failures.len() > 8, "{failures:?}");
    assert_eq!(unsaid(failures), [""; 0]);
}

#[test]
fn the_program_says_what_the_log_reference_quotes() {
    let text = page("docs/log.md").text;
    let (_, below) = text
        .split_once("\n## Lines that need action\n")
        .expect("the list");
    let section = below.split("\n## ").next().unwrap_or_default();
    let bullets = section.lines().filter_map(|line| line.strip_prefix("- `"));
    let quoted = bullets.filter_map(|bullet| bullet.split("`: ").next());
    let lines: Vec<&str> = quoted.flat_map(|quoted| quoted.split("`, `")).collect();
    assert!(lines.len() > 8, "{lines:?}");
    // An example has numbers in it.
    let lines = lines
        .into_iter()
        .map(|line| line.split(": 12").next().unwrap_or_default());
    assert_eq!(unsaid(lines), [""; 0]);
}

#[test]
fn what_the_program_does_not_say_is_found() {
    let texts = [
        "answered … without a wrapper",
        "no such line in the program at all",
    ];
    // This file is no part of the program.
    assert_eq!(unsaid(texts), texts[1..]);
}

#[test]
fn first_cells_are_those_of_one_section() {
    let text = "\n## A\n| `x` |\n\n## B\n| no |\n| `a`, `b` | `c` |\n\n## C\n| `y` |\n";
    assert_eq!(first_cells(text, "\n## B\n"), set(["a", "b"]));
    let planted_row = text.replace("`a`", "`z`");
    assert_ne!(first_cells(&planted_row, "\n## B\n"), set(["a", "b"]));
}
