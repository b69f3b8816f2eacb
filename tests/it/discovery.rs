//! Nodes that a file or the DNS names.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bowline::demo::node::Node;
use tokio::net::UdpSocket;

use crate::balancer::*;
use crate::process::{Process, Start};
use crate::support::folder::Folder;
use crate::support::waiting::until;

/// The records of a name and a type, each with its TTL in seconds; none is an answer without records.
type Records = HashMap<(String, u16), Vec<(u32, Vec<u8>)>>;

const A: u16 = 1;
const SRV: u16 = 33;

/// A name server on a port of 127.0.0.1, as simple as RFC 1035 §4 permits.
struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    records: Records,
    /// It refuses every question.
    fails: bool,
    asked: usize,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, peer) = socket.recv_from(&mut query).await.unwrap();
                let answer = answer(&query[..length], &mut shared.lock().unwrap());
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    fn set(&self, name: &str, kind: u16, records: &[(u32, Vec<u8>)]) {
        let mut state = self.state.lock().unwrap();
        state
            .records
            .insert((name.to_owned(), kind), records.to_vec());
    }

    fn fail(&self, fails: bool) {
        self.state.lock().unwrap().fails = fails;
    }

    fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(query: &[u8], state: &mut State) -> Vec<u8> {
    state.asked += 1;
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let none = Vec::new();
    let records = match state.records.get(&(labels.join("."), kind)) {
        Some(records) if !state.fails => records,
        _ => &none,
    };
    // REFUSED, or no error.
    let code = if state.fails { 5 } else { 0 };
    let mut answer = query[..2].to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    answer.extend(&query[12..at + 5]);
    for (ttl, data) in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    answer
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let mut data = [priority, weight, port].map(u16::to_be_bytes).concat();
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}

/// A balancer in which `nodes` is this.
async fn started(nodes: &str) -> Process {
    let more = format!(
        "log: {{ format: json }}\nhealth: {{ interval: 100ms, timeout: 100ms, rise: 1 }}\nnodes: {nodes}"
    );
    let start = Start {
        more: &more,
        ..Start::default()
    };
    Process::start(&[], &start).await
}

async fn shows(process: &Process, text: &str) {
    let shown = async || process.admin("/metrics").await.text().contains(text);
    assert!(until(PATIENCE, shown).await, "{text}");
}

async fn gone(process: &Process, text: &str) {
    let gone = async || !process.admin("/metrics").await.text().contains(text);
    assert!(until(PATIENCE, gone).await, "{text}");
}

#[tokio::test]
async fn srv_records_become_nodes_and_a_failed_look_up_keeps_them() {
    let (nodes, dns) = (tigase_nodes(2).await, NameServer::start().await);
    let port = |at: usize| nodes[at].address().port();
    let local = vec![(0, vec![127, 0, 0, 1])];
    let name = "_bosh._tcp.xmpp.test";
    for target in ["a.xmpp.test", "b.xmpp.test"] {
        dns.set(target, A, &local);
    }
    dns.set(name, SRV, &[(0, srv(10, 3, port(0), "a.xmpp.test"))]);
    let process = started(&format!(
        "{{ dns: {{ name: {name}, refresh: 1s, server: '{}' }} }}",
        dns.address
    ))
    .await;
    let first = format!("bowline_node_up{{node=\"a.xmpp.test_{}\"}} 1", port(0));
    shows(&process, &first).await;
    let mut client = process.client();
    client.create().await.unwrap();
    assert_goes_on(&client.ping("one").await.unwrap());

    // A second one comes, and the first one goes: it keeps its session.
    let b = srv(10, 1, port(1), "b.xmpp.test");
    dns.set(
        name,
        SRV,
        &[(0, srv(20, 1, port(0), "a.xmpp.test")), (0, b)],
    );
    let second = format!("bowline_node_up{{node=\"b.xmpp.test_{}\"}} 1", port(1));
    shows(&process, &second).await;
    assert_goes_on(&client.ping("two").await.unwrap());
    let mut other = process.client();
    other.create().await.unwrap();
    assert!(nodes[1].owns(other.sid()), "lower priorities get nothing");
    assert!(client.terminate().await.unwrap().is_terminate());
    gone(&process, "node=\"a.xmpp.test_").await;

    // Neither a refusal nor an empty answer takes the last node away.
    for fails in [true, false] {
        dns.fail(fails);
        dns.set(name, SRV, &[]);
        shows(&process, "bowline_discovery_successful 0").await;
        let health = process.admin("/health").await;
        let why = "discovery fails, and the nodes stay as they are: ";
        assert!(health.text().contains(why), "{}", health.text());
        assert_goes_on(&other.ping(&fails.to_string()).await.unwrap());
    }
    dns.set(name, SRV, &[(0, srv(10, 1, port(1), "b.xmpp.test"))]);
    shows(&process, "bowline_discovery_successful 1").await;
    let fails = "discovery fails, and";
    let works = async || !process.admin("/health").await.text().contains(fails);
    assert!(until(PATIENCE, works).await);
    let events = process.admin("/events").await;
    assert!(
        events.text().contains("discovery: node b.xmpp.test_"),
        "{}",
        events.text()
    );
}

#[tokio::test]
async fn address_records_become_nodes_and_are_kept_for_their_ttl() {
    let (nodes, dns) = (tigase_nodes(1).await, NameServer::start().await);
    let port = nodes[0].address().port();
    dns.set("bosh.xmpp.test", A, &[(3600, vec![127, 0, 0, 1])]);
    let process = started(&format!(
        "{{ dns: {{ name: bosh.xmpp.test, type: a, port: {port}, refresh: 1s, server: '{}' }} }}",
        dns.address
    ))
    .await;
    shows(&process, "bowline_node_up{node=\"127.0.0.1\"} 1").await;
    let asked = dns.asked();
    let mut client = process.client();
    client.create().await.unwrap();
    assert_goes_on(&client.ping("one").await.unwrap());
    // Another look after a second would be seen by then.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(dns.asked(), asked, "the records live for an hour");
}

#[tokio::test]
async fn a_balancer_starts_without_an_answer_and_finds_its_nodes_later() {
    let (nodes, dns) = (tigase_nodes(1).await, NameServer::start().await);
    let port = nodes[0].address().port();
    dns.fail(true);
    let process = started(&format!(
        "{{ dns: {{ name: bosh.xmpp.test, type: a, port: {port}, refresh: 1s, server: '{}' }} }}",
        dns.address
    ))
    .await;
    shows(&process, "bowline_discovery_successful 0").await;
    assert_eq!(process.admin("/ready").await.status, 503);
    dns.fail(false);
    dns.set("bosh.xmpp.test", A, &[(0, vec![127, 0, 0, 1])]);
    shows(&process, "bowline_node_up{node=\"127.0.0.1\"} 1").await;
    assert_eq!(process.admin("/ready").await.status, 200);
    let mut client = process.client();
    client.create().await.unwrap();
}

fn list(nodes: &[&Node]) -> String {
    let entry = |node: &&Node| {
        format!(
            "  - {{ name: {}, address: '{}' }}\n",
            node.name(),
            node.address()
        )
    };
    "nodes:\n".to_owned() + &nodes.iter().map(entry).collect::<String>()
}

#[tokio::test]
async fn a_file_of_nodes_is_followed_and_a_bad_one_changes_nothing() {
    let nodes = tigase_nodes(2).await;
    let folder = Folder::new("nodes").unwrap();
    let file = folder.write("nodes.yaml", &list(&[&nodes[0]])).unwrap();
    let process = started(&format!("{{ file: '{}' }}", file.display())).await;
    shows(&process, "bowline_node_up{node=\"t1\"} 1").await;
    fs::write(&file, list(&[&nodes[0], &nodes[1]])).unwrap();
    shows(&process, "bowline_node_up{node=\"t2\"} 1").await;

    fs::write(&file, list(&[&nodes[0]]) + "threads: 2\n").unwrap();
    shows(&process, "bowline_discovery_successful 0").await;
    let health = process.admin("/health").await;
    let words = "threads: a file of nodes has `nodes` alone";
    assert!(health.text().contains(words), "{}", health.text());
    shows(&process, "bowline_node_up{node=\"t2\"} 1").await;

    // A reload that lists the nodes ends it.
    let text = fs::read_to_string(process.config()).unwrap();
    let (front, _) = text.split_once("nodes: ").unwrap();
    fs::write(process.config(), front.to_owned() + &list(&[&nodes[0]])).unwrap();
    process.signal("HUP");
    gone(&process, "node=\"t2\"").await;
    shows(&process, "bowline_discovery_successful 1").await;
}

#[test]
fn check_reads_the_file_of_nodes() {
    let folder = Folder::new("nodes").unwrap();
    let bad = "nodes: [{ name: t1, adress: 't1:5280' }]\n";
    let file = folder.write("nodes.yaml", bad).unwrap();
    let text = format!(
        "listen: [{{ address: '127.0.0.1:0' }}]\nnodes: {{ file: '{}' }}\n",
        file.display()
    );
    let path = folder.write("bowline.yaml", &text).unwrap();
    let check = || {
        let output = Command::new(env!("CARGO_BIN_EXE_bowline"))
            .arg("check")
            .arg(&path)
            .output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check();
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("did you mean `address`?"), "{text}");
    fs::write(&file, "nodes: [{ name: t1, address: 't1:5280' }]\n").unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("ok (1 node, listening on 127.0.0.1:0)"),
        "{text}"
    );
    fs::remove_file(&file).unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("cannot be read: No such file"), "{text}");
}
