//! The end of the balancer: in order, or at the deadline; and starts that fail.

use std::net::SocketAddr;
use std::time::Duration;

use bowline::server::{Server, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::balancer::*;
use crate::process::{Process, Start};

/// Waits until nothing listens at `address`.
async fn until_refused(address: SocketAddr) {
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    let refused = tokio::time::timeout(PATIENCE, refused).await;
    refused.expect("the listener closes");
}

#[tokio::test]
async fn held_polls_are_answered_and_idle_connections_close() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let address = balancer.address();
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    eventually("it is accepted", || {
        balancer.proxy().metrics.connections.get() >= 2
    })
    .await;

    let drained = tokio::spawn(balancer.server.drain());
    assert_eq!(
        idle.read(&mut [0; 8]).await.unwrap(),
        0,
        "the idle connection closes"
    );
    until_refused(address).await;
    assert!(!drained.is_finished(), "a poll is still held");
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='last'/>");
    let reply = poll.reply().await.unwrap();
    assert!(reply.text().contains("last"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
}

#[tokio::test]
async fn the_deadline_cuts_what_is_still_held() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.drain = Duration::from_millis(200);
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let begun = Instant::now();
    assert_eq!(balancer.server.drain().await, 1);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(poll.reply().await.is_err());
    nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
}

#[tokio::test]
async fn ready_says_no_from_the_first_moment_and_clients_are_served_during_the_notice() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.drain_notice = Duration::from_millis(500);
    let balancer = Balancer::start(&settings).await;
    let admin = bowline::demo::client::Client::to(balancer.server.admin_address().unwrap());
    let ready = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(admin.post_raw(ready).await.unwrap().status, 200);
    let mut client = balancer.client();
    let drained = tokio::spawn(balancer.server.drain());
    tokio::task::yield_now().await;
    assert_eq!(admin.post_raw(ready).await.unwrap().status, 503);
    client.create().await.unwrap();
    drained.await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_started() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut settings = settings(&nodes);
    settings.listen.push(bowline::config::Listen {
        address: balancer.address(),
    });
    match Server::start(&settings) {
        Err(error @ StartError::Bind { address, .. }) => {
            assert_eq!(address, balancer.address());
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_that_is_done_leaves_the_others_their_connections() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.threads = 4;
    let balancer = Balancer::start(&settings).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        // The creation's connection to the node belongs to the worker that accepted its client;
        // the poll goes over it from whichever worker accepts the second client.
        let mut client = balancer.session().await;
        client.hang_up();
        let poll = client.begin_poll().await.unwrap();
        held.push((client, poll));
    }
    nodes[0].wait_until(|node| node.held() == 16).await.unwrap();
    let drained = tokio::spawn(balancer.server.drain());
    while held.len() > 1 {
        let (client, poll) = held.remove(0);
        nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
        assert!(poll.reply().await.unwrap().text().contains("id='m'"));
        assert_eq!(seen_of(&nodes[0], client.sid()).len(), 1, "sent once");
    }
    let (client, poll) = held.remove(0);
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    poll.reply().await.unwrap();
    assert_eq!(seen_of(&nodes[0], client.sid()).len(), 1, "sent once");
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_signal_waits_for_nobody() {
    let nodes = tigase_nodes(1).await;
    let start = Start {
        more: "log: { format: json }\ntimeouts: { drain: 1h }",
        ..Start::default()
    };
    let mut process = Process::start(&nodes, &start).await;
    let mut client = process.client();
    client.create().await.unwrap();
    let _poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    process.terminate();
    while process.admin("/ready").await.body != "draining\n" {}
    process.terminate();
    assert!(process.wait().await.success());
    let lines = process.lines();
    let told = |words: &str| lines.iter().any(|line| line["message"] == words);
    assert!(
        told("not waiting any longer") && !told("drained"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_hangup_ends_nothing_and_the_log_says_what_to_do() {
    let nodes = tigase_nodes(1).await;
    let mut process = Process::start(&nodes, &Start::default()).await;
    let mut client = process.client();
    client.create().await.unwrap();
    process.signal("HUP");
    let line = process
        .line("SIGHUP", |line| line["signal"] == "SIGHUP")
        .await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("restart Bowline"), "{message}");
    assert_eq!(line["level"], "WARN");
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    assert!(poll.reply().await.unwrap().text().contains("id='m'"));
    process.terminate();
    assert!(process.wait().await.success());
}

#[tokio::test]
async fn an_old_client_that_stays_is_sent_away_with_one_connection_field() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{}' rid='{}'/>",
        client.sid(),
        client.rid() + 1
    );
    let request = format!(
        "POST /http-bind HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut old = TcpStream::connect(balancer.address()).await.unwrap();
    old.write_all(request.as_bytes()).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let address = balancer.address();
    let drained = tokio::spawn(balancer.server.drain());
    until_refused(address).await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='last'/>");
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    let fields = answer
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("connection:"));
    assert_eq!(
        fields.collect::<Vec<_>>(),
        ["connection: close"],
        "{answer}"
    );
    drained.await.unwrap();
}
