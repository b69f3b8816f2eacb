//! The nodes of the cluster at one moment, and how one set replaces another.
//!
//! A set never changes. [`Cluster::replace`] makes a new one, and requests that hold the old one
//! finish with it. The nodes themselves stay ([`super::registry`]): a node that is in both sets
//! keeps its sessions, its counts and its verdict.
//!
//! A node that is removed *leaves*: it gets no new sessions, serves those that it has, and is
//! probed. [`Cluster::retire`] ends this when its last session and its last request are gone.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::info;

use super::node::LAST_RANK;
use super::placement::Chooser;
use super::registry::TooManyNodes;
use super::{Cluster, Node, NodeId, PlacementKey};
use crate::config::{NodeSettings, Placement, Settings};
use crate::observe::metrics::Metrics;
use crate::upstream::ConnectLimiter;

/// The nodes of the cluster at one moment: its members first, in the order of the configuration,
/// and then those that leave.
#[derive(Debug)]
pub struct NodeSet {
    nodes: Box<[Arc<Node>]>,
    members: usize,
    placement: Placement,
    pub(super) chooser: Arc<Chooser>,
}

impl NodeSet {
    /// A set of no nodes.
    pub(super) fn empty(placement: Placement) -> Self {
        Self {
            nodes: Box::default(),
            members: 0,
            chooser: Arc::new(Chooser::new(&placement)),
            placement,
        }
    }

    /// The nodes that are configured.
    pub fn members(&self) -> &[Arc<Node>] {
        &self.nodes[..self.members]
    }

    /// The nodes that were removed and have sessions or requests left.
    pub fn leaving(&self) -> &[Arc<Node>] {
        &self.nodes[self.members..]
    }

    /// The member for a new session with this `key`, of those that `usable` allows: one of the own zone,
    /// else of another one, else a backup.
    pub(super) fn choose(
        &self,
        key: PlacementKey,
        usable: impl Fn(&Node) -> bool,
    ) -> Option<NodeId> {
        let of = |rank| {
            let usable = |node: &Node| node.rank() == rank && usable(node);
            self.chooser.choose(self.members(), key, usable)
        };
        (0..=LAST_RANK).find_map(of)
    }

    fn with_leaving(&self, leaving: impl Iterator<Item = Arc<Node>>) -> Self {
        Self {
            nodes: self.members().iter().cloned().chain(leaving).collect(),
            members: self.members,
            placement: self.placement.clone(),
            chooser: Arc::clone(&self.chooser),
        }
    }
}

impl Deref for NodeSet {
    type Target = [Arc<Node>];

    fn deref(&self) -> &Self::Target {
        &self.nodes
    }
}

impl Cluster {
    /// Makes the nodes of `settings` the members of the cluster, and its `placement` the policy.
    ///
    /// - A name that is new gets a node, which takes sessions once a probe has passed.
    /// - A node that is configured already gets its new weight, limit and address; its sessions,
    ///   verdict and operator state stay. Connections to its old address go on.
    /// - A node that is not configured any more gets no new sessions and keeps those that it has.
    /// - The limits of `upstream` hold for all of them, and `health.silence` and `health.timeout`.
    ///
    /// # Errors
    /// [`TooManyNodes`]; then nothing has changed.
    pub fn replace(&self, settings: &Settings, metrics: &Metrics) -> Result<(), TooManyNodes> {
        let _one_at_a_time = self.changing();
        // From here on a node that was added holds up no /ready.
        self.ready();
        let before = self.set.load_full();
        let members = settings
            .nodes
            .iter()
            .map(|node| self.known(node, settings, metrics));
        let members: Vec<_> = match members.collect() {
            Ok(members) => members,
            Err(error) => {
                let added = settings.nodes.iter().map(|node| node.name.as_str());
                let added = added.filter(|name| before.iter().all(|old| old.name != *name));
                added.for_each(|name| metrics.hide_node(name));
                return Err(error);
            }
        };
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let health = &settings.health;
        self.silence
            .store(micros(health.silence), Ordering::Relaxed);
        self.probe_timeout
            .store(micros(health.timeout), Ordering::Relaxed);
        let zone = settings.zone.as_deref();
        let limits = &settings.upstream;
        for node in self.registry.iter() {
            let limiter = &node.connect_limiter;
            limiter.configure(limits.connecting, limits.connects_per_second);
        }
        for (node, settings) in members.iter().zip(&settings.nodes) {
            node.configure(settings, zone);
            if !before.iter().any(|old| old.id == node.id) {
                metrics.show_node(&node.name, &node.metrics);
            }
            if !node.is_member() {
                node.set_member(true);
                if !before.is_empty() {
                    info!(node = %node.name, address = %node.address(), "node joins the cluster");
                }
            }
        }
        let is_member = |node: &Node| members.iter().any(|member| member.id == node.id);
        let leaving: Vec<_> = before
            .iter()
            .filter(|node| !is_member(node))
            .cloned()
            .collect();
        for node in leaving.iter().filter(|node| node.is_member()) {
            node.set_member(false);
            let sessions = node.sessions.get();
            info!(node = %node.name, sessions,
                "node leaves the cluster: it gets no new sessions, and keeps those that it has");
        }
        let chooser = if settings.placement == before.placement {
            Arc::clone(&before.chooser)
        } else {
            Arc::new(Chooser::new(&settings.placement))
        };
        self.put(NodeSet {
            members: members.len(),
            nodes: members.into_iter().chain(leaving).collect(),
            placement: settings.placement.clone(),
            chooser,
        });
        Ok(())
    }

    /// The node with the name of `node`, made if it is not known.
    fn known(
        &self,
        node: &NodeSettings,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Arc<Node>, TooManyNodes> {
        let limits = &settings.upstream;
        let make = |id| {
            let connect_limiter =
                ConnectLimiter::new(limits.connecting, limits.connects_per_second);
            Node::new(id, node, connect_limiter, metrics.node(&node.name))
        };
        let (node, _) = self.registry.get_or_add(&node.name, make)?;
        Ok(Arc::clone(node))
    }

    /// Lets nodes go that were removed and have neither sessions nor requests left: they are not
    /// probed any more, and their metrics go. A request that was on its way to such a node brings
    /// it back until it is through.
    pub fn retire(&self, metrics: &Metrics) {
        let changes = |set: &NodeSet| {
            let known = self.registry.len() > set.len();
            set.leaving().iter().any(|node| node.is_unused())
                || (known && self.used_and_missing(set).next().is_some())
        };
        if !changes(&self.set.load()) {
            return;
        }
        let _one_at_a_time = self.changing();
        let before = self.set.load_full();
        let (gone, kept): (Vec<_>, Vec<_>) = before
            .leaving()
            .iter()
            .cloned()
            .partition(|node| node.is_unused());
        let back: Vec<_> = self.used_and_missing(&before).cloned().collect();
        for node in &gone {
            metrics.hide_node(&node.name);
            info!(node = %node.name, "node has left the cluster: its last session is gone");
        }
        back.iter()
            .for_each(|node| metrics.show_node(&node.name, &node.metrics));
        self.put(before.with_leaving(kept.into_iter().chain(back)));
    }

    /// Nodes that are in use and not in `set`.
    fn used_and_missing<'a>(&'a self, set: &'a NodeSet) -> impl Iterator<Item = &'a Arc<Node>> {
        let missing = |node: &&Arc<Node>| set.iter().all(|there| there.id != node.id);
        let nodes = self.registry.iter();
        nodes.filter(|node| !node.is_unused()).filter(missing)
    }

    /// Forgets what is known of a node's state, unless it is in the set (health only, when the
    /// node's probes have ended).
    pub fn forget(&self, id: NodeId) {
        let _one_at_a_time = self.changing();
        if self.set.load().iter().all(|node| node.id != id) {
            self.node(id).forget();
        }
    }

    fn put(&self, set: NodeSet) {
        self.set.store(Arc::new(set));
        self.replaced.send_modify(|times| *times += 1);
        // A node that joined again may be up.
        self.went_up.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
