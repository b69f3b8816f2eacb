//! The metrics that belong to one node.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::ByName;
use super::labels::{NodeCause, NodeLabels, NodeOutcome, NodeReason, NodeState, NodeVerdict};
use super::labels::{PROBE_FAILURES, STATES, VERDICTS};
use super::timing::{ANSWERS, Timing};

/// Upper bounds of the buckets of connect and probe times, in seconds.
const CONNECT_SECONDS: [f64; 10] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
];

/// A gauge that takes fractions.
pub type Fraction = Gauge<f64, AtomicU64>;

/// The counters that belong to one node.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    /// Sessions pinned to the node.
    pub sessions: Gauge,
    /// Sessions that the node made.
    pub created: Counter,
    /// Sessions of unknown origin that the node turned out to know.
    pub rediscovered: Counter,
    /// Sessions that were moved off the node because it failed.
    reassigned: Counter,
    /// Sessions that were moved off the node because the operator wanted it.
    moved_off: Counter,
    /// Sessions that were given up because the node was started anew without them.
    pub dropped: Counter,
    /// Times that the node was found to have lost its sessions.
    pub restarts: Counter,
    /// Requests under way at the node.
    pub held: Gauge,
    /// 1 while the node is up.
    up: Gauge,
    /// One gauge for each verdict, 1 for the present one.
    verdicts: [Gauge; VERDICTS.len()],
    /// One gauge for each operator state, 1 for the present one.
    states: [Gauge; STATES.len()],
    /// How much of its weight the node has, 0 to 1.
    pub share: Fraction,
    /// Times that it went down and that are not forgotten.
    pub falls: Gauge,
    /// How long the node must be well before it is up again, in seconds.
    pub penalty_seconds: Fraction,
    /// Changes of the probe's verdict.
    pub changes: Counter,
    /// Connections that wait for their turn to be opened.
    pub connects_waiting: Gauge,
    /// Connections opened.
    pub connects: Counter,
    /// Connections that could not be opened.
    pub connect_failures: Counter,
    /// Time to open a connection, in seconds.
    pub connect_seconds: Histogram,
    /// Answers that came in whole.
    pub answers: Counter,
    /// Time to the node's answer, where it has no reason to hold it back.
    pub answer_seconds: Timing,
    /// Exchanges that failed after the connection was open.
    pub exchange_failures: Counter,
    /// Requests that the node left unanswered beside another one of their session, and that were sent
    /// again.
    pub resent_unanswered: Counter,
    /// Bytes of requests sent, heads included.
    pub sent_bytes: Counter,
    /// Bytes of answers received, without their heads.
    pub received_bytes: Counter,
    /// Time of a probe that passed, in seconds.
    pub probe_seconds: Histogram,
    /// Probes that failed.
    pub probe_failures: ByName,
}

impl NodeMetrics {
    /// Shows how many sessions were moved off the node, because it failed and because the operator
    /// wanted it.
    pub fn set_moved(&self, by_failure: u64, by_operator: u64) {
        let show = |counter: &Counter, count| counter.inner().store(count, Ordering::Relaxed);
        show(&self.reassigned, by_failure);
        show(&self.moved_off, by_operator);
    }

    /// Tells the operator's state, by its number.
    pub fn set_state(&self, state: usize) {
        for (number, gauge) in self.states.iter().enumerate() {
            gauge.set(i64::from(number == state));
        }
    }

    /// Shows the verdict of the probes, by its number; `up` says whether it is the good one.
    pub fn set_verdict(&self, verdict: usize, up: bool) {
        self.up.set(i64::from(up));
        for (number, gauge) in self.verdicts.iter().enumerate() {
            gauge.set(i64::from(number == verdict));
        }
    }

    /// Everything that went wrong at the node on the request path.
    pub fn failures(&self) -> u64 {
        self.connect_failures.get() + self.exchange_failures.get()
    }
}

type Gauges<L> = Family<L, Gauge>;
type Counters<L> = Family<L, Counter>;
type Histograms = Family<NodeLabels, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct NodeFamilies {
    sessions: Gauges<NodeLabels>,
    created: Counters<NodeLabels>,
    rediscovered: Counters<NodeLabels>,
    reassigned: Counters<NodeCause>,
    dropped: Counters<NodeLabels>,
    restarts: Counters<NodeLabels>,
    held: Gauges<NodeLabels>,
    up: Gauges<NodeLabels>,
    verdicts: Gauges<NodeVerdict>,
    states: Gauges<NodeState>,
    share: Family<NodeLabels, Fraction>,
    falls: Gauges<NodeLabels>,
    penalty: Family<NodeLabels, Fraction>,
    changes: Counters<NodeLabels>,
    connects_waiting: Gauges<NodeLabels>,
    connects: Counters<NodeOutcome>,
    connect_seconds: Histograms,
    answers: Counters<NodeLabels>,
    answer_seconds: Family<NodeLabels, Timing, fn() -> Timing>,
    exchange_failures: Counters<NodeLabels>,
    resent: Counters<NodeReason>,
    sent_bytes: Counters<NodeLabels>,
    received_bytes: Counters<NodeLabels>,
    probe_seconds: Histograms,
    probe_failures: Counters<NodeReason>,
}

fn connect_times() -> Histogram {
    Histogram::new(CONNECT_SECONDS)
}

impl NodeFamilies {
    /// The handles for the node called `name`, made on the first call.
    pub(super) fn node(&self, name: &str) -> NodeMetrics {
        let node = NodeLabels {
            node: name.to_owned(),
        };
        let connect = |outcome| NodeOutcome::new(name, outcome);
        let moved = |cause| NodeCause::new(name, cause);
        let metrics = NodeMetrics {
            sessions: self.sessions.get_or_create_owned(&node),
            created: self.created.get_or_create_owned(&node),
            rediscovered: self.rediscovered.get_or_create_owned(&node),
            reassigned: self.reassigned.get_or_create_owned(&moved("failure")),
            moved_off: self.reassigned.get_or_create_owned(&moved("maint")),
            dropped: self.dropped.get_or_create_owned(&node),
            restarts: self.restarts.get_or_create_owned(&node),
            held: self.held.get_or_create_owned(&node),
            up: self.up.get_or_create_owned(&node),
            verdicts: std::array::from_fn(|at| {
                let labels = NodeVerdict::new(name, VERDICTS[at]);
                self.verdicts.get_or_create_owned(&labels)
            }),
            states: std::array::from_fn(|at| {
                let labels = NodeState::new(name, STATES[at]);
                self.states.get_or_create_owned(&labels)
            }),
            share: self.share.get_or_create_owned(&node),
            falls: self.falls.get_or_create_owned(&node),
            penalty_seconds: self.penalty.get_or_create_owned(&node),
            changes: self.changes.get_or_create_owned(&node),
            connects_waiting: self.connects_waiting.get_or_create_owned(&node),
            connects: self.connects.get_or_create_owned(&connect("ok")),
            connect_failures: self.connects.get_or_create_owned(&connect("failed")),
            connect_seconds: self.connect_seconds.get_or_create_owned(&node),
            answers: self.answers.get_or_create_owned(&node),
            answer_seconds: self.answer_seconds.get_or_create_owned(&node),
            exchange_failures: self.exchange_failures.get_or_create_owned(&node),
            resent_unanswered: self
                .resent
                .get_or_create_owned(&NodeReason::new(name, "unanswered")),
            sent_bytes: self.sent_bytes.get_or_create_owned(&node),
            received_bytes: self.received_bytes.get_or_create_owned(&node),
            probe_seconds: self.probe_seconds.get_or_create_owned(&node),
            probe_failures: ByName::new(PROBE_FAILURES, |reason| {
                let labels = NodeReason::new(name, reason);
                self.probe_failures.get_or_create_owned(&labels)
            }),
        };
        metrics.share.set(1.0);
        metrics.set_state(0);
        metrics.set_verdict(0, false);
        metrics
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            sessions: Family::default(),
            created: Family::default(),
            rediscovered: Family::default(),
            reassigned: Family::default(),
            dropped: Family::default(),
            restarts: Family::default(),
            held: Family::default(),
            up: Family::default(),
            verdicts: Family::default(),
            states: Family::default(),
            share: Family::default(),
            falls: Family::default(),
            penalty: Family::default(),
            changes: Family::default(),
            connects_waiting: Family::default(),
            connects: Family::default(),
            connect_seconds: Family::new_with_constructor(connect_times),
            answers: Family::default(),
            answer_seconds: Family::new_with_constructor(|| Timing::new(ANSWERS)),
            exchange_failures: Family::default(),
            resent: Family::default(),
            sent_bytes: Family::default(),
            received_bytes: Family::default(),
            probe_seconds: Family::new_with_constructor(connect_times),
            probe_failures: Family::default(),
        };
        families.register_sessions(registry);
        families.register_state(registry);
        families.register_traffic(registry);
        families.register_probes(registry);
        families
    }

    fn register_sessions(&self, registry: &mut Registry) {
        registry.register(
            "sessions",
            "Sessions pinned to each node",
            self.sessions.clone(),
        );
        registry.register(
            "sessions_created",
            "Sessions that each node made",
            self.created.clone(),
        );
        registry.register(
            "sessions_rediscovered",
            "Sessions of unknown origin that the node turned out to know",
            self.rediscovered.clone(),
        );
        registry.register(
            "sessions_reassigned",
            "Sessions moved off the node, because it failed or was set to maint",
            self.reassigned.clone(),
        );
        registry.register(
            "sessions_dropped",
            "Sessions given up because the node was started anew without them",
            self.dropped.clone(),
        );
        registry.register(
            "held_requests",
            "Requests under way at each node",
            self.held.clone(),
        );
    }

    fn register_state(&self, registry: &mut Registry) {
        registry.register(
            "node_up",
            "1 while the probes call the node up",
            self.up.clone(),
        );
        registry.register(
            "node_verdict",
            "1 for what the probes say of the node, 0 for the other verdicts",
            self.verdicts.clone(),
        );
        registry.register(
            "node_state",
            "1 for the state that the operator set, 0 for the others",
            self.states.clone(),
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
            "node_restarts",
            "Times that the node was found to have lost its sessions",
            self.restarts.clone(),
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
            "upstream_answers",
            "Answers of nodes that came in whole",
            self.answers.clone(),
        );
        registry.register_with_unit(
            "upstream_answer",
            "Time to a node's answer to creations and sends, where nothing holds it back",
            Unit::Seconds,
            self.answer_seconds.clone(),
        );
        registry.register(
            "upstream_failures",
            "Exchanges that failed after the connection was open",
            self.exchange_failures.clone(),
        );
        registry.register(
            "upstream_resent",
            "Requests sent to the node again though nothing failed, by reason",
            self.resent.clone(),
        );
        registry.register_with_unit(
            "upstream_sent",
            "Requests sent to nodes, heads included",
            Unit::Bytes,
            self.sent_bytes.clone(),
        );
        registry.register_with_unit(
            "upstream_received",
            "Answers of nodes, without their heads",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
    }

    fn register_probes(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "probe",
            "Time of a probe that passed",
            Unit::Seconds,
            self.probe_seconds.clone(),
        );
        registry.register(
            "probe_failures",
            "Probes that failed, by reason",
            self.probe_failures.clone(),
        );
    }
}
