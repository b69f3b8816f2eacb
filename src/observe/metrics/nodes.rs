//! The metrics that belong to one node, and the page's part that shows them.
//!
//! A node's series are on the page from [`NodePages::show`] until [`NodePages::hide`]. Its handles
//! stay valid in between and after, and count on where they were when the node is shown again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::ByName;
use super::labels::{NodeCause, NodeLabels, NodeOutcome, NodeReason, NodeState, NodeVerdict};
use super::labels::{PROBE_FAILURES, STATES, TUNNEL_ENDS, VERDICTS};
use super::timing::{ANSWERS, Timing};

/// Upper bounds of the buckets of connect times, in seconds.
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
    /// WebSocket tunnels open to the node.
    pub tunnels: Gauge,
    /// WebSocket tunnels that were opened.
    pub tunnels_opened: Counter,
    /// WebSocket tunnels that ended.
    pub tunnels_ended: ByName,
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
    /// Time of a probe that passed.
    pub probe_seconds: Timing,
    /// Probes that failed.
    pub probe_failures: ByName,
}

impl NodeMetrics {
    /// The metrics of a node that nothing is known of yet.
    pub(super) fn new() -> Self {
        let metrics = Self {
            sessions: Gauge::default(),
            created: Counter::default(),
            rediscovered: Counter::default(),
            reassigned: Counter::default(),
            moved_off: Counter::default(),
            dropped: Counter::default(),
            restarts: Counter::default(),
            held: Gauge::default(),
            tunnels: Gauge::default(),
            tunnels_opened: Counter::default(),
            tunnels_ended: ByName::new(TUNNEL_ENDS, |_| Counter::default()),
            up: Gauge::default(),
            verdicts: std::array::from_fn(|_| Gauge::default()),
            states: std::array::from_fn(|_| Gauge::default()),
            share: Fraction::default(),
            falls: Gauge::default(),
            penalty_seconds: Fraction::default(),
            changes: Counter::default(),
            connects_waiting: Gauge::default(),
            connects: Counter::default(),
            connect_failures: Counter::default(),
            connect_seconds: Histogram::new(CONNECT_SECONDS),
            answers: Counter::default(),
            answer_seconds: Timing::new(ANSWERS),
            exchange_failures: Counter::default(),
            resent_unanswered: Counter::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            probe_seconds: Timing::new(ANSWERS),
            probe_failures: ByName::new(PROBE_FAILURES, |_| Counter::default()),
        };
        metrics.share.set(1.0);
        metrics.set_state(0);
        metrics.set_verdict(0, false);
        metrics
    }

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

/// The nodes that are on the page, in the order in which they were first shown.
#[derive(Debug, Clone, Default)]
pub(super) struct NodePages(Arc<Mutex<Vec<(String, NodeMetrics)>>>);

impl NodePages {
    /// The metrics of the node called `name`, which is on the page from now on.
    pub(super) fn node(&self, name: &str) -> NodeMetrics {
        let mut shown = self.shown();
        if let Some((_, metrics)) = shown.iter().find(|(shown, _)| shown == name) {
            return metrics.clone();
        }
        let metrics = NodeMetrics::new();
        shown.push((name.to_owned(), metrics.clone()));
        metrics
    }

    /// Puts a node on the page again.
    pub(super) fn show(&self, name: &str, metrics: &NodeMetrics) {
        let mut shown = self.shown();
        if shown.iter().all(|(shown, _)| shown != name) {
            shown.push((name.to_owned(), metrics.clone()));
        }
    }

    /// Takes a node off the page.
    pub(super) fn hide(&self, name: &str) {
        self.shown().retain(|(shown, _)| shown != name);
    }

    fn shown(&self) -> MutexGuard<'_, Vec<(String, NodeMetrics)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for NodePages {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = self.shown().clone();
        if nodes.is_empty() {
            return Ok(());
        }
        let mut page = Page { encoder, nodes };
        page.sessions()?;
        page.state()?;
        page.traffic()?;
        page.tunnels()?;
        page.probes()
    }
}

/// The page while it is written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    nodes: Vec<(String, NodeMetrics)>,
}

impl Page<'_> {
    /// Writes a family of one series for each node.
    fn one<M: EncodeMetric + TypedMetric>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        metric: impl Fn(&NodeMetrics) -> &M,
    ) -> fmt::Result {
        let (unit, kind) = (unit.as_ref(), M::TYPE);
        let mut family = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (node, metrics) in &self.nodes {
            let node = node.clone();
            metric(metrics).encode(family.encode_family(&NodeLabels { node })?)?;
        }
        Ok(())
    }

    /// Writes a family of several series for each node, told apart by one label.
    fn several<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        labels: impl Fn(&str, &'static str) -> L,
        series: impl Fn(&NodeMetrics) -> Vec<(&'static str, M)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, M::TYPE)?;
        for (node, metrics) in &self.nodes {
            for (label, metric) in series(metrics) {
                metric.encode(family.encode_family(&labels(node, label))?)?;
            }
        }
        Ok(())
    }

    fn sessions(&mut self) -> fmt::Result {
        self.one(("sessions", None), "Sessions pinned to each node.", |m| {
            &m.sessions
        })?;
        let what = "Sessions that each node made.";
        self.one(("sessions_created", None), what, |m| &m.created)?;
        let what = "Sessions of unknown origin that the node turned out to know.";
        self.one(("sessions_rediscovered", None), what, |m| &m.rediscovered)?;
        let what = "Sessions moved off the node, because it failed or was set to maint.";
        self.several("sessions_reassigned", what, NodeCause::new, |m| {
            vec![
                ("failure", m.reassigned.clone()),
                ("maint", m.moved_off.clone()),
            ]
        })?;
        let what = "Sessions given up because the node was started anew without them.";
        self.one(("sessions_dropped", None), what, |m| &m.dropped)?;
        self.one(
            ("held_requests", None),
            "Requests under way at each node.",
            |m| &m.held,
        )
    }

    fn state(&mut self) -> fmt::Result {
        self.one(
            ("node_up", None),
            "1 while the probes call the node up.",
            |m| &m.up,
        )?;
        let numbered = |names: &'static [&'static str], gauges: &[Gauge]| {
            let names = names.iter().copied();
            names.zip(gauges.iter().cloned()).collect::<Vec<_>>()
        };
        let what = "1 for what the probes say of the node, 0 for the other verdicts.";
        self.several("node_verdict", what, NodeVerdict::new, |m| {
            numbered(VERDICTS, &m.verdicts)
        })?;
        let what = "1 for the state that the operator set, 0 for the others.";
        self.several("node_state", what, NodeState::new, |m| {
            numbered(STATES, &m.states)
        })?;
        let what = "Part of its weight that the node has, below 1 for a while after it came back.";
        self.one(("node_share", None), what, |m| &m.share)?;
        let what = "Times that the node went down and that are not forgotten.";
        self.one(("node_falls", None), what, |m| &m.falls)?;
        let what =
            "How long a node that flaps must be well before it is up again, 0 while it is up.";
        self.one(("node_penalty", Some(Unit::Seconds)), what, |m| {
            &m.penalty_seconds
        })?;
        self.one(
            ("node_changes", None),
            "Changes of the probes' verdict.",
            |m| &m.changes,
        )?;
        let what = "Times that the node was found to have lost its sessions.";
        self.one(("node_restarts", None), what, |m| &m.restarts)
    }

    fn traffic(&mut self) -> fmt::Result {
        let what = "Connections that wait for their turn to be opened.";
        self.one(("upstream_connects_waiting", None), what, |m| {
            &m.connects_waiting
        })?;
        let what = "Connections to nodes, by outcome.";
        self.several("upstream_connects", what, NodeOutcome::new, |m| {
            vec![
                ("ok", m.connects.clone()),
                ("failed", m.connect_failures.clone()),
            ]
        })?;
        let what = "Time to open a connection to a node.";
        self.one(("upstream_connect", Some(Unit::Seconds)), what, |m| {
            &m.connect_seconds
        })?;
        let what = "Answers of nodes that came in whole.";
        self.one(("upstream_answers", None), what, |m| &m.answers)?;
        let what = "Time to a node's answer to creations and sends, where nothing holds it back.";
        self.one(("upstream_answer", Some(Unit::Seconds)), what, |m| {
            &m.answer_seconds
        })?;
        let what = "Exchanges that failed after the connection was open.";
        self.one(("upstream_failures", None), what, |m| &m.exchange_failures)?;
        let what = "Requests sent to the node again though nothing failed, by reason.";
        self.several("upstream_resent", what, NodeReason::new, |m| {
            vec![("unanswered", m.resent_unanswered.clone())]
        })?;
        let what = "Requests sent to nodes, heads included.";
        self.one(("upstream_sent", Some(Unit::Bytes)), what, |m| {
            &m.sent_bytes
        })?;
        let what = "Answers of nodes, without their heads.";
        self.one(("upstream_received", Some(Unit::Bytes)), what, |m| {
            &m.received_bytes
        })
    }

    fn tunnels(&mut self) -> fmt::Result {
        let what = "WebSocket tunnels open to each node.";
        self.one(("websocket_tunnels", None), what, |m| &m.tunnels)?;
        let what = "WebSocket tunnels that were opened.";
        self.one(("websocket_opened", None), what, |m| &m.tunnels_opened)?;
        let what = "WebSocket tunnels that ended, by cause.";
        self.several("websocket_ended", what, NodeCause::new, |m| {
            m.tunnels_ended.counters().collect()
        })
    }

    fn probes(&mut self) -> fmt::Result {
        let what = "Time of a probe that passed.";
        self.one(("probe", Some(Unit::Seconds)), what, |m| &m.probe_seconds)?;
        let what = "Probes that failed, by reason.";
        self.several("probe_failures", what, NodeReason::new, |m| {
            m.probe_failures.counters().collect()
        })
    }
}
