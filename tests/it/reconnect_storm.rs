//! Many clients at once: how their new sessions spread, and how connects to a node are paced.

use std::time::Duration;

use bowline::config::Placement;
use bowline::demo::node::{Ending, Fault, Kind, Node};
use tokio::time::Instant;

use crate::balancer::*;
use crate::routing::creation;

/// Creations at each node, answered or not.
fn creations(nodes: &[Node]) -> Vec<usize> {
    nodes.iter().map(creations_at).collect()
}

fn creations_at(node: &Node) -> usize {
    node.count(|seen| seen.kind == Kind::Create)
}

#[tokio::test]
async fn creations_that_wait_for_their_answer_count_where_they_wait() {
    let nodes = tigase_nodes(3).await;
    for node in &nodes {
        let slow = Fault::slow(Duration::from_millis(700));
        node.misbehave(slow.on(|seen| seen.kind == Kind::Create));
    }
    let mut settings = settings(&nodes);
    settings.placement = Placement::LeastSessions;
    let balancer = Balancer::start(&settings).await;
    let loads = || {
        let nodes = balancer.proxy().cluster.nodes();
        nodes.iter().map(|node| node.load()).collect::<Vec<_>>()
    };
    // The third node has fewer sessions, and gets more of what comes.
    for (node, sessions) in balancer.proxy().cluster.nodes().iter().zip([20, 20, 8]) {
        node.sessions.add(sessions);
    }
    let mut waiting = vec![];
    for _ in 0..30 {
        waiting.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    eventually("all are at nodes", || {
        creations(&nodes).iter().sum::<usize>() == 30
    })
    .await;
    assert_eq!(creations(&nodes), [6, 6, 18]);
    assert_eq!(loads(), [26, 26, 26]);
    for reply in waiting {
        reply.reply().await.unwrap();
    }
    eventually("each is counted once", || loads() == [26, 26, 26]).await;
    let nodes = balancer.proxy().cluster.nodes();
    assert!(nodes.iter().all(|node| node.sessions.get() == 26));
}

#[tokio::test]
async fn creations_whose_clients_went_away_count_no_more() {
    let nodes = tigase_nodes(2).await;
    for node in &nodes {
        node.misbehave(Fault::never_answering().on(|seen| seen.kind == Kind::Create));
    }
    let balancer = Balancer::before(&nodes).await;
    let load = || {
        let nodes = balancer.proxy().cluster.nodes();
        nodes.iter().map(|node| node.load()).sum::<u64>()
    };
    let mut waiting = vec![];
    for _ in 0..10 {
        waiting.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    eventually("all are placed", || load() == 10).await;
    drop(waiting);
    eventually("none is left", || load() == 0).await;
}

/// The value of the gauge of waiting connects, over all nodes.
fn waiting(balancer: &Balancer) -> i64 {
    let nodes = balancer.proxy().cluster.nodes();
    let waiting = nodes.iter().map(|node| node.metrics.connects_waiting.get());
    waiting.sum()
}

#[tokio::test]
async fn connects_beyond_the_rate_wait_for_their_turn_and_nobody_is_refused() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.upstream.connects_per_second = 20;
    let balancer = Balancer::start(&settings).await;
    let begun = Instant::now();
    let mut replies = vec![];
    for _ in 0..50 {
        replies.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    nodes[0]
        .wait_until(|n| creations_at(n) == 20)
        .await
        .unwrap();
    eventually("the others wait", || waiting(&balancer) == 30).await;
    let held = "bowline_upstream_connects_waiting{node=\"t1\"} 30\n";
    assert!(balancer.metrics().contains(held));
    assert!(begun.elapsed() < Duration::from_secs(1));
    for reply in replies {
        let reply = reply.reply().await.unwrap();
        assert!(reply.attribute("sid").is_some(), "{reply:?}");
    }
    let took = begun.elapsed();
    assert!((2..4).contains(&took.as_secs()), "20, 20, 10: {took:?}");
    assert_eq!(waiting(&balancer), 0);
    assert!(balancer.proxy().cluster.nodes()[0].is_up());
}

#[tokio::test]
async fn who_waits_at_a_node_that_goes_down_goes_to_another() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.upstream.connects_per_second = 4;
    let balancer = Balancer::start(&settings).await;
    let mut clients = vec![];
    let mut replies = vec![];
    for _ in 0..4 {
        clients.push(balancer.session().await);
    }
    let home = owner(&nodes, clients[0].sid());
    for _ in 0..4 {
        replies.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    eventually("they wait", || waiting(&balancer) == 4).await;
    nodes[home].freeze();
    for reply in replies {
        let reply = reply.reply().await.unwrap();
        let sid = reply.attribute("sid").expect("a session");
        assert_eq!(owner(&nodes, &sid), 1 - home);
    }
    assert_eq!(waiting(&balancer), 0);
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.upstream.connects_per_second = 1;
    let balancer = Balancer::start(&settings).await;
    let _client = balancer.session().await;
    let mut replies = vec![];
    for _ in 0..10 {
        replies.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    eventually("they wait", || waiting(&balancer) >= 9).await;
    drop(replies);
    eventually("nobody waits", || waiting(&balancer) == 0).await;
    let load = balancer.proxy().cluster.nodes()[0].load();
    assert!(load <= 2, "{load}");
}

#[tokio::test]
async fn a_node_that_refuses_does_not_hold_up_those_that_leave_it() {
    let nodes = tigase_nodes(2).await;
    let mut settings = patient(&nodes);
    settings.placement = Placement::RoundRobin;
    settings.upstream.connects_per_second = 100;
    let balancer = Balancer::start(&settings).await;
    nodes[0].kill(Ending::Eof).await;
    let begun = Instant::now();
    for _ in 0..60 {
        balancer.session().await;
    }
    // 30 or more were refused by t1, and none of them waited for anything.
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(nodes[1].sessions().len(), 60);
    let refused = &balancer.proxy().cluster.nodes()[0].metrics.connect_failures;
    assert!(refused.get() >= 30);
}
