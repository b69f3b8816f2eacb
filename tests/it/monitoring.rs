//! What `deploy/` has for Prometheus and Grafana, against the metrics of a balancer at work. What
//! needs promtool (Debian: `prometheus`) is skipped aloud where it is not installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::balancer::{Balancer, settings, tigase_nodes};
use crate::operator::admin;
use crate::support::tls::{Authority, listener};

/// The labels that Prometheus adds to what it scrapes.
const ADDED: [&str; 2] = ["job", "instance"];
/// How the names of the metrics begin.
const PREFIXES: [&str; 2] = ["bowline_", "process_"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The page of a balancer that has served a little of everything.
async fn page() -> String {
    let nodes = tigase_nodes(2).await;
    let (mut settings, authority) = (settings(&nodes), Authority::new());
    settings.listen.push(listener(vec![authority.files("a")]));
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    client.ping("1").await.unwrap();
    client.terminate().await.unwrap();
    let mut stranger = balancer.client();
    stranger.adopt("no-such-session", 7);
    stranger.poll().await.unwrap();
    let reply = admin(&balancer, "GET", "/metrics").await;
    assert_eq!(reply.status, 200);
    reply.text().to_owned()
}

/// Each series' labels, by its name.
fn series(page: &str) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let mut series: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let labels = labels.trim_end_matches('}').split_terminator(',');
        let labels = labels.map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        series
            .entry(name.to_owned())
            .or_default()
            .push(labels.collect());
    }
    series
}

/// The expressions of the alerts and of the dashboard, each with the place where it stands.
pub(crate) fn expressions() -> Vec<(String, String)> {
    let alerts: Value = serde_yaml::from_str(&read("deploy/prometheus/alerts.yaml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap().iter();
    let rules = rules.map(|rule| (&rule["alert"], &rule["expr"]));
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/bowline.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (&panel["title"], &target["expr"]))
    });
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let annotations = annotations.map(|event| (&event["name"], &event["expr"]));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = rules.chain(targets).chain(annotations);
    all.map(|(place, expression)| (text(place), text(expression)))
        .collect()
}

/// The selectors of an expression: a metric's name and what is within its braces.
fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = PREFIXES
        .iter()
        .flat_map(|prefix| expression.match_indices(prefix));
    begins
        .filter(|(at, _)| !expression[..*at].ends_with(inside))
        .map(|(at, _)| {
            let rest = &expression[at..];
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let braces = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            (name, braces.map_or("", |(matchers, _)| matchers))
        })
        .collect()
}

/// The labels that an expression groups or joins by.
fn grouped(expression: &str) -> BTreeSet<&str> {
    let lists = ["by (", "on ("]
        .into_iter()
        .flat_map(|word| expression.split(word).skip(1));
    let lists = lists.filter_map(|rest| rest.split(')').next());
    lists
        .flat_map(|list| list.split(',').map(str::trim))
        .collect()
}

#[tokio::test]
async fn every_query_asks_for_what_is_there() {
    let series = series(&page().await);
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    for (place, expression) in &expressions {
        let selectors = selectors(expression);
        let foreign = place == "BowlineAway";
        assert_eq!(selectors.is_empty(), foreign, "{place}: {expression}");
        let mut known: BTreeSet<&str> = ADDED.into();
        for (name, matchers) in selectors {
            let all = series
                .get(name)
                .unwrap_or_else(|| panic!("{place}: no metric {name}"));
            known.extend(
                all.iter()
                    .flat_map(|labels| labels.keys().map(String::as_str)),
            );
            for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('=').unwrap();
                let label = label.trim_end_matches('!');
                if ADDED.contains(&label) {
                    continue;
                }
                let values = value.trim_start_matches('~').trim_matches('"').split('|');
                for value in values {
                    let some = all
                        .iter()
                        .any(|labels| labels.get(label).is_some_and(|v| v == value));
                    assert!(some, "{place}: no {name}{{{label}=\"{value}\"}}");
                }
            }
        }
        for label in grouped(expression) {
            assert!(
                foreign || known.contains(label),
                "{place}: nothing has a label {label}"
            );
        }
    }
}

#[tokio::test]
async fn the_documentation_names_every_metric_and_no_other() {
    let page = page().await;
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    let text = read("docs/metrics.md");
    let is_metric = |word: &&str| PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: BTreeSet<&str> = rows
        .filter(is_metric)
        .filter_map(|row| row.split('|').next())
        .flat_map(|cell| cell.split('`').filter(is_metric))
        .map(|word| word.split('{').next().unwrap_or(word))
        .collect();
    assert_eq!(named, told);
}

/// Runs promtool with these arguments and this input, and says what is wrong.
async fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command
        .args(arguments)
        .current_dir(root())
        .kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = match command.spawn() {
        Ok(running) => running,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: promtool is not installed (Debian: apt-get install prometheus)");
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = running.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    promtool(&["check", "metrics"], &page().await).await;
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_alerts() {
    promtool(&["check", "rules", "deploy/prometheus/alerts.yaml"], "").await;
    promtool(&["test", "rules", "tests/deploy/alerts_test.yaml"], "").await;
}

/// The dashboard's queries as rules that record them, so that promtool reads each of them.
#[tokio::test]
async fn promtool_understands_every_query_of_the_dashboard() {
    let mut rules = Vec::new();
    for (number, (_, expression)) in expressions().into_iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m");
        rules.push(serde_json::json!({ "record": format!("a:b{number}"), "expr": expression }));
    }
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let file = Temporary::new(&groups.to_string());
    promtool(&["check", "rules", file.0.to_str().unwrap()], "").await;
}

/// A file that goes when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Self {
        let name = format!("bowline-rules-{}.yaml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing to be done if it is gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}
