//! The set of nodes changes while clients are at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::cluster::Cluster;
use bowline::config::{Placement, Settings};
use bowline::demo::node::{Ending, Kind, Node};

use crate::balancer::*;

/// Settings with those nodes whose places are in `places`.
fn with(settings: &Settings, places: &[usize]) -> Settings {
    let mut chosen = settings.clone();
    chosen.nodes = places
        .iter()
        .map(|at| settings.nodes[*at].clone())
        .collect();
    chosen
}

fn replace(balancer: &Balancer, settings: &Settings) {
    let proxy = balancer.proxy();
    proxy.cluster.replace(settings, &proxy.metrics).unwrap();
}

fn is_listed(cluster: &Cluster, name: &str) -> bool {
    cluster.nodes().iter().any(|node| node.name == name)
}

fn creations(node: &Node) -> usize {
    node.count(|seen| seen.kind == Kind::Create)
}

#[tokio::test]
async fn the_set_is_swapped_under_load_and_no_request_fails() {
    let nodes = tigase_nodes(4).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&with(&settings, &[0, 1])).await;
    let cluster = Arc::clone(&balancer.proxy().cluster);
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut client, done) = (balancer.client(), Arc::clone(&done));
        clients.spawn(async move {
            let mut sessions = 0;
            while !done.load(Ordering::Relaxed) {
                client.create().await.unwrap();
                for ping in 0..10 {
                    assert_goes_on(&client.ping(&ping.to_string()).await.unwrap());
                }
                assert!(client.terminate().await.unwrap().is_terminate());
                sessions += 1;
            }
            sessions
        });
    }
    let sets: [&[usize]; 6] = [&[0, 1, 2], &[2, 3], &[3], &[0, 3], &[1, 2], &[0, 1, 2, 3]];
    for set in sets.iter().cycle().take(12) {
        replace(&balancer, &with(&settings, set));
        let before: Vec<_> = nodes.iter().map(creations).collect();
        // Every member is up and gets sessions of this set.
        eventually("each member gets new sessions", || {
            set.iter().all(|at| creations(&nodes[*at]) > before[*at])
        })
        .await;
        eventually("the others have none left and are gone", || {
            let out = (0..nodes.len()).filter(|at| !set.contains(at));
            out.map(|at| nodes[at].name())
                .all(|name| !is_listed(&cluster, name))
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    let sessions: usize = clients.join_all().await.into_iter().sum();
    assert!(sessions > 24, "{sessions}");
    let rejects = balancer.metric("bowline_rejects_total{");
    let moved = balancer.metric("bowline_sessions_reassigned_total{");
    assert_eq!((rejects, moved), (0, 0), "in {sessions} sessions");
    assert_eq!(balancer.metric("bowline_sessions_expired_total"), 0);
    for node in cluster.nodes().iter() {
        assert_eq!((node.sessions.balance(), node.held.balance()), (0, 0));
    }
}

#[tokio::test]
async fn a_removed_node_holds_polls_and_is_probed_until_its_last_session_ends() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut clients = [balancer.session().await, balancer.session().await];
    clients.sort_by_key(|client| owner(&nodes, client.sid()));
    let [mut first, mut second] = clients;
    let poll = first.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    replace(&balancer, &with(&settings, &[1]));
    assert!(nodes[0].push(first.sid(), "<message/>"));
    assert_goes_on(&poll.reply().await.unwrap());
    assert_goes_on(&first.ping("1").await.unwrap());
    assert_eq!(creations(&nodes[0]), 1);
    balancer.session().await;
    balancer.session().await;
    assert_eq!(creations(&nodes[0]), 1, "it gets no new sessions");

    // It dies before its session has ended: the probes see it, and the session moves.
    nodes[0].kill(Ending::Eof).await;
    let t1 = balancer
        .proxy()
        .cluster
        .named("t1")
        .expect("it is listed while it has a session");
    eventually("it is down", || !t1.serves()).await;
    assert_item_not_found(&first.ping("2").await.unwrap());
    assert_goes_on(&second.ping("3").await.unwrap());
    eventually("it has left", || {
        !is_listed(&balancer.proxy().cluster, "t1")
    })
    .await;
    assert!(!balancer.metrics().contains("node=\"t1\""));
    nodes[0].revive().await.unwrap();
    let seen = nodes[0].connections();
    replace(&balancer, &settings);
    eventually("it is probed and up again", || {
        t1.is_up() && nodes[0].connections() >= seen
    })
    .await;
    balancer.session().await;
    balancer.session().await;
    assert_eq!(creations(&nodes[0]), 2);
}

#[tokio::test]
async fn a_node_with_another_address_is_probed_there() {
    let nodes = tigase_nodes(2).await;
    let mut settings = with(&settings(&nodes), &[0]);
    settings.health.interval = Duration::from_secs(3600);
    let balancer = Balancer::start(&settings).await;
    let t1 = balancer.proxy().cluster.named("t1").unwrap();
    settings.nodes[0].address = nodes[1].address().to_string();
    let probes = nodes[1].record().len();
    replace(&balancer, &settings);
    nodes[1]
        .wait_until(|node| node.record().len() > probes)
        .await
        .unwrap();
    assert!(t1.is_up());
    let client = balancer.session().await;
    assert!(nodes[1].owns(client.sid()));
}
