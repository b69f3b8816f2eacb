//! The admin listener against whoever is not the operator: raw requests, and what becomes of the nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bowline::cluster::OperatorState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::DEADLINE;
use crate::node::Node;
use crate::support::folder::Folder;
use crate::world::{World, settings};

const TOKEN: &str = "a-token-of-thirty-two-characters";

/// A balancer whose admin listener wants a token or not.
async fn world(token_file: Option<PathBuf>) -> (World, SocketAddr) {
    let nodes = vec![Node::start().await, Node::start().await];
    let mut settings = settings(&nodes);
    let admin = settings.admin.as_mut().unwrap();
    admin.token_file = token_file;
    admin.hosts = vec!["admin.example.com".to_owned()];
    let world = World::with(nodes, &settings).await;
    let address = world.balancer.server.admin_address().unwrap();
    (world, address)
}

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    // What is refused may be reset behind the answer.
    let _ = read.expect("answered or closed in time");
    String::from_utf8(answer).unwrap()
}

fn is_unchanged(world: &World) -> bool {
    let nodes = world.balancer.proxy().cluster.nodes();
    nodes
        .iter()
        .all(|node| node.state() == OperatorState::Ready)
}

#[tokio::test]
async fn admin_without_the_token_nothing_is_told_or_changed() {
    let folder = Folder::new("token").unwrap();
    let file = folder.write("token", TOKEN).unwrap();
    let (world, address) = world(Some(file)).await;
    drop(folder);
    let wrong = TOKEN.replace('a', "b");
    for (what, line, fields) in [
        ("none", "GET /health", String::new()),
        (
            "another",
            "GET /health",
            format!("Authorization: Bearer {wrong}\r\n"),
        ),
        (
            "a part",
            "GET /metrics",
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        ),
        (
            "more",
            "GET /nodes",
            format!("Authorization: Bearer {TOKEN}x\r\n"),
        ),
        (
            "another scheme",
            "GET /events",
            format!("Authorization: Basic {TOKEN}\r\n"),
        ),
        (
            "none at all",
            "GET /history",
            "Authorization: \r\n".to_owned(),
        ),
        (
            "a cookie",
            "GET /health",
            format!("Cookie: token={TOKEN}\r\n"),
        ),
        ("a header", "GET /health", format!("X-Token: {TOKEN}\r\n")),
        (
            "two",
            "GET /health",
            format!("Authorization: Bearer {wrong}\r\nAuthorization: Bearer {TOKEN}\r\n"),
        ),
        // A secret in a URL would be kept in histories and logs.
        (
            "in the query",
            &format!("GET /health?token={TOKEN}"),
            String::new(),
        ),
        (
            "in the target",
            &format!("GET http://x:{TOKEN}@127.0.0.1/health"),
            String::new(),
        ),
        (
            "to change",
            "PUT /nodes/t1/state?state=drain",
            "X-Bowline: 1\r\nContent-Length: 0\r\n".to_owned(),
        ),
        ("to look at nothing", "GET /nothing", String::new()),
        ("a stream", "GET /stream", String::new()),
    ] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{fields}\r\n");
        let answer = raw(address, &request).await;
        let refused = answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(refused, "{what}: {answer}");
        assert!(
            !answer.contains("t1") && !answer.contains(TOKEN),
            "{what}: {answer}"
        );
    }
    assert!(is_unchanged(&world));
    let good = format!(
        "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let answer = raw(address, &good).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("t1"),
        "{answer}"
    );
    assert!(!answer.contains(TOKEN), "{answer}");
}

#[tokio::test]
async fn admin_no_foreign_page_can_ask_or_change_anything() {
    let (world, address) = world(None).await;
    let put = "PUT /nodes/t1/state?state=drain";
    let mark = "X-Bowline: 1\r\n";
    for (what, line, host, fields) in [
        ("without a mark", put, "localhost", "Content-Length: 0\r\n".to_owned()),
        ("a form", put, "localhost", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n".to_owned()),
        ("plain text", put, "localhost", "Content-Type: text/plain; application/json\r\nContent-Length: 0\r\n".to_owned()),
        ("another origin", put, "localhost", format!("{mark}Origin: http://evil.example\r\nContent-Length: 0\r\n")),
        ("an origin that begins alike", put, "localhost", format!("{mark}Origin: http://localhost.evil.example\r\nContent-Length: 0\r\n")),
        ("no origin", put, "localhost", format!("{mark}Origin: null\r\nContent-Length: 0\r\n")),
        ("a name pointed here", put, "evil.example", format!("{mark}Content-Length: 0\r\n")),
        ("a name pointed here, to look", "GET /health", "evil.example", String::new()),
        ("a name that begins alike", "GET /health", "localhost.evil.example", String::new()),
        ("two names", "GET /health", "localhost\r\nHost: evil.example", String::new()),
        ("by GET", "GET /nodes/t1/state?state=drain", "localhost", mark.to_owned()),
        ("by POST", "POST /nodes/t1/state?state=drain", "localhost", format!("{mark}Content-Length: 0\r\n")),
        ("by a method's override", "POST /nodes/t1/state?state=drain", "localhost", format!("{mark}X-HTTP-Method-Override: PUT\r\nContent-Length: 0\r\n")),
        ("a preflight", "OPTIONS /nodes/t1/state", "localhost", "Origin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-bowline\r\n".to_owned()),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
        let answer = raw(address, &request).await;
        assert!(is_unchanged(&world), "{what}: {answer}");
        let head = answer.to_ascii_lowercase();
        assert!(!head.contains("access-control-allow"), "{what}: {answer}");
        if what != "by GET" {
            assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        }
    }
    let good = format!(
        "{put} HTTP/1.1\r\nHost: admin.example.com\r\nConnection: close\r\n{mark}Content-Length: 0\r\n\r\n"
    );
    let answer = raw(address, &good).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!is_unchanged(&world));
}

#[tokio::test]
async fn admin_survives_what_clients_are_refused_for() {
    let (world, address) = world(None).await;
    let long = "y".repeat(70_000);
    for request in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\nHost: a\n\n\n".to_owned(),
        "GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        "PUT /nodes/t1/state HTTP/1.1\r\nHost: localhost\r\nX-Bowline: 1\r\nContent-Length: 99999999999\r\n\r\n{".to_owned(),
        "PUT /nodes/t1/state HTTP/1.1\r\nHost: localhost\r\nX-Bowline: 1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
        "PUT /nodes/%2e%2e%2f/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Bowline: 1\r\nContent-Length: 17\r\n\r\n{\"state\":\"drain\"}".to_owned(),
        "PUT /nodes/t1/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Bowline: 1\r\nContent-Length: 5\r\n\r\n[[[[[".to_owned(),
    ] {
        // Whatever is answered: soon the listener is itself again.
        let begin: String = request.chars().take(60).collect();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut away = Vec::new();
        let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut away)).await;
        assert!(ended.is_ok(), "neither answered nor closed: {begin:?}");
        let live = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = raw(address, live).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{begin:?}: {answer}");
    }
    assert!(is_unchanged(&world));
}
