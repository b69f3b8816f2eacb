//! How tunnels end: by a client, a node, the operator, or the end of the balancer.

use std::time::Duration;

use tokio::time::Instant;

use super::wire::frame;
use super::*;
use crate::operator::admin;

/// What the balancer closes an XMPP stream with (RFC 7395 §3.6).
const STREAM_CLOSE: &[u8] = b"<close xmlns=\"urn:ietf:params:xml:ns:xmpp-framing\"/>";

#[tokio::test]
async fn a_client_that_is_gone_ends_its_node_s_connection() {
    let mut world = World::of(1).await;
    let (client, mut node) = world.stream(0).await;
    drop(client);
    node.expect_end().await;
    world.ended("client_gone").await;
}

#[tokio::test]
async fn what_a_client_says_last_reaches_its_node() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.stream(0).await;
    client.text(CLOSE).await;
    client.send(0x88, &1001_u16.to_be_bytes()).await;
    drop(client);
    node.expect(0x81, CLOSE).await;
    node.expect_close(1001).await;
    world.ended("client_closed").await;
}

#[tokio::test]
async fn a_node_that_closes_is_passed_on() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.stream(0).await;
    node.text(CLOSE).await;
    node.send(0x88, &1000_u16.to_be_bytes()).await;
    drop(node);
    client.expect(0x81, CLOSE).await;
    client.expect_close(1000).await;
    world.ended("node_closed").await;
}

#[tokio::test]
async fn the_client_of_a_killed_node_is_at_another_one_within_a_second() {
    let mut world = World::of(2).await;
    let (mut client, node) = world.stream(0).await;
    let killed = Instant::now();
    world.websockets[0].stop();
    world.nodes[0]
        .kill(bowline::demo::node::Ending::Reset)
        .await;
    drop(node);
    client.expect_close(1001).await;
    let (mut client, _) = world.upgrade(&upgrade("")).await.unwrap();
    let (_, mut node) = world.websockets[1].tunnel().await;
    client.text(OPEN).await;
    node.expect(0x81, OPEN).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_silent_node_keeps_its_tunnels_until_it_is_down() {
    let mut world = World::of(2).await;
    let (mut client, mut node) = world.stream(0).await;
    world.nodes[0].freeze();
    let silent = || world.balancer.proxy().cluster.nodes()[0].verdict();
    eventually("it is silent", || {
        silent() == bowline::cluster::Verdict::Silent
    })
    .await;
    client.text(b"<still/>").await;
    node.expect(0x81, b"<still/>").await;
    client.expect_close(1001).await;
    node.expect_end().await;
    world.ended("node_down").await;
}

#[tokio::test]
async fn drain_keeps_tunnels_and_maint_ends_them() {
    let mut world = World::of(2).await;
    let (mut client, mut node) = world.stream(0).await;
    admin(&world.balancer, "PUT", "/nodes/t1/state?state=drain").await;
    for _ in 0..3 {
        let _client = world.upgrade(&upgrade("")).await.unwrap();
        let _node = world.websockets[1].tunnel().await;
    }
    client.text(b"<still/>").await;
    node.expect(0x81, b"<still/>").await;
    admin(&world.balancer, "PUT", "/nodes/t1/state?state=maint").await;
    client.expect_close(1001).await;
    node.expect_end().await;
    let ended = "bowline_websocket_ended_total{node=\"t1\",cause=\"maint\"}";
    eventually("it is counted", || world.balancer.metric(ended) == 1).await;
}

#[tokio::test]
async fn a_stop_closes_the_stream_and_the_connection() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.stream(0).await;
    // Its stream is not open.
    let (mut early, mut early_node) = world.tunnel(0).await;
    // Half of a frame of its node is out.
    let (mut half, mut half_node) = world.stream(0).await;
    let whole = frame(false, 0x81, b"<message/>");
    half_node.write(&whole[..5]).await;
    let mut bytes = [0; 5];
    half.read_exactly(&mut bytes).await;
    let begun = Instant::now();
    let drained = tokio::spawn(world.balancer.server.drain());
    client.expect(0x81, STREAM_CLOSE).await;
    client.expect_close(1001).await;
    early.expect_close(1001).await;
    half.expect_end().await;
    for node in [&mut node, &mut early_node, &mut half_node] {
        node.expect_end().await;
    }
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_stop_closes_the_connection_in_a_message_and_not_the_stream() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.stream(0).await;
    node.send(0x01, b"<mess").await;
    client.expect(0x01, b"<mess").await;
    let drained = tokio::spawn(world.balancer.server.drain());
    client.expect_close(1001).await;
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let mut world = World::with(1, |settings| {
        let websocket = settings.websocket.as_mut().unwrap();
        websocket.idle = Duration::from_millis(100);
        websocket.pong = Duration::from_millis(500);
    })
    .await;
    let (mut client, mut node) = world.stream(0).await;
    for _ in 0..4 {
        client.expect(0x89, b"").await;
        client.send(0x8a, b"").await;
        node.expect(0x8a, b"").await;
    }
    assert_eq!(world.open(), 1);
    client.expect(0x89, b"").await;
    client.expect_close(1001).await;
    node.expect_end().await;
    world.ended("client_silent").await;
}

#[tokio::test]
async fn an_unanswered_close_frame_ends_the_tunnel_in_time() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.stream(0).await;
    let begun = Instant::now();
    client.send(0x88, &1000_u16.to_be_bytes()).await;
    node.expect(0x88, &1000_u16.to_be_bytes()).await;
    client.expect_close(1001).await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(9) && took < Duration::from_secs(15),
        "{took:?}"
    );
    world.ended("client_closed").await;
}

#[tokio::test]
async fn a_removed_node_keeps_its_tunnels() {
    let mut world = World::of(2).await;
    let (mut client, mut node) = world.stream(0).await;
    let mut settings = tunnelling(&world.nodes, &world.websockets);
    settings.nodes.remove(0);
    let proxy = world.balancer.proxy();
    proxy.cluster.replace(&settings, &proxy.metrics).unwrap();
    proxy.sweep();
    assert_eq!(proxy.cluster.nodes().leaving().len(), 1);
    client.text(b"<still/>").await;
    node.expect(0x81, b"<still/>").await;
    drop(client);
    node.expect_end().await;
    eventually("it has left", || {
        world.balancer.proxy().sweep();
        world.balancer.proxy().cluster.nodes().leaving().is_empty()
    })
    .await;
}
