//! Clients that go silent, on paused time, and what is no HTTP/2.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::Listen;
use crate::proxy::{BoshRequest, Exchange, Handled, Proxy};
use crate::transport::{Pipe, pair};

/// Holds any request.
fn hold(_: &Arc<Proxy>, _: &BoshRequest<'_>) -> Handled {
    Handled::Exchange(Exchange::new(std::future::pending()))
}

/// The client's end of a connection whose requests are held without an end.
fn connect() -> Pipe {
    let downstream = Arc::into_inner(Downstream::for_tests()).expect("this is the only reference");
    let downstream = Arc::new(downstream.with_handler(hold));
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let counted = Counted::for_tests(&downstream, peer);
    let (near, far) = pair();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Arc::new(Listener::new(downstream, Listen::new(address)));
    let io = Io::Plain(near.into());
    tokio::spawn(serve(listener, io, Early::default(), peer, counted));
    far
}

fn post() -> Request<()> {
    let request = Request::builder().method("POST");
    let request = request.uri("http://a/http-bind").body(());
    request.expect("it is a good request")
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_cut_off() {
    let (mut send, connection) = h2::client::handshake(connect()).await.unwrap();
    let begun = Instant::now();
    let mut connection = Box::pin(connection);
    let (response, _) = send.send_request(post(), true).unwrap();
    // The client lives for a second.
    let living = tokio::time::timeout(Duration::from_secs(1), &mut connection);
    assert!(living.await.is_err());
    // What is not polled answers nothing.
    tokio::time::sleep(Duration::from_secs(38)).await;
    let served = tokio::time::timeout(Duration::from_millis(10), response);
    assert!(served.await.is_err(), "it is not cut before its time");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = tokio::time::timeout(Duration::from_millis(10), connection);
    assert!(ended.await.is_ok(), "held for {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_is_held() {
    let (mut send, connection) = h2::client::handshake(connect()).await.unwrap();
    let connection = tokio::spawn(connection);
    let (response, _) = send.send_request(post(), true).unwrap();
    let held = tokio::time::timeout(Duration::from_secs(3600), response);
    assert!(held.await.is_err());
    assert!(!connection.is_finished());
}

/// As h2spec asks for it, where nothing but HTTP/2 is spoken.
#[tokio::test(start_paused = true)]
async fn what_is_no_preface_ends_the_connection() {
    let mut far = connect();
    far.write_all(b"INVALID CONNECTION PREFACE\r\n\r\n")
        .await
        .unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}
