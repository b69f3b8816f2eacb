//! The state of the balancer as JSON, and in words.

use serde_json::{Value, json};

use super::time::rfc3339;
use crate::cluster::{Cluster, Node};

/// Everything about the nodes, and what it amounts to: `ok` with every node up, `degraded` with
/// some, `down` with none.
pub(super) fn health(cluster: &Cluster, draining: bool) -> Value {
    // One look at each node, so that the status agrees with the list below it.
    let nodes: Vec<(State, &Node)> = states(cluster).collect();
    let up = nodes.iter().filter(|(state, _)| *state == State::Up);
    let status = match up.count() {
        0 => "down",
        up if up < nodes.len() => "degraded",
        _ => "ok",
    };
    let nodes = nodes.into_iter().map(|(state, node)| describe(state, node));
    json!({
        "status": status,
        "draining": draining,
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

/// The nodes, in the order of the configuration.
pub(super) fn nodes(cluster: &Cluster) -> Value {
    states(cluster)
        .map(|(state, node)| describe(state, node))
        .collect()
}

/// Why the balancer should get no new client; none if it should.
pub(super) fn not_ready(cluster: &Cluster, draining: bool) -> Option<String> {
    if draining {
        return Some("draining".into());
    }
    let unknown = states(cluster).find(|(state, _)| *state == State::Unknown);
    if let Some((_, node)) = unknown {
        return Some(format!("node {} has not been probed yet", node.name));
    }
    (!cluster.any_up()).then(|| "no node is up".into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    /// Before the first verdict.
    Unknown,
}

fn states(cluster: &Cluster) -> impl Iterator<Item = (State, &Node)> {
    cluster.nodes().iter().map(|node| {
        let state = if node.is_up() {
            State::Up
        } else if node.since().is_some() {
            State::Down
        } else {
            State::Unknown
        };
        (state, node)
    })
}

fn describe(state: State, node: &Node) -> Value {
    let failure = node
        .last_failure()
        .map(|failure| json!({ "what": failure.what, "when": rfc3339(failure.when) }));
    let resolved: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    json!({
        "name": node.name,
        "address": node.address,
        "resolved": resolved,
        "weight": node.weight,
        "share": node.share().as_part(),
        "state": match state {
            State::Up => "up",
            State::Down => "down",
            State::Unknown => "unknown",
        },
        "falls": node.metrics.falls.get(),
        "penalty_seconds": node.metrics.penalty_seconds.get(),
        "since": node.since().map(rfc3339),
        "sessions": node.metrics.sessions.get(),
        "held_requests": node.metrics.held.get(),
        "last_failure": failure,
    })
}
