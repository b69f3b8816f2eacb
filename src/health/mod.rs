//! Probes: one task for each node asks it regularly, at once when somebody met a failure there,
//! and fast as long as something is amiss; and it writes the verdict.
//!
//! A probe that waits for its answer does not hold up the next one: while a node is up and
//! silent, probes overlap until there are as many as make it down (`health.fall`), and all of
//! them end when the first one has waited for `health.timeout`. So a frozen node is down after
//! `interval` + `timeout` at the latest, however high `fall` is (docs/operations.md has the sums).
//!
//! The tasks are the only writers of verdicts and of resolved addresses. They hold the cluster
//! and nothing else, and end when the [`Probes`] are dropped.

mod failure;
mod penalty;
mod probe;
mod ramp;
mod resolve;
mod streak;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Node, NodeId};
use crate::config::Settings;
use failure::Failure;
use penalty::Penalty;
use probe::Prober;
use ramp::Ramp;
use resolve::Resolver;
use streak::{Rules, Streak};

/// From the end of a probe to the next one, at least, however many failures are met: what a
/// node's clients do to it through its probes is bounded.
const FLOOR: Duration = Duration::from_millis(50);

/// The running probes; they end when this is dropped.
#[derive(Debug)]
#[must_use = "the probes end when this is dropped"]
pub struct Probes {
    tasks: JoinSet<()>,
}

impl Probes {
    /// Returns when a probe task has ended, which only a fault of the program can bring about:
    /// the node's verdict would never change again. Never returns otherwise.
    pub async fn broken(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }
}

/// Starts one task for each node on the current tokio runtime. Every node is probed at once, so
/// the first verdicts are there within one `health.timeout`.
pub fn start(cluster: &Arc<Cluster>, settings: &Settings) -> Probes {
    let health = &settings.health;
    let prober = Arc::new(Prober {
        probe: health.probe.clone(),
        bosh_path: settings.bosh.paths.first().cloned().unwrap_or_default(),
        timeout: health.timeout,
    });
    let rules = Rules {
        rise: health.rise,
        fall: health.fall,
        interval: health.interval,
        fast: health.fast_interval.min(health.interval),
    };
    let penalty = Penalty::new(health.penalty, health.penalty_max);
    let mut tasks = JoinSet::new();
    for node in cluster.nodes() {
        let watch = Watch {
            cluster: Arc::clone(cluster),
            id: node.id,
            prober: Arc::clone(&prober),
            fast: rules.fast,
            streak: Streak::new(rules.clone(), penalty.clone()),
            ramp: Ramp::new(health.slow_start),
            resolver: Resolver::new(&node.address),
        };
        tasks.spawn(watch.run());
    }
    Probes { tasks }
}

/// One node's probe task.
struct Watch {
    cluster: Arc<Cluster>,
    id: NodeId,
    prober: Arc<Prober>,
    fast: Duration,
    streak: Streak,
    ramp: Ramp,
    resolver: Resolver,
}

/// The probes of one node that wait for their answers; none of them outlives this.
type Asked = JoinSet<Result<(), Failure>>;

impl Watch {
    async fn run(mut self) {
        loop {
            self.forget_signals();
            let started = Instant::now();
            self.round(started + self.prober.timeout).await;
            let earliest = Instant::now() + FLOOR;
            let pause = self.streak.pause(!self.cluster.any_up(), Instant::now());
            let due = (started + jittered(pause)).max(earliest);
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                () = self.cluster.node(self.id).probe_now.notified() => {
                    sleep_until(earliest).await;
                }
                () = grow(&self.cluster, self.id, &mut self.ramp) => {}
            }
        }
    }

    /// Probes until an answer comes, or `deadline`; once as a rule, and more often while the node
    /// is silent.
    async fn round(&mut self, deadline: Instant) {
        let limit = self.prober.timeout;
        let node = self.cluster.node(self.id);
        if let Err(failure) = self.resolver.refresh(node, deadline, limit).await {
            self.take(Err(failure));
            return;
        }
        let mut asked = Asked::new();
        self.ask(&mut asked, deadline);
        let mut next = Instant::now() + jittered(self.fast);
        loop {
            let more = self.streak.wants_more(asked.len(), !self.cluster.any_up());
            tokio::select! {
                biased;
                Some(result) = asked.join_next() => {
                    let result = result.unwrap_or_else(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => unreachable!("nobody aborts a probe but its owner, at its end"),
                    });
                    if self.take(result) || self.streak.is_settled() || asked.is_empty() {
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
    fn ask(&self, asked: &mut Asked, deadline: Instant) {
        let (cluster, id) = (Arc::clone(&self.cluster), self.id);
        let prober = Arc::clone(&self.prober);
        asked.spawn(async move {
            let node = cluster.node(id);
            let addresses = node.addresses();
            let begun = Instant::now();
            let asked = prober.ask(&addresses, &node.address, deadline).await;
            if asked.is_ok() {
                let took = begun.elapsed().as_secs_f64();
                node.metrics.probe_seconds.observe(took);
            }
            asked
        });
    }

    /// Takes one probe's result and writes down what came of it. True if the probe passed.
    fn take(&mut self, result: Result<(), Failure>) -> bool {
        let now = SystemTime::now();
        let passed = result.is_ok();
        if let Err(failure) = result {
            let node = self.node();
            tracing::debug!(node = %node.name, %failure, "probe failed");
            node.probe_failed(failure.to_string(), failure.label(), now);
        }
        self.judge(passed, now);
        passed
    }

    /// Writes the verdict if the probe turned it, and what follows from it.
    fn judge(&mut self, passed: bool, when: SystemTime) {
        let now = Instant::now();
        let known = self.node().since().is_some();
        let turned = self.streak.observe(passed, !self.cluster.any_up(), now);
        let (falls, penalty) = (self.streak.falls(now), self.streak.penalty());
        self.node().set_penalty(falls, penalty);
        let Some(up) = turned else { return };
        if up && known {
            self.ramp.begin(now);
            // Before the verdict, or the first clients would see a whole share.
            let share = self.ramp.share(now);
            self.node().set_share(share);
        }
        self.cluster.set_verdict(self.id, up, when);
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
async fn grow(cluster: &Cluster, id: NodeId, ramp: &mut Ramp) {
    while let Some(step) = ramp.next_step(Instant::now()) {
        sleep_until(step).await;
        cluster.node(id).set_share(ramp.share(Instant::now()));
    }
    std::future::pending().await
}

/// `interval`, shortened by up to a tenth at random, so that balancers and nodes fall out of step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests;
