//! Nodes and clients in memory, on virtual time: the same code as over TCP, with no socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Error};
use super::node::{Ending, Fault, Hub, Node, Profile, Reaction, Step};

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 5280))
}

async fn node(number: u8, profile: Profile) -> Node {
    let started = Node::start(profile.in_memory(address(number))).await;
    started.expect("a node in memory needs no port")
}

async fn client(node: &Node) -> Client {
    let mut client = Client::to(node.address());
    client.create().await.expect("a session");
    client
}

#[tokio::test(start_paused = true)]
async fn a_poll_in_memory_is_held_for_its_wait_on_virtual_time() {
    let node = node(1, Profile::tigase("t1")).await;
    let mut client = client(&node).await;
    let begun = Instant::now();
    assert!(client.poll().await.expect("an answer").is_empty());
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(node.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_cross_the_nodes_of_a_hub_in_memory() {
    let hub = Hub::default();
    let one = node(1, Profile::tigase("t1").in_hub(&hub)).await;
    let two = node(2, Profile::prosody("t2").in_hub(&hub)).await;
    let (mut romeo, mut juliet) = (client(&one).await, client(&two).await);
    let held = juliet.begin_poll().await.expect("sent");
    let stanza = format!("<message to='{}' id='m1'/>", juliet.sid());
    let _sent = romeo.begin("", &stanza).await.expect("sent");
    let got = held.reply().await.expect("a message");
    assert!(got.payload().contains("m1"), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_in_memory_dies_refuses_and_lives_again() {
    for ending in [Ending::Eof, Ending::Reset] {
        let node = node(1, Profile::tigase("t1")).await;
        let mut client = client(&node).await;
        let held = client.begin_poll().await.expect("sent");
        node.wait_until(|node| node.held() == 1)
            .await
            .expect("held");
        node.kill(ending).await;
        assert!(matches!(held.reply().await, Err(Error::Closed(seen)) if seen.is_empty()));
        let refused = Client::connect(node.address()).await;
        assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
        node.revive().await.expect("the same address");
        assert_eq!(client.poll().await.expect("an answer").status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_in_memory_answers_after_the_thaw() {
    let node = node(1, Profile::tigase("t1")).await;
    let mut client = client(&node).await.deadline(Duration::from_secs(5));
    node.freeze();
    let late = client.ping("p1").await;
    assert!(matches!(late, Err(Error::Deadline)), "{late:?}");
    node.thaw();
    assert!(
        client
            .ping("p2")
            .await
            .expect("in time")
            .payload()
            .contains("p2")
    );
}

#[tokio::test(start_paused = true)]
async fn misbehaviours_are_the_same_in_memory() {
    let node = node(1, Profile::tigase("t1")).await;
    let mut client = client(&node).await;
    for fault in [
        Fault::chunked(),
        Fault::close_delimited(),
        Fault::one_byte_at_a_time(),
        Fault::continue_first(),
        Fault::slow(Duration::from_secs(7)),
    ] {
        let name = format!("{fault:?}");
        node.misbehave(fault.once());
        let answer = client.ping("p1").await.expect(&name);
        assert!(answer.payload().contains("p1"), "{name}: {answer:?}");
    }
    node.misbehave(Fault::cutting_the_body().once());
    let cut = client.ping("p1").await;
    assert!(
        matches!(&cut, Err(Error::Closed(seen)) if !seen.is_empty()),
        "{cut:?}"
    );
    node.misbehave(Fault::accepting_and_resetting().once());
    let ended = client.ping("p1").await;
    assert!(ended.is_err(), "{ended:?}");
}

/// What a node does before a request, after a part of one, and in place of an answer.
#[tokio::test(start_paused = true)]
async fn scripted_steps_are_done_when_their_time_comes() {
    let node = node(1, Profile::prosody("t1").recording_bytes()).await;
    let mut client = client(&node).await;
    let end = vec![Step::End(Ending::Eof)];
    for fault in [
        Fault::at_part(end.clone()),
        Fault::at_accept(end),
        Fault::reacting("a part", Reaction::Steps(vec![Step::Stall])),
    ] {
        let name = format!("{fault:?}");
        client.hang_up();
        let before = node.record().len();
        node.misbehave(fault.once());
        let met = client.ping("p1").await;
        assert!(met.is_err(), "{name}: {met:?}");
        // Only the last of them was met by a whole request.
        let whole = usize::from(name.contains("a part"));
        assert_eq!(node.record().len() - before, whole, "{name}");
    }
    let parts: Vec<usize> = node.bytes().values().map(Vec::len).collect();
    assert_eq!(parts[1], 16, "the part that was read");
    let repeated = Step::Repeat {
        bytes: "HTTP/1.1 100 Continue\r\n\r\n".into(),
        times: 3,
        pause: Duration::from_secs(2),
    };
    node.misbehave(
        Fault::reacting(
            "again",
            Reaction::Steps(vec![repeated, Step::End(Ending::Eof)]),
        )
        .once(),
    );
    let begun = Instant::now();
    let closed = client.poll().await;
    assert!(
        matches!(&closed, Err(Error::Closed(seen)) if seen.is_empty()),
        "{closed:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 6);
}

/// A simulation repeats a seed only if the nodes do.
#[tokio::test(start_paused = true)]
async fn a_seed_repeats_itself_in_memory() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        fastrand::seed(7);
        let node = node(1, Profile::tigase("t1").seed(7)).await;
        let mut heads = Vec::new();
        for number in 0..5 {
            let mut client = client(&node).await;
            let pong = client.ping(&format!("p{number}")).await.expect("a result");
            heads.push((client.sid().to_owned(), pong.text().to_owned()));
        }
        runs.push(heads);
    }
    assert_eq!(runs[0], runs[1]);
}
