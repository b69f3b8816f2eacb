//! Every counter, gauge and histogram of the program, and their exposition as Prometheus text.
//!
//! Handles are made once and held by whoever counts: a count on the request path is one relaxed
//! atomic addition, never a look-up by label. Labels have few and fixed values; a sid or a client
//! address is never one.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets of connect times, in seconds.
const CONNECT_SECONDS: [f64; 10] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
];

/// What a request is, as far as metrics and logs tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No sid: a new session is asked for.
    Creation,
    /// An empty wrapper of a session.
    Poll,
    /// A wrapper with stanzas.
    Send,
    /// `type='terminate'`.
    Terminate,
    /// `xmpp:restart='true'`.
    Restart,
    /// `OPTIONS`.
    Preflight,
    /// What never became a BOSH request: other methods, other paths, malformed.
    Other,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Creation,
        Self::Poll,
        Self::Send,
        Self::Terminate,
        Self::Restart,
        Self::Preflight,
        Self::Other,
    ];

    /// The value of the label `kind`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Poll => "poll",
            Self::Send => "send",
            Self::Terminate => "terminate",
            Self::Restart => "restart",
            Self::Preflight => "preflight",
            Self::Other => "other",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client got the answer of a node, or what it asked of the balancer itself.
    Ok,
    /// The client got an answer of the balancer in place of a node's.
    Rejected,
    /// The client went away before there was an answer.
    ClientGone,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Ok, Self::Rejected, Self::ClientGone];

    /// The value of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::ClientGone => "client_gone",
        }
    }
}

/// A gauge that takes fractions.
pub type Fraction = Gauge<f64, AtomicU64>;

/// A label value that is known when the program is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub &'static str);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: Name,
    outcome: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectLabels {
    node: String,
    outcome: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: Name,
}

/// The counters that belong to one node.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    /// Sessions pinned to the node.
    pub sessions: Gauge,
    /// Requests under way at the node.
    pub held: Gauge,
    /// 1 while the node is up.
    pub up: Gauge,
    /// How much of its weight the node has, 0 to 1.
    pub share: Fraction,
    /// Times that it went down and that are not forgotten.
    pub falls: Gauge,
    /// How long the node must be well before it is up again, in seconds.
    pub penalty_seconds: Fraction,
    /// Changes of the probe's verdict.
    pub changes: Counter,
    /// Sessions that were moved off the node because it failed.
    pub reassigned: Counter,
    /// Connections that wait for their turn to be opened.
    pub connects_waiting: Gauge,
    /// Connections opened.
    pub connects: Counter,
    /// Connections that could not be opened.
    pub connect_failures: Counter,
    /// Time to open a connection, in seconds.
    pub connect_seconds: Histogram,
    /// Exchanges that failed after the connection was open.
    pub exchange_failures: Counter,
    /// Probes that failed.
    pub probe_failures: Counter,
}

/// Every metric of one balancer.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: [[Counter; Outcome::ALL.len()]; Kind::ALL.len()],
    rejects: Family<CauseLabels, Counter>,
    /// Sessions that nodes made through this balancer.
    pub sessions_created: Counter,
    /// Sessions that ended with a terminate.
    pub sessions_terminated: Counter,
    /// Sessions that were forgotten because their client stayed away.
    pub sessions_expired: Counter,
    /// Requests with a sid that had no pin.
    pub unknown_sids: Counter,
    /// Client connections open now.
    pub connections: Gauge,
    /// Times that accepting had to wait because of `limits.connections`.
    pub accept_waits: Counter,
    nodes: NodeFamilies,
}

#[derive(Debug)]
struct NodeFamilies {
    sessions: Family<NodeLabels, Gauge>,
    held: Family<NodeLabels, Gauge>,
    up: Family<NodeLabels, Gauge>,
    share: Family<NodeLabels, Fraction>,
    falls: Family<NodeLabels, Gauge>,
    penalty: Family<NodeLabels, Fraction>,
    changes: Family<NodeLabels, Counter>,
    reassigned: Family<NodeLabels, Counter>,
    connects_waiting: Family<NodeLabels, Gauge>,
    connects: Family<ConnectLabels, Counter>,
    connect_seconds: Family<NodeLabels, Histogram>,
    exchange_failures: Family<NodeLabels, Counter>,
    probe_failures: Family<NodeLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("bowline");
        register_build(&mut registry);
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests by kind and outcome", requests.clone());
        let rejects = Family::<CauseLabels, Counter>::default();
        registry.register(
            "rejects",
            "Answers of the balancer's own, by cause",
            rejects.clone(),
        );
        let requests = Kind::ALL.map(|kind| {
            Outcome::ALL.map(|outcome| {
                let labels = RequestLabels {
                    kind: Name(kind.label()),
                    outcome: Name(outcome.label()),
                };
                requests.get_or_create_owned(&labels)
            })
        });
        Self {
            requests,
            rejects,
            sessions_created: counter(
                &mut registry,
                "sessions_created",
                "Sessions that nodes made",
            ),
            sessions_terminated: counter(
                &mut registry,
                "sessions_terminated",
                "Sessions that ended with a terminate",
            ),
            sessions_expired: counter(
                &mut registry,
                "sessions_expired",
                "Sessions forgotten because their client stayed away",
            ),
            unknown_sids: counter(
                &mut registry,
                "unknown_sids",
                "Requests with a sid that had no pin",
            ),
            connections: gauge(&mut registry, "connections", "Client connections open now"),
            accept_waits: counter(
                &mut registry,
                "accept_waits",
                "Times that accepting had to wait because of limits.connections",
            ),
            nodes: NodeFamilies::register(&mut registry),
            registry,
        }
    }

    /// Counts one request.
    pub fn count_request(&self, kind: Kind, outcome: Outcome) {
        self.requests[kind as usize][outcome as usize].inc();
    }

    /// Counts one answer of the balancer's own.
    pub fn count_reject(&self, cause: &'static str) {
        self.rejects
            .get_or_create(&CauseLabels { cause: Name(cause) })
            .inc();
    }

    /// The handles for the node called `name`, made on the first call.
    pub fn node(&self, name: &str) -> NodeMetrics {
        let labels = NodeLabels {
            node: name.to_owned(),
        };
        let connect = |outcome| ConnectLabels {
            node: name.to_owned(),
            outcome: Name(outcome),
        };
        NodeMetrics {
            sessions: self.nodes.sessions.get_or_create_owned(&labels),
            held: self.nodes.held.get_or_create_owned(&labels),
            up: self.nodes.up.get_or_create_owned(&labels),
            share: whole(&self.nodes.share.get_or_create_owned(&labels)),
            falls: self.nodes.falls.get_or_create_owned(&labels),
            penalty_seconds: self.nodes.penalty.get_or_create_owned(&labels),
            changes: self.nodes.changes.get_or_create_owned(&labels),
            reassigned: self.nodes.reassigned.get_or_create_owned(&labels),
            connects_waiting: self.nodes.connects_waiting.get_or_create_owned(&labels),
            connects: self.nodes.connects.get_or_create_owned(&connect("ok")),
            connect_failures: self.nodes.connects.get_or_create_owned(&connect("failed")),
            connect_seconds: self.nodes.connect_seconds.get_or_create_owned(&labels),
            exchange_failures: self.nodes.exchange_failures.get_or_create_owned(&labels),
            probe_failures: self.nodes.probe_failures.get_or_create_owned(&labels),
        }
    }

    /// Everything as Prometheus text (OpenMetrics 1.0).
    pub fn exposition(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a String takes every write");
        out
    }
}

impl NodeFamilies {
    fn register(registry: &mut Registry) -> Self {
        let connect_seconds = Family::<NodeLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(CONNECT_SECONDS)
        });
        let families = Self {
            sessions: Family::default(),
            held: Family::default(),
            up: Family::default(),
            share: Family::default(),
            falls: Family::default(),
            penalty: Family::default(),
            changes: Family::default(),
            reassigned: Family::default(),
            connects_waiting: Family::default(),
            connects: Family::default(),
            connect_seconds,
            exchange_failures: Family::default(),
            probe_failures: Family::default(),
        };
        families.register_state(registry);
        families.register_traffic(registry);
        families
    }

    fn register_state(&self, registry: &mut Registry) {
        registry.register(
            "sessions",
            "Sessions pinned to each node",
            self.sessions.clone(),
        );
        registry.register(
            "held_requests",
            "Requests under way at each node",
            self.held.clone(),
        );
        registry.register(
            "node_up",
            "1 while the probes call the node up",
            self.up.clone(),
        );
        registry.register(
            "node_share",
            "Part of its weight that the node has, below 1 for a while after it came back",
            self.share.clone(),
        );
        registry.register(
            "node_falls",
            "Times that the node went down and that are not forgotten",
            self.falls.clone(),
        );
        registry.register_with_unit(
            "node_penalty",
            "How long a node that flaps must be well before it is up again, 0 while it is up",
            Unit::Seconds,
            self.penalty.clone(),
        );
        registry.register(
            "node_changes",
            "Changes of the probes' verdict",
            self.changes.clone(),
        );
        registry.register(
            "reassignments",
            "Sessions moved off the node because it failed",
            self.reassigned.clone(),
        );
    }

    fn register_traffic(&self, registry: &mut Registry) {
        registry.register(
            "upstream_connects_waiting",
            "Connections that wait for their turn to be opened",
            self.connects_waiting.clone(),
        );
        registry.register(
            "upstream_connects",
            "Connections to nodes, by outcome",
            self.connects.clone(),
        );
        registry.register_with_unit(
            "upstream_connect",
            "Time to open a connection to a node",
            Unit::Seconds,
            self.connect_seconds.clone(),
        );
        registry.register(
            "upstream_failures",
            "Exchanges that failed after the connection was open",
            self.exchange_failures.clone(),
        );
        registry.register(
            "probe_failures",
            "Probes that failed",
            self.probe_failures.clone(),
        );
    }
}

/// The gauge, at 1.
fn whole(gauge: &Fraction) -> Fraction {
    gauge.set(1.0);
    gauge.clone()
}

/// A gauge that is always 1, and not of the type `info`: the older text format has no such type,
/// and its readers then refuse the whole page.
fn register_build(registry: &mut Registry) {
    let build = Family::<BuildLabels, Gauge>::default();
    let version = Name(env!("CARGO_PKG_VERSION"));
    build.get_or_create(&BuildLabels { version }).set(1);
    registry.register(
        "build_info",
        "Always 1; the label says which version of the program runs",
        build,
    );
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

#[cfg(test)]
mod tests;
