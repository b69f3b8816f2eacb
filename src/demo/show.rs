//! The demo: three simulated Tigase nodes, the balancer before them, a handful of clients, and a
//! node that dies and comes back every so often.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

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

/// A demo that is running.
pub struct Show {
    nodes: Vec<Node>,
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
        let crowd = Crowd::start(CLIENTS, server.addresses()[0]);
        Ok(Self {
            nodes,
            server,
            crowd,
            started: Instant::now(),
            deaths: 0,
            moved: 0,
            slowest: Duration::ZERO,
        })
    }

    /// Says where to look.
    ///
    /// # Errors
    ///
    /// If `out` takes nothing.
    pub fn introduce(&self, out: &mut impl Write) -> io::Result<()> {
        let balancer = self.server.addresses()[0];
        writeln!(
            out,
            "Bowline demo: {NODES} simulated Tigase nodes, the balancer before them, {CLIENTS} \
             clients.\nEvery {} s a node is killed, and comes back {} s later. Ctrl-C ends it.\n",
            (ALIVE + DEAD).as_secs(),
            DEAD.as_secs()
        )?;
        writeln!(out, "  balancer  http://{balancer}/http-bind")?;
        if let Some(admin) = self.server.admin_address() {
            writeln!(out, "  live page http://{admin}/")?;
            writeln!(out, "  health    http://{admin}/health")?;
            writeln!(out, "  metrics   http://{admin}/metrics")?;
        }
        writeln!(out)
    }

    /// Kills and revives nodes for ever, and tells of it.
    ///
    /// # Errors
    ///
    /// If `out` takes nothing, or a node cannot listen again.
    pub async fn run(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.all_back(0).await;
        self.tell_state(out)?;
        for round in 0.. {
            sleep(ALIVE).await;
            let victim = round % NODES;
            self.tell_state(out)?;
            self.kill(victim, out).await?;
            sleep(DEAD).await;
            self.tell_state(out)?;
            self.nodes[victim].revive().await?;
            self.say(
                out,
                &format!("{} is back, with no sessions", self.nodes[victim].name()),
            )?;
        }
        Ok(())
    }

    async fn kill(&mut self, victim: usize, out: &mut impl Write) -> io::Result<()> {
        let node = &self.nodes[victim];
        let lost = node.sessions().len();
        let before = self.crowd.tally();
        node.kill(Ending::Eof).await;
        let killed = format!("{} is killed, with {lost} sessions", node.name());
        self.say(out, &killed)?;
        self.deaths += 1;
        self.moved += lost;
        let back = self.all_back(before.gaps.len() + lost).await;
        let after = self.crowd.tally();
        let text = outcome(&before, &after, lost, back);
        self.slowest = self
            .slowest
            .max(after.gaps.iter().max().copied().unwrap_or_default());
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
        let nodes = self.server.proxy().cluster.nodes().iter().map(|node| {
            let state = if node.is_up() { "up  " } else { "down" };
            format!(
                "{} {state} {:>2} sessions",
                node.name,
                node.metrics.sessions.get()
            )
        });
        let nodes: Vec<String> = nodes.collect();
        let held: i64 = self
            .server
            .proxy()
            .cluster
            .nodes()
            .iter()
            .map(|node| node.metrics.held.get())
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
    let nodes = nodes.iter().map(|node| NodeSettings {
        name: node.name().to_owned(),
        address: node.address().to_string(),
        weight: 1,
        max_sessions: 0,
    });
    let mut settings = Settings::for_nodes(nodes.collect());
    // All clients have the same address here.
    settings.placement = Placement::LeastSessions;
    settings.threads = 1;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    settings.listen = vec![Listen { address: at(5280) }];
    let admin = |port| {
        Some(Admin {
            address: at(port),
            ..Admin::default()
        })
    };
    settings.admin = admin(9280);
    Server::start(&settings).or_else(|_| {
        settings.listen = vec![Listen { address: at(0) }];
        settings.admin = admin(0);
        Server::start(&settings)
    })
}
