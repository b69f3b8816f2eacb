//! A node with many sessions dies: how its clients log in at the survivors.
//!
//! A node serves a few creations at once, each for some time, and the others wait there: so its creation
//! latency grows with the logins that come at the same time. A client that gets no session within
//! [`GIVES_UP`] tries again, which makes a storm worse.
//!
//! `LANDING_SESSIONS=50000` runs the full size.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::config::{LandingMode, NodeSettings, Settings};
use bowline::transport::{Door, Pipe, pair, set_door};
use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Connection, read_response};
use super::wire::{gone, read_message};
use super::world::{Balancer, virtual_time};

/// Nodes before one of them dies.
const NODES: u8 = 4;

/// Creations that a node serves at once.
const AT_ONCE: usize = 8;

/// How long it serves one: this time, and up to a half of it more or less.
const SERVICE: Duration = Duration::from_millis(40);

/// How long a node holds a poll, in seconds.
const WAIT: u64 = 60;

/// Logins in a second while the sessions are made: a third of what the nodes can do.
const CALM_RATE: u64 = 250;

/// A client without a session tries again after this time.
const GIVES_UP: Duration = Duration::from_secs(10);

/// From a login that failed to the next.
const RETRY: Duration = Duration::from_secs(1);

/// A node.
struct Node {
    address: SocketAddr,
    alive: AtomicBool,
    made: AtomicUsize,
    service: Semaphore,
    sids: Mutex<HashSet<String>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Node {
    fn start(number: u8) -> Arc<Self> {
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let node = Arc::new(Self {
            address: (Ipv4Addr::new(192, 0, 2, number), 5280).into(),
            alive: AtomicBool::new(true),
            made: AtomicUsize::new(0),
            service: Semaphore::new(AT_ONCE),
            sids: Mutex::default(),
            tasks: Mutex::default(),
        });
        set_door(node.address, Door::Open(sender));
        let own = Arc::clone(&node);
        tokio::spawn(async move {
            while let Some(connection) = accepted.recv().await {
                let mut tasks = own.tasks.lock().expect("no panic");
                while tasks.try_join_next().is_some() {}
                tasks.spawn(Arc::clone(&own).serve(connection));
            }
        });
        node
    }

    /// It loses its connections, and refuses new ones.
    fn die(&self) {
        self.alive.store(false, Ordering::Relaxed);
        set_door(self.address, Door::Shut);
        *self.tasks.lock().expect("no panic") = JoinSet::new();
    }

    async fn serve(self: Arc<Self>, mut connection: Pipe) {
        let mut bytes = Vec::new();
        while let Some((body, _)) = read_message(&mut connection, &mut bytes).await {
            let request = bosh::read_request(&body).expect("Bowline sends good wrappers");
            let sid = request.sid.as_deref();
            let knows = sid.is_some_and(|sid| self.sids.lock().expect("no panic").contains(sid));
            let (status, body) = if sid.is_none() {
                (200, self.create().await)
            } else if knows {
                let held = sleep(Duration::from_secs(WAIT));
                tokio::select! {
                    () = held => {}
                    () = gone(&connection) => return,
                }
                (200, format!("<body xmlns='{HTTPBIND}'/>"))
            } else {
                let unknown = "<body type='terminate' condition='item-not-found'";
                (404, format!("{unknown} xmlns='{HTTPBIND}'/>"))
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n{body}");
            if connection.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn create(&self) -> String {
        let place = self.service.acquire().await.expect("never closed");
        sleep(SERVICE.mul_f64(0.5 + fastrand::f64())).await;
        drop(place);
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let sid = format!("{}-{made}", self.address.ip());
        self.sids.lock().expect("no panic").insert(sid.clone());
        format!(
            "<body sid='{sid}' wait='{WAIT}' inactivity='60' requests='2' hold='1' ver='1.6' xmlns='{HTTPBIND}'/>"
        )
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// How long each login took.
    logins: Vec<Duration>,
    /// Logins that were given up or refused.
    failed: usize,
    /// The longest time for which a poll had no answer.
    longest: Duration,
}

/// One client, which logs in and polls, and logs in again when its session has ended.
struct Client {
    balancer: Arc<Balancer>,
    number: usize,
    rng: Rng,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    fn connect(&self) -> Connection {
        let (near, far) = pair();
        let [_, a, b, c] = u32::try_from(self.number).expect("few").to_be_bytes();
        let peer = IpAddr::V4(Ipv4Addr::new(10, a, b, c));
        tokio::spawn(self.balancer.listener.serve(far.into(), peer));
        Connection::new(near)
    }

    async fn ask(connection: &mut Connection, body: &str) -> Option<(u16, Vec<u8>)> {
        let length = body.len();
        let request = format!(
            "POST /http-bind HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        connection.pipe.write_all(request.as_bytes()).await.ok()?;
        let (status, _, body) = read_response(connection).await?;
        Some((status, body))
    }

    /// Logs in, as often as it takes.
    async fn log_in(&mut self) -> (Connection, String, u64) {
        loop {
            let rid = self.rng.u64(1..1 << 40);
            let body = format!(
                "<body rid='{rid}' to='a' wait='{WAIT}' hold='1' ver='1.6' xmlns='{HTTPBIND}'/>"
            );
            let begun = Instant::now();
            let mut connection = self.connect();
            let answer = timeout(GIVES_UP, Self::ask(&mut connection, &body)).await;
            let sid = answer.ok().flatten().and_then(|(_, body)| {
                let answer = bosh::read_response(&body).ok()?;
                answer.sid.map(std::borrow::Cow::into_owned)
            });
            self.saw_login(begun.elapsed(), sid.is_some());
            if let Some(sid) = sid {
                return (connection, sid, rid);
            }
            sleep(RETRY).await;
        }
    }

    fn saw_login(&self, took: Duration, succeeded: bool) {
        let mut seen = self.seen.lock().expect("no panic");
        seen.logins.push(took);
        seen.failed += usize::from(!succeeded);
    }

    async fn run(mut self) {
        loop {
            let (mut connection, sid, mut rid) = self.log_in().await;
            loop {
                rid += 1;
                let body = format!("<body rid='{rid}' sid='{sid}' xmlns='{HTTPBIND}'/>");
                let begun = Instant::now();
                let answer = Self::ask(&mut connection, &body).await;
                let mut seen = self.seen.lock().expect("no panic");
                seen.longest = seen.longest.max(begun.elapsed());
                let ended = answer.is_none_or(|(_, body)| {
                    bosh::read_response(&body).is_ok_and(|answer| answer.terminate)
                });
                if ended {
                    break;
                }
            }
            // Strophe and Converse log in again after half a second, at the earliest.
            let pause = 500 + self.rng.u64(0..500);
            sleep(Duration::from_millis(pause)).await;
        }
    }
}

/// What one run showed.
#[derive(Debug)]
#[expect(dead_code, reason = "shown with `{:?}`")]
struct Outcome {
    /// The 99th percentile of login times while the sessions were made, and when their node was dead.
    calm: Duration,
    p99: Duration,
    failed: usize,
    /// Sessions of the dead node, and how long it took until all of them were at other nodes.
    moved: usize,
    took: Duration,
    longest: Duration,
}

fn percentile(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

async fn simulate(sessions: usize, mode: LandingMode) -> Outcome {
    let nodes: Vec<_> = (1..=NODES).map(Node::start).collect();
    let named = nodes.iter().zip(1..);
    let named = named.map(|(node, n)| NodeSettings::new(format!("t{n}"), node.address.to_string()));
    let mut settings = Settings::for_nodes(named.collect());
    settings.limits.landing = mode;
    let balancer = Arc::new(Balancer::start(&settings, Duration::from_secs(5)).await);
    sleep(Duration::from_secs(2)).await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut clients = JoinSet::new();
    for number in 0..sessions {
        let client = Client {
            balancer: Arc::clone(&balancer),
            number,
            rng: Rng::with_seed(number as u64),
            seen: Arc::clone(&seen),
        };
        clients.spawn(client.run());
        sleep(Duration::from_micros(1_000_000 / CALM_RATE)).await;
    }
    sleep(Duration::from_secs(2)).await;
    let calm = std::mem::take(&mut *seen.lock().expect("no panic"));
    assert_eq!(calm.failed, 0);
    let at = |node: &Node| {
        let name = format!("{}", node.address);
        let all = balancer.cluster.nodes();
        let node = all.iter().find(|other| *other.address() == *name);
        usize::try_from(node.expect("a node").sessions.get()).expect("few")
    };
    let moved = at(&nodes[0]);
    assert!(moved > sessions / 8, "{moved}");
    nodes[0].die();
    let begun = Instant::now();
    let others = || nodes[1..].iter().map(|node| at(node)).sum::<usize>();
    let logged_in = || seen.lock().expect("no panic").logins.len();
    while at(&nodes[0]) > 0 || others() < sessions || logged_in() < moved {
        sleep(Duration::from_millis(100)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(600),
            "{} left",
            at(&nodes[0])
        );
    }
    let took = begun.elapsed();
    clients.shutdown().await;
    let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    Outcome {
        calm: percentile(calm.logins),
        p99: percentile(seen.logins),
        failed: seen.failed,
        moved,
        took,
        longest: seen.longest,
    }
}

/// Each run on a thread of its own, since a thread keeps some state.
fn run(sessions: usize, mode: LandingMode) -> Outcome {
    let simulated = move || {
        fastrand::seed(1);
        virtual_time(simulate(sessions, mode))
    };
    let ended = std::thread::spawn(simulated).join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn the_clients_of_a_dead_node_log_in_as_fast_as_the_survivors_can() {
    let sessions = std::env::var("LANDING_SESSIONS");
    let sessions = sessions.map_or(2000, |text| text.parse().expect("a number"));
    let controlled = run(sessions, LandingMode::Auto);
    println!("{sessions} sessions, auto: {controlled:?}");
    let storm = run(sessions, LandingMode::Off);
    println!("{sessions} sessions, off:  {storm:?}");
    let calm = controlled.calm;
    assert!(controlled.p99 <= 2 * calm, "{controlled:?}");
    assert_eq!(controlled.failed, 0);
    let wait = Duration::from_secs(WAIT + 1);
    assert!(controlled.longest <= wait, "{controlled:?}");
    assert!(storm.p99 > 4 * calm, "no storm to control: {storm:?}");
}
