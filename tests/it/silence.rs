//! A node that says nothing is not a node that is gone: what a pause costs, and when patience ends.

use std::time::Duration;

use bowline::cluster::Verdict;
use bowline::config::{Placement, Settings};
use bowline::demo::client::{Client, Pending};
use bowline::demo::node::{Ending, Fault, Node, Profile};
use tokio::time::{Instant, sleep};

use crate::balancer::*;

/// The settings that hold where a file says nothing.
fn defaults(nodes: &[Node]) -> Settings {
    let mut settings = Settings::for_nodes(settings(nodes).nodes);
    settings.threads = 1;
    settings.placement = Placement::RoundRobin;
    settings
}

/// Quick probes, and a node that may be silent for `silence`.
fn quick(nodes: &[Node], silence: Duration) -> Settings {
    let mut settings = settings(nodes);
    settings.placement = Placement::RoundRobin;
    settings.health.fast_interval = Duration::from_millis(20);
    settings.health.silence = silence;
    settings.health.slow_start = Duration::ZERO;
    settings
}

/// `count` clients, each with a poll that its node holds.
async fn holding(balancer: &Balancer, nodes: &[Node], count: usize) -> Vec<(Client, Pending)> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = balancer.session().await;
        let poll = client.begin_poll().await.unwrap();
        clients.push((client, poll));
    }
    let held = || nodes.iter().map(Node::held).sum::<usize>();
    eventually("every poll is held", || held() == count).await;
    clients
}

fn home(nodes: &[Node], client: &Client) -> usize {
    owner(nodes, client.sid())
}

/// Every session goes on at the node that it has had all along.
async fn assert_all_go_on(clients: Vec<(Client, Pending)>, nodes: &[Node]) {
    for (mut client, poll) in clients {
        let at = home(nodes, &client);
        assert!(nodes[at].push(client.sid(), "<message/>"), "it is alive");
        let reply = poll.reply().await.unwrap();
        assert_goes_on(&reply);
        assert!(reply.text().contains("<message"), "{reply:?}");
        assert_answered_at_once(&mut client).await;
        assert_eq!(home(nodes, &client), at);
    }
}

/// The session's node answers a ping of its client.
async fn assert_answered_at_once(client: &mut Client) {
    assert_goes_on(&client.ping("still-there").await.unwrap());
}

async fn until_verdict(balancer: &Balancer, at: usize, verdict: Verdict) {
    let node = &balancer.proxy().cluster.nodes()[at];
    eventually(&format!("{verdict:?}"), || node.verdict() == verdict).await;
}

#[tokio::test]
async fn a_node_that_pauses_for_four_seconds_keeps_its_sessions() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    let clients = holding(&balancer, &nodes, 30).await;
    let paused = nodes.iter().position(|node| node.held() == 10).unwrap();
    nodes[paused].freeze();
    let since = Instant::now();
    until_verdict(&balancer, paused, Verdict::Silent).await;
    let took = since.elapsed();
    assert!(
        took < Duration::from_millis(2500),
        "no new session after {took:?}"
    );
    for _ in 0..6 {
        let client = balancer.session().await;
        assert_ne!(home(&nodes, &client), paused);
    }
    sleep(Duration::from_secs(4).saturating_sub(since.elapsed())).await;
    nodes[paused].thaw();
    until_verdict(&balancer, paused, Verdict::Up).await;
    assert_all_go_on(clients, &nodes).await;
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);
    assert_eq!(balancer.metric("bowline_rejects_total"), 0);
}

#[tokio::test]
async fn all_nodes_may_pause_for_four_seconds() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    let clients = holding(&balancer, &nodes, 30).await;
    let since = Instant::now();
    nodes.iter().for_each(Node::freeze);
    eventually("no node takes sessions", || {
        !balancer.proxy().cluster.any_up()
    })
    .await;
    sleep(Duration::from_secs(4).saturating_sub(since.elapsed())).await;
    // The first that answers must not take what belongs to the others.
    for node in &nodes {
        node.thaw();
        sleep(Duration::from_millis(100)).await;
    }
    eventually("a node is up", || balancer.proxy().cluster.any_up()).await;
    assert_all_go_on(clients, &nodes).await;
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);
    assert_eq!(balancer.metric("bowline_rejects_total"), 0);
}

#[tokio::test]
async fn a_node_that_stays_silent_loses_its_sessions_after_the_silence() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    let clients = holding(&balancer, &nodes, 12).await;
    let frozen = 0;
    nodes[frozen].freeze();
    let since = Instant::now();
    for (client, poll) in clients {
        if home(&nodes, &client) == frozen {
            assert_item_not_found(&poll.reply().await.unwrap());
            let took = since.elapsed().as_secs_f64();
            assert!((3.0..6.5).contains(&took), "ended after {took:.1} s");
        }
    }
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 4);
    // Four polls were cut there.
    let cut = balancer.metric("bowline_upstream_failures_total{node=\"t1\"}");
    assert_eq!(cut, 4);
    assert_eq!(balancer.proxy().cluster.nodes()[0].verdict(), Verdict::Down);
}

#[tokio::test]
async fn a_creation_at_a_node_that_falls_silent_goes_to_another() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&defaults(&nodes)).await;
    nodes.iter().for_each(Node::freeze);
    let asked = Instant::now();
    let mut client = balancer.client();
    let creation = tokio::spawn(async move { client.create().await.map(|_| client) });
    let cluster = &balancer.proxy().cluster;
    let arrived = || cluster.nodes().iter().position(|node| node.held.get() > 0);
    eventually("a node has the creation", || arrived().is_some()).await;
    let first = arrived().unwrap();
    nodes[1 - first].thaw();
    let client = creation.await.unwrap().unwrap();
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_eq!(home(&nodes, &client), 1 - first);
}

#[tokio::test]
async fn any_byte_of_a_node_is_a_sign_of_life() {
    let nodes = tigase_nodes(2).await;
    let silence = Duration::from_millis(400);
    let balancer = Balancer::start(&quick(&nodes, silence)).await;
    let mut clients = holding(&balancer, &nodes, 4).await;
    clients.retain(|(client, _)| home(&nodes, client) == 0);
    let sids: Vec<_> = clients.iter().map(|(c, _)| c.sid().to_owned()).collect();
    // Its probes, with sids of their own, are never answered.
    nodes[0].misbehave(
        Fault::never_answering()
            .on(move |seen| !sids.iter().any(|sid| seen.sid.as_ref() == Some(sid))),
    );
    until_verdict(&balancer, 0, Verdict::Silent).await;
    let since = Instant::now();
    let (mut client, _poll) = clients.pop().unwrap();
    while since.elapsed() < silence * 4 {
        assert_answered_at_once(&mut client).await;
    }
    assert_eq!(
        balancer.proxy().cluster.nodes()[0].verdict(),
        Verdict::Silent
    );
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);
    // With no word from it at all its time is up.
    until_verdict(&balancer, 0, Verdict::Down).await;
}

#[tokio::test]
async fn a_silent_node_that_refuses_is_gone() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&quick(&nodes, Duration::from_secs(3600))).await;
    nodes[0].freeze();
    until_verdict(&balancer, 0, Verdict::Silent).await;
    nodes[0].kill(Ending::Eof).await;
    until_verdict(&balancer, 0, Verdict::Down).await;
}

#[tokio::test]
async fn when_most_nodes_fall_silent_at_once_the_own_network_is_suspected() {
    let nodes = tigase_nodes(3).await;
    let silence = Duration::from_millis(300);
    let balancer = Balancer::start(&quick(&nodes, silence)).await;
    let clients = holding(&balancer, &nodes, 9).await;
    nodes[1].freeze();
    nodes[2].freeze();
    let cluster = &balancer.proxy().cluster;
    eventually("the network is suspected", || cluster.network_suspected()).await;
    assert_eq!(balancer.metric("bowline_network_suspected"), 1);
    sleep(silence * 3).await;
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);
    nodes[1].thaw();
    eventually("the suspicion is over", || !cluster.network_suspected()).await;
    // The other one has its own time from now on.
    assert_eq!(cluster.nodes()[2].verdict(), Verdict::Silent);
    nodes[2].thaw();
    assert_all_go_on(clients, &nodes).await;
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);
    assert_eq!(balancer.metric("bowline_network_suspected"), 0);
}

/// Two nodes that were silent for too long, both; the session's own is the one returned.
async fn both_down(nodes: &[Node], settings: &Settings) -> (Balancer, Client, usize) {
    let balancer = Balancer::start(settings).await;
    let client = balancer.session().await;
    let at = home(nodes, &client);
    nodes.iter().for_each(Node::freeze);
    until_verdict(&balancer, 0, Verdict::Down).await;
    until_verdict(&balancer, 1, Verdict::Down).await;
    (balancer, client, at)
}

#[tokio::test]
async fn after_a_time_with_no_node_a_session_waits_for_its_own() {
    let nodes = tigase_nodes(2).await;
    let mut settings = quick(&nodes, Duration::from_millis(100));
    settings.health.silence = Duration::from_millis(200);
    let (balancer, mut client, at) = both_down(&nodes, &settings).await;
    let sent = tokio::spawn(async move { (client.ping("one").await.unwrap(), client) });
    nodes[1 - at].thaw();
    until_verdict(&balancer, 1 - at, Verdict::Up).await;
    nodes[at].thaw();
    let (reply, client) = sent.await.unwrap();
    assert_goes_on(&reply);
    assert_eq!(home(&nodes, &client), at);
}

#[tokio::test]
async fn after_a_time_with_no_node_a_session_does_not_wait_for_one_that_refuses() {
    let nodes = tigase_nodes(2).await;
    let mut settings = quick(&nodes, Duration::from_millis(200));
    settings.health.timeout = Duration::from_millis(50);
    let (balancer, mut client, at) = both_down(&nodes, &settings).await;
    nodes[at].kill(Ending::Eof).await;
    let node = &balancer.proxy().cluster.nodes()[at];
    eventually("it is known to refuse", || node.is_gone()).await;
    nodes[1 - at].thaw();
    until_verdict(&balancer, 1 - at, Verdict::Up).await;
    let asked = Instant::now();
    assert_item_not_found(&client.ping("one").await.unwrap());
    assert!(
        asked.elapsed() < Duration::from_millis(150),
        "{:?}",
        asked.elapsed()
    );
}

/// Found by the chaos suite: of two requests at a node that paused, the older was sent again after
/// 0.3 s, and the node met both of them twice when it went on.
#[tokio::test]
async fn two_requests_at_a_node_that_pauses_are_not_sent_again() {
    let nodes = [Node::start(Profile::prosody("p1")).await.unwrap()];
    let balancer = Balancer::start(&defaults(&nodes)).await;
    let mut clients = holding(&balancer, &nodes, 1).await;
    let (mut client, poll) = clients.pop().unwrap();
    nodes[0].freeze();
    let since = Instant::now();
    let sent = client.begin("", "<message/>").await.unwrap();
    sleep(Duration::from_millis(1500).saturating_sub(since.elapsed())).await;
    nodes[0].thaw();
    assert_goes_on(&poll.reply().await.unwrap());
    assert!(nodes[0].push(client.sid(), "<message/>"), "it is alive");
    assert_goes_on(&sent.reply().await.unwrap());
    assert_eq!(seen_of(&nodes[0], client.sid()).len(), 2);
    assert_eq!(balancer.metric("bowline_upstream_resent_total"), 0);
}

/// Found by the chaos suite: a session whose node was silent for too long moved to a node that failed
/// as well, and from there to a third one, although its own node was back.
#[tokio::test]
async fn a_session_goes_back_to_its_node_when_the_next_one_fails() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&quick(&nodes, Duration::from_millis(200))).await;
    let mut client = balancer.session().await;
    let own = home(&nodes, &client);
    let poll = client.begin_poll().await.unwrap();
    nodes[own]
        .wait_until(|node| node.held() == 1)
        .await
        .unwrap();
    // Every other node keeps the session's requests to itself.
    let sid = client.sid().to_owned();
    for node in nodes.iter().filter(|node| !node.owns(&sid)) {
        let of = sid.clone();
        node.misbehave(Fault::never_answering().on(move |seen| seen.sid.as_ref() == Some(&of)));
    }
    nodes[own].freeze();
    let at = || (0..3).find(|at| *at != own && !seen_of(&nodes[*at], &sid).is_empty());
    eventually("it has moved", || at().is_some()).await;
    let next = at().unwrap();
    nodes[own].thaw();
    until_verdict(&balancer, own, Verdict::Up).await;
    nodes[next].kill(Ending::Eof).await;
    // The request was at two nodes: it has an empty answer, and its client goes on.
    assert_goes_on(&poll.reply().await.unwrap());
    assert_answered_at_once(&mut client).await;
    assert!(seen_of(&nodes[own], &sid).len() > 1, "it is back");
    let third = 3 - own - next;
    assert_eq!(seen_of(&nodes[third], &sid).len(), 0);
}
