//! The end of the balancer: in order, or at the deadline; and starts that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::config::Release;
use bowline::demo::client::{Client, Pending, Reply};
use bowline::demo::node::{Ending, Fate, Fault, Hub, Kind, Manner, Node, Profile, Reaction, Seen};
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

/// The last answer of a process that stops: nothing is in it, and its client is to go elsewhere.
fn assert_released(reply: &Reply) {
    assert_goes_on(reply);
    assert!(reply.is_empty(), "{reply:?}");
    assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

/// Clients with a poll that their node holds.
async fn polling(balancer: &Balancer, node: &Node, count: usize) -> Vec<(Client, Pending)> {
    let mut polls = Vec::new();
    for _ in 0..count {
        let mut client = balancer.session().await;
        let poll = client.begin_poll().await.unwrap();
        polls.push((client, poll));
    }
    let held = |node: &Node| node.held() == count;
    node.wait_until(held).await.unwrap();
    polls
}

/// The same client, at another balancer.
fn moved(client: &Client, balancer: &Balancer) -> Client {
    let mut other = balancer.client();
    other.adopt(client.sid(), client.rid());
    other
}

async fn assert_polls_are_released(profile: Profile, within: Duration) {
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let next = Balancer::before(&nodes).await;
    let address = balancer.address();
    let polls = polling(&balancer, &nodes[0], 24).await;
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    for (client, poll) in polls {
        assert_released(&poll.reply().await.unwrap());
        let mut client = moved(&client, &next);
        let poll = client.begin_poll().await.unwrap();
        assert!(nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>"));
        let reply = poll.reply().await.unwrap();
        assert!(reply.text().contains("id='m'"), "{reply:?}");
    }
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
    let took = begun.elapsed();
    assert!(took < within, "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_releases_the_polls_of_a_tigase() {
    let within = Duration::from_secs(1);
    assert_polls_are_released(Profile::tigase("t1"), within).await;
}

#[tokio::test]
async fn a_stop_releases_the_polls_of_a_prosody() {
    let within = Duration::from_secs(1);
    assert_polls_are_released(Profile::prosody("p1"), within).await;
}

/// It does not notice a half-close: `keep` is for it. The stop is short all the same.
#[tokio::test]
async fn a_node_that_does_not_notice_is_waited_for_a_second() {
    let nodes = [Node::start(Profile::shared("e1", &Hub::default()))
        .await
        .unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let polls = polling(&balancer, &nodes[0], 24).await;
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    for (_, poll) in polls {
        assert_released(&poll.reply().await.unwrap());
    }
    assert_eq!(drained.await.unwrap(), 0);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_frozen_node_does_not_hold_up_a_stop() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let polls = polling(&balancer, &nodes[0], 3).await;
    nodes[0].freeze();
    let drained = tokio::spawn(balancer.server.drain());
    for (_, poll) in polls {
        assert_released(&poll.reply().await.unwrap());
    }
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn a_stanza_at_the_moment_of_a_stop_reaches_its_client_once() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let next = Balancer::before(&nodes).await;
    let polls = polling(&balancer, &nodes[0], 200).await;
    let drained = tokio::spawn(balancer.server.drain());
    for (number, (client, _)) in polls.iter().enumerate() {
        let stanza = format!("<message xmlns='jabber:client' id='m{number}'/>");
        assert!(nodes[0].push(client.sid(), stanza));
        tokio::task::yield_now().await;
    }
    let mut at_once = 0;
    for (number, (client, poll)) in polls.into_iter().enumerate() {
        let id = format!("id='m{number}'");
        let reply = poll.reply().await.unwrap();
        assert_goes_on(&reply);
        if reply.is_empty() {
            let reply = moved(&client, &next).poll().await.unwrap();
            assert!(reply.text().contains(&id), "lost: {id} {reply:?}");
        } else {
            assert!(reply.text().contains(&id), "{reply:?}");
            at_once += 1;
        }
    }
    assert_eq!(drained.await.unwrap(), 0);
    assert!(at_once > 0, "none came with the answer of its node");
}

#[tokio::test]
async fn requests_that_are_no_polls_get_their_answers() {
    let slow = |seen: &Seen| match seen.kind {
        Kind::Create | Kind::Send => {
            Reaction::ServeAs(Manner::default().slow(Duration::from_millis(300)))
        }
        _ => Reaction::Serve,
    };
    let nodes = [Node::start(Profile::tigase("t1").with_script(slow))
        .await
        .unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let ping = "<iq type='get' id='p' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>";
    let ping = client.begin("", ping).await.unwrap();
    let creation = balancer.client();
    let creation = creation
        .begin_post(&crate::routing::creation())
        .await
        .unwrap();
    let is_sent = |kind| move |seen: &Seen| seen.kind == kind;
    nodes[0]
        .wait_until(|node| node.count(is_sent(Kind::Send)) == 1)
        .await
        .unwrap();
    nodes[0]
        .wait_until(|node| node.count(is_sent(Kind::Create)) == 2)
        .await
        .unwrap();
    let drained = tokio::spawn(balancer.server.drain());
    let reply = ping.reply().await.unwrap();
    assert!(reply.text().contains("id=\"p\""), "{reply:?}");
    assert_eq!(reply.header("connection"), Some("close"));
    let reply = creation.reply().await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    assert_eq!(drained.await.unwrap(), 0);
}

/// A client that talks has its last stanzas held, and no poll beside them: to wait for those as well
/// would make the stop as long as `wait`.
#[tokio::test]
async fn a_request_with_stanzas_that_is_held_like_a_poll_is_released_like_one() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let next = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let presence = "<presence xmlns='jabber:client'/>";
    let held = client.begin("", presence).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    assert_released(&held.reply().await.unwrap());
    let mut client = moved(&client, &next);
    let poll = client.begin_poll().await.unwrap();
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    assert!(poll.reply().await.unwrap().text().contains("id='m'"));
    assert_eq!(drained.await.unwrap(), 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let sent = nodes[0].count(|seen| seen.kind == Kind::Send);
    assert_eq!(sent, 1, "its stanza went to the node once");
}

#[tokio::test]
async fn a_client_that_has_just_connected_is_still_served() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let mut silent = TcpStream::connect(balancer.address()).await.unwrap();
    let connections = balancer.proxy().metrics.connections.clone();
    eventually("they are accepted", || connections.get() == 3).await;
    let address = balancer.address();
    let drained = tokio::spawn(balancer.server.drain());
    until_refused(address).await;
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{}' rid='{}'/>",
        client.sid(),
        client.rid() + 1
    );
    let request = format!(
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    // The node must not miss a rid.
    assert_eq!(
        nodes[0].count(|seen| seen.kind == Kind::Poll && seen.sid.as_deref() == Some(client.sid())),
        1
    );
    assert_eq!(
        silent.read(&mut [0; 8]).await.unwrap(),
        0,
        "a silent one closes"
    );
    assert_eq!(drained.await.unwrap(), 0);
}

/// A poll of this client that waits inside the balancer.
async fn waiting_poll(balancer: &Balancer, client: &mut Client) -> Pending {
    let poll = client.begin_poll().await.unwrap();
    let sessions = Arc::clone(&balancer.proxy().sessions);
    let under_way = || {
        sessions
            .find(client.sid())
            .map(|session| session.under_way())
    };
    eventually("it is under way", || under_way() == Some(1)).await;
    poll
}

#[tokio::test]
async fn a_poll_that_waits_for_a_lower_rid_is_released() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let sid = client.sid().to_owned();
    client.adopt(&sid, client.rid() + 1);
    let poll = waiting_poll(&balancer, &mut client).await;
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    assert_released(&poll.reply().await.unwrap());
    assert_eq!(drained.await.unwrap(), 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let polls = nodes[0].count(|seen| seen.kind == Kind::Poll && seen.sid.as_ref() == Some(&sid));
    assert_eq!(polls, 1, "the node has seen its rid");
}

#[tokio::test]
async fn a_poll_that_waits_for_a_node_is_released() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    nodes[0].kill(Ending::Eof).await;
    let proxy = Arc::clone(balancer.proxy());
    eventually("the node is down", || !proxy.cluster.any_up()).await;
    let poll = waiting_poll(&balancer, &mut client).await;
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    assert_released(&poll.reply().await.unwrap());
    assert_eq!(drained.await.unwrap(), 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_poll_that_waits_for_a_probe_is_released() {
    let nodes = tigase_nodes(1).await;
    let mut settings = patient(&nodes);
    settings.health.timeout = Duration::from_secs(60);
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    // The node closes on this session, and keeps a probe waiting.
    let sid = client.sid().to_owned();
    nodes[0].misbehave(Fault::never_answering());
    let of = sid.clone();
    nodes[0].misbehave(Fault::resetting().on(move |seen| seen.sid.as_ref() == Some(&of)));
    let poll = client.begin_poll().await.unwrap();
    let asked = |node: &Node| {
        let probes = node.count(|seen| matches!(seen.fate, Fate::Misbehaved("never_answering")));
        seen_of(node, &sid).len() == 3 && probes > 0
    };
    nodes[0].wait_until(asked).await.unwrap();
    let begun = Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    assert_released(&poll.reply().await.unwrap());
    assert_eq!(drained.await.unwrap(), 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// From the signal to the end of the process, with so many polls held.
async fn stop_with(count: usize) -> Duration {
    let nodes = [Node::start(Profile::tigase("t1").without_record())
        .await
        .unwrap()];
    let mut process = Process::start(&nodes, &Start::default()).await;
    let mut polls = Vec::new();
    for _ in 0..count {
        let mut client = process.client();
        client.create().await.unwrap();
        let poll = client.begin_poll().await.unwrap();
        polls.push(tokio::spawn(async move {
            let reply = poll.reply().await.unwrap();
            drop(client);
            reply
        }));
    }
    let held = |node: &Node| node.held() == count;
    nodes[0].wait_until(held).await.unwrap();
    let begun = Instant::now();
    process.terminate();
    let status = process.wait().await;
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    for poll in polls {
        assert_released(&poll.await.unwrap());
    }
    took
}

/// 500 polls, or `STOP_POLLS` of them. The target is 10,000; 9,500 fit below a limit of 20,000 open
/// files in each process, and need an optimised build: `STOP_POLLS=9500 cargo test --profile tools`.
#[tokio::test]
async fn a_stop_with_many_held_polls_is_short() {
    let polls = std::env::var("STOP_POLLS").map_or(500, |text| text.parse().expect("a number"));
    let took = stop_with(polls).await;
    println!("{polls} held polls: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn polls_that_are_kept_run_out_and_clients_are_served_meanwhile() {
    let nodes = [Node::start(Profile::shared("e1", &Hub::default()))
        .await
        .unwrap()];
    let mut settings = settings(&nodes);
    settings.upstream.release = Release::Keep;
    let balancer = Balancer::start(&settings).await;
    let address = balancer.address();
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let newcomer = balancer.client();
    let drained = tokio::spawn(balancer.server.drain());
    assert_eq!(
        idle.read(&mut [0; 8]).await.unwrap(),
        0,
        "the idle connection closes"
    );
    let reply = newcomer.post(&crate::routing::creation()).await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(!drained.is_finished(), "a poll is still held");
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='last'/>");
    let reply = poll.reply().await.unwrap();
    assert!(reply.text().contains("last"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_deadline_cuts_what_is_still_held() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.drain = Duration::from_millis(200);
    settings.upstream.release = Release::Keep;
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
    let admin = Client::to(balancer.server.admin_address().unwrap());
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
    let taken = bowline::config::Listen::new(balancer.address());
    settings.listen.push(taken);
    match Server::start(&settings) {
        Err(error @ StartError::Bind(_)) => {
            let address = balancer.address();
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
    settings.upstream.release = Release::Keep;
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
        more: "log: { format: json }\ntimeouts: { drain: 1h }\nupstream: { release: keep }",
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
        told("second signal: not waiting any longer") && !told("drained"),
        "{lines:?}"
    );
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
    let drained = tokio::spawn(balancer.server.drain());
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
