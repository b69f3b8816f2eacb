//! One session in front of one node whose every answer the test decides: rid order, requests that stay
//! unanswered, and pauses, on virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::cluster::Cluster;
use bowline::config::{NodeSettings, Settings};
use bowline::downstream::{Downstream, Drain, Listener};
use bowline::health;
use bowline::limits::Files;
use bowline::observe::metrics::Metrics;
use bowline::proxy::Proxy;
use bowline::transport::{Door, Pipe, pair, set_door};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::wire::read_message;

/// A condition that has not come true by then never will.
const PATIENCE: Duration = Duration::from_secs(1_000);

const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5280);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// 0.3 s, a probe that shows that the node is alive, and the time that its answers need after a pause.
const RESENT_WITHIN: Duration = Duration::from_millis(520);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A request as the node read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    rid: u64,
    at: Instant,
    connection: usize,
}

/// The node: it answers creations and probes, and holds everything else until the test answers it.
#[derive(Default)]
struct Node {
    seen: Mutex<Vec<Seen>>,
    /// The latest copy of each rid that waits for its answer.
    open: Mutex<BTreeMap<u64, oneshot::Sender<String>>>,
    changed: Notify,
    /// Attributes of the answer to a creation.
    terms: String,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    fn seen(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }

    fn rids(&self) -> Vec<u64> {
        self.seen().iter().map(|seen| seen.rid).collect()
    }

    /// Waits until the node has read so many requests of the session.
    async fn has_seen(&self, count: usize) -> Vec<Seen> {
        let wait = async {
            while self.seen().len() < count {
                self.changed.notified().await;
            }
        };
        let came = timeout(PATIENCE, wait).await;
        assert!(came.is_ok(), "{count} requests: {:?}", self.rids());
        self.seen()
    }

    /// Answers a request that is open.
    fn answer(&self, rid: u64) {
        let open = locked(&self.open).remove(&rid);
        let open = open.unwrap_or_else(|| panic!("{rid} is not open: {:?}", self.rids()));
        drop(open.send(format!("<body x='{rid}' xmlns='{HTTPBIND}'/>")));
    }

    async fn serve(self: Arc<Self>, number: usize, mut connection: Pipe) {
        let mut bytes = Vec::new();
        while let Some((body, _)) = read_message(&mut connection, &mut bytes).await {
            let request = bosh::read_request(&body).expect("Bowline sends good wrappers");
            let answer = match request.sid.as_deref() {
                None => format!("<body sid='a' {} xmlns='{HTTPBIND}'/>", self.terms),
                Some("a") => {
                    let (sender, receiver) = oneshot::channel();
                    locked(&self.open).insert(request.rid, sender);
                    locked(&self.seen).push(Seen {
                        rid: request.rid,
                        at: Instant::now(),
                        connection: number,
                    });
                    self.changed.notify_one();
                    match receiver.await {
                        Ok(answer) => answer,
                        // A later copy of the request took its place.
                        Err(_) => std::future::pending().await,
                    }
                }
                Some(_) => format!(
                    "<body type='terminate' condition='item-not-found' xmlns='{HTTPBIND}'/>"
                ),
            };
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let written = connection.write_all((head + &answer).as_bytes()).await;
            if written.is_err() {
                break;
            }
        }
    }
}

/// A balancer in front of the node, with one session whose creation had rid 1000.
struct World {
    clients: Arc<Listener>,
    proxy: Arc<Proxy>,
    node: Arc<Node>,
    listener: mpsc::UnboundedSender<Pipe>,
    _probes: health::Probes,
    _accepting: JoinSet<()>,
}

impl World {
    async fn start(terms: &str) -> Self {
        let world = Self::without_session(terms).await;
        let created = world.post(&format!(
            "<body rid='1000' to='example.com' wait='60' hold='1' ver='1.6' xmlns='{HTTPBIND}'/>"
        ));
        assert!(created.await.expect("no panic").contains("sid='a'"));
        world
    }

    async fn without_session(terms: &str) -> Self {
        let mut settings = Settings::for_nodes(vec![NodeSettings::new("t1", NODE.to_string())]);
        settings.timeouts.connect = Duration::from_secs(20);
        // The first verdict, and none that the tests do not ask for.
        settings.health.interval = Duration::from_secs(3600);
        settings.health.fall = 1000;
        let (listener, mut accepted) = mpsc::unbounded_channel();
        set_door(NODE, Door::Open(listener.clone()));
        let node = Arc::new(Node {
            terms: terms.to_owned(),
            ..Node::default()
        });
        let mut accepting = JoinSet::new();
        let own = Arc::clone(&node);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(connection) = accepted.recv().await {
                let number = connections.len();
                connections.spawn(Arc::clone(&own).serve(number, connection));
            }
        });
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(&settings, &metrics));
        let proxy = Proxy::new(&settings, Arc::clone(&cluster), Arc::clone(&metrics));
        // A simulation has one thread, and one order of events.
        let proxy = proxy
            .expect("no traces are sent")
            .with_background(|work| work());
        let proxy = Arc::new(proxy);
        let probes = health::start(&cluster, &settings, &metrics);
        cluster.until_up().await;
        let listen = settings.listen[0].clone();
        let downstream = Downstream::new(
            Arc::clone(&proxy),
            settings,
            Arc::new(Drain::default()),
            Files::raise(1, 1, 1),
        );
        Self {
            clients: Arc::new(Listener::new(Arc::new(downstream), listen)),
            proxy,
            node,
            listener,
            _probes: probes,
            _accepting: accepting,
        }
    }

    /// Sends a body on a connection of its own; what is waited for is the answer's body.
    fn post(&self, body: &str) -> JoinHandle<String> {
        let (mut near, far) = pair();
        tokio::spawn(self.clients.serve(far.into(), CLIENT));
        let length = body.len();
        let request = format!(
            "POST /http-bind HTTP/1.1\r\nHost: example.com\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        tokio::spawn(async move {
            let written = near.write_all(request.as_bytes()).await;
            written.expect("the balancer reads");
            let answer = read_message(&mut near, &mut Vec::new()).await;
            let (body, _) = answer.expect("the balancer answers");
            String::from_utf8(body).expect("an answer in UTF-8")
        })
    }

    /// Sends a request of the session.
    fn ask(&self, rid: u64, attributes: &str) -> JoinHandle<String> {
        self.post(&format!(
            "<body rid='{rid}' sid='a' {attributes} xmlns='{HTTPBIND}'/>"
        ))
    }

    /// The node answers `rid`, and the client gets it.
    async fn answered(&self, rid: u64, answer: JoinHandle<String>) {
        self.node.answer(rid);
        let answer = answer.await.expect("no panic");
        assert!(answer.contains(&format!("x='{rid}'")), "{rid}: {answer}");
    }

    /// Requests sent again since their node left them unanswered.
    fn resent(&self) -> u64 {
        let metrics = &self.proxy.cluster.nodes()[0].metrics;
        metrics.resent_unanswered.get()
    }

    fn is_known(&self) -> bool {
        self.proxy.sessions.find("a").is_some()
    }
}

/// 1002 waits for a connection for 7 s, and 1003 comes meanwhile: it used to go without 1002 after 5 s.
#[tokio::test(start_paused = true)]
async fn a_rid_waits_for_a_lower_one_that_waits_for_a_connection() {
    let world = World::start("wait='60' hold='1'").await;
    let poll = world.ask(1001, "");
    world.node.has_seen(1).await;
    set_door(NODE, Door::Swallows);
    let send = world.ask(1002, "");
    sleep(millis(100)).await;
    // Its connection is free for 1003.
    world.answered(1001, poll).await;
    let next = world.ask(1003, "");
    sleep(millis(6_000)).await;
    assert_eq!(world.node.rids(), [1001], "1002 has no connection yet");
    set_door(NODE, Door::Open(world.listener.clone()));
    let seen = world.node.has_seen(3).await;
    assert_eq!(world.node.rids(), [1001, 1002, 1003]);
    let apart = seen[2].at - seen[1].at;
    assert!(apart < millis(10), "{apart:?}");
    world.answered(1002, send).await;
    world.answered(1003, next).await;
}

/// A rid that has not come is waited for, and no longer than 5 s.
#[tokio::test(start_paused = true)]
async fn a_rid_waits_a_while_for_a_lower_one_that_does_not_come() {
    let world = World::start("wait='60' hold='1'").await;
    let begun = Instant::now();
    let early = world.ask(1002, "");
    let seen = world.node.has_seen(1).await;
    let waited = seen[0].at - begun;
    assert!(
        waited >= millis(5_000) && waited < millis(5_100),
        "{waited:?}"
    );
    world.answered(1002, early).await;
    let late = world.ask(1001, "");
    world.node.has_seen(2).await;
    world.answered(1001, late).await;
}

/// The pin of a session with `inactivity` 2 that was paused for 40 s expired after 7 s, when a poll from
/// before the pause ended after it.
#[tokio::test(start_paused = true)]
async fn a_pause_outlasts_the_end_of_an_older_poll() {
    let world = World::start("wait='60' hold='1' inactivity='2' maxpause='60'").await;
    let poll = world.ask(1001, "");
    world.node.has_seen(1).await;
    sleep(millis(500)).await;
    let pause = world.ask(1002, "pause='40'");
    world.node.has_seen(2).await;
    world.answered(1002, pause).await;
    world.answered(1001, poll).await;
    sleep(Duration::from_secs(39)).await;
    world.proxy.sweep();
    assert!(world.is_known(), "paused for 40 s");
    // What comes next ends the pause.
    let next = world.ask(1003, "");
    world.node.has_seen(3).await;
    world.answered(1003, next).await;
    sleep(Duration::from_secs(9)).await;
    world.proxy.sweep();
    assert!(!world.is_known(), "inactivity and the grace are over");
}

/// A session whose creation was not seen may be one with long terms.
#[tokio::test(start_paused = true)]
async fn a_session_whose_creation_was_not_seen_has_long_terms() {
    let world = World::without_session("").await;
    for (rid, pause, stays) in [(7, "", 300), (8, "pause='600'", 600)] {
        let request = world.ask(rid, pause);
        world
            .node
            .has_seen(usize::try_from(rid).unwrap_or(0) - 6)
            .await;
        world.answered(rid, request).await;
        sleep(Duration::from_secs(stays)).await;
        world.proxy.sweep();
        assert!(world.is_known(), "{stays} s");
    }
    sleep(Duration::from_secs(10)).await;
    world.proxy.sweep();
    assert!(!world.is_known());
}

/// What the node keeps of two requests, it keeps for the newer one: the older is sent again after 0.3 s,
/// and the newer after another 0.3 s if it stays open. Each once, and the node is not blamed.
#[tokio::test(start_paused = true)]
async fn of_two_requests_that_stay_open_each_is_sent_again_once() {
    let world = World::start("wait='60' hold='1'").await;
    let older = world.ask(1001, "");
    world.node.has_seen(1).await;
    sleep(millis(2_000)).await;
    let newer = world.ask(1002, "");
    let seen = world.node.has_seen(3).await;
    assert_eq!(world.node.rids(), [1001, 1002, 1001]);
    let took = seen[2].at - seen[1].at;
    assert!(took >= millis(300) && took <= RESENT_WITHIN, "{took:?}");
    assert_ne!(seen[2].connection, seen[0].connection);
    world.answered(1001, older).await;
    let seen = world.node.has_seen(4).await;
    assert_eq!(world.node.rids(), [1001, 1002, 1001, 1002]);
    let took = seen[3].at - seen[2].at;
    assert!(took >= millis(300) && took <= RESENT_WITHIN, "{took:?}");
    assert_ne!(seen[3].connection, seen[1].connection);
    // It is alone now, and held: nothing more is done about it.
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.node.seen().len(), 4);
    world.answered(1002, newer).await;
    assert_eq!(world.resent(), 2);
    assert_eq!(world.proxy.cluster.nodes()[0].metrics.failures(), 0);
    assert!(world.proxy.cluster.nodes()[0].last_failure().is_none());
}

/// Two that stay open although both were sent again are left alone.
#[tokio::test(start_paused = true)]
async fn a_node_that_answers_neither_gets_each_once_more() {
    let world = World::start("wait='60'").await;
    let older = world.ask(1001, "");
    let newer = world.ask(1002, "");
    let seen = world.node.has_seen(4).await;
    let took = seen[3].at - seen[0].at;
    assert!(took < RESENT_WITHIN * 2 + millis(50), "{took:?}");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.node.rids(), [1001, 1002, 1001, 1002]);
    for pair in world.node.seen().windows(2) {
        assert!(pair[1].at - pair[0].at >= millis(5), "{pair:?}");
    }
    world.answered(1001, older).await;
    world.answered(1002, newer).await;
}

/// The node answers the newer of two alone: it has lost the older one, which has no other beside it.
#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_when_a_later_one_was_answered() {
    let world = World::start("wait='60' hold='1'").await;
    let older = world.ask(1001, "");
    world.node.has_seen(1).await;
    sleep(millis(2_000)).await;
    let newer = world.ask(1002, "");
    world.node.has_seen(2).await;
    let answered = Instant::now();
    world.answered(1002, newer).await;
    let seen = world.node.has_seen(3).await;
    assert_eq!(seen[2].rid, 1001);
    let took = seen[2].at - answered;
    assert!(took >= millis(300) && took <= RESENT_WITHIN, "{took:?}");
    world.answered(1001, older).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_may_hold_is_not_sent_again() {
    // Two requests at a node that holds two, and one at a node that holds one.
    for (hold, rids) in [("hold='2'", [1001, 1002].as_slice()), ("hold='1'", &[1001])] {
        let world = World::start(hold).await;
        let asked: Vec<_> = rids.iter().map(|rid| world.ask(*rid, "")).collect();
        world.node.has_seen(rids.len()).await;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(world.node.rids(), rids);
        for (rid, asked) in rids.iter().zip(asked) {
            world.answered(*rid, asked).await;
        }
    }
}

/// The older one is answered within 0.3 s, as it should be.
#[tokio::test(start_paused = true)]
async fn a_node_that_answers_the_older_request_in_time_gets_nothing_again() {
    let world = World::start("wait='60' hold='1'").await;
    let older = world.ask(1001, "");
    world.node.has_seen(1).await;
    let newer = world.ask(1002, "");
    world.node.has_seen(2).await;
    sleep(millis(250)).await;
    world.answered(1001, older).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.node.rids(), [1001, 1002]);
    world.answered(1002, newer).await;
}

/// The one that is sent again has no connection yet, and the node has read it before.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_holds_no_later_one_up() {
    let world = World::start("wait='60' hold='1'").await;
    let older = world.ask(1001, "");
    world.node.has_seen(1).await;
    let newer = world.ask(1002, "");
    world.node.has_seen(2).await;
    set_door(NODE, Door::Swallows);
    sleep(millis(350)).await;
    world.answered(1002, newer).await;
    let asked = Instant::now();
    let next = world.ask(1003, "");
    let seen = world.node.has_seen(3).await;
    assert_eq!(seen[2].rid, 1003);
    let took = seen[2].at - asked;
    assert!(took <= millis(10), "{took:?}");
    set_door(NODE, Door::Open(world.listener.clone()));
    let seen = world.node.has_seen(4).await;
    assert_eq!(seen[3].rid, 1001);
    assert_eq!(world.resent(), 1);
    world.answered(1001, older).await;
    world.answered(1003, next).await;
}
