//! What is remembered of one request, to count it and to log one line when it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, info, warn};

use super::access_log::SessionTag;
use super::answer::Answer;
use super::protocol::{Protocol, TlsVersion};
use super::reject::Cause;
use super::shared::Proxy;
use super::termination_state::{self, Phase};
use crate::cluster::NodeId;
use crate::observe::metrics::{Kind, Outcome};
use crate::observe::traces::{self, Parent, Stage, Trace};

/// The longest that an address is in words: IPv6 with an IPv4 address at its end.
const LONGEST_ADDRESS: usize = 45;

/// The number that no node has: there are 1024 at most.
const NO_NODE: u16 = u16::MAX;

/// One request, counted once: when it is answered, or when it is dropped because its client went
/// away.
#[derive(Debug)]
pub struct RequestRecord {
    proxy: Arc<Proxy>,
    kind: Kind,
    client: IpAddr,
    protocol: Protocol,
    begun: Instant,
    /// Time spent at nodes, in nanoseconds.
    at_nodes: AtomicU64,
    /// The session's [`SessionTag`], if there are lines in the log.
    session: AtomicU32,
    /// The last node that it was to go to.
    node: AtomicU16,
    phase: AtomicU8,
    /// How often it was to go to a node.
    tries: AtomicU8,
    counted: bool,
    /// Its client is gone, and it goes on.
    left: AtomicBool,
    trace: Trace,
}

/// The time of a request at a node, noted when this is dropped: that time is not the balancer's doing.
#[derive(Debug)]
pub(super) struct Stay<'a> {
    record: &'a RequestRecord,
    begun: Instant,
}

impl Stay<'_> {
    /// When it began.
    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// Ends it at `now`, and says how long it was.
    pub(super) fn end(self, now: Instant) -> Duration {
        let took = self.note_time(now);
        // Noted once.
        std::mem::forget(self);
        took
    }

    fn note_time(&self, now: Instant) -> Duration {
        let took = now - self.begun;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.record.at_nodes.fetch_add(nanos, Ordering::Relaxed);
        took
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.note_time(Instant::now());
    }
}

/// How a request ended.
#[derive(Debug)]
struct Summary {
    outcome: Outcome,
    cause: Option<Cause>,
    status: u16,
    bytes: usize,
    state: &'static str,
}

/// An answer on its way to the client. Dropped before [`Delivery::ended`], it ended with its
/// connection.
#[must_use = "the request's line is logged when the delivery has ended"]
#[derive(Debug)]
pub struct Delivery(Option<Box<Undelivered>>);

/// An answer, and its delivery, which says in the end whether it was written in full.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Its delivery.
    pub delivery: Delivery,
}

/// How the delivery of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The kernel took all of it at once.
    AtOnce,
    /// The kernel took all of it in the end.
    Slowly,
    /// The client was too slow, and its connection was closed.
    TooSlow,
}

/// What is logged of an answer that is on its way.
#[derive(Debug)]
struct Undelivered {
    record: RequestRecord,
    ended: Summary,
    took: Duration,
}

impl Delivery {
    /// Notes how it ended.
    pub fn ended(mut self, delivered: Delivered) {
        let Some(mut last) = self.0.take() else {
            return;
        };
        match delivered {
            Delivered::AtOnce => {}
            Delivered::Slowly => last.took = last.record.begun.elapsed(),
            Delivered::TooSlow => {
                last.took = last.record.begun.elapsed();
                last.ended.state = termination_state::TOO_SLOW;
            }
        }
        last.record.log(&last.ended, last.took);
    }
}

impl Delivery {
    /// Notes how the tunnel behind the answer ended, and how many bytes its client was sent.
    pub(super) fn tunnel_ended(mut self, state: &'static str, bytes: usize) {
        let Some(mut last) = self.0.take() else {
            return;
        };
        last.took = last.record.begun.elapsed();
        last.ended.state = state;
        last.ended.bytes = bytes;
        last.record.log(&last.ended, last.took);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(mut last) = self.0.take() else {
            return;
        };
        last.ended.state = termination_state::undelivered(last.record.proxy.access.is_cut());
        let took = last.record.begun.elapsed();
        last.record.log(&last.ended, took);
    }
}

impl RequestRecord {
    /// A request of `kind` that begins now, from this client by this protocol, and is part of what `parent`
    /// is.
    pub fn new(
        proxy: Arc<Proxy>,
        kind: Kind,
        (client, protocol): (IpAddr, Protocol),
        parent: &Parent,
    ) -> Self {
        Self {
            trace: proxy.traces.begin(parent),
            proxy,
            kind,
            client,
            protocol,
            begun: Instant::now(),
            at_nodes: AtomicU64::new(0),
            session: AtomicU32::new(SessionTag::NONE.bits()),
            node: AtomicU16::new(NO_NODE),
            phase: AtomicU8::new(Phase::Request as u8),
            tries: AtomicU8::new(0),
            counted: false,
            left: AtomicBool::new(false),
        }
    }

    /// When the request began.
    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// Its client's address.
    pub(super) const fn client(&self) -> IpAddr {
        self.client
    }

    /// What the request is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Notes which session it belongs to.
    pub(super) fn of_session(&self, sid: &str) {
        if self.proxy.access.is_on() || self.trace.is_on() {
            let name = self.proxy.access.name(sid);
            self.session.store(name.bits(), Ordering::Relaxed);
        }
    }

    /// Notes where the request is.
    pub(super) fn enters(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        let stage = match phase {
            Phase::Queue => Stage::Queue,
            Phase::Connect => Stage::Connect,
            Phase::Node => Stage::Exchange,
            Phase::Request | Phase::Answer | Phase::Stead => Stage::Other,
        };
        self.trace.enters(stage, || self.node());
    }

    /// Notes that its client is gone while it goes on.
    pub(super) fn client_left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether its client is gone.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Notes that the request is to go to `node`.
    pub(super) fn goes_to(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
        // Only this task writes it. It stays at its highest value.
        let tries = self.tries.load(Ordering::Relaxed).saturating_add(1);
        self.tries.store(tries, Ordering::Relaxed);
    }

    /// The request is at its node from `now` on.
    pub(super) fn at_node(&self, now: Instant) -> Stay<'_> {
        self.enters(Phase::Node);
        Stay {
            record: self,
            begun: now,
        }
    }

    /// Counts the answer. Its line is logged when its delivery has ended.
    pub fn finish(mut self, answer: &Answer) -> Delivery {
        let metrics = &self.proxy.metrics;
        let outcome = match answer.cause {
            Some(cause) => {
                metrics.count_reject(cause.row().label);
                Outcome::Rejected
            }
            None => Outcome::Ok,
        };
        metrics.count_request(self.kind, outcome);
        let length = u64::try_from(answer.body.len()).unwrap_or(0);
        metrics.client_sent_bytes.inc_by(length);
        let took = self.begun.elapsed();
        let has_node = self.node.load(Ordering::Relaxed) != NO_NODE;
        if has_node && answer.cause.is_none() {
            let added = took.saturating_sub(self.held());
            metrics.overhead_seconds.observe(added);
        }
        self.counted = true;
        self.warn(answer.cause);
        if !self.proxy.access.is_on() && !self.trace.is_on() {
            return Delivery(None);
        }
        let phase = Phase::numbered(self.phase.load(Ordering::Relaxed));
        let ended = Summary {
            outcome,
            cause: answer.cause,
            status: answer.status,
            bytes: answer.body.len(),
            state: termination_state::answered(answer.cause, phase, has_node),
        };
        Delivery(Some(Box::new(Undelivered {
            record: self,
            ended,
            took,
        })))
    }

    /// The same with the answer.
    pub(super) fn answer(self, answer: Answer) -> Reply {
        if self.has_left() {
            // Dropped, it counts as one whose client went away.
            let delivery = Delivery(None);
            return Reply { answer, delivery };
        }
        let delivery = self.finish(&answer);
        Reply { answer, delivery }
    }

    /// The same with an answer of the balancer's own.
    pub(super) fn reject(self, cause: Cause, legacy: bool) -> Reply {
        self.answer(Answer::reject(cause, legacy))
    }

    fn held(&self) -> Duration {
        Duration::from_nanos(self.at_nodes.load(Ordering::Relaxed))
    }

    fn warn(&self, cause: Option<Cause>) {
        let loud = cause.filter(|cause| cause.row().level == Level::WARN);
        if let Some(cause) = loud {
            let (client, kind, node) = (self.client, self.kind.label(), self.node());
            warn!(%client, kind, node, cause = cause.row().label, "rejected");
        }
    }

    fn log(&self, ended: &Summary, took: Duration) {
        self.trace(ended);
        if !self.proxy.access.is_on() {
            return;
        }
        let session = SessionTag::from_bits(self.session.load(Ordering::Relaxed));
        // Only ordinary ends are ever left out.
        let ordinary = ended.outcome == Outcome::Ok && !termination_state::is_failure(ended.state);
        if !ordinary || self.proxy.access.samples(session) {
            self.line(ended, took, session);
        }
    }

    fn trace(&self, ended: &Summary) {
        if !self.trace.is_on() {
            return;
        }
        let session = SessionTag::from_bits(self.session.load(Ordering::Relaxed));
        self.trace.end(&traces::SpanEnd {
            kind: self.kind.label(),
            outcome: ended.outcome.label(),
            state: ended.state,
            cause: ended.cause.map(|cause| cause.row().label),
            status: ended.status,
            bytes: ended.bytes,
            client: self.client,
            protocol: self.protocol.http.label(),
            tls: self.protocol.tls.map(TlsVersion::label),
            node: self.node(),
            session: session.write(&mut [0; 6]),
        });
    }

    fn line(&self, ended: &Summary, took: Duration, session: SessionTag) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let tries = self.tries.load(Ordering::Relaxed);
        let (mut letters, mut place) = ([0; 6], [0; LONGEST_ADDRESS]);
        info!(
            target: "bowline::access",
            client = address(self.client, &mut place),
            protocol = self.protocol.http.label(),
            tls = self.protocol.tls.map(TlsVersion::label),
            node = self.node(),
            kind = self.kind.label(),
            outcome = ended.outcome.label(),
            cause = ended.cause.map(|cause| cause.row().label),
            status = ended.status,
            bytes = ended.bytes,
            ms = millis(took),
            held_ms = millis(self.held()),
            tries = (tries > 1).then_some(tries),
            end = ended.state,
            session = session.write(&mut letters),
            "request"
        );
    }

    /// The name of the last node that it was to go to.
    fn node(&self) -> Option<&str> {
        match self.node.load(Ordering::Relaxed) {
            NO_NODE => None,
            node => Some(&self.proxy.cluster.node(NodeId(node)).name),
        }
    }
}

/// An address in words. The library's way to write IPv4 takes ten times as long.
fn address(address: IpAddr, place: &mut [u8; LONGEST_ADDRESS]) -> &str {
    let mut end = 0;
    let mut push = |byte| {
        if let Some(next) = place.get_mut(end) {
            *next = byte;
            end += 1;
        }
    };
    match address {
        IpAddr::V4(v4) => {
            for (number, octet) in v4.octets().into_iter().enumerate() {
                if number > 0 {
                    push(b'.');
                }
                if octet >= 100 {
                    push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    push(b'0' + octet / 10 % 10);
                }
                push(b'0' + octet % 10);
            }
        }
        IpAddr::V6(v6) => v6.to_string().bytes().for_each(push),
    }
    std::str::from_utf8(&place[..end]).unwrap_or_default()
}

/// A request without an answer: its client went away, or the process ends.
impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.counted {
            return;
        }
        let cut = self.proxy.access.is_cut();
        let outcome = if cut {
            Outcome::Cut
        } else {
            Outcome::ClientGone
        };
        self.proxy.metrics.count_request(self.kind, outcome);
        let phase = Phase::numbered(self.phase.load(Ordering::Relaxed));
        let ended = Summary {
            outcome,
            cause: None,
            status: 0,
            bytes: 0,
            state: termination_state::given_up(phase, cut),
        };
        self.log(&ended, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::config::{NodeSettings, Settings};
    use crate::observe::metrics::Metrics;

    /// A creation is tried at each node that is up and refuses: a thousand, where a whole hall fails.
    #[tokio::test]
    async fn tries_beyond_all_numbers_are_many() {
        let settings = Settings::for_nodes(vec![NodeSettings::new("t1", "127.0.0.1:9")]);
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(&settings, &metrics));
        let proxy = Arc::new(Proxy::new(&settings, cluster, metrics).unwrap());
        let client = (IpAddr::from([127, 0, 0, 1]), Protocol::PLAIN);
        let record = RequestRecord::new(proxy, Kind::Creation, client, &Parent::default());
        for _ in 0..257 {
            record.goes_to(NodeId(0));
        }
        assert_eq!(record.tries.load(Ordering::Relaxed), 255);
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for words in [
            "0.0.0.0",
            "127.0.0.1",
            "10.99.100.255",
            "::",
            "2001:db8::7",
            "1111:2222:3333:4444:5555:6666:7777:8888",
            "::ffff:192.168.100.200",
        ] {
            let place = &mut [0; LONGEST_ADDRESS];
            assert_eq!(address(words.parse().unwrap(), place), words);
        }
    }
}
