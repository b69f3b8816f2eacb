//! Upgrades that open no tunnel.

use std::time::Duration;

use bowline::config::Origins;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{Peer, Script, agreement};
use super::*;
use crate::http::raw;

#[tokio::test]
async fn without_the_section_there_is_no_websocket() {
    let mut world = World::with(1, |settings| settings.websocket = None).await;
    let answer = world.upgrade(&upgrade("")).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(world.websockets[0].is_untouched());
}

#[tokio::test]
async fn a_bad_upgrade_is_refused_with_a_wrapper() {
    let mut world = World::of(1).await;
    for (old, new, status, cause) in [
        (
            "Upgrade: websocket",
            "Upgrade: h2c",
            "426 Upgrade Required",
            "no_upgrade",
        ),
        (
            "Upgrade: websocket",
            "A: b",
            "426 Upgrade Required",
            "no_upgrade",
        ),
        (
            "Version: 13",
            "Version: 8",
            "426 Upgrade Required",
            "no_upgrade",
        ),
        ("HTTP/1.1", "HTTP/1.0", "400 Bad Request", "bad_upgrade"),
        (
            "Connection: Upgrade",
            "Connection: close",
            "400 Bad Request",
            "bad_upgrade",
        ),
        (": xmpp", ": chat", "400 Bad Request", "bad_upgrade"),
        (KEY, "c2hvcnQ=", "400 Bad Request", "bad_upgrade"),
        (
            "Sec-WebSocket-Key",
            "X-Key",
            "400 Bad Request",
            "bad_upgrade",
        ),
        ("GET", "PUT", "405 Method Not Allowed", "method"),
        ("GET", "OPTIONS", "405 Method Not Allowed", "method"),
        ("GET", "POST", "404 Not Found", "not_found"),
        (
            "/xmpp-websocket",
            "/xmpp-websocket/x",
            "404 Not Found",
            "not_found",
        ),
    ] {
        let series = format!("bowline_rejects_total{{cause=\"{cause}\"}}");
        let before = world.balancer.metric(&series);
        let request = upgrade("").replacen(old, new, 1);
        let answer = world.upgrade(&request).await.unwrap_err();
        let version = if new == "HTTP/1.0" {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        assert!(
            answer.starts_with(&format!("{version} {status}\r\n")),
            "{new}: {answer}"
        );
        assert!(answer.contains("type='terminate'"), "{answer}");
        assert_eq!(
            answer.contains("upgrade: websocket"),
            cause == "no_upgrade",
            "{answer}"
        );
        assert_eq!(world.balancer.metric(&series), before + 1, "{new}");
    }
    assert!(world.websockets[0].is_untouched());
    assert_eq!(world.balancer.metric("bowline_websocket_opened_total{"), 0);
}

#[tokio::test]
async fn a_connection_that_was_told_to_upgrade_goes_on() {
    let world = World::of(1).await;
    let plain = "GET /xmpp-websocket HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /http-bind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = raw(&world.balancer, format!("{plain}{last}").as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 426 "), "{answers}");
    assert!(answers.contains("BOSH service"), "{answers}");
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let mut world = World::with(1, |settings| {
        settings.cors.origins = Origins::Only(vec!["https://a.example".to_owned()]);
    })
    .await;
    for origin in ["Origin: https://b.example\r\n", "Origin: null\r\n"] {
        let answer = world.upgrade(&upgrade(origin)).await.unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    }
    assert!(world.websockets[0].is_untouched());
    for origin in ["Origin: https://a.example\r\n", ""] {
        assert!(world.upgrade(&upgrade(origin)).await.is_ok(), "{origin}");
    }
}

#[tokio::test]
async fn a_node_that_refuses_is_followed_by_the_next() {
    let mut world = World::of(2).await;
    let faults = [
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "<stream:error/>".to_owned(),
        String::new(),
        agreement("sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="),
        "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
    ];
    for fault in faults {
        world.websockets[0].follow(Script::Say(fault.clone()));
        // One of two goes to the node that refuses.
        for _ in 0..2 {
            let _client = world.upgrade(&upgrade("")).await.expect(&fault);
            let _node = world.websockets[1].tunnel().await;
        }
    }
    world.websockets[0].stop();
    for _ in 0..2 {
        let _client = world.upgrade(&upgrade("")).await.unwrap();
        let _node = world.websockets[1].tunnel().await;
    }
    assert!(world.websockets[0].is_untouched());
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_followed_by_the_next() {
    let mut world = World::of(2).await;
    world.websockets[0].follow(Script::Silent);
    for _ in 0..2 {
        let _client = world.upgrade(&upgrade("")).await.unwrap();
        let _node = world.websockets[1].tunnel().await;
    }
}

#[tokio::test]
async fn where_every_node_refuses_the_client_gets_503() {
    let world = World::of(2).await;
    for websocket in &world.websockets {
        let refused = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        websocket.follow(Script::Say(refused.to_owned()));
    }
    let answer = world.upgrade(&upgrade("")).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    for websocket in &world.websockets {
        websocket.stop();
    }
    let answer = world.upgrade(&upgrade("")).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let rejects = |cause| format!("bowline_rejects_total{{cause=\"{cause}\"}}");
    assert_eq!(world.balancer.metric(&rejects("creation_failed")), 1);
    assert_eq!(world.balancer.metric(&rejects("no_node")), 1);
    let requests = "bowline_requests_total{kind=\"websocket\",outcome=\"rejected\"}";
    assert_eq!(world.balancer.metric(requests), 2);
}

#[tokio::test]
async fn one_client_opens_no_more_tunnels_than_it_may() {
    let world = World::with(1, |settings| {
        settings.limits.exempt = Vec::new();
        settings.limits.creations_per_client = 1;
        settings.limits.creations_burst = 2;
    })
    .await;
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        tunnels.push(world.upgrade(&upgrade("")).await.unwrap());
    }
    let answer = world.upgrade(&upgrade("")).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(
        world
            .balancer
            .metric("bowline_rejects_total{cause=\"creation_rate\"}"),
        1
    );
}

#[tokio::test]
async fn an_upgrade_has_the_time_of_a_head() {
    let mut world = World::with(1, |settings| {
        settings.timeouts.head = Duration::from_millis(100);
    })
    .await;
    let stream = TcpStream::connect(world.balancer.address()).await.unwrap();
    let mut client = Peer::of(stream);
    let request = upgrade("");
    client
        .stream
        .write_all(&request.as_bytes()[..100])
        .await
        .unwrap();
    client.expect_end().await;
    assert!(world.websockets[0].is_untouched());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upgrade_along() {
    let mut world = World::of(1).await;
    world.websockets[0].follow(Script::Silent);
    let mut stream = TcpStream::connect(world.balancer.address()).await.unwrap();
    stream.write_all(upgrade("").as_bytes()).await.unwrap();
    let (_, mut node) = world.websockets[0].tunnel().await;
    drop(stream);
    node.expect_end().await;
    let gone = "bowline_requests_total{kind=\"websocket\",outcome=\"client_gone\"}";
    eventually("it is counted", || world.balancer.metric(gone) == 1).await;
}
