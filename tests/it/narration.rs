//! What the log says about the consequences of failures, with and without an admin listener.

use bowline::demo::node::{Ending, Node};
use serde_json::Value;

use crate::balancer::{assert_item_not_found, owner, tigase_nodes};
use crate::process::{Process, Start};

/// A balancer without an admin listener.
async fn quiet(nodes: &[Node], more: &str) -> Process {
    let start = Start {
        more,
        admin: false,
        ..Start::default()
    };
    Process::start(nodes, &start).await
}

pub(crate) fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_death_is_followed_by_one_line_about_the_sessions_that_moved() {
    let nodes = tigase_nodes(2).await;
    let quiet = quiet(&nodes, "log: { format: json }").await;
    // All clients have one address, and so one node.
    let mut clients = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..3 {
        let mut client = quiet.client();
        client.create().await.unwrap();
        polls.push(client.begin_poll().await.unwrap());
        clients.push(client);
    }
    let dead = owner(&nodes, clients[0].sid());
    nodes[dead]
        .wait_until(|node| node.held() == 3)
        .await
        .unwrap();
    nodes[dead].kill(Ending::Eof).await;
    for poll in polls {
        assert_item_not_found(&poll.reply().await.unwrap());
    }

    let line = quiet
        .line("the news", |line| message(line).contains("moved off"))
        .await;
    let name = nodes[dead].name();
    assert_eq!(message(&line), format!("3 sessions moved off {name}"));
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["node"], name);
    assert_eq!(line["sessions"], 3);
}

#[tokio::test]
async fn a_silence_is_told_with_its_sessions_and_its_end_with_its_length() {
    let nodes = tigase_nodes(2).await;
    let more = "log: { format: json }\nhealth: { interval: 100ms, timeout: 100ms, silence: 400ms }";
    let quiet = quiet(&nodes, more).await;
    let mut client = quiet.client();
    client.create().await.unwrap();
    let frozen = owner(&nodes, client.sid());
    nodes[frozen].freeze();
    let line = quiet
        .line("the news", |line| message(line).contains("is silent"))
        .await;
    assert_eq!(
        message(&line),
        "node is silent: it gets no new sessions, and keeps those that it has for up to 400ms"
    );
    assert_eq!(line["sessions"], 1);
    let line = quiet
        .line("the news", |line| message(line) == "node is down")
        .await;
    assert_eq!(line["node"], nodes[frozen].name());
    assert_eq!(line["reason"], "no sign of life for 400ms");
}

#[tokio::test]
async fn what_the_balancer_answered_itself_is_summed_up_in_a_line() {
    let nodes = tigase_nodes(1).await;
    let more = "log: { format: json }\nplacement_wait: 0s";
    let quiet = quiet(&nodes, more).await;
    nodes[0].kill(Ending::Eof).await;
    let first = quiet.client().create().await;
    assert!(first.is_err(), "no node is left: {first:?}");
    let line = quiet
        .line("the news", |line| {
            message(line).contains("answered in place")
        })
        .await;
    assert_eq!(
        message(&line),
        "answered in place of a node: 1 no_node in the last 1s"
    );
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["answers"], 1);
}
