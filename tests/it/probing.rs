//! How fast a failure of a node is known, and how fast its return.

use std::time::{Duration, SystemTime};

use bowline::cluster::{self, Share};
use bowline::config::{Placement, Settings};
use bowline::demo::node::{Ending, Fault, Node, Profile};
use tokio::time::Instant;

use crate::balancer::*;
use crate::routing::creation;

const HOUR: Duration = Duration::from_secs(3600);

/// What the machine may add to a bound while other tests run beside this one.
const SLACK: Duration = Duration::from_millis(400);

/// Settings with probes so rare that only what triggers them counts, and a fast interval.
fn triggered(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.health.interval = HOUR;
    settings.health.fast_interval = Duration::from_millis(50);
    settings.health.timeout = Duration::from_millis(500);
    settings.health.rise = 2;
    settings.health.fall = 3;
    settings
}

/// The settings that hold where a file says nothing.
fn defaults(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.health = Settings::for_nodes(Vec::new()).health;
    settings
}

fn node_of(balancer: &Balancer, at: usize) -> &cluster::Node {
    let id = cluster::NodeId(u16::try_from(at).unwrap());
    balancer.proxy().cluster.node(id)
}

async fn until_down(balancer: &Balancer, at: usize) {
    let node = node_of(balancer, at);
    eventually("the node is down", || !node.is_up()).await;
}

#[tokio::test]
async fn with_the_defaults_a_frozen_node_is_down_after_interval_and_timeout() {
    let nodes = tigase_nodes(6).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    for node in &nodes[1..] {
        node.freeze();
    }
    let frozen = Instant::now();
    for at in 1..6 {
        until_down(&balancer, at).await;
    }
    let took = frozen.elapsed();
    let bound = Duration::from_secs(2) + SLACK;
    assert!(took <= bound, "{took:?}");
    assert!(node_of(&balancer, 0).is_up());
    for at in 1..6 {
        assert_eq!(node_of(&balancer, at).metrics.probe_failures.get(), 3);
    }
}

#[tokio::test]
async fn with_the_defaults_a_killed_node_is_down_half_a_second_after_the_first_sign() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    let poll = client.begin_poll().await.unwrap();
    nodes[home].wait_until(|n| n.held() == 1).await.unwrap();
    nodes[home].kill(Ending::Eof).await;
    let killed = Instant::now();
    assert_item_not_found(&poll.reply().await.unwrap());
    let moved = killed.elapsed();
    assert!(moved < SLACK, "moved at once: {moved:?}");
    until_down(&balancer, home).await;
    let took = killed.elapsed();
    assert!(took <= Duration::from_millis(500) + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_sign_of_failure_is_followed_up_until_the_verdict() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&triggered(&nodes)).await;
    nodes[0].kill(Ending::Eof).await;
    node_of(&balancer, 0).suspect("a client's word", SystemTime::now());
    until_down(&balancer, 0).await;
    assert_eq!(node_of(&balancer, 0).metrics.probe_failures.get(), 3);
}

#[tokio::test]
async fn a_silent_node_is_down_after_one_timeout() {
    let nodes = tigase_nodes(2).await;
    let mut settings = triggered(&nodes);
    settings.health.fall = 5;
    let balancer = Balancer::start(&settings).await;
    nodes[0].freeze();
    let asked = Instant::now();
    node_of(&balancer, 0).suspect("a client's word", SystemTime::now());
    until_down(&balancer, 0).await;
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_millis(550) + SLACK, "{took:?}");
    assert_eq!(node_of(&balancer, 0).metrics.probe_failures.get(), 5);
}

#[tokio::test]
async fn one_client_cannot_take_a_node_down() {
    let nodes = tigase_nodes(2).await;
    let mut settings = triggered(&nodes);
    settings.health.fall = 1;
    let balancer = Balancer::start(&settings).await;
    for _ in 0..20 {
        let mut client = balancer.session().await;
        let sid = client.sid().to_owned();
        let home = &nodes[owner(&nodes, &sid)];
        home.misbehave(Fault::resetting().on(move |seen| seen.sid.as_ref() == Some(&sid)));
        assert_goes_on(&client.poll().await.unwrap());
    }
    for at in 0..2 {
        let node = node_of(&balancer, at);
        assert!(node.is_up());
        assert_eq!(node.metrics.changes.get(), 0);
        assert_eq!(node.metrics.probe_failures.get(), 0);
    }
}

#[tokio::test]
async fn with_no_node_up_the_first_answer_of_one_is_enough() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&triggered(&nodes)).await;
    for (at, node) in nodes.iter().enumerate() {
        node.kill(Ending::Eof).await;
        node_of(&balancer, at).suspect("a client's word", SystemTime::now());
        until_down(&balancer, at).await;
    }
    let waiting = balancer.client().begin_post(&creation()).await.unwrap();
    let before = nodes[1].record().len();
    nodes[1].revive().await.unwrap();
    let back = Instant::now();
    let reply = waiting.reply().await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    // With one failed probe behind another they would come an hour apart.
    assert!(back.elapsed() < Duration::from_millis(50) + SLACK);
    let record = nodes[1].record();
    let creation = record.iter().position(|seen| seen.sid.is_none()).unwrap();
    assert_eq!(
        creation,
        before + 1,
        "the creation came right behind the first probe"
    );
}

#[tokio::test]
async fn with_no_node_up_the_end_of_a_freeze_is_known_at_once() {
    let nodes = vec![Node::start(Profile::tigase("t1")).await.unwrap()];
    let mut settings = triggered(&nodes);
    settings.health.timeout = Duration::from_secs(2);
    let balancer = Balancer::start(&settings).await;
    nodes[0].freeze();
    node_of(&balancer, 0).suspect("a client's word", SystemTime::now());
    until_down(&balancer, 0).await;
    let waiting = balancer.client().begin_post(&creation()).await.unwrap();
    nodes[0].thaw();
    let thawed = Instant::now();
    let reply = waiting.reply().await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    let took = thawed.elapsed();
    assert!(took < Duration::from_millis(100) + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_node_that_came_back_starts_slowly() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    settings.health.slow_start = HOUR;
    let balancer = Balancer::start(&settings).await;
    assert_eq!(node_of(&balancer, 0).share(), Share::WHOLE);
    nodes[0].kill(Ending::Eof).await;
    until_down(&balancer, 0).await;
    nodes[0].revive().await.unwrap();
    let node = node_of(&balancer, 0);
    eventually("the node is up", || node.is_up()).await;
    for _ in 0..22 {
        balancer.session().await;
    }
    assert_eq!(nodes[0].sessions().len(), 2, "a tenth of a weight of 1.1");
    assert!(
        balancer
            .metrics()
            .contains("bowline_node_share{node=\"t1\"} 0.1\n")
    );
}

#[tokio::test]
async fn a_slow_start_ends() {
    let nodes = tigase_nodes(2).await;
    let mut settings = triggered(&nodes);
    settings.health.interval = Duration::from_secs(2);
    settings.health.slow_start = Duration::from_millis(300);
    let balancer = Balancer::start(&settings).await;
    nodes[0].kill(Ending::Eof).await;
    node_of(&balancer, 0).suspect("a client's word", SystemTime::now());
    until_down(&balancer, 0).await;
    nodes[0].revive().await.unwrap();
    let node = node_of(&balancer, 0);
    eventually("the node is up", || node.is_up()).await;
    assert!(node.share() < Share::WHOLE);
    eventually("it has its whole share", || node.share() == Share::WHOLE).await;
    assert!(node.is_up());
}

/// Kills a node, and revives it when it is down.
async fn fall(balancer: &Balancer, nodes: &[Node], at: usize) {
    nodes[at].kill(Ending::Eof).await;
    node_of(balancer, at).suspect("a client's word", SystemTime::now());
    until_down(balancer, at).await;
    nodes[at].revive().await.unwrap();
}

#[tokio::test]
async fn a_node_that_flaps_is_kept_away_unless_no_other_is_up() {
    let nodes = tigase_nodes(2).await;
    let mut settings = triggered(&nodes);
    settings.health.interval = Duration::from_millis(100);
    settings.health.timeout = Duration::from_millis(100);
    settings.health.penalty = HOUR;
    settings.health.penalty_max = HOUR;
    let balancer = Balancer::start(&settings).await;
    let node = node_of(&balancer, 0);
    fall(&balancer, &nodes, 0).await;
    eventually("a restart is no flapping", || node.is_up()).await;
    assert_eq!(balancer.metric("bowline_node_falls{node=\"t1\"}"), 1);

    fall(&balancer, &nodes, 0).await;
    let before = nodes[0].record().len();
    nodes[0]
        .wait_until(|node| node.record().len() > before + 5)
        .await
        .unwrap();
    assert!(!node.is_up(), "it passes its probes and is kept away");
    let penalty = "bowline_node_penalty_seconds{node=\"t1\"} 3600.0\n";
    assert!(balancer.metrics().contains(penalty));
    assert_eq!(balancer.metric("bowline_node_falls{node=\"t1\"}"), 2);

    nodes[1].kill(Ending::Eof).await;
    until_down(&balancer, 1).await;
    eventually("better this one than none", || node.is_up()).await;
    let penalty = "bowline_node_penalty_seconds{node=\"t1\"} 0.0\n";
    eventually("nothing is left", || balancer.metrics().contains(penalty)).await;
}
