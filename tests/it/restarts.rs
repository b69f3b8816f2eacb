//! A node that was started anew and knows none of its sessions: their pins are dropped at once,
//! and nobody else's.

use std::time::Duration;

use bowline::cluster::Verdict;
use bowline::demo::client::Client;
use bowline::demo::node::{Fault, Hub, Kind, Node, Profile};
use tokio::time::Instant;

use crate::balancer::*;

/// A balancer that believes `X-Forwarded-For`, and whose probes notice nothing.
async fn balancer_of(nodes: &[Node]) -> Balancer {
    let mut settings = patient(nodes);
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    Balancer::start(&settings).await
}

/// A session of a client with an address of its own.
async fn session_from(balancer: &Balancer, address: usize) -> Client {
    let address = format!("192.0.2.{address}");
    let mut client = balancer.client().header("X-Forwarded-For", &address);
    client.create().await.unwrap();
    client
}

async fn sessions_from(
    balancer: &Balancer,
    addresses: impl IntoIterator<Item = usize>,
) -> Vec<Client> {
    let mut clients = Vec::new();
    for address in addresses {
        clients.push(session_from(balancer, address).await);
    }
    clients
}

fn restarts(balancer: &Balancer) -> u64 {
    balancer.metric("bowline_node_restarts_total")
}

/// How many requests of sessions, probes apart, the node has seen.
fn polls(node: &Node, clients: &[Client]) -> usize {
    let ours = |sid: &str| clients.iter().any(|client| client.sid() == sid);
    node.count(|seen| seen.kind == Kind::Poll && seen.sid.as_deref().is_some_and(ours))
}

/// The node restarts while the first client holds a poll, and the others come back one by one.
async fn restart(node: &Node, clients: &mut [Client]) {
    let poll = clients[0].begin_poll().await.unwrap();
    node.wait_until(|node| node.held() == 1).await.unwrap();
    node.revive().await.unwrap();
    assert_item_not_found(&poll.reply().await.unwrap());
    for client in &mut clients[1..] {
        assert_item_not_found(&client.poll().await.unwrap());
    }
}

#[tokio::test]
async fn a_node_that_lost_its_sessions_is_not_asked_for_each_of_them() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer_of(&nodes).await;
    let mut clients = sessions_from(&balancer, 1..=12).await;
    restart(&nodes[0], &mut clients[..3]).await;
    eventually("it is recognised", || restarts(&balancer) == 1).await;
    assert_eq!(balancer.metric("bowline_sessions_dropped_total"), 9);
    assert_eq!(balancer.metric("bowline_sessions{node=\"t1\"}"), 0);
    let events = balancer.proxy().cluster.events.since(0);
    let event = events.last().unwrap();
    assert_eq!(event.kind.word(), "sessions_lost");
    assert_eq!(
        (event.node.as_deref(), event.sessions),
        (Some("t1"), Some(9))
    );

    let asked = polls(&nodes[0], &clients);
    for client in &mut clients[3..] {
        assert_item_not_found(&client.poll().await.unwrap());
        assert_item_not_found(&client.ping("later").await.unwrap());
    }
    assert_eq!(polls(&nodes[0], &clients), asked, "nobody asked the node");
    for client in &mut clients {
        client.create().await.unwrap();
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert_eq!(balancer.metric("bowline_sessions{node=\"t1\"}"), 12);
    assert!(balancer.proxy().cluster.nodes()[0].is_up());
}

#[tokio::test]
async fn who_waits_for_a_connection_to_it_is_told_at_once() {
    let nodes = tigase_nodes(1).await;
    let mut settings = patient(&nodes);
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    settings.upstream.connects_per_second = 10;
    let balancer = Balancer::start(&settings).await;
    let mut clients = sessions_from(&balancer, 1..=30).await;
    let mut waiting = Vec::new();
    for client in &mut clients {
        waiting.push(client.begin_poll().await.unwrap());
    }
    nodes[0].wait_until(|node| node.held() == 30).await.unwrap();
    let asked = polls(&nodes[0], &clients);
    nodes[0].revive().await.unwrap();
    let restarted = Instant::now();
    for client in &mut clients {
        // One more, which has to wait for the one before it.
        waiting.push(
            client
                .begin("", "<presence xmlns='jabber:client'/>")
                .await
                .unwrap(),
        );
    }
    for poll in waiting {
        assert_item_not_found(&poll.reply().await.unwrap());
    }
    let took = restarted.elapsed();
    assert_eq!(restarts(&balancer), 1);
    let asked = polls(&nodes[0], &clients) - asked;
    assert!(asked <= 20, "the node was asked by {asked} of 30");
    // One second for each ten of them otherwise.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(balancer.metric("bowline_upstream_connects_waiting"), 0);
}

/// Found by the chaos suite: what the node forgets of itself while it is frozen is no restart.
#[tokio::test]
async fn sessions_that_expire_in_a_freeze_make_no_restart() {
    let inactivity = Duration::from_secs(2);
    let nodes = [Node::start(Profile::tigase("t1").inactivity(2))
        .await
        .unwrap()];
    let mut settings = settings(&nodes);
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let balancer = Balancer::start(&settings).await;
    let t1 = &balancer.proxy().cluster.nodes()[0];
    let mut clients = sessions_from(&balancer, 1..=9).await;
    let mut waiting = vec![clients[0].begin_poll().await.unwrap()];
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].freeze();
    let frozen = Instant::now();
    eventually("it is down", || t1.verdict() == Verdict::Down).await;
    for client in &mut clients[1..] {
        waiting.push(client.begin_poll().await.unwrap());
    }
    // The freeze lasts for longer than the sessions may.
    tokio::time::sleep_until(frozen + inactivity + Duration::from_millis(200)).await;
    nodes[0].thaw();
    let mut ended = 0;
    for poll in &mut waiting.drain(..).skip(1) {
        let reply = poll.reply().await.unwrap();
        ended += usize::from(reply.is_terminate());
    }
    assert!(ended >= 3, "the node forgot {ended} of them");
    assert_eq!(restarts(&balancer), 0);
}

#[tokio::test]
async fn clients_of_one_address_make_no_restart() {
    let nodes = tigase_nodes(1).await;
    let balancer = balancer_of(&nodes).await;
    let mut clients = sessions_from(&balancer, [1; 10]).await;
    restart(&nodes[0], &mut clients).await;
    assert_eq!(restarts(&balancer), 0);
    assert_eq!(polls(&nodes[0], &clients), 1 + 10, "each asked for itself");
}

/// Has `node` break the connection of the client's next request, and of the one that is sent again.
fn break_for(node: &Node, client: &Client) {
    let sid = client.sid().to_owned();
    let breaking = Fault::resetting().on(move |seen| seen.sid.as_ref() == Some(&sid));
    node.misbehave(breaking.times(2));
}

/// Each client sends a rid that is none, for which its node knows no session.
async fn ask_with_wrong_rids(clients: &mut [Client]) {
    for client in clients {
        let (sid, rid) = (client.sid(), client.rid() + 500);
        let body =
            format!("<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' rid='{rid}'/>");
        assert_item_not_found(&client.post(&body).await.unwrap());
    }
}

#[tokio::test]
async fn hostile_clients_make_no_restart_while_another_holds_a_poll() {
    let nodes = [Node::start(Profile::prosody("p1")).await.unwrap()];
    let balancer = balancer_of(&nodes).await;
    let mut victims = sessions_from(&balancer, 1..=3).await;
    let held = victims[0].begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let mut hostile = sessions_from(&balancer, 11..=18).await;
    break_for(&nodes[0], &hostile[0]);
    // One of them makes the node break its connections, the others send rids that are none.
    let _broken = hostile[0].begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 2).await.unwrap();
    assert!(
        balancer.proxy().cluster.nodes()[0]
            .restart_detector
            .epoch()
            .is_suspect()
    );
    ask_with_wrong_rids(&mut hostile[1..]).await;
    assert_eq!(restarts(&balancer), 0);
    for victim in &mut victims[1..] {
        assert_goes_on(&victim.ping("p").await.unwrap());
    }
    nodes[0].push(victims[0].sid(), "<message xmlns='jabber:client'/>");
    assert_goes_on(&held.reply().await.unwrap());
}

#[tokio::test]
async fn hostile_clients_make_no_restart_once_another_is_answered() {
    let nodes = [Node::start(Profile::prosody("p1")).await.unwrap()];
    let balancer = balancer_of(&nodes).await;
    let mut victims = sessions_from(&balancer, 1..=3).await;
    let mut hostile = sessions_from(&balancer, 11..=18).await;
    break_for(&nodes[0], &hostile[0]);
    let _broken = hostile[0].begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let detector = &balancer.proxy().cluster.nodes()[0].restart_detector;
    assert!(detector.epoch().is_suspect());
    // Nobody but them has a request there; one that the node answers is enough.
    assert_goes_on(&victims[0].ping("p").await.unwrap());
    ask_with_wrong_rids(&mut hostile[1..]).await;
    assert_eq!(restarts(&balancer), 0);
    for victim in &mut victims {
        assert_goes_on(&victim.ping("p").await.unwrap());
    }
}

#[tokio::test]
async fn sessions_that_live_elsewhere_in_a_sharing_cluster_stay() {
    let hub = Hub::default();
    let nodes = [
        Node::start(Profile::shared("e1", &hub)).await.unwrap(),
        Node::start(Profile::shared("e2", &hub)).await.unwrap(),
    ];
    let balancer = balancer_of(&nodes).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for address in 1..=40 {
        let client = session_from(&balancer, address).await;
        let home = usize::from(nodes[1].owns(client.sid()));
        if home == 0 { &mut here } else { &mut there }.push(client);
    }
    assert!(here.len() > 5 && there.len() > 5);
    // The second node takes no connections, and its sessions go on through the first one.
    nodes[1].misbehave(Fault::connection_close().times(1000));
    for client in &mut there {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    nodes[1].refuse().await;
    for client in &mut there {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    let second = balancer.proxy().cluster.nodes()[1].id;
    let pinned = |sid: &str| balancer.proxy().sessions.find(sid).unwrap().node();
    assert!(there.iter().all(|client| pinned(client.sid()) != second));
    // The first of them may have been to the other node meanwhile, and then does not count.
    restart(&nodes[0], &mut here[..4]).await;
    eventually("it is recognised", || restarts(&balancer) == 1).await;
    let dropped = balancer.metric("bowline_sessions_dropped_total");
    let left = u64::try_from(here.len()).unwrap() - 4;
    assert!((left..=left + 1).contains(&dropped), "{dropped} of {left}");
    for client in &mut there {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
}
