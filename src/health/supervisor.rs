//! One probe task for each node of the cluster's set, however the set changes.
//!
//! A node that joins gets a task, and so does one that joins again. The task of a node that has left
//! ends, and then the node's state is forgotten. A node with another address is probed anew, and
//! keeps its verdict until the first probe decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
use crate::observe::metrics::Metrics;

/// Starts and ends the probe tasks.
pub(super) struct Supervisor {
    pub(super) cluster: Arc<Cluster>,
    pub(super) prober: Arc<Prober>,
    pub(super) rules: Rules,
    pub(super) damping: FlapDamping,
    pub(super) network: Arc<Network>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) slow_start: Duration,
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
            }
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
        self.network.add(node.id);
        let address = node.address();
        let watch = Watch {
            cluster: Arc::clone(&self.cluster),
            id: node.id,
            prober: Arc::clone(&self.prober),
            fast: self.rules.fast,
            judge: Judge::new(self.rules.clone(), self.damping.clone()),
            network: Arc::clone(&self.network),
            metrics: Arc::clone(&self.metrics),
            slow_start: SlowStart::new(self.slow_start),
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
            self.network.remove(id);
            self.cluster.forget(id);
        }
    }
}
