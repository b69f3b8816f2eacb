//! Peers that break the rules of RFC 6455, or send half of something.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::wire::frame;
use super::*;

#[tokio::test]
async fn a_client_that_breaks_a_rule_is_closed_and_its_node_gets_nothing_of_it() {
    let huge = [&[0x81, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat();
    let long_control = [&[0x89, 0x80 | 126][..], &[0, 126, 0, 0, 0, 0], &[0; 126]].concat();
    for (bytes, code) in [
        // Without a mask.
        (b"\x81\x01x".to_vec(), 1002),
        // A reserved bit: compression that was not agreed on.
        (frame(true, 0xc1, b"x"), 1002),
        (frame(true, 0x83, b"x"), 1002),
        (frame(true, 0x80, b"x"), 1002),
        (frame(true, 0x09, b"x"), 1002),
        (long_control, 1002),
        // The highest bit of the length.
        ([&[0x81, 0xff, 0xff][..], &[0; 11]].concat(), 1002),
        // Five bytes in a length of eight.
        (
            [&[0x81, 0xff, 0, 0, 0, 0][..], &[0, 0, 0, 5, 0, 0, 0, 0]].concat(),
            1002,
        ),
        (huge, 1009),
        (frame(true, 0x81, &[b'x'; 2000]), 1009),
    ] {
        let mut world = World::with(1, |settings| {
            settings.websocket.as_mut().unwrap().max_frame = 1024;
        })
        .await;
        let (mut client, mut node) = world.stream(0).await;
        client.text(b"<good/>").await;
        client.write(&bytes).await;
        client.expect_close(code).await;
        node.expect(0x81, b"<good/>").await;
        assert!(
            matches!(node.stream.try_read(&mut [0; 32]), Ok(0..=9) | Err(_)),
            "{bytes:?}"
        );
        world.ended("client_invalid").await;
    }
}

#[tokio::test]
async fn a_node_that_breaks_a_rule_is_closed() {
    for bytes in [
        frame(true, 0x81, b"x"),
        frame(false, 0xc1, b"x"),
        frame(false, 0x80, b"x"),
    ] {
        let mut world = World::of(1).await;
        let (mut client, mut node) = world.stream(0).await;
        node.text(b"<good/>").await;
        node.write(&bytes).await;
        client.expect(0x81, b"<good/>").await;
        if bytes[0] == 0x81 {
            // Half of a header is out: nothing can follow it.
            assert_eq!(client.next_byte().await, Some(0x81));
            client.expect_end().await;
        } else {
            client.expect_close(1011).await;
        }
        node.expect_end().await;
        world.ended("node_invalid").await;
    }
}

#[tokio::test]
async fn frames_arrive_in_any_pieces() {
    let mut world = World::of(1).await;
    let (mut client, mut node) = world.tunnel(0).await;
    for byte in frame(true, 0x81, &[b'x'; 200]) {
        client.write(&[byte]).await;
    }
    node.expect(0x81, &[b'x'; 200]).await;
    for byte in frame(false, 0x81, &[b'y'; 200]) {
        node.write(&[byte]).await;
    }
    client.expect(0x81, &[b'y'; 200]).await;
}

#[tokio::test]
async fn half_a_frame_and_silence_end_at_the_idle_limit() {
    let mut world = World::with(1, |settings| {
        let websocket = settings.websocket.as_mut().unwrap();
        websocket.idle = Duration::from_millis(200);
        websocket.pong = Duration::from_millis(200);
    })
    .await;
    let (mut client, mut node) = world.stream(0).await;
    client.write(&frame(true, 0x81, b"<message/>")[..9]).await;
    client.expect(0x89, b"").await;
    client.expect_close(1001).await;
    node.expect_half(&[0x81, 0x8a]).await;
    world.ended("client_silent").await;
}

#[tokio::test]
async fn nothing_is_written_into_a_frame_of_the_node() {
    let mut world = World::with(1, |settings| {
        let websocket = settings.websocket.as_mut().unwrap();
        websocket.idle = Duration::from_millis(100);
        websocket.pong = Duration::from_millis(300);
    })
    .await;
    let (mut client, mut node) = world.stream(0).await;
    let whole = frame(false, 0x81, b"<message/>");
    node.write(&whole[..5]).await;
    let mut half = [0; 5];
    client.read_exactly(&mut half).await;
    assert_eq!(half, whole[..5]);
    // No ping, and no close frame.
    client.expect_end().await;
    world.ended("client_silent").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let mut world = World::with(1, |settings| {
        settings.timeouts.write_stall = Duration::from_millis(200);
    })
    .await;
    let (client, mut node) = world.stream(0).await;
    let message = frame(false, 0x81, &vec![b'x'; 1 << 20]);
    // More than all sockets on the way hold.
    let flood = async { while node.stream.write_all(&message).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("the node's connection ends");
    world.ended("client_slow").await;
    drop(client);
}

#[tokio::test]
async fn a_node_that_takes_nothing_is_cut() {
    let mut world = World::with(1, |settings| {
        settings.timeouts.write_stall = Duration::from_millis(200);
    })
    .await;
    let (mut client, node) = world.stream(0).await;
    let message = frame(true, 0x81, &vec![b'x'; 1 << 20]);
    let flood = async { while client.stream.write_all(&message).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("the client's connection ends");
    world.ended("node_slow").await;
    drop(node);
}
