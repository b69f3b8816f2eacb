//! Probes: one task for each node asks it regularly, and at once when somebody met a failure
//! there, and writes the verdict.
//!
//! The tasks are the only writers of verdicts and of resolved addresses. They hold the cluster
//! and nothing else, and end when the [`Probes`] are dropped.

mod failure;
mod probe;
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
use probe::Prober;
use resolve::Resolver;
use streak::Streak;

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
    let prober = Prober {
        probe: health.probe.clone(),
        bosh_path: settings.bosh.paths.first().cloned().unwrap_or_default(),
        timeout: health.timeout,
    };
    let mut tasks = JoinSet::new();
    for node in cluster.nodes() {
        let watch = Watch {
            cluster: Arc::clone(cluster),
            id: node.id,
            prober: prober.clone(),
            interval: health.interval,
            streak: Streak::new(health.rise, health.fall),
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
    prober: Prober,
    interval: Duration,
    streak: Streak,
    resolver: Resolver,
}

impl Watch {
    async fn run(mut self) {
        loop {
            self.forget_signals();
            let started = Instant::now();
            self.probe(started + self.prober.timeout).await;
            let earliest = Instant::now() + FLOOR;
            let regular = (started + jittered(self.interval)).max(earliest);
            tokio::select! {
                () = sleep_until(regular) => {}
                () = self.node().probe_now.notified() => sleep_until(earliest).await,
            }
        }
    }

    /// Probes once and writes down what came of it.
    async fn probe(&mut self, deadline: Instant) {
        let result = self.ask(deadline).await;
        let now = SystemTime::now();
        let passed = match result {
            Ok(()) => true,
            Err(failure) => {
                let node = self.node();
                tracing::debug!(node = %node.name, %failure, "probe failed");
                node.probe_failed(failure.to_string(), now);
                false
            }
        };
        if let Some(up) = self.streak.observe(passed) {
            self.cluster.set_verdict(self.id, up, now);
        }
    }

    async fn ask(&mut self, deadline: Instant) -> Result<(), Failure> {
        let node = self.cluster.node(self.id);
        self.resolver
            .refresh(node, deadline, self.prober.timeout)
            .await?;
        self.prober
            .ask(&node.addresses(), &node.address, deadline)
            .await
    }

    /// Takes back the signals of failures met so far: the probe that starts now answers them.
    fn forget_signals(&self) {
        pin!(self.node().probe_now.notified()).enable();
    }

    fn node(&self) -> &Node {
        self.cluster.node(self.id)
    }
}

/// `interval`, moved by up to a tenth at random, so that balancers and nodes fall out of step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests;
