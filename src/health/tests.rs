//! The probe task over real sockets: verdicts, signals, names, and its end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::tests::settings;
use crate::config::Placement;
use crate::observe::metrics::Metrics;

const T1: NodeId = NodeId(0);

/// A node that counts its connections and closes them (enough for the probe `tcp`).
struct Fake {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Closes the listener; connections are refused from now on.
    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Settings with one node at `address`, probed with `tcp` every `interval`.
fn probing(address: String, interval: Duration) -> Settings {
    let mut settings = settings(1, Placement::ClientIp);
    settings.nodes[0].address = address;
    settings.health.interval = interval;
    settings.health.timeout = Duration::from_secs(1);
    settings
}

fn cluster(settings: &Settings) -> Arc<Cluster> {
    Arc::new(Cluster::new(settings, &Metrics::new()))
}

/// Waits until `condition` holds; ten seconds are a failure.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const OFTEN: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_node_goes_down_after_fall_failures_and_up_after_rise_passes() {
    let fake = Fake::start().await;
    let address = fake.address;
    let settings = probing(address.to_string(), OFTEN);
    let cluster = cluster(&settings);
    let node = cluster.node(T1);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    cluster.until_up().await;
    assert!(cluster.ready());
    assert_eq!(node.metrics.probe_failures.get(), 0);

    fake.stop().await;
    until("the node is down", || !node.is_up()).await;
    assert!(node.metrics.probe_failures.get() >= 3);
    assert_eq!(
        node.last_failure().unwrap().what,
        "the connection was refused"
    );

    let fake = Fake::at(address).await;
    cluster.until_up().await;
    assert!(fake.seen() >= 1);
    assert_eq!(node.metrics.changes.get(), 2);
}

#[tokio::test]
async fn the_first_failure_is_a_verdict() {
    let fake = Fake::start().await;
    let settings = probing(fake.address.to_string(), NEVER);
    fake.stop().await;
    let cluster = cluster(&settings);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    until("there is a verdict", || cluster.ready()).await;
    assert!(!cluster.any_up());
}

#[tokio::test]
async fn a_failure_that_somebody_met_brings_a_probe_at_once() {
    let fake = Fake::start().await;
    let settings = probing(fake.address.to_string(), NEVER);
    let cluster = cluster(&settings);
    let node = cluster.node(T1);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    until("the first probe came", || fake.seen() == 1).await;
    node.suspect("connection refused", SystemTime::now());
    until("the second probe came", || fake.seen() == 2).await;
    assert!(node.is_up());
}

#[tokio::test]
async fn signals_do_not_flood_a_node() {
    let fake = Fake::start().await;
    let settings = probing(fake.address.to_string(), NEVER);
    let cluster = cluster(&settings);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    cluster.until_up().await;
    let begun = Instant::now();
    while begun.elapsed() < FLOOR * 6 {
        cluster.node(T1).suspect("reset", SystemTime::now());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let most = usize::try_from(begun.elapsed().as_millis() / FLOOR.as_millis()).unwrap() + 2;
    assert!((3..=most).contains(&fake.seen()), "{} probes", fake.seen());
}

/// A node behind this listener asks to be asked by the probe `bosh`, fast once it is suspect.
fn silent_node(address: SocketAddr) -> Settings {
    let mut settings = probing(address.to_string(), NEVER);
    settings.health.probe = crate::config::Probe::Bosh;
    settings.health.fast_interval = OFTEN;
    settings.health.timeout = Duration::from_secs(10);
    settings
}

async fn answer(stream: &mut tokio::net::TcpStream) {
    use tokio::io::AsyncWriteExt as _;
    let body = "<body type='terminate' xmlns='http://jabber.org/protocol/httpbind'/>";
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_silence_shorter_than_the_timeout_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = silent_node(listener.local_addr().unwrap());
    let cluster = cluster(&settings);
    let node = cluster.node(T1);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    let (mut first, _) = listener.accept().await.unwrap();
    answer(&mut first).await;
    cluster.until_up().await;
    node.suspect("a client's word", SystemTime::now());
    // As many probes as make it down, none of them answered.
    let mut waiting = vec![];
    for _ in 0..settings.health.fall {
        waiting.push(listener.accept().await.unwrap().0);
    }
    answer(&mut waiting[2]).await;
    for stream in &mut waiting {
        use tokio::io::AsyncReadExt as _;
        let mut rest = vec![];
        // Let go of, whichever was answered: to its end, or reset.
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert!(node.is_up());
    assert_eq!(node.metrics.probe_failures.get(), 0);
}

#[tokio::test]
async fn a_host_name_is_looked_up() {
    let fake = Fake::start().await;
    let settings = probing(format!("localhost:{}", fake.address.port()), OFTEN);
    let cluster = cluster(&settings);
    assert!(cluster.node(T1).addresses().is_empty());
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    cluster.until_up().await;
    assert!(cluster.node(T1).addresses().contains(&fake.address));
}

#[tokio::test]
async fn a_host_name_that_stands_for_nothing_is_a_failure() {
    let settings = probing("nothing.invalid:5280".into(), NEVER);
    let cluster = cluster(&settings);
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    until("there is a verdict", || cluster.ready()).await;
    let failure = cluster.node(T1).last_failure().unwrap();
    assert!(
        failure.what.starts_with("host name not resolved"),
        "{}",
        failure.what
    );
    assert!(!cluster.any_up());
}

#[tokio::test]
async fn the_last_addresses_serve_while_the_name_is_not_resolved() {
    let fake = Fake::start().await;
    let settings = probing("nothing.invalid:5280".into(), OFTEN);
    let cluster = cluster(&settings);
    let node = cluster.node(T1);
    node.resolved([fake.address].into());
    let _probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    cluster.until_up().await;
    assert_eq!(*node.addresses(), [fake.address]);
    let failure = node.last_failure().unwrap();
    assert!(
        failure.what.starts_with("host name not resolved"),
        "{}",
        failure.what
    );
    assert_eq!(node.metrics.probe_failures.get(), 0);
}

#[tokio::test]
async fn probes_end_and_let_go_of_the_cluster_when_dropped() {
    let fake = Fake::start().await;
    let settings = probing(fake.address.to_string(), OFTEN);
    let cluster = cluster(&settings);
    let mut probes = start(&cluster, &settings, &Arc::new(Metrics::new()));
    cluster.until_up().await;
    let broken = tokio::time::timeout(OFTEN, probes.broken()).await;
    assert!(broken.is_err(), "a probe task ended");
    drop(probes);
    until("the tasks are gone", || Arc::strong_count(&cluster) == 1).await;
}

#[test]
fn intervals_are_up_to_a_tenth_shorter() {
    let second = Duration::from_secs(1);
    let moved: Vec<Duration> = (0..1000).map(|_| jittered(second)).collect();
    let (low, high) = (moved.iter().min().unwrap(), moved.iter().max().unwrap());
    assert!(*low >= second.mul_f64(0.899) && *low < second.mul_f64(0.92));
    assert!(*high <= second && *high > second.mul_f64(0.98));
}

#[tokio::test]
async fn probes_begin_and_end_with_the_set_of_nodes() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let mut settings = probing(first.address.to_string(), Duration::from_millis(10));
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(&settings, &metrics));
    let _probes = start(&cluster, &settings, &metrics);
    until("the first is up", || cluster.node(T1).is_up()).await;

    let mut other = settings.nodes[0].clone();
    (other.name, other.address) = ("t2".into(), second.address.to_string());
    let only = std::mem::replace(&mut settings.nodes, vec![other.clone()]);
    cluster.replace(&settings, &metrics).unwrap();
    until("the second is up", || {
        cluster.named("t2").is_some_and(Node::is_up)
    })
    .await;
    cluster.node(T1).sessions.inc();
    cluster.retire(&metrics);
    let seen = first.seen();
    until("the first is probed while it leaves", || {
        first.seen() > seen + 2
    })
    .await;
    assert!(cluster.node(T1).is_up());
    cluster.node(T1).sessions.dec();
    cluster.retire(&metrics);
    until("the first is forgotten", || {
        cluster.node(T1).verdict() == Verdict::Unknown
    })
    .await;
    let (left, later) = (first.seen(), second.seen());
    until("the second is probed", || second.seen() > later + 5).await;
    // One connect may have been under way.
    assert!(first.seen() <= left + 1, "and the first is not");

    settings.nodes = [only, vec![other]].concat();
    cluster.replace(&settings, &metrics).unwrap();
    until("the first is up again", || cluster.node(T1).is_up()).await;
}
