//! Landing control: the sessions of a node that is gone log in elsewhere as fast as the others can take
//! them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bowline::cluster::OperatorState;
use bowline::config::{LandingMode, Placement, Settings};
use bowline::demo::client::{Client, Pending, Reply};
use bowline::demo::node::{Ending, Hub, Node, Profile};
use tokio::time::Instant;

use crate::balancer::*;
use crate::sessions::bowline;

/// Settings under which every session goes to the first node.
fn first_gets_all(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.placement = Placement::LeastSessions;
    settings.nodes[0].weight = 256;
    settings
}

/// Clients of the first node with a poll that it holds.
async fn polling(balancer: &Balancer, node: &Node, count: usize) -> Vec<(Client, Pending)> {
    let mut polls = Vec::new();
    for _ in 0..count {
        let mut client = balancer.session().await;
        let poll = client.begin_poll().await.unwrap();
        polls.push((client, poll));
    }
    node.wait_until(|node| node.held() == count).await.unwrap();
    polls
}

/// The answers to polls, each with the time that it took from now on.
async fn replies(polls: Vec<(Client, Pending)>) -> Vec<(Duration, Reply)> {
    let begun = Instant::now();
    let mut replies = tokio::task::JoinSet::new();
    for (_client, poll) in polls {
        replies.spawn(async move {
            let reply = poll.reply().await.unwrap();
            (begun.elapsed(), reply)
        });
    }
    let mut replies = replies.join_all().await;
    replies.sort_by_key(|(when, _)| *when);
    replies
}

fn waiting(balancer: &Balancer) -> i64 {
    balancer.proxy().metrics.landing.waiting.get()
}

#[tokio::test]
async fn held_polls_of_a_dead_node_are_released_one_after_the_other() {
    let nodes = tigase_nodes(2).await;
    let mut settings = first_gets_all(&nodes);
    settings.limits.landing = LandingMode::PerSecond(NonZeroU32::new(50).unwrap());
    let balancer = Balancer::start(&settings).await;
    let polls = polling(&balancer, &nodes[0], 30).await;
    nodes[0].kill(Ending::Eof).await;
    let replies = replies(polls).await;
    for (_, reply) in &replies {
        assert_item_not_found(reply);
    }
    let (first, last) = (replies[0].0, replies[29].0);
    let spread = last - first;
    // A burst of a tenth of a second goes at once.
    assert!(spread >= Duration::from_millis(450), "{spread:?}");
    assert!(spread < Duration::from_secs(5), "{spread:?}");
    assert_eq!(balancer.metric("bowline_landing_released_total"), 30);
    assert_eq!(waiting(&balancer), 0);
}

#[tokio::test]
async fn the_polls_of_a_small_node_are_released_at_once() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&first_gets_all(&nodes)).await;
    let polls = polling(&balancer, &nodes[0], 60).await;
    nodes[0].kill(Ending::Eof).await;
    let replies = replies(polls).await;
    let (last, _) = replies[59];
    assert!(last < Duration::from_secs(1), "{last:?}");
}

/// A poll is answered when its node would have answered it, and its client goes on waiting. A request with
/// stanzas goes first, and its poll with it.
#[tokio::test]
async fn no_poll_waits_longer_than_its_node_would_have_held_it() {
    let profile = |name: &str| Profile::tigase(name).wait_limit(1);
    let nodes = [
        Node::start(profile("t1")).await.unwrap(),
        Node::start(profile("t2")).await.unwrap(),
    ];
    let mut settings = first_gets_all(&nodes);
    settings.limits.landing = LandingMode::PerSecond(NonZeroU32::new(1).unwrap());
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(balancer.session().await);
    }
    nodes[0].kill(Ending::Eof).await;
    eventually("it is down", || {
        !balancer.proxy().cluster.nodes()[0].serves()
    })
    .await;
    let begun = Instant::now();
    let mut polls = Vec::new();
    for client in &mut clients {
        polls.push(client.begin_poll().await.unwrap());
    }
    eventually("three wait", || waiting(&balancer) == 3).await;
    let message = "<message xmlns='jabber:client' id='m'/>";
    let send = clients[3].begin("", message).await.unwrap();
    assert_item_not_found(&send.reply().await.unwrap());
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(1900),
        "it was behind others: {took:?}"
    );
    let wait = Duration::from_secs(1);
    let mut ended = 0;
    for poll in polls {
        let reply = poll.reply().await.unwrap();
        assert_eq!(reply.status, 200);
        ended += usize::from(reply.is_terminate());
        assert!(begun.elapsed() < wait + Duration::from_secs(2));
    }
    assert!(ended < 4, "none had to ask again");
}

#[tokio::test]
async fn sessions_that_go_on_at_the_survivors_do_not_wait() {
    let hub = Hub::default();
    let profile = |name: &str| Profile::shared(name, &hub).sessions_outlive_nodes();
    let nodes = [
        Node::start(profile("e1")).await.unwrap(),
        Node::start(profile("e2")).await.unwrap(),
    ];
    let balancer = Balancer::start(&first_gets_all(&nodes)).await;
    let mut clients = Vec::new();
    for _ in 0..150 {
        clients.push(balancer.session().await);
    }
    nodes[0].kill(Ending::Eof).await;
    let mut polls = Vec::new();
    for client in &mut clients {
        polls.push(client.begin_poll().await.unwrap());
    }
    // A survivor that holds a poll knows its session: it has answered a later probe.
    let held = nodes[1].wait_until(|node| node.held() == 150).await;
    let all = (nodes[1].held(), waiting(&balancer));
    assert!(held.is_ok(), "held and waiting: {all:?}");
}

/// A client of a drained node polls and sends without end. When its session ends it logs in again, and stops
/// once it is at the other node. Says how many answers were errors.
async fn lives_on(mut client: Client, nodes: Arc<Vec<Node>>, pause: Duration) -> usize {
    let mut errors = 0;
    for ping in 0_u32.. {
        let reply = client.ping(&ping.to_string()).await;
        match reply {
            Ok(reply) if reply.status == 200 && !reply.is_terminate() => {}
            Ok(reply) if reply.condition().as_deref() == Some("item-not-found") => {
                errors += usize::from(client.create().await.is_err());
                errors += usize::from(!nodes[1].owns(client.sid()));
                return errors;
            }
            _ => errors += 1,
        }
        tokio::time::sleep(pause).await;
    }
    errors
}

/// `DRAIN_SESSIONS=500` runs the full size.
#[tokio::test]
async fn a_drain_at_its_deadline_shows_no_client_an_error() {
    let count = std::env::var("DRAIN_SESSIONS");
    let count = count.map_or(60, |count| count.parse().unwrap());
    let nodes = Arc::new(tigase_nodes(2).await);
    let balancer = Balancer::start(&first_gets_all(&nodes)).await;
    let cluster = &balancer.proxy().cluster;
    let set = |state| {
        let t2 = cluster.named("t2").unwrap().id;
        let now = std::time::SystemTime::now();
        cluster.set_state(t2, state, false, now).unwrap();
    };
    set(OperatorState::Drain);
    // All of them together ask 500 times a second.
    let pause = Duration::from_millis(2) * u32::try_from(count).unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..count {
        let client = balancer.session().await;
        clients.spawn(lives_on(client, Arc::clone(&nodes), pause));
    }
    assert_eq!(nodes[0].sessions().len(), count);
    set(OperatorState::Ready);
    let begun = Instant::now();
    let arguments = ["drain", "t1", "--wait", "--deadline", "10ms"];
    let drained = bowline(&balancer, &arguments).output().await.unwrap();
    assert!(drained.status.success(), "{drained:?}");
    println!("{count} sessions: {:?}", begun.elapsed());
    let errors: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(errors, 0);
    assert_eq!(nodes[1].sessions().len(), count);
}
