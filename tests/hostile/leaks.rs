//! The program as a process of its own, at its most talkative: nothing that it writes or tells may
//! have a live sid in it, whatever happens to the session.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Wire;
use crate::corpus::{NAMESPACE, Words, creation, poll};
use crate::node::Node;
use crate::nodes::Misbehaviour;
use crate::support::log::Line;
use crate::support::process::{Process, Start};
use crate::world::create;

/// As much of a sid as may be told by chance.
const PART: usize = 12;

/// Sessions to which everything happens that a log line could be written of; their sids, and what
/// was told of the nodes meanwhile: the next failure takes the place of the last one.
async fn traffic(nodes: &[Node], balancer: SocketAddr, admin: SocketAddr) -> (Vec<String>, String) {
    let mut health = String::new();
    let mut sids = vec!["made-up-sid-0123456789".to_owned()];
    let mut wire = Wire::to(balancer).await;
    wire.post(&poll(&sids[0], 1)).await.unwrap();
    for script in [
        "",
        "garbage{close}",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\n{sid}",
        "HTTP/1.1 {sid} OK\\r\\n{sid}: {sid}\\r\\n\\r\\n",
        "HTTP/1.1 500 {sid}\\r\\nContent-Length: {len:{sid}}\\r\\nX: {sid}\\r\\n\\r\\n{sid}",
        "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} sid='other-{sid}'/>}\\r\\n\\r\\n<body {N} sid='other-{sid}'/>",
        "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} type='terminate' condition='{sid}'/>}\\r\\n\\r\\n<body {N} type='terminate' condition='{sid}'/>",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 500\\r\\n\\r\\n<body {N} sid='{sid}'{close}",
        "{close}",
        "{reset}",
    ] {
        let mut wire = Wire::to(balancer).await;
        let mut session = create(&mut wire).await.unwrap();
        sids.push(session.sid.clone());
        session.poll(&mut wire).await.unwrap();
        let words = Words {
            sid: session.sid.clone(),
            rid: session.rid,
            victim: String::new(),
        };
        let owner = nodes.iter().find(|node| node.knows(&session.sid)).unwrap();
        if !script.is_empty() {
            let sid = Some(session.sid.clone());
            owner.misbehave(Some(Misbehaviour::always(sid, script, words)));
        }
        let held = format!(
            "<body {NAMESPACE} rid='{}' sid='{}'><hold xmlns='urn:test'/></body>",
            session.rid, session.sid
        );
        wire.post(&held).await.unwrap();
        health += &told(admin, "/health").await;
        owner.misbehave(None);
        malformed(balancer, &session.sid).await;
    }
    // A second node offers the sid of the first.
    let words = Words {
        sid: sids[1].clone(),
        rid: 1,
        victim: String::new(),
    };
    let script = "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} sid='{sid}'/>}\\r\\n\\r\\n<body {N} sid='{sid}'/>";
    for node in nodes {
        node.misbehave(Some(Misbehaviour::always(None, script, words.clone())));
    }
    for _ in 0..2 {
        Wire::to(balancer).await.post(&creation(3)).await.unwrap();
    }
    for node in nodes {
        node.misbehave(None);
    }
    (sids, health)
}

/// Requests with a sid in places where it is looked at, and refused.
async fn malformed(balancer: SocketAddr, sid: &str) {
    for request in [
        format!("POST /{sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        format!("POST /http-bind?sid={sid} HTTP/1.1\r\nHost: {sid} {sid}\r\n\r\n"),
        format!("{sid} /http-bind HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nX: {sid}\r\nContent-Length: {sid}\r\n\r\n"),
        format!("{sid}\r\n\r\n"),
        format!("GET /\x1b[31m\x07 HTTP/1.1\r\nHost: \x1b]0;{sid}\x07\r\n\r\n"),
        String::from_utf8(crate::client::post(&poll(&format!("{sid}&"), 1))).unwrap(),
        String::from_utf8(crate::client::post(&poll(sid, 1).replace("/>", ">"))).unwrap(),
        String::from_utf8(crate::client::post(&poll(sid, 1).repeat(2))).unwrap(),
    ] {
        let mut wire = Wire::to(balancer).await;
        wire.write(request.as_bytes()).await;
        wire.hear(false).await.unwrap();
    }
}

/// What an admin endpoint says; of one that never ends, what it says at first.
async fn told(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    let limit = if path == "/stream" { 1000 } else { 10_000 };
    let _ = timeout(Duration::from_millis(limit), stream.read_to_end(&mut told)).await;
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 "), "{path}: {told}");
    told
}

fn assert_tells_none(what: &str, text: &str, sids: &[String]) {
    for sid in sids {
        for part in sid.as_bytes().windows(PART) {
            let part = std::str::from_utf8(part).unwrap();
            let line = text.lines().find(|line| line.contains(part));
            assert!(line.is_none(), "{what} tells {part} of {sid}: {line:?}");
        }
    }
}

#[tokio::test]
async fn leaks_nothing_that_is_written_or_told_has_a_live_sid() {
    for format in ["text", "json"] {
        let nodes = [Node::start().await, Node::start().await];
        let places = nodes.iter().enumerate();
        let places: Vec<_> = places
            .map(|(at, node)| (format!("t{at}"), node.address))
            .collect();
        let more = format!("log: {{ format: {format} }}\nplacement: round-robin\nthreads: 2");
        let start = Start {
            more: &more,
            filter: Some("trace"),
            ..Start::default()
        };
        let process = Process::launch(&places, &start, None).await.unwrap();
        let (client, admin) = (process.address, process.admin);
        let up = |line: &Line| line.says("node is up");
        process.log.find("a verdict", up).await.unwrap();
        let (sids, health) = traffic(&nodes, client, admin).await;
        assert!(health.contains("without a wrapper"), "{health}");
        assert_tells_none("/health", &health, &sids);
        for path in [
            "/",
            "/live",
            "/ready",
            "/health",
            "/nodes",
            "/nodes/t0",
            "/events",
            "/history",
            "/stream",
            "/metrics",
            "/sessions",
        ] {
            assert_tells_none(path, &told(admin, path).await, &sids);
        }
        let log = process.log.text();
        assert!(
            log.contains("sid_conflict") && log.contains("malformed wrapper"),
            "{log}"
        );
        assert_tells_none("the log", &log, &sids);
        // What comes from outside begins no line, and does not reach a terminal.
        let begins = if format == "text" { "ts=" } else { "{" };
        let foreign = log
            .lines()
            .find(|line| !line.starts_with(begins) || line.contains(char::is_control));
        assert!(foreign.is_none(), "{foreign:?}");
    }
}

#[test]
#[should_panic(expected = "tells 0123456789ab of x0123456789abcdef")]
fn leaks_are_found() {
    let sids = ["x0123456789abcdef".to_owned()];
    assert_tells_none("a line", "one\nnode 0123456789ab is\n", &sids);
}
