//! Every misbehaviour, one test each.

use std::time::Duration;

use bowline::demo::client::{Client, Error};
use bowline::demo::node::{Ending, Fate, Fault, Kind, Manner, Node, Profile, Reaction};
use tokio::time::Instant;

use super::wire::{Wire, post};
use super::{calm, client_of, start};

const UNKNOWN: &str = "<body rid='1' sid='unknown'/>";

/// A node with this misbehaviour, and a client of it.
async fn misbehaving(fault: Fault) -> (Node, Client) {
    let node = start(calm("t1").misbehaving(fault)).await;
    let client = Client::to(node.address());
    (node, client)
}

async fn closed_with_nothing(client: &Client) {
    match client.post(UNKNOWN).await {
        Err(Error::Closed(seen)) => assert!(seen.is_empty(), "{seen:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn accepting_and_resetting() {
    let (node, client) = misbehaving(Fault::accepting_and_resetting().once()).await;
    assert!(Wire::to(&node).await.was_reset().await);
    assert_eq!(
        client.post(UNKNOWN).await.expect("the second time").status,
        404
    );
}

#[tokio::test]
async fn resetting() {
    let (node, _) = misbehaving(Fault::resetting().once()).await;
    let mut wire = Wire::to(&node).await;
    wire.post(UNKNOWN).await;
    assert!(wire.was_reset().await);
}

#[tokio::test]
async fn stalling_after_headers() {
    let (node, _) = misbehaving(Fault::stalling_after_headers().once()).await;
    let mut wire = Wire::to(&node).await;
    wire.post(&creation()).await;
    let head = wire.hear_until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    client_of(&node).await;
    assert_eq!(node.connections(), 2);
}

#[tokio::test]
async fn closing_when_idle() {
    let fault = Fault::closing_when_idle(Duration::from_millis(100));
    let node = start(calm("t1").misbehaving(fault)).await;
    let mut fresh = Wire::to(&node).await;
    let mut client = client_of(&node).await;
    let held = client
        .begin_poll()
        .await
        .expect("sent before it is idle for long");
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    node.push(client.sid(), "<message/>");
    assert_eq!(
        held.reply().await.expect("not closed while held").payload(),
        "<message/>"
    );
    node.wait_until(|node| node.connections() == 1)
        .await
        .expect("closed");
    fresh.post(UNKNOWN).await;
    assert!(
        fresh.hear().await.starts_with("HTTP/1.1 404"),
        "an unused one is left alone"
    );
}

#[tokio::test]
async fn closing_reused() {
    let node = start(calm("t1").misbehaving(Fault::closing_reused().once())).await;
    let mut client = client_of(&node).await;
    assert!(matches!(client.ping("p1").await, Err(Error::Closed(seen)) if seen.is_empty()));
    let again = client.repeat().await.expect("a new connection");
    assert!(again.payload().contains("p1"));
    let fates: Vec<Fate> = node.record().iter().map(|seen| seen.fate).collect();
    assert_eq!(
        fates,
        [
            Fate::Served,
            Fate::Misbehaved("closing_reused"),
            Fate::Served
        ]
    );
}

#[tokio::test]
async fn closing_fresh() {
    let (node, client) = misbehaving(Fault::closing_fresh().times(2)).await;
    closed_with_nothing(&client).await;
    closed_with_nothing(&client).await;
    assert_eq!(
        client.post(UNKNOWN).await.expect("the third time").status,
        404
    );
    assert_eq!(node.record().len(), 3);
}

#[tokio::test]
async fn losing_the_answer() {
    let (node, client) = misbehaving(Fault::losing_the_answer().once()).await;
    match client.post(&creation()).await {
        Err(Error::Closed(seen)) => assert!(seen.is_empty(), "{seen:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.sessions().len(), 1, "it was run");
}

#[tokio::test]
async fn cutting_the_body() {
    let (_node, client) = misbehaving(Fault::cutting_the_body().once()).await;
    match client.post(&creation()).await {
        Err(Error::Closed(seen)) => assert!(seen.starts_with(b"<body ") && !seen.ends_with(b">")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answering_rubbish() {
    let (node, client) = misbehaving(Fault::answering_rubbish(&b"\x00\xff\x00"[..]).once()).await;
    assert!(matches!(
        client.post(UNKNOWN).await,
        Err(Error::Malformed(_))
    ));
    node.misbehave(Fault::answering_stream_error().once());
    let mut wire = Wire::to(&node).await;
    wire.post(UNKNOWN).await;
    assert!(wire.rest().await.starts_with("<stream:error xmlns:stream="));
}

#[tokio::test]
async fn surplus_bytes() {
    let (node, _) = misbehaving(Fault::surplus_bytes().once()).await;
    let mut wire = Wire::to(&node).await;
    wire.post(&creation()).await;
    assert!(wire.hear().await.contains("sid="));
    assert!(wire.hear().await.contains("undefined-condition"));
}

#[tokio::test]
async fn never_answering() {
    let (node, mut client) =
        misbehaving(Fault::never_answering().on(|seen| seen.kind == Kind::Send)).await;
    client.create().await.expect("not for creations");
    let mut client = client.deadline(Duration::from_millis(50));
    assert!(matches!(client.ping("p1").await, Err(Error::Deadline)));
    node.behave();
    let mut client = client.deadline(Duration::from_secs(10));
    assert!(
        client
            .repeat()
            .await
            .expect("an answer")
            .payload()
            .contains("p1")
    );
}

#[tokio::test]
async fn answering_status() {
    let (_node, client) = misbehaving(Fault::answering_status(503).once()).await;
    let answer = client.post(UNKNOWN).await.expect("a page");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (503, Some("text/html"))
    );
    assert_eq!(client.post(UNKNOWN).await.expect("an answer").status, 404);
}

#[tokio::test]
async fn every_framing_says_the_same() {
    for fault in [
        Fault::chunked(),
        Fault::close_delimited(),
        Fault::one_byte_at_a_time(),
        Fault::continue_first(),
        Fault::connection_close(),
    ] {
        let node = start(calm("t1").misbehaving(fault.clone())).await;
        let mut client = client_of(&node).await;
        let answer = client.ping("p1").await.expect("an answer");
        assert!(
            answer.payload().contains("p1"),
            "{fault:?}: {}",
            answer.text()
        );
        let length = answer.header("content-length").is_some();
        let chunked = answer.header("transfer-encoding") == Some("chunked");
        let close = answer.header("connection") == Some("close");
        let expected = match format!("{fault:?}").split('"').nth(1) {
            Some("chunked") => (false, true, false),
            Some("close_delimited") => (false, false, true),
            Some("connection_close") => (true, false, true),
            _ => (true, false, false),
        };
        assert_eq!((length, chunked, close), expected, "{fault:?}");
        let fresh = node.count(|seen| !seen.reused);
        assert_eq!(fresh, if close { 2 } else { 1 }, "{fault:?}");
    }
}

#[tokio::test]
async fn continue_comes_first() {
    let (node, _) = misbehaving(Fault::continue_first()).await;
    let mut wire = Wire::to(&node).await;
    wire.post(UNKNOWN).await;
    assert!(
        wire.rest()
            .await
            .starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404")
    );
}

#[tokio::test]
async fn slow() {
    let delay = Duration::from_millis(60);
    let (_node, client) = misbehaving(Fault::slow(delay)).await;
    let before = Instant::now();
    client.post(UNKNOWN).await.expect("late");
    assert!(before.elapsed() >= delay);
}

#[tokio::test]
async fn a_script_sees_every_request() {
    let node = start(Profile::tigase("t1").with_script(|seen| match seen.kind {
        Kind::Get => Reaction::Close(Ending::Reset),
        Kind::Options => Reaction::ServeAs(Manner::default().chunked().one_byte_at_a_time()),
        _ if seen.text().contains("X-Forwarded-For") => Reaction::Status(500),
        _ => Reaction::Serve,
    }))
    .await;
    let client = Client::to(node.address()).header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(client.post(UNKNOWN).await.expect("a page").status, 500);
    let options = client
        .post_raw(b"OPTIONS / HTTP/1.1\r\n\r\n")
        .await
        .expect("an answer");
    assert_eq!(options.header("transfer-encoding"), Some("chunked"));
    let mut wire = Wire::to(&node).await;
    wire.say(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(wire.was_reset().await);
    let raw = node.record()[0].raw.clone();
    assert!(raw.starts_with(b"POST /http-bind HTTP/1.1\r\n") && raw.ends_with(UNKNOWN.as_bytes()));
    assert_ne!(raw.len(), post(UNKNOWN).len());
}

fn creation() -> String {
    "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='7'/>".to_owned()
}
