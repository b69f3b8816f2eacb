//! Many clients at once: how their new sessions spread, and how connects to a node are paced.

use std::time::Duration;

use bowline::config::Placement;
use bowline::demo::node::{Fault, Kind, Node};

use crate::balancer::*;
use crate::routing::creation;

/// Creations at each node, answered or not.
fn creations(nodes: &[Node]) -> Vec<usize> {
    let of = |node: &Node| node.count(|seen| seen.kind == Kind::Create);
    nodes.iter().map(of).collect()
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
        let nodes = balancer.proxy().cluster.nodes().iter();
        nodes.map(|node| node.load()).collect::<Vec<_>>()
    };
    // The third node has fewer sessions, and gets more of what comes.
    for (node, sessions) in balancer.proxy().cluster.nodes().iter().zip([20, 20, 8]) {
        node.metrics.sessions.set(sessions);
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
    let pinned = |node: &bowline::cluster::Node| node.metrics.sessions.get() == 26;
    assert!(balancer.proxy().cluster.nodes().iter().all(pinned));
}

#[tokio::test]
async fn creations_whose_clients_went_away_count_no_more() {
    let nodes = tigase_nodes(2).await;
    for node in &nodes {
        node.misbehave(Fault::never_answering().on(|seen| seen.kind == Kind::Create));
    }
    let balancer = Balancer::before(&nodes).await;
    let load = || {
        let nodes = balancer.proxy().cluster.nodes().iter();
        nodes.map(|node| node.load()).sum::<u64>()
    };
    let mut waiting = vec![];
    for _ in 0..10 {
        waiting.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    eventually("all are placed", || load() == 10).await;
    drop(waiting);
    eventually("none is left", || load() == 0).await;
}
