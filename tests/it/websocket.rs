//! WebSocket: upgrades, tunnels, and how they end.

mod ends;
mod fronts;
mod hostile;
mod refusals;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bowline::config::{Placement, Settings, WebSocket, WebSocketUrl};
use bowline::demo::node::Node;

use rustls::version::TLS13;

use crate::balancer::*;
use crate::support::node_front::{NodeFront, server, trusting};
use crate::support::tls::Authority;
use wire::{CLOSE, KEY, OPEN, Peer, WebSocketNode, field};

/// Nodes that serve BOSH and WebSocket, and a balancer in front of them.
struct World {
    nodes: Vec<Node>,
    websockets: Vec<WebSocketNode>,
    balancer: Balancer,
}

/// Settings for `nodes`, whose WebSockets are `websockets`.
fn tunnelling(nodes: &[Node], websockets: &[WebSocketNode]) -> Settings {
    let mut settings = settings(nodes);
    settings.websocket = Some(WebSocket::default());
    settings.placement = Placement::RoundRobin;
    settings.health.slow_start = Duration::ZERO;
    settings.placement_wait = Duration::from_secs(1);
    for (node, websocket) in settings.nodes.iter_mut().zip(websockets) {
        node.websocket = Some(WebSocketUrl {
            tls: false,
            address: websocket.address.to_string(),
            path: "/ws".to_owned(),
        });
    }
    settings
}

impl World {
    async fn of(count: usize) -> Self {
        Self::with(count, |_| ()).await
    }

    async fn with(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let nodes = tigase_nodes(count).await;
        let mut websockets = Vec::new();
        for _ in 0..count {
            websockets.push(WebSocketNode::start().await);
        }
        let mut settings = tunnelling(&nodes, &websockets);
        change(&mut settings);
        let balancer = Balancer::start(&settings).await;
        Self {
            nodes,
            websockets,
            balancer,
        }
    }

    /// A client's answer to its upgrade.
    async fn upgrade(&self, request: &str) -> Result<(Peer, String), String> {
        Peer::connect(self.balancer.address(), request).await
    }

    /// A tunnel to the node at this place, both ends of it.
    async fn tunnel(&mut self, at: usize) -> (Peer, Peer) {
        let (client, _) = self.upgrade(&upgrade("")).await.unwrap();
        let (_, node) = self.websockets[at].tunnel().await;
        (client, node)
    }

    /// The same, with an XMPP stream.
    async fn stream(&mut self, at: usize) -> (Peer, Peer) {
        let (mut client, mut node) = self.tunnel(at).await;
        client.text(OPEN).await;
        node.expect(0x81, OPEN).await;
        node.text(OPEN).await;
        client.expect(0x81, OPEN).await;
        (client, node)
    }

    fn open(&self) -> u64 {
        self.balancer.metric("bowline_websocket_tunnels{")
    }

    /// Waits until a tunnel has ended for this cause, and none for another.
    async fn ended(&self, cause: &str) {
        let series = "bowline_websocket_ended_total{";
        let ended = || self.balancer.metric(series);
        eventually("a tunnel has ended", || ended() == 1).await;
        let page = self.balancer.metrics();
        let causes: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with(series) && !line.ends_with(" 0"))
            .collect();
        let label = format!("cause=\"{cause}\"");
        assert!(
            causes.iter().all(|line| line.contains(&label)),
            "{causes:?}"
        );
        assert_eq!(self.open(), 0);
        assert_eq!(self.balancer.metric("bowline_sessions{"), 0);
    }
}

/// An upgrade with these fields besides.
fn upgrade(more: &str) -> String {
    format!(
        "GET /xmpp-websocket HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: xmpp\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_tunnel_to_a_node_goes_through_its_tls() {
    let (authority, name) = (Authority::new(), "t1.example.com");
    let tls = server(&authority.issue(name), &[&TLS13]);
    let nowhere = ([127, 0, 0, 1], 1).into();
    let bosh = NodeFront::start(Some(Arc::clone(&tls)), nowhere).await;
    let websocket = NodeFront::start(Some(tls), nowhere).await;
    let mut world = World::with(1, |settings| {
        let node = &mut settings.nodes[0];
        node.tls = Some(trusting(&authority, name));
        bosh.lead_to(node.address.parse().unwrap());
        node.address = bosh.address.to_string();
        let url = node.websocket.as_mut().unwrap();
        websocket.lead_to(url.address.parse().unwrap());
        url.address = websocket.address.to_string();
        url.tls = true;
    })
    .await;
    let (mut client, mut node) = world.stream(0).await;
    let large = vec![b'l'; 1_000_000];
    for _ in 0..3 {
        client.text(&large).await;
        node.expect(0x81, &large).await;
        node.text(&large).await;
        client.expect(0x81, &large).await;
    }
    assert_eq!(websocket.seen().shaken.len(), 1);
    client.text(CLOSE).await;
    node.expect(0x81, CLOSE).await;
    node.text(CLOSE).await;
    client.expect(0x81, CLOSE).await;
    client.send(0x88, &1000_u16.to_be_bytes()).await;
    node.expect(0x88, &1000_u16.to_be_bytes()).await;
    drop(node);
    world.ended("client_closed").await;
}

#[tokio::test]
async fn frames_pass_both_ways_as_they_are() {
    let mut world = World::of(1).await;
    let extension = "Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: https://a.example\r\n";
    let (mut client, answer) = world.upgrade(&upgrade(extension)).await.unwrap();
    assert_eq!(
        field(&answer, "sec-websocket-accept").unwrap(),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(
        field(&answer, "sec-websocket-protocol").as_deref(),
        Some("xmpp")
    );
    assert_eq!(field(&answer, "sec-websocket-extensions"), None);
    let (head, mut node) = world.websockets[0].tunnel().await;
    assert!(head.starts_with("GET /ws HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", "chat.example.com"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-protocol", "xmpp"),
        ("sec-websocket-version", "13"),
        ("origin", "https://a.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "chat.example.com"),
    ] {
        assert_eq!(field(&head, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(field(&head, "sec-websocket-extensions"), None);
    let (middle, large) = (vec![b'm'; 3000], vec![b'l'; 300_000]);
    for payload in [OPEN, b"", &middle, &large] {
        client.text(payload).await;
        node.expect(0x81, payload).await;
        node.text(payload).await;
        client.expect(0x81, payload).await;
    }
    // Fragments, with a ping of the client between them, and the node's pong.
    client.send(0x01, b"<mess").await;
    client.send(0x89, b"p").await;
    client.send(0x80, b"age/>").await;
    for (first, payload) in [(0x01, &b"<mess"[..]), (0x89, b"p"), (0x80, b"age/>")] {
        node.expect(first, payload).await;
    }
    node.send(0x8a, b"p").await;
    client.expect(0x8a, b"p").await;
    assert_eq!(world.open(), 1);
    assert_eq!(world.balancer.metric("bowline_sessions{"), 1);
    // The closing handshake, begun by the client.
    client.text(CLOSE).await;
    node.expect(0x81, CLOSE).await;
    node.text(CLOSE).await;
    client.expect(0x81, CLOSE).await;
    client.send(0x88, &1000_u16.to_be_bytes()).await;
    node.expect(0x88, &1000_u16.to_be_bytes()).await;
    node.send(0x88, &1000_u16.to_be_bytes()).await;
    drop(node);
    client.expect_close(1000).await;
    world.ended("client_closed").await;
    let requests = "bowline_requests_total{kind=\"websocket\",outcome=\"ok\"}";
    assert_eq!(world.balancer.metric(requests), 1);
}

#[tokio::test]
async fn what_both_sides_send_at_once_arrives() {
    let mut world = World::of(1).await;
    let open = wire::frame(false, 0x81, OPEN);
    world.websockets[0].follow(wire::Script::Agree(open));
    let early = wire::frame(true, 0x81, OPEN);
    let request = [upgrade("").as_bytes(), &early].concat();
    let connected = Peer::connect_with(world.balancer.address(), &request).await;
    let (mut client, _) = connected.unwrap();
    let (_, mut node) = world.websockets[0].tunnel().await;
    node.expect(0x81, OPEN).await;
    client.expect(0x81, OPEN).await;
}

#[tokio::test]
async fn a_tunnel_counts_as_a_session_of_its_node() {
    let mut world = World::with(2, |settings| {
        settings.placement = Placement::LeastSessions;
        settings.nodes[0].max_sessions = 1;
        settings.nodes[1].max_sessions = 2;
    })
    .await;
    let mut bosh = Vec::new();
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let (client, _) = world.upgrade(&upgrade("")).await.unwrap();
        tunnels.push(client);
    }
    for websocket in &mut world.websockets {
        let (_, node) = websocket.tunnel().await;
        tunnels.push(node);
    }
    bosh.push(world.balancer.session().await);
    assert!(world.nodes[1].owns(bosh[0].sid()), "the only one with room");
    let full = world.upgrade(&upgrade("")).await.unwrap_err();
    assert!(full.starts_with("HTTP/1.1 503 "), "{full}");
    assert!(full.contains("retry-after: 5"), "{full}");
    assert_eq!(
        world
            .balancer
            .metric("bowline_rejects_total{cause=\"nodes_full\"}"),
        1
    );
    drop(tunnels);
    eventually("the tunnels are over", || world.open() == 0).await;
    assert!(world.upgrade(&upgrade("")).await.is_ok());
}

#[tokio::test]
async fn a_query_reaches_the_node_only_where_it_may() {
    let target = "/xmpp-websocket?room=a%20b&previd=7-x_y";
    let request = upgrade("").replace("/xmpp-websocket", target);
    for (query, expected) in [
        (bowline::config::QueryPolicy::Drop, "GET /ws HTTP/1.1\r\n"),
        (
            bowline::config::QueryPolicy::Pass,
            "GET /ws?room=a%20b&previd=7-x_y HTTP/1.1\r\n",
        ),
    ] {
        let mut world = World::with(1, |settings| {
            settings.websocket.as_mut().unwrap().query = query;
        })
        .await;
        let _client = world.upgrade(&request).await.unwrap();
        let (head, _node) = world.websockets[0].tunnel().await;
        assert!(head.starts_with(expected), "{head}");
    }
}

#[tokio::test]
async fn a_node_without_a_url_takes_websocket_at_its_address() {
    let mut websocket = WebSocketNode::start().await;
    let nodes = vec![bowline::config::NodeSettings::new(
        "t1",
        websocket.address.to_string(),
    )];
    let mut settings = Settings::for_nodes(nodes);
    settings.websocket = Some(WebSocket::default());
    settings.health.probe = bowline::config::Probe::Tcp;
    settings.health.rise = 1;
    let balancer = Balancer::start(&settings).await;
    let _client = Peer::connect(balancer.address(), &upgrade(""))
        .await
        .unwrap();
    let (head, _node) = websocket.tunnel().await;
    assert!(
        head.starts_with("GET /xmpp-websocket HTTP/1.1\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn bosh_goes_on_beside_it() {
    let world = World::of(1).await;
    let mut client = world.balancer.session().await;
    assert_goes_on(&client.ping("1").await.unwrap());
}
