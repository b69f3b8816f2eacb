//! One probe task for each node of the cluster's set, however the set changes.
//!
//! A node that joins gets a task, and so does one that joins again. The task of a node that has left
//! ends, and then the node's state is forgotten. A node with another address is probed anew, and
//! keeps its verdict until the first probe decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::Watch;
use super::flap_damping::FlapDamping;
use super::network::Network;
use super::probe::Prober;
use super::resolve::Resolver;
use super::slow_start::SlowStart;
use super::verdict::{Judge, Rules};
use crate::cluster::{Cluster, Node, NodeId};
use crate::config::Settings;
use crate::observe::metrics::Metrics;

/// How nodes are probed.
pub(super) struct Plan {
    prober: Arc<Prober>,
    rules: Rules,
    damping: FlapDamping,
    network: Arc<Network>,
    slow_start: Duration,
}

impl Plan {
    pub(super) fn new(settings: &Settings) -> Self {
        let health = &settings.health;
        let together = health.interval + health.timeout;
        Self {
            prober: Arc::new(Prober::new(settings)),
            rules: Rules {
                rise: health.rise,
                fall: health.fall,
                interval: health.interval,
                fast: health.fast_interval.min(health.interval),
                silence: health.silence,
            },
            damping: FlapDamping::new(health.penalty, health.penalty_max),
            network: Arc::new(Network::new(together, health.silence)),
            slow_start: health.slow_start,
        }
    }
}

/// Starts and ends the probe tasks.
pub(super) struct Supervisor {
    pub(super) cluster: Arc<Cluster>,
    pub(super) plan: Plan,
    /// Where other settings come from.
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) metrics: Arc<Metrics>,
    /// The probe tasks; they end with this.
    pub(super) watches: JoinSet<()>,
    pub(super) running: HashMap<NodeId, Running>,
}

/// A node's probe task.
pub(super) struct Running {
    task: AbortHandle,
    /// What it probes.
    address: Arc<str>,
}

impl Supervisor {
    /// Follows the set of nodes. Returns when a probe task has ended by itself, which only a defect
    /// can bring about.
    pub(super) async fn run(mut self, mut replaced: watch::Receiver<u64>) {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.watches.join_next_with_id() => match ended {
                    Err(error) if error.is_cancelled() => {
                        self.ended(error.id());
                        self.follow();
                    }
                    _ => return,
                },
                // The sender lives in the cluster, which this holds.
                _ = replaced.changed() => self.follow(),
                Ok(()) = self.settings.changed() => self.configure(),
            }
        }
    }

    /// Takes other settings: every probe task begins anew, and its node keeps its verdict.
    fn configure(&mut self) {
        self.plan = Plan::new(&self.settings.borrow_and_update());
        // The new tasks begin without a suspicion, and would not end an old one.
        if self.cluster.network_suspected() {
            let now = SystemTime::now();
            self.cluster.suspect_network(false, &self.metrics, now);
        }
        for running in self.running.values() {
            running.task.abort();
        }
    }

    /// Starts what is missing, and asks to end what is not wanted any more.
    pub(super) fn follow(&mut self) {
        let nodes = self.cluster.nodes();
        for (id, running) in &self.running {
            let node = nodes.iter().find(|node| node.id == *id);
            if node.is_none_or(|node| node.address() != running.address) {
                running.task.abort();
            }
        }
        for node in nodes.iter() {
            // One that is about to end is started again when it has ended.
            if !self.running.contains_key(&node.id) {
                self.start(node);
            }
        }
    }

    fn start(&mut self, node: &Node) {
        let Plan {
            prober,
            rules,
            damping,
            network,
            slow_start,
        } = &self.plan;
        network.add(node.id);
        let address = node.address();
        let watch = Watch {
            cluster: Arc::clone(&self.cluster),
            id: node.id,
            prober: Arc::clone(prober),
            fast: rules.fast,
            judge: Judge::new(rules.clone(), damping.clone()),
            network: Arc::clone(network),
            metrics: Arc::clone(&self.metrics),
            slow_start: SlowStart::new(*slow_start),
            resolver: Resolver::new(&address),
            look_at: None,
        };
        let task = self.watches.spawn(watch.run());
        self.running.insert(node.id, Running { task, address });
    }

    fn ended(&mut self, task: Id) {
        let mut running = self.running.iter();
        let ended = running.find(|(_, running)| running.task.id() == task);
        if let Some(id) = ended.map(|(id, _)| *id) {
            self.running.remove(&id);
            self.plan.network.remove(id);
            self.cluster.forget(id);
        }
    }
}
