//! Requests that are held, and what may happen meanwhile.

use std::time::Duration;

use bowline::demo::node::{Fault, Kind, Manner, Node, Profile, Reaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::balancer::*;
use crate::clients::read_response;

/// Numbers that look random and are the same on every run (SplitMix64).
fn mixed(seed: u64, salt: u64) -> u64 {
    let mut mixed = (seed ^ salt).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

const SEED: u64 = 20_261_125;
const CLIENTS: u64 = 250;
const ROUNDS: u64 = 40;

fn ping(sid: &str, rid: u64) -> String {
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' rid='{rid}'>\
         <iq type='get' id='p{rid}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq></body>"
    );
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What a client does in one round.
async fn round(stream: &mut TcpStream, sid: &str, rid: u64, dice: u64) -> u64 {
    let first = ping(sid, rid);
    if !dice.is_multiple_of(5) {
        stream.write_all(first.as_bytes()).await.unwrap();
        let answer = read_response(stream).await;
        assert!(answer.contains(&format!("id=\"p{rid}\"")), "{answer}");
        return rid + 1;
    }
    // The next request comes early, in two parts, the first of them at any moment of the wait.
    let second = ping(sid, rid + 1);
    let cut = usize::try_from(dice / 7).unwrap_or(0) % second.len();
    let (head, tail) = second.as_bytes().split_at(cut);
    stream.write_all(first.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(dice / 11 % 50)).await;
    stream.write_all(head).await.unwrap();
    let answer = read_response(stream).await;
    assert!(answer.contains(&format!("id=\"p{rid}\"")), "{answer}");
    stream.write_all(tail).await.unwrap();
    let answer = read_response(stream).await;
    let next = rid + 1;
    assert!(answer.contains(&format!("id=\"p{next}\"")), "{answer}");
    rid + 2
}

/// After 10 to 20 ms a held exchange gets a timer and its connections are watched; the node answers after
/// 12 to 48.
#[tokio::test]
async fn answers_at_the_very_moment_when_timers_begin_arrive_once_and_whole() {
    let profile = Profile::tigase("t1")
        .batching(Duration::ZERO)
        .with_script(|seen| {
            let rid = seen.rid.unwrap_or(0);
            let micros = 12_000 + mixed(SEED, rid) % 36_000;
            match seen.kind {
                Kind::Send => {
                    Reaction::ServeAs(Manner::default().slow(Duration::from_micros(micros)))
                }
                _ => Reaction::Serve,
            }
        });
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = balancer.session().await;
        let address = balancer.address();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut rid = client.rid() + 1;
            for turn in 0..ROUNDS {
                let dice = mixed(SEED, number << 32 | turn);
                rid = round(&mut stream, client.sid(), rid, dice).await;
            }
            drop(stream);
            rid - client.rid() - 1
        });
    }
    let answered: u64 = clients.join_all().await.into_iter().sum();
    assert!(answered >= 10_000, "{answered}");
    let sends = nodes[0].count(|seen| seen.kind == Kind::Send);
    assert_eq!(
        u64::try_from(sends).unwrap(),
        answered,
        "each reached the node once"
    );
    let ok = "bowline_requests_total{kind=\"send\",outcome=\"ok\"}";
    assert_eq!(balancer.metric(ok), answered);
    eventually("nothing is held", || balancer.held() == 0).await;
    eventually("no connection is open", || {
        balancer.proxy().metrics.connections.get() == 0
    })
    .await;
}

/// RFC 9112 §9.6 lets a client close its sending side only; no BOSH client does, and one that
/// died shows the same. What its node has for it waits for the session's next request.
#[tokio::test]
async fn a_client_that_half_closes_while_it_is_held_counts_as_gone() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let poll = crate::clients::post(client.sid(), client.rid() + 1);
    stream.write_all(poll.as_bytes()).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    stream.shutdown().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    eventually("nothing is held", || balancer.held() == 0).await;
    assert!(nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='kept'/>"));
    let mut again = TcpStream::connect(balancer.address()).await.unwrap();
    again.write_all(poll.as_bytes()).await.unwrap();
    assert!(read_response(&mut again).await.contains("kept"));
}

/// What has no timer while it is young must get one although nothing wakes it: 1 s of `wait` and
/// 10 s more, then the request is sent again.
#[tokio::test]
async fn an_answer_that_never_comes_is_overdue_on_a_connection_that_closes() {
    let profile = Profile::tigase("t1").wait_limit(1);
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let rid = client.rid() + 1;
    let fault = Fault::never_answering().on(move |seen| seen.rid == Some(rid));
    nodes[0].misbehave(fault.once());
    let poll = crate::clients::post(client.sid(), rid)
        .replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n");
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.write_all(poll.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, read_response(&mut stream)).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(nodes[0].count(|seen| seen.rid == Some(rid)), 2);
}

/// An answer that needs no node is there before the connection has ever waited.
#[tokio::test]
async fn connections_behind_any_answer_become_idle_and_close_at_the_drain() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut streams = Vec::new();
    for (method, count) in [("OPTIONS", 1), ("GET", 1), ("OPTIONS", 50)] {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        let request = format!("{method} /http-bind HTTP/1.1\r\nHost: a\r\n\r\n");
        stream
            .write_all(request.repeat(count).as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        while answer.matches("HTTP/1.1 200 OK").count() < count {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            answer += std::str::from_utf8(&bytes[..read]).unwrap();
        }
        streams.push(stream);
    }
    let drained = tokio::time::timeout(PATIENCE, balancer.server.drain());
    drained.await.expect("nothing is left to wait for");
}

/// The balancer reads on while a request is held, or the end of the connection would hide behind what
/// came early: an empty line, half a head, a whole request.
#[tokio::test]
async fn bytes_behind_a_held_request_do_not_hide_the_end_of_its_client() {
    let mut hidden = Vec::new();
    for version in [
        "HTTP/1.1",
        "HTTP/1.1\r\nConnection: close",
        "HTTP/1.0\r\nConnection: keep-alive",
    ] {
        for early in ["\r\n", "POST /http-bind HTTP/1.1\r\nHost: a\r\n", "whole"] {
            let nodes = tigase_nodes(1).await;
            let balancer = Balancer::before(&nodes).await;
            let client = balancer.session().await;
            let poll = |rid| crate::clients::post(client.sid(), rid);
            let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
            let first = poll(client.rid() + 1).replace("HTTP/1.1", version);
            stream.write_all(first.as_bytes()).await.unwrap();
            nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
            // It has been held for a while when more comes.
            tokio::time::sleep(Duration::from_millis(40)).await;
            let next = poll(client.rid() + 2);
            let early = if early == "whole" { &next } else { early };
            stream.write_all(early.as_bytes()).await.unwrap();
            drop(stream);
            let released = nodes[0].wait_until(|node| node.held() == 0);
            let released = tokio::time::timeout(Duration::from_secs(2), released).await;
            if !matches!(released, Ok(Ok(()))) {
                let early = &early[..early.len().min(40)];
                hidden.push(format!("{version:?}, then {early:?}"));
            }
        }
    }
    assert!(hidden.is_empty(), "{} of 9: {hidden:#?}", hidden.len());
}
