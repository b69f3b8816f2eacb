//! The references against the code: reject causes, termination states, reasons of failed probes,
//! alerts. tests/it/monitoring.rs compares metrics, tests/it/config.rs configuration keys.

use std::collections::BTreeSet;

use bowline::metrics::{CAUSES, PROBE_FAILURES};
use serde_json::Value;

use super::{page, spans};

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

#[test]
fn the_runbook_names_every_alert_and_no_other() {
    let named = first_cells(&page("docs/operations.md").text, "\n## Alerts\n");
    let rules: Value = serde_yaml::from_str(&page("deploy/prometheus/alerts.yaml").text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().expect("a list");
    let alerts = rules.iter().filter_map(|rule| rule["alert"].as_str());
    assert_eq!(named, set(alerts));
}

#[test]
fn first_cells_are_those_of_one_section() {
    let text = "\n## A\n| `x` |\n\n## B\n| no |\n| `a`, `b` | `c` |\n\n## C\n| `y` |\n";
    assert_eq!(first_cells(text, "\n## B\n"), set(["a", "b"]));
    let planted_row = text.replace("`a`", "`z`");
    assert_ne!(first_cells(&planted_row, "\n## B\n"), set(["a", "b"]));
}
