//! The state of the balancer: the schema of `/health`, what it amounts to, and that in words.
//!
//! The schema has a version. A field that comes does not change it; one that goes, or that means
//! something else, does.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::AdminState;
use super::history::Rates;
use super::time::rfc3339;
use crate::cluster::{self, Cluster, Node, OperatorState};
use crate::config::unix_path;
use crate::observe::events::Event;
use crate::observe::metrics::Limit;

/// The version of the schema of `/health`, `/nodes`, `/events`, `/history` and `/stream`.
pub const SCHEMA: u32 = 1;

/// From this part of a limit on, the balancer is called degraded.
const NEAR: f64 = 0.9;

/// What the state of the cluster amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every node is up that the operator has not taken out, and no limit is near.
    Ok,
    /// New sessions have a node, but not all is well.
    Degraded,
    /// No node takes new sessions.
    Down,
}

/// What the probes say of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is up.
    Up,
    /// It answers nothing. It keeps its sessions for now, and gets no new ones.
    Silent,
    /// It answers, keeps its sessions, and gets new ones when its penalty is over.
    HeldBack,
    /// It is down.
    Down,
    /// It has not been probed yet.
    Unknown,
}

/// `/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What all this amounts to.
    pub status: Status,
    /// Everything that is out of the ordinary, a sentence each; also what the operator did.
    pub reasons: Vec<String>,
    /// Whether the balancer is about to end.
    pub draining: bool,
    /// Whether most nodes fell silent at once, so that the balancer suspects its own network and
    /// keeps all sessions where they are.
    #[serde(default)]
    pub network_suspected: bool,
    /// The program's version.
    pub version: String,
    /// When the balancer started.
    pub started: String,
    /// The balancer's clock.
    pub now: String,
    /// Sessions pinned to nodes.
    pub sessions: u64,
    /// Requests under way at nodes.
    pub held: u64,
    /// Client connections.
    pub connections: i64,
    /// The load of the whole balancer.
    #[serde(flatten, default)]
    pub load: Load,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeHealth>,
}

/// The load of the whole balancer, in `/health`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Finished requests per second, over the last five to ten seconds.
    pub requests_per_second: f64,
    /// Rejects of the last five minutes by cause, without causes that did not occur.
    pub rejects_5m: BTreeMap<String, u64>,
    /// Resident memory, in bytes; null before the first measurement.
    pub memory_bytes: Option<u64>,
    /// Open file descriptors; null before the first measurement.
    pub open_fds: Option<u64>,
    /// Most file descriptors; null before the first measurement, and without a limit.
    pub max_fds: Option<u64>,
}

/// One node in `/health` and `/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Its configured name.
    pub name: String,
    /// Its configured address.
    pub address: String,
    /// What the address's name stands for.
    pub resolved: Vec<String>,
    /// What the operator decided: `ready`, `drain` or `maint`.
    pub state: String,
    /// When the operator did; null if never.
    pub state_since: Option<String>,
    /// What the probes say.
    pub verdict: Verdict,
    /// Since when they do; null before the first verdict.
    pub since: Option<String>,
    /// When that changes if nothing else does: a silent node is down then, and one that is held
    /// back is up. Null for other verdicts, and for a silent node while the network is suspected.
    #[serde(default)]
    pub until: Option<String>,
    /// The configured weight.
    pub weight: u32,
    /// Whether it gets new sessions only when no ordinary node takes them.
    #[serde(default)]
    pub backup: bool,
    /// Its zone; null if it has none.
    #[serde(default)]
    pub zone: Option<String>,
    /// How much of that weight it has.
    pub share: f64,
    /// How often it went down lately.
    pub falls: u32,
    /// How long it must be well before it is up again.
    pub penalty_seconds: f64,
    /// Sessions pinned to it.
    pub sessions: u64,
    /// Requests under way there.
    pub held: u64,
    /// WebSocket tunnels to it.
    #[serde(default)]
    pub tunnels: u64,
    /// Sessions that it made in each of the last five to ten seconds.
    pub creations_per_second: f64,
    /// The part of exchanges of the last minute that failed, 0 to 1; null without an exchange.
    pub error_share_1m: Option<f64>,
    /// The same of five minutes.
    pub error_share_5m: Option<f64>,
    /// The median time of the last minute to an answer that was not held, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The 99th percentile of it.
    pub p99_ms: Option<f64>,
    /// The median time of the probes that passed in the last minute, in milliseconds.
    #[serde(default)]
    pub probe_p50_ms: Option<f64>,
    /// The 99th percentile of it.
    #[serde(default)]
    pub probe_p99_ms: Option<f64>,
    /// What last went wrong; stays when the node is well again.
    pub last_failure: Option<LastFailure>,
}

/// What last went wrong at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// What, in words.
    pub what: String,
    /// When.
    pub when: String,
}

/// Everything, as of now.
pub(super) fn health(state: &AdminState) -> Health {
    let nodes = nodes(state);
    let (status, reasons) = judge(state, &nodes);
    Health {
        schema: SCHEMA,
        status,
        reasons,
        draining: state.is_draining(),
        network_suspected: state.cluster.network_suspected(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: rfc3339(state.started),
        now: rfc3339(SystemTime::now()),
        sessions: nodes.iter().map(|node| node.sessions).sum(),
        held: nodes.iter().map(|node| node.held).sum(),
        connections: state.metrics.connections.get(),
        load: load(state),
        nodes,
    }
}

fn load(state: &AdminState) -> Load {
    let recent = state.history.recent(&state.metrics, Instant::now());
    let (memory, files) = state.metrics.memory_and_files();
    let known = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    Load {
        requests_per_second: recent.requests_per_second,
        rejects_5m: recent.rejects,
        memory_bytes: (memory > 0).then_some(memory),
        open_fds: known(files.used),
        max_fds: known(files.most).filter(|most| *most < i64::MAX.unsigned_abs()),
    }
}

/// The nodes, in the order of the configuration.
pub(super) fn nodes(state: &AdminState) -> Vec<NodeHealth> {
    let nodes = state.history.rates(&state.cluster, Instant::now());
    let nodes = nodes.into_iter();
    nodes.map(|(node, rates)| describe(&node, rates)).collect()
}

/// Why the balancer should get no new client; none if it should.
pub(super) fn not_ready(cluster: &Cluster, draining: bool) -> Option<String> {
    if draining {
        return Some("draining".into());
    }
    let nodes = cluster.nodes();
    let unknown = nodes.iter().find(|node| node.since().is_none());
    if let Some(node) = unknown.filter(|_| !cluster.ready()) {
        return Some(format!("node {} has not been probed yet", node.name));
    }
    if cluster.any_up() {
        return None;
    }
    Some(if nodes.iter().any(|node| node.is_up()) {
        "the operator has taken every node that is up out of service".into()
    } else {
        "no node is up".into()
    })
}

fn judge(state: &AdminState, nodes: &[NodeHealth]) -> (Status, Vec<String>) {
    let mut reasons = Vec::new();
    let mut faults = false;
    if state.cluster.network_suspected() {
        faults = true;
        reasons.push(
            "most nodes fell silent at once: the balancer's own network is suspected, and all \
             sessions stay where they are"
                .to_owned(),
        );
    }
    for node in nodes {
        let name = &node.name;
        reasons.extend(reason_of(node));
        faults |= node.verdict != Verdict::Up && node.state != OperatorState::Maint.word();
        if node.state != OperatorState::Ready.word() {
            let since = node.state_since.as_deref().unwrap_or("the start");
            let state = &node.state;
            reasons.push(format!(
                "node {name} is in {state} since {since}, by the operator"
            ));
        }
    }
    for near in near_limits(state) {
        faults = true;
        reasons.push(near);
    }
    if let Some(why) = state.refused_reload() {
        faults = true;
        reasons.push(format!(
            "the last reload was refused, and the configuration before it is in force: {why}"
        ));
    }
    if let Some(why) = state.discovery_failure() {
        faults = true;
        reasons.push(format!(
            "discovery fails, and the nodes stay as they are: {why}"
        ));
    }
    let certificates = state.certificates.reasons(SystemTime::now());
    faults |= !certificates.is_empty();
    reasons.extend(certificates);
    if state.is_draining() {
        reasons.push("the balancer is stopping".into());
    }
    let status = if !state.cluster.any_up() {
        reasons.insert(0, "no node takes new sessions".into());
        Status::Down
    } else if faults {
        Status::Degraded
    } else {
        Status::Ok
    };
    (status, reasons)
}

/// What is to be said of the verdict on a node; nothing of one that is up.
fn reason_of(node: &NodeHealth) -> Option<String> {
    let NodeHealth {
        name,
        sessions,
        falls,
        ..
    } = node;
    let since = node.since.as_deref().unwrap_or("the start");
    let until = node.until.as_deref();
    let sessions = match sessions {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    };
    Some(match node.verdict {
        Verdict::Up => return None,
        Verdict::Silent => {
            let until =
                until.map_or_else(|| "for now".to_owned(), |until| format!("until {until}"));
            format!(
                "node {name} is silent since {since}: it keeps its {sessions} {until}, and gets no \
                 new ones"
            )
        }
        Verdict::HeldBack => {
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            format!(
                "node {name} answers and is held back{until}: it went down {falls} times lately. It \
                 keeps its {sessions}, and gets no new ones"
            )
        }
        Verdict::Down => {
            let failure = node.last_failure.as_ref();
            let what = failure.map_or("no reason known", |failure| &failure.what);
            format!("node {name} is down since {since}: {what}")
        }
        Verdict::Unknown => format!("node {name} has not been probed yet"),
    })
}

/// Which limits are nearly reached.
fn near_limits(state: &AdminState) -> Vec<String> {
    let limits = state.metrics.limits().into_iter();
    let near = limits.filter(|limit| limit.part() >= NEAR);
    near.map(|limit| {
        let Limit { what, used, most } = limit;
        format!("{what} are near their limit: {used} of {most}")
    })
    .collect()
}

/// The addresses of a node; none for a Unix socket.
fn resolved(node: &Node) -> Vec<String> {
    let addresses = node.addresses();
    let is_unix = unix_path(&node.address()).is_some();
    let shown = addresses.iter().filter(|_| !is_unix);
    shown.map(ToString::to_string).collect()
}

fn describe(node: &Node, rates: Rates) -> NodeHealth {
    NodeHealth {
        name: node.name.clone(),
        address: node.address().to_string(),
        resolved: resolved(node),
        state: node.state().word().to_owned(),
        state_since: node.state_since().map(rfc3339),
        verdict: match node.verdict() {
            cluster::Verdict::Up => Verdict::Up,
            cluster::Verdict::Silent => Verdict::Silent,
            cluster::Verdict::HeldBack => Verdict::HeldBack,
            cluster::Verdict::Down => Verdict::Down,
            cluster::Verdict::Unknown => Verdict::Unknown,
        },
        since: node.since().map(rfc3339),
        until: node.until().map(rfc3339),
        weight: node.weight(),
        backup: node.is_backup(),
        zone: node.zone().map(|zone| zone.as_ref().to_owned()),
        share: node.share().as_part(),
        falls: node.penalty().falls,
        penalty_seconds: node.penalty().length.as_secs_f64(),
        sessions: node.sessions.get(),
        held: node.held.get(),
        tunnels: node.tunnels.open.get(),
        creations_per_second: rates.creations_per_second,
        error_share_1m: rates.error_share_1m,
        error_share_5m: rates.error_share_5m,
        p50_ms: rates.p50_ms,
        p99_ms: rates.p99_ms,
        probe_p50_ms: rates.probe_p50_ms,
        probe_p99_ms: rates.probe_p99_ms,
        last_failure: node.last_failure().map(|failure| LastFailure {
            what: failure.what,
            when: rfc3339(failure.when),
        }),
    }
}

/// An event in JSON.
pub(super) fn event(event: &Event) -> Value {
    json!({
        "id": event.id,
        "when": rfc3339(event.when),
        "kind": event.kind.word(),
        "node": event.node,
        "sessions": event.sessions,
        "text": event.text,
    })
}

/// `/events`: those behind the one with the number `id`.
pub(super) fn events(state: &AdminState, id: u64) -> Value {
    let events = state.cluster.events.since(id);
    json!({
        "schema": SCHEMA,
        "started": rfc3339(state.started),
        "events": events.iter().map(event).collect::<Vec<_>>(),
    })
}
