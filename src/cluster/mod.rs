//! The nodes, what is known of their state, and the choice among them.
//!
//! Owns the verdict that probes reach, and placement. Opens no socket and reads no clock: time
//! comes in as an argument.

mod addresses;
mod client;
mod count;
mod node;
mod node_id;
mod operator;
mod placed;
mod placement;
mod registry;
mod rendezvous;
mod restart_detector;
mod set;
mod verdict;
mod websocket;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

pub use client::{ClientKey, PlacementKey, QueryGroup, client_key};
pub use count::Count;
pub use node::{LastFailure, Node, Passed, Penalty};
pub use node_id::{NodeId, Share};
pub use operator::{LastNode, OPERATOR, OperatorState};
pub use placed::Placed;
pub use registry::TooManyNodes;
pub use restart_detector::{Epoch, RestartDetector};
pub use set::NodeSet;
pub use verdict::Verdict;
pub use websocket::{TunnelTarget, Tunnels};

use crate::config::Settings;
use crate::observe::events::{Event, EventKind, Events};
use crate::observe::metrics::Metrics;
use registry::Registry;

/// Every node, and the choice among them.
#[derive(Debug)]
pub struct Cluster {
    /// Every node that was ever a member.
    registry: Registry,
    /// The members, and those that leave. The request path reads it for new sessions only.
    set: ArcSwap<NodeSet>,
    /// Counts the sets.
    replaced: watch::Sender<u64>,
    /// Every node has had a first verdict.
    probed: AtomicBool,
    /// Wakes everything that waits for a node when one goes up.
    went_up: Notify,
    /// What happened to the cluster.
    pub events: Events,
    /// Held while the operator's decision on a node is weighed and written, or the set replaced.
    changing: Mutex<()>,
    /// When a node went up the last time that none was.
    recovered: Mutex<Option<Instant>>,
    network_suspected: AtomicBool,
    /// How long a silent node keeps its sessions, and how long a probe may take, in microseconds.
    silence: AtomicU64,
    probe_timeout: AtomicU64,
}

impl Cluster {
    /// The nodes of `settings`, in their order; nothing is known of them yet.
    ///
    /// # Panics
    /// If there are more than 65,535 nodes.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Self {
        let cluster = Self {
            registry: Registry::new(),
            set: ArcSwap::from_pointee(NodeSet::empty(settings.placement.clone())),
            replaced: watch::Sender::new(0),
            probed: AtomicBool::new(false),
            went_up: Notify::new(),
            events: Events::default(),
            changing: Mutex::default(),
            recovered: Mutex::default(),
            network_suspected: AtomicBool::new(false),
            silence: AtomicU64::default(),
            probe_timeout: AtomicU64::default(),
        };
        let nodes = cluster.replace(settings, metrics);
        nodes.expect("a configuration has at most 1024 nodes");
        cluster
    }

    /// Copies the counts of every node into its metrics.
    pub fn measure(&self) {
        self.nodes().iter().for_each(|node| node.measure());
    }

    /// The nodes of this moment: members in the order of the configuration, then those that leave.
    pub fn nodes(&self) -> Arc<NodeSet> {
        self.set.load_full()
    }

    /// How long a silent node keeps its sessions.
    pub fn silence(&self) -> Duration {
        Duration::from_micros(self.silence.load(Ordering::Relaxed))
    }

    /// How long a probe may take.
    pub fn probe_timeout(&self) -> Duration {
        Duration::from_micros(self.probe_timeout.load(Ordering::Relaxed))
    }

    /// Counts up when the set of nodes changes.
    pub fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// The node `id`, whether it is still a member or not.
    ///
    /// # Panics
    /// If the id is of another cluster.
    pub fn node(&self, id: NodeId) -> &Node {
        let node = self.registry.get(id);
        node.expect("ids come from this cluster, and nodes stay")
    }

    /// The node called `name`, if it is in the set.
    pub fn named(&self, name: &str) -> Option<&Node> {
        let node = self.registry.named(name)?;
        let is_there = self.set.load().iter().any(|there| there.id == node.id);
        is_there.then_some(node)
    }

    /// The node for a new session with this `key` by the configured placement: one that is up and
    /// ready, and not in `tried`; none if there is no such node.
    pub fn place(&self, key: impl Into<PlacementKey>, tried: &[NodeId]) -> Option<NodeId> {
        let set = self.set.load();
        set.choose(key.into(), usable(tried))
    }

    /// As [`Cluster::place`], for a creation: the placement counts as load of the node until the
    /// result is dropped, which should be when the session is pinned, or the node has failed. The
    /// node that the key is `tied` to goes first; a node that is full is passed over.
    pub fn place_new(
        &self,
        key: impl Into<PlacementKey>,
        tied: Option<NodeId>,
        tried: &[NodeId],
    ) -> Option<Placed<'_>> {
        let key = key.into();
        let usable = |node: &Node| usable(tried)(node) && !node.is_full();
        // A node that is drained keeps its rooms to their ends, and their newcomers go there.
        let keeps = |node: &Node| {
            matches!(key, PlacementKey::Query(_))
                && node.takes_newcomers()
                && !tried.contains(&node.id)
                && !node.is_full()
        };
        let set = self.set.load();
        let nodes = set.members();
        // Others may take the last place of a node at the same moment: then the next one.
        for _ in 0..=nodes.len() {
            let tied = tied.map(|node| self.node(node));
            let tied = tied.filter(|node| usable(node) || keeps(node));
            let tied = tied.map(|node| node.id);
            let node = tied.or_else(|| set.choose(key, usable))?;
            let placed = Placed::at(self.node(node));
            if placed.fits() {
                return Some(placed);
            }
        }
        None
    }

    /// Whether every node that takes new sessions has as many as it may.
    pub fn is_full(&self) -> bool {
        let set = self.set.load();
        let nodes = set.members().iter();
        let mut taking = nodes.filter(|node| node.takes_new()).peekable();
        taking.peek().is_some() && taking.all(|node| node.is_full())
    }

    /// The node where a session with this `key` is most likely at home when nothing is known of its
    /// sid: the rendezvous choice, whatever the configured placement, of the nodes that serve
    /// their sessions and are not in `tried`. It counts with the configured weights: the session
    /// was placed when the node had its whole share, however little it has a moment after it came
    /// back.
    pub fn home(&self, key: impl Into<PlacementKey>, tried: &[NodeId]) -> Option<NodeId> {
        let set = self.set.load();
        let key = key.into();
        let of = |rank| {
            let serves =
                |node: &Node| node.rank() == rank && node.serves() && !tried.contains(&node.id);
            placement::by_hash(set.members(), key, Node::weight, serves)
        };
        (0..=node::LAST_RANK).find_map(of)
    }

    /// Takes the verdict on a node (its probe task only). The first one and every change are
    /// logged and wake what waits for them: for a node to go up, or at a node that goes down.
    pub fn set_verdict(&self, id: NodeId, verdict: Verdict, now: SystemTime) {
        let node = self.node(id);
        let before = node.verdict();
        if before == verdict {
            return;
        }
        node.set_verdict(verdict, now);
        self.report_verdict(node, before, now);
        if matches!(verdict, Verdict::Up | Verdict::HeldBack) {
            self.went_up.notify_waiters();
        } else if !self.any_up() {
            // The first node that answers is needed now, however long a probe task wants to rest.
            let set = self.set.load();
            set.iter().for_each(|node| node.probe_now.notify_one());
        }
    }

    /// Writes the line in the log, and the event, for a node's new verdict.
    fn report_verdict(&self, node: &Node, before: Verdict, now: SystemTime) {
        let (name, address) = (&node.name, node.address());
        let reason = node.last_failure().map(|failure| failure.what);
        let reason = reason.as_deref().unwrap_or("unknown");
        let (kind, text) = match node.verdict() {
            Verdict::Up if before == Verdict::Silent => {
                info!(node = %name, %address, "node answers again, its sessions stayed");
                (EventKind::NodeUp, format!("{name} answers again"))
            }
            Verdict::Up => {
                info!(node = %name, %address, "node is up");
                (EventKind::NodeUp, format!("{name} is up"))
            }
            Verdict::Silent => {
                let sessions = node.sessions.get();
                let keep = self.silence();
                warn!(node = %name, %address, reason, sessions,
                    "node is silent: it gets no new sessions, and keeps those that it has for up \
                     to {keep:?}");
                let text = format!("{name} is silent: {reason}");
                (EventKind::NodeSilent, text)
            }
            Verdict::HeldBack => {
                let seconds = node.penalty().length.as_secs_f64();
                info!(node = %name, %address, penalty_seconds = seconds,
                    "node answers again and is held back: it went down more than once lately, \
                     and gets new sessions when its penalty is over");
                let text = format!("{name} answers again and is held back for {seconds}s");
                (EventKind::NodeHeldBack, text)
            }
            Verdict::Down | Verdict::Unknown => {
                warn!(node = %name, %address, reason, "node is down");
                let text = format!("{name} is down: {reason}");
                (EventKind::NodeDown, text)
            }
        };
        self.events.add(Event::new(kind, now, text).about(name));
    }

    /// Notes that a node goes up after a time in which none was (its probe task only, and before
    /// the verdict itself, which wakes the requests that wait).
    pub fn end_outage(&self, now: Instant) {
        *self
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Until when a session of the node `id`, which is down, waits for it before it moves. After
    /// a time in which no node was up, the first one that answers must not take the sessions of
    /// those that answer a moment later. A node that refuses connections is not waited for.
    pub fn wait_for_own(&self, id: NodeId, now: Instant) -> Option<Instant> {
        let node = self.node(id);
        if node.is_gone() || node.state() == OperatorState::Maint {
            return None;
        }
        let recovered = *self
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recovered
            .map(|at| at + self.silence())
            .filter(|until| now < *until)
    }

    /// Wakes every request that a node holds: the process stops.
    pub fn wake_held(&self) {
        for node in self.registry.iter() {
            node.end_held.notify_waiters();
        }
    }

    /// Returns when the node `id` serves its sessions, or can be waited for no longer.
    pub async fn until_serves(&self, id: NodeId) {
        let node = self.node(id);
        loop {
            let mut went_up = pin!(self.went_up.notified());
            let mut went_down = pin!(node.went_down.notified());
            // Enabled before the look: a change in between still wakes us.
            went_up.as_mut().enable();
            went_down.as_mut().enable();
            if node.serves() || node.is_gone() || node.state() == OperatorState::Maint {
                return;
            }
            tokio::select! {
                () = went_up => {}
                () = went_down => {}
            }
        }
    }

    /// Notes that most nodes fell silent at about the same time, or that this is over (the probe
    /// tasks only).
    pub fn suspect_network(&self, suspected: bool, metrics: &Metrics, now: SystemTime) {
        if self.network_suspected.swap(suspected, Ordering::Relaxed) == suspected {
            return;
        }
        metrics.network_suspected.set(i64::from(suspected));
        let text = if suspected {
            warn!(
                "most nodes fell silent at once: the balancer's own network is suspected, all \
                 sessions and held requests are kept"
            );
            "most nodes fell silent at once: the balancer's own network is suspected"
        } else {
            info!("the balancer's own network is not suspected any more");
            "the balancer's own network is not suspected any more"
        };
        self.events.add(Event::new(EventKind::Network, now, text));
    }

    /// Whether most nodes fell silent at about the same time, so that the balancer's own network
    /// is suspected and all sessions are kept where they are.
    pub fn network_suspected(&self) -> bool {
        self.network_suspected.load(Ordering::Relaxed)
    }

    /// Notes that the node `id` has lost its sessions, and that `pins` of them were dropped.
    pub fn lost_sessions(&self, id: NodeId, pins: u64, now: SystemTime) {
        let node = self.node(id);
        node.metrics.restarts.inc();
        let text = format!("{} has lost its sessions: {pins} pins dropped", node.name);
        self.events.add(
            Event::new(EventKind::SessionsLost, now, text)
                .about(&node.name)
                .sessions(pins),
        );
        warn!(node = %node.name, pins, "node has lost its sessions, their pins are dropped");
    }

    /// Whether some node is up that takes new sessions: one that the operator has taken out
    /// does not count.
    pub fn any_up(&self) -> bool {
        self.set
            .load()
            .members()
            .iter()
            .any(|node| node.takes_new())
    }

    /// Whether every node has had a first verdict once. Nodes that are added later do not change it.
    pub fn ready(&self) -> bool {
        if self.probed.load(Ordering::Relaxed) {
            return true;
        }
        let set = self.set.load();
        let probed = !set.is_empty() && set.iter().all(|node| node.since().is_some());
        if probed {
            self.probed.store(true, Ordering::Relaxed);
        }
        probed
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when some node is up that takes new sessions, at once if one is.
    pub async fn until_up(&self) {
        let mut went_up = pin!(self.went_up.notified());
        loop {
            // Enabled before the look: a node that goes up in between still wakes us.
            went_up.as_mut().enable();
            if self.any_up() {
                return;
            }
            went_up.as_mut().await;
            went_up.set(self.went_up.notified());
        }
    }
}

fn usable(tried: &[NodeId]) -> impl Fn(&Node) -> bool {
    |node| node.takes_new() && !tried.contains(&node.id)
}

#[cfg(test)]
pub(crate) mod tests;
