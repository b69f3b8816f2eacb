//! What the log says about the consequences of failures, with and without an admin listener.

use std::net::SocketAddr;
use std::process::Stdio;

use bowline::demo::client::Client;
use bowline::demo::node::{Ending, Node};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use crate::balancer::{PATIENCE, assert_item_not_found, owner, tigase_nodes};
use crate::process::{Start, command, configuration, file};

/// A balancer without an admin listener, and its log, a JSON object a line.
struct Quiet {
    _child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Quiet {
    async fn start(nodes: &[Node], more: &str) -> Self {
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let text = configuration(nodes, (free, free), more);
        let text = text.replace(&format!("admin: {{ address: \"{free}\" }}"), "admin: off");
        assert!(text.contains("admin: off"), "{text}");
        let file = file(&text);
        let mut child = command(&file, &Start::default(), Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut quiet = Self {
            _child: child,
            log,
            address: free,
        };
        let line = quiet.line(|line| line["message"] == "listening").await;
        std::fs::remove_file(&file).unwrap();
        quiet.address = line["address"].as_str().unwrap().parse().unwrap();
        for _ in nodes {
            quiet.line(|line| line["message"] == "node is up").await;
        }
        quiet
    }

    /// The next line of the log that `wanted` picks.
    async fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let next = async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("a line more");
                let line: Value = serde_json::from_str(&line).unwrap();
                if wanted(&line) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a line in time")
    }

    fn client(&self) -> Client {
        Client::to(self.address).deadline(PATIENCE)
    }
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_death_is_followed_by_one_line_about_the_sessions_that_moved() {
    let nodes = tigase_nodes(2).await;
    let mut quiet = Quiet::start(&nodes, "log: { format: json }").await;
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

    let line = quiet.line(|line| message(line).contains("moved off")).await;
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
    let mut quiet = Quiet::start(&nodes, more).await;
    let mut client = quiet.client();
    client.create().await.unwrap();
    let frozen = owner(&nodes, client.sid());
    nodes[frozen].freeze();
    let line = quiet.line(|line| message(line).contains("is silent")).await;
    assert_eq!(
        message(&line),
        "node is silent: it gets no new sessions, and keeps those that it has for up to 400ms"
    );
    assert_eq!(line["sessions"], 1);
    let line = quiet.line(|line| message(line) == "node is down").await;
    assert_eq!(line["node"], nodes[frozen].name());
    assert_eq!(line["reason"], "no sign of life for 400ms");
}

#[tokio::test]
async fn what_the_balancer_answered_itself_is_summed_up_in_a_line() {
    let nodes = tigase_nodes(1).await;
    let more = "log: { format: json }\nplacement_wait: 0s";
    let mut quiet = Quiet::start(&nodes, more).await;
    nodes[0].kill(Ending::Eof).await;
    let first = quiet.client().create().await;
    assert!(first.is_err(), "no node is left: {first:?}");
    let line = quiet
        .line(|line| message(line).contains("answered in place"))
        .await;
    assert_eq!(
        message(&line),
        "answered in place of a node: 1 no_node in the last 1s"
    );
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["answers"], 1);
}
