//! Clients that are gone without a word: no FIN, no RST.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balancer::*;

/// Whether the kernel has a keepalive timer on the balancer's end of this connection.
fn is_watched(balancer: SocketAddr, client: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |text: &str| u16::from_str_radix(text.rsplit(':').next()?, 16).ok();
    let mut ends = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ends = (port(columns[1])?, port(columns[2])?);
        // The kind of the timer: 2 is keepalive.
        (ends == (balancer.port(), client.port())).then(|| columns[5].starts_with("02:"))
    });
    ends.next().expect("the connection is there")
}

/// A poll of a new session, over a connection of its own; `version` ends its first line, and may go on
/// with a field.
async fn held_poll(balancer: &Balancer, version: &str) -> TcpStream {
    let client = balancer.session().await;
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{}' rid='{}'/>",
        client.sid(),
        client.rid() + 1
    );
    let request = format!(
        "POST /http-bind {version}\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_held_client_is_watched_by_tcp() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    for version in [
        "HTTP/1.1",
        "HTTP/1.1\r\nConnection: close",
        "HTTP/1.0\r\nConnection: keep-alive",
    ] {
        let poll = held_poll(&balancer, version).await;
        let own = poll.local_addr().unwrap();
        eventually(version, || is_watched(balancer.address(), own)).await;
    }
}

#[tokio::test]
async fn a_quick_client_costs_no_system_call_for_it() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let own = stream.local_addr().unwrap();
    for _ in 0..20 {
        stream
            .write_all(b"GET /http-bind HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 1024];
        let _ = stream.read(&mut answer).await.unwrap();
    }
    assert!(!is_watched(balancer.address(), own));
}
