//! Probes: one task for each node asks it regularly, at once when somebody met a failure there,
//! and fast as long as something is amiss; and it writes the verdict.
//!
//! A probe that waits for its answer does not hold up the next one: while a node is up and
//! answers nothing, probes overlap until there are as many as make it silent (`health.fall`), and
//! all of them end when the first one has waited for `health.timeout`. So a frozen node gets no
//! new sessions after `interval` + `timeout` at the latest, however high `fall` is. It is down
//! when it has been silent for `health.silence` (docs/operations.md has the sums).
//!
//! The tasks are the only writers of verdicts and of resolved addresses. They hold the cluster
//! and nothing else, and end when the [`Probes`] are dropped.

mod failure;
mod flap_damping;
mod network;
mod probe;
mod resolve;
mod slow_start;
mod supervisor;
mod verdict;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{self, Cluster, Node, NodeId, Passed, Verdict};
use crate::config::Settings;
use crate::observe::metrics::Metrics;
use failure::Failure;
use network::Network;
use probe::Prober;
use resolve::Resolver;
use slow_start::SlowStart;
use supervisor::{Plan, Supervisor};
use verdict::{Judge, Outcome};

/// From the end of a probe to the next one, at least, however many failures are met: what a
/// node's clients do to it through its probes is bounded.
const FLOOR: Duration = Duration::from_millis(50);

/// The running probes; they end when this is dropped.
#[derive(Debug)]
#[must_use = "the probes end when this is dropped"]
pub struct Probes {
    tasks: JoinSet<()>,
    configured: watch::Sender<Arc<Settings>>,
}

impl Probes {
    /// Probes as `settings` say from now on. Each node keeps its verdict until its next probe decides.
    pub fn configure(&self, settings: &Settings) {
        self.configured.send_replace(Arc::new(settings.clone()));
    }

    /// Returns when a probe task has ended, which only a fault of the program can bring about:
    /// the node's verdict would never change again. Never returns otherwise.
    pub async fn broken(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }
}

/// Starts one task for each node on the current tokio runtime. Every node is probed at once, so
/// the first verdicts are there within one `health.timeout`. From then on the tasks follow the
/// cluster's set of nodes.
pub fn start(cluster: &Arc<Cluster>, settings: &Settings, metrics: &Arc<Metrics>) -> Probes {
    let (configured, settings) = watch::channel(Arc::new(settings.clone()));
    let plan = Plan::new(&settings.borrow());
    let mut supervisor = Supervisor {
        cluster: Arc::clone(cluster),
        plan,
        settings,
        metrics: Arc::clone(metrics),
        watches: JoinSet::new(),
        running: HashMap::new(),
    };
    let replaced = cluster.replaced();
    supervisor.follow();
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor.run(replaced));
    Probes { tasks, configured }
}

/// One node's probe task.
struct Watch {
    cluster: Arc<Cluster>,
    id: NodeId,
    prober: Arc<Prober>,
    fast: Duration,
    judge: Judge,
    network: Arc<Network>,
    metrics: Arc<Metrics>,
    slow_start: SlowStart,
    resolver: Resolver,
    /// When to look whether a silent node has been so for too long; none if it is not silent.
    look_at: Option<Instant>,
}

/// The probes of one node that wait for their answers, each with the time when it was sent; none
/// of them outlives this.
type Asked = JoinSet<(Result<(), Failure>, Instant)>;

impl Watch {
    async fn run(mut self) {
        loop {
            self.forget_signals();
            let started = Instant::now();
            self.round(started + self.prober.timeout).await;
            let earliest = Instant::now() + FLOOR;
            let pause = self.judge.pause(!self.cluster.any_up(), Instant::now());
            let due = (started + jittered(pause)).max(earliest);
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                () = at(self.look_at) => {
                    self.check_silence(Instant::now(), SystemTime::now());
                }
                () = self.cluster.node(self.id).probe_now.notified() => {
                    sleep_until(earliest).await;
                }
                () = grow(&self.cluster, self.id, &mut self.slow_start) => {}
            }
        }
    }

    /// Probes until an answer comes, or `deadline`; once as a rule, and more often while the node
    /// is silent.
    async fn round(&mut self, deadline: Instant) {
        let limit = self.prober.timeout;
        let node = self.cluster.node(self.id);
        if let Err(failure) = self.resolver.refresh(node, deadline, limit).await {
            self.take(Err(failure), Instant::now());
            return;
        }
        let mut asked = Asked::new();
        self.ask(&mut asked, deadline);
        let mut next = Instant::now() + jittered(self.fast);
        loop {
            let more = self.judge.wants_more(asked.len(), !self.cluster.any_up());
            tokio::select! {
                biased;
                Some(result) = asked.join_next() => {
                    let (result, sent) = result.unwrap_or_else(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => unreachable!("only the owner of a probe aborts it, at its end"),
                    });
                    let passed = self.take(result, sent);
                    if passed || self.judge.is_settled() || asked.is_empty() {
                        return;
                    }
                }
                () = at(self.look_at) => {
                    self.check_silence(Instant::now(), SystemTime::now());
                    if self.node().verdict() == Verdict::Down {
                        return;
                    }
                }
                () = sleep_until(next), if more => {
                    let now = Instant::now();
                    self.ask(&mut asked, deadline.max(now + limit / 2));
                    next = now + jittered(self.fast);
                }
            }
        }
    }

    /// Sends one probe more.
    fn ask(&mut self, asked: &mut Asked, deadline: Instant) {
        self.listen(Instant::now());
        let (cluster, id) = (Arc::clone(&self.cluster), self.id);
        let prober = Arc::clone(&self.prober);
        asked.spawn(async move {
            let node = cluster.node(id);
            let begun = Instant::now();
            let asked = prober.ask(&cluster, id, deadline).await;
            if asked.is_ok() {
                node.metrics.probe_seconds.observe(begun.elapsed());
            }
            (asked, begun)
        });
    }

    /// Takes the result of a probe that was sent at `asked` and writes down what came of it. True
    /// if the probe passed.
    fn take(&mut self, result: Result<(), Failure>, asked: Instant) -> bool {
        let when = SystemTime::now();
        let outcome = match result {
            Ok(()) => {
                let answered = Instant::now();
                self.node().set_passed(Passed { asked, answered });
                Outcome::Passed
            }
            Err(failure) => {
                let node = self.node();
                tracing::debug!(node = %node.name, %failure, "probe failed");
                node.probe_failed(failure.to_string(), failure.label(), when);
                node.set_gone(failure.outcome() == Outcome::Gone);
                failure.outcome()
            }
        };
        let now = Instant::now();
        let none_up = !self.cluster.any_up();
        let turned = self.judge.observe(outcome, asked, none_up, now);
        self.node().set_penalty(cluster::Penalty {
            falls: self.judge.falls(now),
            length: self.judge.penalty(),
        });
        if let Some(verdict) = turned {
            self.turn(verdict, now, when);
        }
        self.check_silence(now, when);
        self.node().probe_ended(outcome == Outcome::Gone);
        outcome == Outcome::Passed
    }

    /// Notes bytes that came from the node since the last look. That is at each probe, so that a
    /// byte that came before the node fell silent does not count as one that came later.
    fn listen(&mut self, now: Instant) {
        if self.node().heard.take() {
            self.judge.hear(now);
        }
    }

    /// Calls a silent node down when its time is up, unless a byte has come from it meanwhile or
    /// the network is suspected.
    fn check_silence(&mut self, now: Instant, when: SystemTime) {
        self.listen(now);
        let (id, verdict) = (self.id, self.node().verdict());
        let silent_since = self.judge.unheard_since();
        let suspected = self.network.observe(id, verdict, silent_since, now);
        self.cluster.suspect_network(suspected, &self.metrics, when);
        let ended = self.network.ended();
        if !suspected && let Some(verdict) = self.judge.expire(ended, now) {
            let what = format!("no sign of life for {:?}", self.judge.silence());
            self.node().note_failure(what, when);
            self.turn(verdict, now, when);
            self.network.observe(id, verdict, None, now);
        }
        let end = self.judge.silence_ends(ended);
        self.look_at = end.map(|end| if suspected { now + self.fast } else { end });
        let turns = end.filter(|_| !suspected).or(self.judge.penalty_ends());
        let until = turns.map(|turns| when + turns.saturating_duration_since(now));
        self.node().set_until(until);
    }

    /// Writes a new verdict, and what follows from it.
    fn turn(&mut self, verdict: Verdict, now: Instant, when: SystemTime) {
        let before = self.node().verdict();
        if verdict == Verdict::Up {
            if matches!(before, Verdict::Down | Verdict::HeldBack) {
                self.slow_start.begin(now);
                // Before the verdict, or the first clients would see a whole share.
                let share = self.slow_start.share(now);
                self.node().set_share(share);
            }
            if !self.cluster.any_up() {
                self.cluster.end_outage(now);
            }
        }
        self.cluster.set_verdict(self.id, verdict, when);
    }

    /// Takes back the signals of failures met so far: the probe that starts now answers them.
    fn forget_signals(&self) {
        pin!(self.node().probe_now.notified()).enable();
    }

    fn node(&self) -> &Node {
        self.cluster.node(self.id)
    }
}

/// Lets the share of a node that came back grow. Never returns.
async fn grow(cluster: &Cluster, id: NodeId, slow_start: &mut SlowStart) {
    while let Some(step) = slow_start.next_step(Instant::now()) {
        sleep_until(step).await;
        cluster.node(id).set_share(slow_start.share(Instant::now()));
    }
    std::future::pending().await
}

/// Returns at `when`; never if there is none.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// `interval`, shortened by up to a tenth at random, so that balancers and nodes fall out of step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests;
