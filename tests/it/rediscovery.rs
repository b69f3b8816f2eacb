//! Sids without a pin: their nodes are found, and made-up ones cost next to nothing.
//!
//! `FORGOTTEN` sets the number of sessions that a restart forgets (60 here, 600 in a full run).

use std::time::Duration;

use bowline::config::Placement;
use bowline::demo::client::Client;
use bowline::demo::node::Node;
use tokio::time::Instant;

use crate::balancer::*;
use crate::cuts::number;

/// The same session at another balancer.
fn moved(client: &Client, to: &Balancer) -> Client {
    let mut next = to.client();
    next.adopt(client.sid(), client.rid());
    next
}

fn asked(nodes: &[Node], sid: &str) -> usize {
    nodes.iter().map(|node| seen_of(node, sid).len()).sum()
}

#[tokio::test]
async fn a_restart_without_a_snapshot_finds_every_session() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let old = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    let sessions = number("FORGOTTEN", 60);
    for _ in 0..sessions {
        clients.push(old.session().await);
    }
    drop(old);
    let new = Balancer::start(&settings).await;
    let (mut searches, mut others, mut costs) = (Vec::new(), Vec::new(), 0);
    for client in &clients {
        let sid = client.sid().to_owned();
        let node = owner(&nodes, &sid);
        let before = asked(&nodes, &sid);
        let mut client = moved(client, &new);
        let begun = Instant::now();
        assert_goes_on(&client.ping("after").await.unwrap());
        searches.push(begun.elapsed());
        let cost = asked(&nodes, &sid) - before;
        assert!((1..=3).contains(&cost), "{cost} requests at nodes");
        costs += cost;
        assert_eq!(owner(&nodes, &sid), node);
        // From now on it has a pin.
        let before = asked(&nodes, &sid);
        let begun = Instant::now();
        assert_goes_on(&client.ping("again").await.unwrap());
        others.push(begun.elapsed());
        assert_eq!(asked(&nodes, &sid) - before, 1);
    }
    searches.sort_unstable();
    others.sort_unstable();
    let middle = sessions / 2;
    println!(
        "{sessions} sessions, {costs} requests at nodes; a search took {:?} in the median, another request {:?}",
        searches[middle], others[middle]
    );
    // The distance between two requests is for one node: the next one is asked at once.
    let distance = bowline::sessions::SPACING;
    assert!(searches[middle] < others[middle] + distance);
    let found = new.metric("bowline_sessions_rediscovered_total");
    assert_eq!(usize::try_from(found).unwrap(), sessions);
    assert_eq!(new.metric("bowline_rejects_total{"), 0);
}

#[tokio::test]
async fn a_poll_and_a_send_at_once_find_the_same_node() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let old = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(old.session().await);
    }
    drop(old);
    let new = Balancer::start(&settings).await;
    for client in &clients {
        let mut client = moved(client, &new);
        let poll = client.begin_poll().await.unwrap();
        assert_goes_on(&client.ping("one").await.unwrap());
        assert_goes_on(&poll.reply().await.unwrap());
    }
}

#[tokio::test]
async fn a_sid_that_no_node_knows_gets_item_not_found_and_no_pin() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.client();
    client.adopt("made-up", 1000);
    assert_item_not_found(&client.poll().await.unwrap());
    assert_eq!(asked(&nodes, "made-up"), 3);
    assert_eq!(balancer.metric("bowline_sessions_rediscovered_total"), 0);
    eventually("no trace of it", || balancer.proxy().sessions.is_empty()).await;
}

#[tokio::test]
async fn a_flood_of_made_up_sids_costs_little_more_than_one_request_each() {
    const SIDS: usize = 4_000;
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.limits.exempt.clear();
    settings.limits.unknown_sids_per_second = 10;
    settings.limits.unknown_sids_per_client = 10;
    settings.health.interval = Duration::from_secs(3600);
    let balancer = Balancer::start(&settings).await;
    let count = || -> usize {
        nodes
            .iter()
            .map(|node| node.count(|seen| is_flood(seen.sid.as_deref())))
            .sum()
    };
    for number in 0..SIDS {
        let mut client = balancer.client();
        client.adopt(&format!("flood-{number}"), 1000);
        assert_item_not_found(&client.poll().await.unwrap());
    }
    let most = SIDS + SIDS / 100;
    assert!(count() <= most, "{} requests for {SIDS} sids", count());
    let searches = balancer.metric("bowline_unknown_sid_searches_total");
    assert!(searches <= 60, "{searches} searches");
}

fn is_flood(sid: Option<&str>) -> bool {
    sid.is_some_and(|sid| sid.starts_with("flood-"))
}
