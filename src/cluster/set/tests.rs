//! Sets of nodes that replace each other: ids, sessions, policy and metrics.

use std::net::IpAddr;
use std::time::SystemTime;

use super::super::registry::Registry;
use super::super::tests::settings;
use super::super::{OperatorState, Verdict};
use super::*;

const T1: NodeId = NodeId(0);
const T2: NodeId = NodeId(1);
const T3: NodeId = NodeId(2);
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn client() -> IpAddr {
    "198.51.100.1".parse().unwrap()
}

/// Settings with these nodes of t1 to t9.
fn of(numbers: &[usize]) -> Settings {
    let mut settings = settings(9, Placement::RoundRobin);
    let all = std::mem::take(&mut settings.nodes);
    settings.nodes = numbers.iter().map(|n| all[n - 1].clone()).collect();
    settings
}

/// A cluster of t1 and t2, which are up.
fn cluster() -> (Cluster, Metrics) {
    let metrics = Metrics::new();
    let cluster = Cluster::new(&of(&[1, 2]), &metrics);
    for id in [T1, T2] {
        cluster.set_verdict(id, Verdict::Up, NOW);
    }
    (cluster, metrics)
}

/// The names of the nodes that new sessions go to.
fn chosen(cluster: &Cluster) -> Vec<String> {
    let places = (0..12).filter_map(|_| cluster.place(client(), &[]));
    let mut names: Vec<_> = places.map(|id| cluster.node(id).name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn names(nodes: &[Arc<Node>]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

#[test]
fn a_name_has_one_id_for_the_life_of_the_process() {
    let (cluster, metrics) = cluster();
    cluster.replace(&of(&[3, 2]), &metrics).unwrap();
    let ids: Vec<_> = cluster.nodes().iter().map(|node| node.id).collect();
    assert_eq!(ids, [T3, T2, T1], "members first, in the new order");
    cluster.retire(&metrics);
    assert_eq!(names(&cluster.nodes()), ["t3", "t2"]);
    assert!(cluster.named("t1").is_none());
    assert_eq!(cluster.node(T1).name, "t1", "its id is still good");
    cluster.replace(&of(&[1, 2, 3]), &metrics).unwrap();
    let ids: Vec<_> = cluster.nodes().iter().map(|node| node.id).collect();
    assert_eq!(ids, [T1, T2, T3]);
}

#[test]
fn a_node_that_is_added_takes_sessions_when_it_is_up_and_holds_up_no_readiness() {
    let (cluster, metrics) = cluster();
    cluster.replace(&of(&[1, 2, 3]), &metrics).unwrap();
    assert!(cluster.ready(), "the balancer has been ready");
    assert_eq!(chosen(&cluster), ["t1", "t2"]);
    cluster.set_verdict(T3, Verdict::Up, NOW);
    assert_eq!(chosen(&cluster), ["t1", "t2", "t3"]);
}

#[test]
fn a_node_that_is_removed_keeps_its_sessions_until_the_last_is_gone() {
    let (cluster, metrics) = cluster();
    let t1 = cluster.node(T1);
    t1.sessions.inc();
    cluster.replace(&of(&[2]), &metrics).unwrap();
    cluster.retire(&metrics);
    assert_eq!(names(cluster.nodes().leaving()), ["t1"]);
    assert!(t1.serves() && !t1.takes_new());
    assert_eq!(chosen(&cluster), ["t2"]);
    assert!(
        cluster
            .place_new(client(), Some(T1), &[])
            .is_some_and(|placed| placed.id() == T2)
    );
    assert!((0..20).all(|_| cluster.home(client(), &[]) == Some(T2)));
    assert!(
        metrics
            .exposition()
            .contains("bowline_sessions{node=\"t1\"}")
    );

    t1.held.inc();
    t1.sessions.dec();
    cluster.retire(&metrics);
    assert_eq!(
        names(cluster.nodes().leaving()),
        ["t1"],
        "a request is there"
    );
    t1.held.dec();
    cluster.retire(&metrics);
    assert_eq!(names(&cluster.nodes()), ["t2"]);
    assert!(!metrics.exposition().contains("node=\"t1\""));
}

#[test]
fn a_session_that_reaches_a_node_after_it_left_brings_it_back_until_it_ends() {
    let (cluster, metrics) = cluster();
    cluster.replace(&of(&[2]), &metrics).unwrap();
    cluster.retire(&metrics);
    cluster.node(T1).sessions.inc();
    cluster.retire(&metrics);
    assert_eq!(names(cluster.nodes().leaving()), ["t1"]);
    assert!(metrics.exposition().contains("node=\"t1\""));
    cluster.node(T1).sessions.dec();
    cluster.retire(&metrics);
    assert_eq!(names(&cluster.nodes()), ["t2"]);
}

#[test]
fn a_node_that_joins_again_has_its_sessions_and_its_state() {
    let (cluster, metrics) = cluster();
    cluster.node(T1).sessions.inc();
    cluster
        .set_state(T1, OperatorState::Drain, true, NOW)
        .unwrap();
    cluster.replace(&of(&[2]), &metrics).unwrap();
    cluster.replace(&of(&[1, 2]), &metrics).unwrap();
    let t1 = cluster.node(T1);
    assert!(t1.is_member() && t1.is_up());
    assert_eq!((t1.sessions.get(), t1.state()), (1, OperatorState::Drain));
    cluster
        .set_state(T1, OperatorState::Ready, false, NOW)
        .unwrap();
    assert_eq!(chosen(&cluster), ["t1", "t2"]);
}

#[test]
fn what_is_known_of_a_node_is_forgotten_only_when_it_has_left() {
    let (cluster, metrics) = cluster();
    cluster.forget(T1);
    assert!(cluster.node(T1).is_up(), "it is a member");
    cluster.replace(&of(&[2]), &metrics).unwrap();
    cluster.forget(T1);
    assert!(cluster.node(T1).is_up(), "it leaves, and may have sessions");
    cluster.retire(&metrics);
    cluster.forget(T1);
    assert_eq!(cluster.node(T1).verdict(), Verdict::Unknown);
    assert!(!cluster.node(T1).serves());
}

#[test]
fn weights_limits_addresses_and_the_policy_change_in_place() {
    let (cluster, metrics) = cluster();
    let mut settings = of(&[1, 2]);
    settings.nodes[0].weight = 3;
    settings.nodes[1].max_sessions = 1;
    settings.nodes[1].address = "192.0.2.77:5280".into();
    cluster.replace(&settings, &metrics).unwrap();
    let (t1, t2) = (cluster.node(T1), cluster.node(T2));
    let share = |id| {
        (0..40)
            .filter(|_| cluster.place(client(), &[]) == Some(id))
            .count()
    };
    assert_eq!(share(T1), 30);
    t2.sessions.inc();
    assert!(t2.is_full() && !t1.is_full());
    assert_eq!(*t2.address(), *"192.0.2.77:5280");
    assert_eq!(*t2.addresses(), ["192.0.2.77:5280".parse().unwrap()]);
    assert!(t2.is_up(), "its verdict stays until a probe says otherwise");

    settings.nodes[1].address = "t2.example.com:5280".into();
    settings.placement = Placement::LeastSessions;
    cluster.replace(&settings, &metrics).unwrap();
    assert_eq!(
        *t2.addresses(),
        ["192.0.2.77:5280".parse().unwrap()],
        "until it is resolved"
    );
    t1.sessions.add(100);
    t2.sessions.dec();
    assert_eq!(chosen(&cluster), ["t2"]);
}

#[test]
fn more_names_than_ids_are_refused_and_change_nothing() {
    let (mut cluster, metrics) = cluster();
    cluster.registry.most = 3;
    assert_eq!(
        cluster.replace(&of(&[3, 4]), &metrics),
        Err(TooManyNodes),
        "t1 and t2 keep their ids"
    );
    assert_eq!(names(&cluster.nodes()), ["t1", "t2"]);
    let page = metrics.exposition();
    assert!(!page.contains("node=\"t3\"") && !page.contains("node=\"t4\""));
    cluster.replace(&of(&[3]), &metrics).unwrap();
    assert!(metrics.exposition().contains("node=\"t3\""));
}

#[test]
fn ids_go_on_behind_the_first_chunk_and_stop_before_the_last_number() {
    let registry = Registry::new();
    let (settings, metrics) = (of(&[1]), Metrics::new().node("n"));
    let add = |number: u16| {
        let make = |id| {
            Node::new(
                id,
                &settings.nodes[0],
                ConnectLimiter::new(1, 0),
                metrics.clone(),
            )
        };
        let added = registry.get_or_add(&format!("n{number}"), make);
        added.map(|(node, _)| node.id)
    };
    for number in 0..600 {
        assert_eq!(add(number), Ok(NodeId(number)));
    }
    assert_eq!(add(7), Ok(NodeId(7)), "a name that is known");
    assert_eq!(registry.iter().count(), 600);
    assert_eq!(registry.get(NodeId(599)).map(|node| node.id.0), Some(599));
    assert!(registry.get(NodeId(600)).is_none() && registry.get(NodeId(u16::MAX)).is_none());
    assert_eq!(
        registry.most,
        usize::from(u16::MAX),
        "which request records use for no node"
    );
}
