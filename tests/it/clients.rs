//! What clients do to a connection while a request is held: go away, come early, stay.

use std::time::Duration;

use bowline::demo::node::{Kind, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balancer::*;

pub(crate) fn post(sid: &str, rid: u64) -> String {
    let body =
        format!("<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' rid='{rid}'/>");
    format!(
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one answer's bytes, by its `content-length`.
pub(crate) async fn read_response(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8(seen.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return text;
            }
        }
        assert_ne!(
            stream.read_buf(&mut seen).await.unwrap(),
            0,
            "closed after {text:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_at_the_node() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    for reset in [false, true] {
        let mut client = balancer.session().await;
        // The creation's connection is idle at the node, the poll goes over it.
        let rid = client.rid() + 1;
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream
            .write_all(post(client.sid(), rid).as_bytes())
            .await
            .unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        if reset {
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        drop(stream);
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
        eventually("nothing is held", || balancer.held() == 0).await;
        // The stanza that comes meanwhile is there for the next request.
        assert!(nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='kept'/>"));
        let sid = client.sid().to_owned();
        client.adopt(&sid, rid);
        let reply = client.poll().await.unwrap();
        assert!(reply.text().contains("kept"), "reset {reset}: {reply:?}");
    }
    assert_eq!(
        balancer.metric("bowline_requests_total{kind=\"poll\",outcome=\"client_gone\"}"),
        2
    );
}

#[tokio::test]
async fn held_and_quick_answers_are_byte_for_byte_the_same() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let mut answers = Vec::new();
    for (round, hold) in [
        (1, Duration::ZERO),
        (2, Duration::from_millis(120)),
        (3, Duration::ZERO),
    ] {
        let rid = client.rid() + round;
        if hold.is_zero() {
            nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
        }
        stream
            .write_all(post(client.sid(), rid).as_bytes())
            .await
            .unwrap();
        if !hold.is_zero() {
            let sid = client.sid();
            nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
            // Long enough for the balancer to have taken hyper's buffers away.
            tokio::time::sleep(hold).await;
            nodes[0].push(sid, "<message xmlns='jabber:client' id='m'/>");
        }
        answers.push(read_response(&mut stream).await);
    }
    let form = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with("date: "))
            .collect();
        let mut attributes: Vec<&str> = body.split_whitespace().collect();
        attributes.sort_unstable();
        (head.join("\n"), attributes.join(" ").len())
    };
    assert_eq!(form(&answers[0]), form(&answers[2]));
    assert_eq!(form(&answers[0]).0, form(&answers[1]).0);
    let order = |answer: &str| {
        let head = answer.split_once("\r\n\r\n").unwrap().0;
        head.lines()
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&answers[0]), order(&answers[1]), "dates included");
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_held_is_served_after_it() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let first = post(client.sid(), client.rid() + 1);
    let second = post(client.sid(), client.rid() + 2);
    stream.write_all(first.as_bytes()).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let (early, rest) = second.as_bytes().split_at(40);
    stream.write_all(early).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='one'/>");
    assert!(read_response(&mut stream).await.contains("one"));
    stream.write_all(rest).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='two'/>");
    assert!(read_response(&mut stream).await.contains("two"));
}

#[tokio::test]
async fn two_requests_in_one_write_are_answered_in_order() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    let both = post(client.sid(), client.rid() + 1) + &post(client.sid(), client.rid() + 2);
    stream.write_all(both.as_bytes()).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='one'/>");
    assert!(read_response(&mut stream).await.contains("one"));
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='two'/>");
    assert!(read_response(&mut stream).await.contains("two"));
    assert_eq!(
        nodes[0].count(|seen| seen.kind == Kind::Poll && seen.sid.as_deref() == Some(client.sid())),
        2
    );
}

#[tokio::test]
async fn connection_close_and_http_1_0_are_answered_and_closed() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    for (number, version, field) in [(1, "1.1", "Connection: close\r\n"), (2, "1.0", "")] {
        let rid = client.rid() + number;
        let request =
            post(client.sid(), rid).replace("HTTP/1.1\r\n", &format!("HTTP/{version}\r\n{field}"));
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("id='m'"), "{answer}");
    }
}

#[tokio::test]
async fn many_held_polls_leave_nothing_behind() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let mut clients = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..200 {
        let mut client = balancer.session().await;
        polls.push(client.begin_poll().await.unwrap());
        clients.push(client);
    }
    eventually("all are held", || balancer.held() == 200).await;
    let at_nodes = || nodes.iter().map(Node::held).sum::<usize>();
    eventually("the nodes hold them", || at_nodes() == 200).await;
    drop(polls);
    eventually("none is held", || balancer.held() == 0).await;
    drop(clients);
    eventually("no connection is open", || {
        balancer.proxy().metrics.connections.get() == 0
    })
    .await;
}
