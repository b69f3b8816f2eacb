//! HTTP towards the client: methods, paths, CORS, and heads and bodies that are refused.

use std::time::Duration;

use bowline::config::Origins;
use bowline::demo::node::{Fate, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balancer::*;
use crate::routing::creation;

/// Writes `bytes`, ends our side, and reads to the end.
pub(crate) async fn raw(balancer: &Balancer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    // What is refused may be reset behind the answer.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("answered or closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(line: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn get_head_and_options_are_answered_here() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let get = raw(&balancer, &request("GET /http-bind HTTP/1.1", "", "")).await;
    assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{get}");
    assert!(get.contains("BOSH service"), "{get}");
    let head = raw(&balancer, &request("HEAD /http-bind HTTP/1.1", "", "")).await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let preflight = "Origin: https://chat.example.com\r\nAccess-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: content-type\r\n";
    let options = raw(
        &balancer,
        &request("OPTIONS /http-bind HTTP/1.1", preflight, ""),
    )
    .await;
    for field in [
        "access-control-allow-origin: *",
        "access-control-allow-methods: GET, POST, OPTIONS",
        "access-control-allow-headers: Content-Type",
        "access-control-max-age: 86400",
    ] {
        assert!(options.contains(field), "{field} in {options}");
    }
    assert_eq!(
        balancer.metric("bowline_requests_total{kind=\"preflight\",outcome=\"ok\"}"),
        1
    );
    assert_unforwarded(&nodes);
}

/// Nothing but probes reached the nodes.
fn assert_unforwarded(nodes: &[Node]) {
    for node in nodes {
        let other = node
            .record()
            .into_iter()
            .find(|seen| seen.fate != Fate::Refused);
        assert!(other.is_none(), "{:?}", other.map(|seen| seen.text()));
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_a_wrapper() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    for (line, status) in [
        ("POST /other HTTP/1.1", "404 Not Found"),
        ("GET / HTTP/1.1", "404 Not Found"),
        ("POST /http-bind// HTTP/1.1", "404 Not Found"),
        ("POST /http-bind/x HTTP/1.1", "404 Not Found"),
        ("POST // HTTP/1.1", "404 Not Found"),
        ("PUT /http-bind HTTP/1.1", "405 Method Not Allowed"),
        ("DELETE /http-bind HTTP/1.1", "405 Method Not Allowed"),
        ("TRACE /http-bind HTTP/1.1", "405 Method Not Allowed"),
    ] {
        let answer = raw(&balancer, &request(line, "", "")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{line}: {answer}"
        );
        assert!(
            answer.contains("access-control-allow-origin: *"),
            "{line}: {answer}"
        );
        assert!(answer.contains("type='terminate'"), "{line}: {answer}");
        if status.starts_with("405") {
            assert!(
                answer.contains("allow: GET, HEAD, OPTIONS, POST"),
                "{answer}"
            );
        }
    }
    assert_unforwarded(&nodes);
}

/// A page that is configured with `https://chat.example.com/http-bind/` works; every node sees the
/// configured path, since Prosody answers 404 for the other one.
#[tokio::test]
async fn one_slash_behind_a_configured_path_changes_nothing() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.bosh.paths = ["/http-bind", "/x", "/x/", "/bosh/"]
        .map(String::from)
        .to_vec();
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.client().path("/http-bind/");
    client.create().await.unwrap();
    assert_goes_on(&client.ping("p").await.unwrap());
    let seen = seen_of(&nodes[0], client.sid());
    assert!(!seen.is_empty());
    for request in &seen {
        let text = request.text();
        assert!(text.starts_with("POST /http-bind HTTP/1.1\r\n"), "{text}");
    }
    let options = raw(&balancer, &request("OPTIONS /http-bind/ HTTP/1.1", "", "")).await;
    assert!(
        options.contains("access-control-allow-methods"),
        "{options}"
    );
    // A path with a slash of its own is compared to the letter, and comes first.
    for path in ["/bosh/", "/x/"] {
        let mut client = balancer.client().path(path);
        client.create().await.unwrap();
        assert_goes_on(&client.ping("p").await.unwrap());
        let text = seen_of(&nodes[0], client.sid())[0].text();
        assert!(
            text.starts_with(&format!("POST {path} HTTP/1.1\r\n")),
            "{text}"
        );
    }
    for other in ["/bosh", "/bosh//"] {
        let line = format!("GET {other} HTTP/1.1");
        let answer = raw(&balancer, &request(&line, "", "")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{other}: {answer}");
    }
}

#[tokio::test]
async fn odd_heads_are_refused_and_never_forwarded() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let body = creation();
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let cases: &[(&str, String)] = &[
        ("no host", format!("Content-Length: {length}\r\n\r\n{body}")),
        (
            "two hosts",
            format!("Host: a\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "bad host",
            format!("Host: a b\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "xml host",
            format!("Host: <a/>\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "te and cl",
            format!(
                "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{chunked}"
            ),
        ),
        (
            "cl and te",
            format!(
                "Host: a\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "te gzip",
            format!("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{chunked}"),
        ),
        (
            "te twice",
            format!(
                "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "cl twice",
            format!(
                "Host: a\r\nContent-Length: {length}\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        ),
        (
            "cl zeros",
            format!("Host: a\r\nContent-Length: 0{length}\r\n\r\n{body}"),
        ),
        (
            "cl plus",
            format!("Host: a\r\nContent-Length: +{length}\r\n\r\n{body}"),
        ),
        (
            "cl huge",
            format!("Host: a\r\nContent-Length: 9223372036854775808\r\n\r\n{body}"),
        ),
        (
            "obs-fold",
            format!("Host: a\r\nX: a\r\n b\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "space before colon",
            format!("Host: a\r\nContent-Length : {length}\r\n\r\n{body}"),
        ),
        (
            "gzip",
            format!("Host: a\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
    ];
    for (what, rest) in cases {
        let answer = raw(
            &balancer,
            format!("POST /http-bind HTTP/1.1\r\n{rest}").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        assert!(!answer.contains(" sid='"), "{what}: {answer}");
    }
    let get =
        format!("GET /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    assert!(
        raw(&balancer, get.as_bytes())
            .await
            .starts_with("HTTP/1.1 400")
    );
    let absolute = format!(
        "POST http://b/http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    assert!(
        raw(&balancer, absolute.as_bytes())
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert_unforwarded(&nodes);
}

#[tokio::test]
async fn a_chunked_body_reaches_the_node_with_a_length() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let body = creation();
    let (front, back) = body.split_at(17);
    let chunks = format!(
        "{:x}\r\n{front}\r\n{:X};x=y\r\n{back}\r\n0\r\nT: v\r\n\r\n",
        front.len(),
        back.len()
    );
    let answer = raw(
        &balancer,
        &request(
            "POST /http-bind HTTP/1.1",
            "Transfer-Encoding: chunked\r\n",
            &chunks,
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let created = nodes[0]
        .record()
        .into_iter()
        .find(|seen| seen.fate == Fate::Served)
        .unwrap();
    let text = created.text();
    assert!(
        text.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{text}"
    );
    assert!(!text.contains("ransfer-"), "{text}");
    assert!(text.ends_with(&body), "{text}");
}

#[tokio::test]
async fn bodies_that_are_no_wrapper_are_refused_and_the_connection_goes_on() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.client();
    for bad in [
        "",
        "hello",
        "<body/>",
        "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid=''/>",
        "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='a' sid='b'/>",
        "<body xmlns='http://jabber.org/protocol/httpbind' rid='1'/><body/>",
        "<!DOCTYPE x><body xmlns='http://jabber.org/protocol/httpbind' rid='1'/>",
    ] {
        let reply = client.post(bad).await.unwrap();
        assert_eq!(reply.status, 400, "{bad}: {reply:?}");
        assert_eq!(reply.condition().as_deref(), Some("bad-request"), "{bad}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header("connection"), None, "{bad}");
    }
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"malformed\"}"),
        7
    );
    assert_unforwarded(&nodes);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_while_it_comes() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.bosh.max_body = 1024;
    let balancer = Balancer::start(&settings).await;
    let announced = "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    let answer = raw(&balancer, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let endless = format!("Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(100));
    let answer = raw(
        &balancer,
        format!("POST /http-bind HTTP/1.1\r\nHost: a\r\n{endless}").as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"too_large\"}"),
        2
    );
}

#[tokio::test]
async fn slow_heads_and_bodies_and_idle_connections_are_ended() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.head = Duration::from_millis(100);
    settings.timeouts.body = Duration::from_millis(100);
    settings.timeouts.idle = Duration::from_millis(100);
    let balancer = Balancer::start(&settings).await;
    assert_eq!(raw(&balancer, b"").await, "");
    assert!(
        !raw(&balancer, b"POST /http-bind HTTP/1.1\r\nHost: a\r\n")
            .await
            .contains(" 200 ")
    );
    let half = "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n<body";
    let answer = raw(&balancer, half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("access-control-allow-origin: *"),
        "{answer}"
    );
}

/// The time is the body's, not that of each of its parts.
#[tokio::test]
async fn a_body_whose_first_byte_is_late_has_no_more_time() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.body = Duration::from_secs(2);
    let balancer = Balancer::start(&settings).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let head = "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    let begun = tokio::time::Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1700)).await;
    stream.write_all(b"<body").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn listed_origins_are_echoed_and_others_are_not() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.cors.origins = Origins::Only(vec!["https://chat.example.com".to_owned()]);
    let balancer = Balancer::start(&settings).await;
    for (origin, allowed) in [
        ("https://chat.example.com", Some("https://chat.example.com")),
        ("https://evil.example.com", None),
    ] {
        let client = balancer.client().header("Origin", origin);
        let reply = client.post(&creation()).await.unwrap();
        assert_eq!(reply.header("access-control-allow-origin"), allowed);
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.connections = 1;
    let balancer = Balancer::start(&settings).await;
    let first = balancer.client();
    first.post(&creation()).await.unwrap();
    let waiting = balancer.client();
    let pending = waiting.begin_post(&creation()).await.unwrap();
    eventually("the limit is met", || {
        balancer.metric("bowline_accept_waits_total") > 0
    })
    .await;
    drop(first);
    assert_eq!(pending.reply().await.unwrap().status, 200);
}

#[tokio::test]
async fn the_rest_of_a_refused_body_is_no_request() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.bosh.max_body = 1024;
    let balancer = Balancer::start(&settings).await;
    let body = creation();
    let inner = format!(
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for refused in [
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n",
        "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n",
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 500\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(refused.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
        // The answer is there, and the balancer reads on.
        let _ = stream.write_all(inner.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.contains("HTTP/1.1"), "{refused}: {rest}");
    }
    assert_unforwarded(&nodes);
}
