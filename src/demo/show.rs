//! The demo: three simulated Tigase nodes, the balancer in front of them, a handful of clients, and
//! a node that dies and comes back every so often, or when a key is pressed.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::crowd::{Crowd, Tally};
use super::node::{Ending, Hub, Node, Profile};
use crate::config::{Admin, Listen, NodeSettings, Placement, Settings};
use crate::server::{Server, StartError};

/// Nodes and clients of the demo.
const NODES: usize = 3;
const CLIENTS: usize = 12;

/// How long a node lives after the last event, and how long it stays dead.
const ALIVE: Duration = Duration::from_secs(8);
const DEAD: Duration = Duration::from_secs(6);

/// How long the clients may take to have their sessions again before it is said as it is.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// From something that happens to the line that shows the state, which then holds for all of it.
const SETTLED: Duration = Duration::from_millis(300);

/// Client connections that the demo has room for. The default wants more open files than most
/// machines allow, and would begin the demo with a warning.
const CONNECTIONS: usize = 1000;

/// What a key press asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Kill the node at this place, counted from 0, or revive it if it is dead.
    Node(usize),
    /// Kill one of the living nodes at random.
    Random,
    /// Freeze one of the living nodes at random, or thaw the one that is frozen.
    Freeze,
    /// End the demo.
    Quit,
}

impl Key {
    /// The key that sends this byte, if it is one of the demo's.
    pub fn of(byte: u8) -> Option<Self> {
        match byte {
            b'1'..=b'9' => {
                let place = usize::from(byte - b'1');
                (place < NODES).then_some(Self::Node(place))
            }
            b'k' | b'K' => Some(Self::Random),
            b'f' | b'F' => Some(Self::Freeze),
            b'q' | b'Q' => Some(Self::Quit),
            _ => None,
        }
    }
}

/// Key presses, as they come; none without a terminal.
pub type Keys = Option<mpsc::Receiver<Key>>;

/// What the demo does next.
enum Step {
    Key(Key),
    Due,
    News,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Frozen,
    Dead,
}

/// A demo that is running.
pub struct Show {
    nodes: Vec<Node>,
    lives: [Life; NODES],
    server: Server,
    crowd: Crowd,
    started: Instant,
    deaths: u64,
    moved: usize,
    slowest: Duration,
}

/// What a whole demo came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Times that a node was killed.
    pub deaths: u64,
    /// Sessions that lost their node by that.
    pub moved: usize,
    /// The longest that a client was without a session.
    pub slowest: Duration,
    /// Answers that clients got.
    pub answers: u64,
    /// Requests that got no answer, or an HTTP error.
    pub errors: u64,
}

impl Show {
    /// Starts nodes, balancer and clients. The balancer listens at 127.0.0.1, on the ports 5280
    /// and 9280 if they are free and on others if not.
    ///
    /// # Errors
    ///
    /// If there is no port for a node or for the balancer.
    pub async fn start() -> Result<Self, StartError> {
        let hub = Hub::default();
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let profile = Profile::tigase(format!("t{number}"))
                .in_hub(&hub)
                .without_record();
            nodes.push(Node::start(profile).await.map_err(StartError::Worker)?);
        }
        let server = start_balancer(&nodes)?;
        // Without this the first clients could all get their sessions from the first node that is up.
        let probed = async {
            while !server.proxy().cluster.ready() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // A node that takes longer gets its share later.
        let _ = timeout(BACK_WITHIN, probed).await;
        let crowd = Crowd::start(CLIENTS, server.addresses()[0]);
        Ok(Self {
            nodes,
            lives: [Life::Alive; NODES],
            server,
            crowd,
            started: Instant::now(),
            deaths: 0,
            moved: 0,
            slowest: Duration::ZERO,
        })
    }

    /// Says where to look, and which keys there are if `keys` can be pressed.
    ///
    /// # Errors
    ///
    /// If `out` takes nothing.
    pub fn introduce(&self, out: &mut impl Write, keys: bool) -> io::Result<()> {
        let balancer = self.server.addresses()[0];
        writeln!(
            out,
            "Bowline demo: {NODES} simulated Tigase nodes, the balancer in front of them, {CLIENTS} \
             clients.\nEvery {} s a node is killed, and comes back {} s later. Ctrl-C ends it.",
            (ALIVE + DEAD).as_secs(),
            DEAD.as_secs()
        )?;
        if keys {
            writeln!(
                out,
                "Keys: 1, 2 and 3 kill or revive t1, t2 and t3, k kills one at random, f freezes or \
                 thaws one, q quits."
            )?;
        }
        writeln!(out, "\n  balancer  http://{balancer}/http-bind")?;
        if let Some(admin) = self.server.admin_address() {
            writeln!(out, "  live page http://{admin}/")?;
            writeln!(out, "  health    http://{admin}/health")?;
            writeln!(out, "  metrics   http://{admin}/metrics")?;
        }
        writeln!(out)
    }

    /// Kills and revives nodes until the key that quits, and tells of it: one after the other by
    /// itself, and from the first key on only when a key is pressed.
    ///
    /// # Errors
    ///
    /// If `out` takes nothing, or a node cannot listen again.
    pub async fn run(&mut self, out: &mut impl Write, mut keys: Keys) -> io::Result<()> {
        self.all_back(0).await;
        self.tell_state(out)?;
        let mut news = self.server.proxy().cluster.events.watch();
        let mut by_itself = true;
        let mut due = Instant::now() + ALIVE;
        let mut victim = 0;
        loop {
            let step = tokio::select! {
                key = next(&mut keys) => Step::Key(key),
                () = sleep_until(due), if by_itself => Step::Due,
                () = settled(&mut news), if !by_itself => Step::News,
            };
            match step {
                Step::Key(Key::Quit) => return Ok(()),
                Step::Key(key) => {
                    if by_itself {
                        by_itself = false;
                        self.say(
                            out,
                            "from now on nodes die and come back by key presses only",
                        )?;
                    }
                    self.press(key, out).await?;
                }
                Step::News => self.tell_state(out)?,
                Step::Due if self.lives[victim] == Life::Alive => {
                    self.tell_state(out)?;
                    self.kill(victim, out).await?;
                    due = Instant::now() + DEAD;
                }
                Step::Due => {
                    self.tell_state(out)?;
                    self.revive(victim, out).await?;
                    due = Instant::now() + ALIVE;
                    victim = (victim + 1) % NODES;
                }
            }
        }
    }

    async fn press(&mut self, key: Key, out: &mut impl Write) -> io::Result<()> {
        match key {
            Key::Quit => Ok(()),
            Key::Node(place) if self.lives[place] == Life::Dead => self.revive(place, out).await,
            Key::Node(place) => self.kill(place, out).await,
            Key::Random => match self.any_alive() {
                Some(place) => self.kill(place, out).await,
                None => self.say(out, "no node is left to kill"),
            },
            Key::Freeze => self.freeze_or_thaw(out),
        }
    }

    /// The place of a node that is alive, at random.
    fn any_alive(&self) -> Option<usize> {
        let alive = (0..NODES).filter(|place| self.lives[*place] == Life::Alive);
        let alive: Vec<usize> = alive.collect();
        (!alive.is_empty()).then(|| alive[fastrand::usize(..alive.len())])
    }

    fn freeze_or_thaw(&mut self, out: &mut impl Write) -> io::Result<()> {
        let frozen = self.lives.iter().position(|life| *life == Life::Frozen);
        if let Some(place) = frozen {
            self.nodes[place].thaw();
            self.lives[place] = Life::Alive;
            let text = format!("{} goes on", self.nodes[place].name());
            return self.say(out, &text);
        }
        let Some(place) = self.any_alive() else {
            return self.say(out, "no node is left to freeze");
        };
        let node = &self.nodes[place];
        node.freeze();
        self.lives[place] = Life::Frozen;
        let (name, sessions) = (node.name(), node.sessions().len());
        let text = format!("{name} is frozen, with {sessions} sessions: it answers nothing");
        self.say(out, &text)
    }

    async fn kill(&mut self, victim: usize, out: &mut impl Write) -> io::Result<()> {
        let node = &self.nodes[victim];
        let lost = node.sessions().len();
        let before = self.crowd.tally();
        node.thaw();
        node.kill(Ending::Eof).await;
        self.lives[victim] = Life::Dead;
        let killed = format!("{} is killed, with {lost} sessions", node.name());
        self.say(out, &killed)?;
        self.deaths += 1;
        self.moved += lost;
        if self.lives.iter().all(|life| *life != Life::Alive) {
            return self.say(out, "no node is left: clients try until one is back");
        }
        let back = self.all_back(before.gaps.len() + lost).await;
        let after = self.crowd.tally();
        let text = outcome(&before, &after, lost, back);
        self.slowest = self
            .slowest
            .max(after.gaps.iter().max().copied().unwrap_or_default());
        self.say(out, &text)
    }

    async fn revive(&mut self, victim: usize, out: &mut impl Write) -> io::Result<()> {
        let node = &self.nodes[victim];
        node.revive().await?;
        self.lives[victim] = Life::Alive;
        let text = format!("{} is back, with no sessions", node.name());
        self.say(out, &text)
    }

    /// Waits until every client has a session and has been without one `gaps` times.
    async fn all_back(&self, gaps: usize) -> bool {
        let back = async {
            loop {
                let tally = self.crowd.tally();
                if tally.alive == CLIENTS && tally.gaps.len() >= gaps {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(BACK_WITHIN, back).await.is_ok()
    }

    fn tell_state(&self, out: &mut impl Write) -> io::Result<()> {
        let nodes = self.server.proxy().cluster.nodes();
        let nodes = nodes.iter().map(|node| {
            let verdict = node.verdict().word().replace('_', " ");
            let sessions = node.sessions.get();
            format!("{} {verdict:<6} {sessions:>2} sessions", node.name)
        });
        let nodes: Vec<String> = nodes.collect();
        let held: u64 = self
            .server
            .proxy()
            .cluster
            .nodes()
            .iter()
            .map(|node| node.held.get())
            .sum();
        self.say(
            out,
            &format!("{}   {held} requests held", nodes.join("   ")),
        )
    }

    fn say(&self, out: &mut impl Write, text: &str) -> io::Result<()> {
        let seconds = self.started.elapsed().as_secs();
        writeln!(out, "{:>3}:{:02}  {text}", seconds / 60, seconds % 60)
    }

    /// Ends everything, and says what became of the sessions.
    pub async fn end(self) -> Summary {
        let tally = self.crowd.tally();
        drop(self.crowd);
        // Nothing is under way any more once the clients are gone.
        self.server.drain().await;
        Summary {
            deaths: self.deaths,
            moved: self.moved,
            slowest: self.slowest,
            answers: tally.answers,
            errors: tally.errors,
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            deaths,
            moved,
            slowest,
            answers,
            errors,
        } = self;
        write!(
            f,
            "{deaths} node deaths, {moved} sessions lost their node; the longest that a client was \
             without a session: {} ms.\n{answers} answers, {errors} errors seen by clients.",
            slowest.as_millis()
        )
    }
}

/// The next key; never, where there are none or no more.
async fn next(keys: &mut Keys) -> Key {
    let key = match keys {
        Some(keys) => keys.recv().await,
        None => None,
    };
    match key {
        Some(key) => key,
        None => std::future::pending().await,
    }
}

/// Returns a moment after something happened to the cluster, once for all that happened by then.
async fn settled(news: &mut watch::Receiver<u64>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    // A key may end this wait; what happened is then shown the next time.
    news.mark_changed();
    sleep(SETTLED).await;
    news.borrow_and_update();
}

/// What became of the sessions of a node that was killed.
fn outcome(before: &Tally, after: &Tally, lost: usize, back: bool) -> String {
    let mut gaps: Vec<Duration> = after.gaps[before.gaps.len()..].to_vec();
    gaps.sort_unstable();
    let errors = after.errors - before.errors;
    let (Some(median), Some(slowest)) = (gaps.get(gaps.len() / 2), gaps.last()) else {
        return format!("no session had to move, {errors} errors seen by clients");
    };
    let all = if back { "all" } else { "only" };
    format!(
        "{all} {} of {lost} are logged in again elsewhere, after {:.1} ms (median) to {:.1} ms, \
         {errors} errors seen by clients",
        gaps.len(),
        median.as_secs_f64() * 1000.0,
        slowest.as_secs_f64() * 1000.0
    )
}

fn start_balancer(nodes: &[Node]) -> Result<Server, StartError> {
    let nodes = nodes
        .iter()
        .map(|node| NodeSettings::new(node.name().to_owned(), node.address().to_string()));
    let mut settings = Settings::for_nodes(nodes.collect());
    // All clients have the same address here.
    settings.placement = Placement::LeastSessions;
    settings.threads = 1;
    settings.limits.connections = CONNECTIONS;
    // Nodes die here all the time. With a penalty most of them would soon be held back.
    settings.health.penalty = Duration::ZERO;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    settings.listen = vec![Listen::new(at(5280))];
    let admin = |port| {
        Some(Admin {
            address: at(port),
            ..Admin::default()
        })
    };
    settings.admin = admin(9280);
    Server::start(&settings).or_else(|_| {
        settings.listen = vec![Listen::new(at(0))];
        settings.admin = admin(0);
        Server::start(&settings)
    })
}
