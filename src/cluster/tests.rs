//! Tests of the cluster as a whole: verdicts, who is woken by them, and what may be chosen.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::*;

/// Settings with `nodes` nodes, everything else plain; for the tests of other modules, too.
pub(crate) fn settings(nodes: u16, placement: Placement) -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        listen: vec![],
        bosh: Bosh {
            paths: vec!["/http-bind".into()],
            max_body: 1 << 18,
            max_answer: 1 << 20,
            ..Bosh::default()
        },
        host_attribute: HostAttribute::Strip,
        affinity: Affinity::Sid,
        affinity_ttl: second,
        placement,
        placement_wait: second,
        zone: None,
        trusted_proxies: vec![],
        cors: Cors::default(),
        node_list: None,
        websocket: None,
        nodes: (1..=nodes)
            .map(|n| NodeSettings::new(format!("t{n}"), format!("192.0.2.{n}:5280")))
            .collect(),
        discovery: None,
        health: Health {
            probe: Probe::Tcp,
            host: None,
            interval: second,
            fast_interval: second,
            timeout: second,
            rise: 2,
            fall: 3,
            silence: 5 * second,
            slow_start: Duration::ZERO,
            penalty: Duration::ZERO,
            penalty_max: second,
        },
        upstream: Upstream::default(),
        admin: None,
        limits: Limits {
            connections: 100,
            sessions: 100,
            ..Limits::default()
        },
        timeouts: Timeouts {
            head: second,
            body: second,
            write_stall: second,
            idle: second,
            connect: second,
            retry: second,
            drain_notice: second,
            drain: second,
        },
        log: Log {
            format: LogFormat::Text,
            filter: "info".into(),
            ..Log::default()
        },
        reload_on_change: false,
        snapshot: None,
        takeover: None,
        traces: None,
        threads: 1,
    }
}

fn cluster(nodes: u16, placement: Placement) -> Cluster {
    Cluster::new(&settings(nodes, placement), &Metrics::new())
}

fn client() -> IpAddr {
    "198.51.100.1".parse().unwrap()
}

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

#[test]
fn a_node_is_not_chosen_before_its_first_verdict() {
    let cluster = cluster(2, Placement::RoundRobin);
    assert!(!cluster.ready());
    assert!(!cluster.any_up());
    assert_eq!(cluster.place(client(), &[]), None);
    assert_eq!(cluster.home(client(), &[]), None);

    cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
    assert!(!cluster.ready());
    cluster.set_verdict(NodeId(1), Verdict::Down, NOW);
    assert!(cluster.ready());
    assert_eq!(cluster.place(client(), &[]), Some(NodeId(0)));
    assert_eq!(cluster.home(client(), &[]), Some(NodeId(0)));
}

#[test]
fn a_node_that_was_tried_is_not_chosen_again() {
    let cluster = cluster(3, Placement::ClientIp);
    for id in 0..3 {
        cluster.set_verdict(NodeId(id), Verdict::Up, NOW);
    }
    let mut tried = vec![];
    while let Some(id) = cluster.place(client(), &tried) {
        assert_eq!(cluster.home(client(), &tried), Some(id));
        assert!(!tried.contains(&id));
        tried.push(id);
    }
    assert_eq!(tried.len(), 3);
}

#[test]
fn creations_under_way_count_as_load() {
    let cluster = cluster(3, Placement::LeastSessions);
    for (id, sessions) in [(0, 50), (1, 20), (2, 0)] {
        cluster.set_verdict(NodeId(id), Verdict::Up, NOW);
        cluster.node(NodeId(id)).sessions.add(sessions);
    }
    let under_way: Vec<_> = (0..110)
        .map(|_| cluster.place_new(client(), None, &[]).unwrap())
        .collect();
    let loads = || {
        cluster
            .nodes()
            .iter()
            .map(|node| node.load())
            .collect::<Vec<_>>()
    };
    assert_eq!(loads(), [60, 60, 60]);
    drop(under_way);
    assert_eq!(loads(), [50, 20, 0]);
    let placed = cluster.place_new(client(), Some(NodeId(1)), &[]).unwrap();
    assert_eq!((placed.id(), loads()), (NodeId(1), vec![50, 21, 0]));
}

#[test]
fn a_node_with_as_many_sessions_as_it_may_gets_no_new_ones() {
    let mut settings = settings(2, Placement::RoundRobin);
    settings.nodes[0].max_sessions = 3;
    settings.nodes[1].max_sessions = 5;
    let cluster = Cluster::new(&settings, &Metrics::new());
    for id in [0, 1] {
        cluster.set_verdict(NodeId(id), Verdict::Up, NOW);
    }
    cluster.node(NodeId(1)).sessions.add(2);
    let place = |tied| cluster.place_new(client(), tied, &[]);
    assert!(!cluster.is_full());
    let placed: Vec<_> = std::iter::from_fn(|| place(Some(NodeId(0)))).collect();
    assert_eq!(placed.len(), 6, "three at each");
    assert!(cluster.is_full());
    assert!(
        cluster.place(client(), &[]).is_some(),
        "sessions of others may come"
    );
    drop(placed);
    assert!(place(None).is_some());
    cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
    cluster.set_verdict(NodeId(1), Verdict::Down, NOW);
    assert!(!cluster.is_full(), "there is no node at all");
}

#[test]
fn only_changes_after_the_first_verdict_are_counted() {
    let cluster = cluster(1, Placement::Random);
    let node = cluster.node(NodeId(0));
    let later = NOW + Duration::from_secs(5);
    cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
    cluster.set_verdict(NodeId(0), Verdict::Up, later);
    assert_eq!((node.metrics.changes.get(), node.since()), (0, Some(NOW)));
    assert_eq!(node.verdict(), Verdict::Up);
    cluster.set_verdict(NodeId(0), Verdict::Down, later);
    assert_eq!((node.metrics.changes.get(), node.since()), (1, Some(later)));
    assert_eq!(node.verdict(), Verdict::Down);
}

/// Where a test's log goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_change_is_one_line_and_a_repetition_none() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let cluster = cluster(1, Placement::ClientIp);
    tracing::subscriber::with_default(subscriber, || {
        cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
        cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
        cluster
            .node(NodeId(0))
            .probe_failed("connection refused".into(), "refused", NOW);
        cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
        cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let expected = [
        " INFO node is up node=t1 address=192.0.2.1:5280",
        " WARN node is down node=t1 address=192.0.2.1:5280 reason=\"connection refused\"",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn waiting_for_a_node_ends_when_one_is_up() {
    let cluster = Arc::new(cluster(2, Placement::ClientIp));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move { cluster.until_up().await })
        })
        .collect();
    tokio::task::yield_now().await;
    cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    cluster.set_verdict(NodeId(1), Verdict::Up, NOW);
    for task in waiting {
        task.await.unwrap();
    }
    cluster.until_up().await;
}

/// A node that goes up and down again at once still wakes; the wait then goes on.
#[tokio::test(start_paused = true)]
async fn waiting_goes_on_when_the_node_went_down_again() {
    let cluster = Arc::new(cluster(1, Placement::ClientIp));
    let waiting = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { cluster.until_up().await }
    });
    tokio::task::yield_now().await;
    cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
    cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
    waiting.await.unwrap();
}

#[tokio::test]
async fn going_down_wakes_whoever_waits_at_the_node() {
    let cluster = cluster(1, Placement::ClientIp);
    cluster.set_verdict(NodeId(0), Verdict::Up, NOW);
    let node = cluster.node(NodeId(0));
    let mut went_down = pin!(node.went_down.notified());
    went_down.as_mut().enable();
    assert!(node.is_up());
    cluster.set_verdict(NodeId(0), Verdict::Down, NOW);
    went_down.await;
}

/// A node that came back has a small share of new sessions for a while. Its old sessions, of which
/// this balancer may know nothing, are still there.
#[test]
fn sessions_of_unknown_origin_are_looked_for_by_the_configured_weights() {
    let cluster = cluster(3, Placement::ClientIp);
    for id in 0..3 {
        cluster.set_verdict(NodeId(id), Verdict::Up, NOW);
    }
    let clients = (0..300).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]));
    let homes = || -> Vec<_> { clients.clone().map(|ip| cluster.home(ip, &[])).collect() };
    let before = homes();
    cluster
        .node(NodeId(1))
        .set_share(Share(Share::WHOLE.0 / 10));
    let placed = clients.clone().map(|ip| cluster.place(ip, &[]));
    assert!(
        placed.ne(before.iter().copied()),
        "new sessions go elsewhere"
    );
    assert_eq!(homes(), before);
}

/// Every placement and the move of a session prefer the own zone, then the others, then backups.
#[test]
fn new_sessions_go_to_the_own_zone_then_to_others_then_to_backups() {
    for placement in [
        Placement::ClientIp,
        Placement::LeastSessions,
        Placement::RoundRobin,
        Placement::Random,
        Placement::Query("room".into()),
    ] {
        let mut settings = settings(4, placement);
        settings.zone = Some("a".into());
        for (node, zone) in settings
            .nodes
            .iter_mut()
            .zip([Some("a"), Some("b"), None, Some("a")])
        {
            node.zone = zone.map(Into::into);
        }
        settings.nodes[3].backup = true;
        let metrics = Metrics::new();
        let cluster = Cluster::new(&settings, &metrics);
        let now = SystemTime::UNIX_EPOCH;
        let all = || (0..4).map(NodeId);
        all().for_each(|id| cluster.set_verdict(id, Verdict::Up, now));
        let placed = || {
            let client = |n| IpAddr::from([192, 0, 2, n]);
            let new = (0..40).filter_map(|n| cluster.place_new(client(n), None, &[]));
            let mut ids: Vec<_> = new.map(|placed| placed.id()).collect();
            ids.extend((0..40).filter_map(|n| cluster.place(client(n), &[])));
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let down = |id| cluster.set_verdict(NodeId(id), Verdict::Down, now);
        assert_eq!(placed(), [NodeId(0)], "{:?}", settings.placement);
        down(0);
        assert_eq!(placed(), [NodeId(1), NodeId(2)]);
        down(1);
        down(2);
        assert_eq!(placed(), [NodeId(3)], "the backup");
        // A reload that makes it an ordinary node, and the others come back.
        settings.nodes[3].backup = false;
        settings.zone = Some("b".into());
        cluster.replace(&settings, &metrics).unwrap();
        all().for_each(|id| cluster.set_verdict(id, Verdict::Up, now));
        assert_eq!(placed(), [NodeId(1)]);
        down(1);
        assert_eq!(placed(), [NodeId(0), NodeId(2), NodeId(3)]);
    }
}
