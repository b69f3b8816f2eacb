//! What happened in one run: faults, operator states, requests and stanzas, and which broken
//! promise a fault excuses. `invariants.rs` judges it, `trace.rs` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::cluster::OperatorState;
use tokio::time::Instant;

use super::invariants::{Broken, Invariant};
use super::plan::Fault;
use super::trace::{Trace, Who};

/// A silent node keeps its sessions for less than this: `health.silence`, less the time of an
/// answer that it was asked for before.
const SILENCE: Duration = Duration::from_millis(4_950);

/// Two faults of a node with less than this between them count as one. The node may not have sent
/// a byte in between.
const GAP: Duration = Duration::from_secs(2);

/// A time in which a node sent nothing, or nearly nothing.
struct Silence {
    from: Duration,
    until: Option<Duration>,
    killed: bool,
}

/// Why a node must not have sessions, or new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Failed(Fault),
    /// The operator has set it to `drain` or `maint`.
    Set(OperatorState),
}

/// A time in which a node failed, or was not ready.
#[derive(Debug, Clone, Copy)]
struct Outage {
    node: usize,
    why: Why,
    from: Duration,
    until: Option<Duration>,
}

/// A request as a node read it.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Duration,
    pub(super) node: usize,
    pub(super) rid: u64,
    /// When the node wrote its answer.
    pub(super) answered: Option<Duration>,
}

/// A session as its node and its client saw it.
#[derive(Debug, Clone)]
pub(super) struct SessionHistory {
    /// The node that made it, and when.
    pub(super) owner: usize,
    pub(super) born: Duration,
    /// The rid of its creation.
    pub(super) rid: u64,
    pub(super) arrivals: Vec<Arrival>,
    /// Stanzas by the rid that carried them, from the client.
    pub(super) sent: BTreeMap<u64, Vec<u64>>,
    /// Those stanzas in the order in which the node took them.
    pub(super) taken: Vec<u64>,
    /// Stanzas by the rid that they answer, from the node.
    pub(super) said: BTreeMap<u64, Vec<u64>>,
    /// Those stanzas by the rid whose answer the client read.
    pub(super) heard: BTreeMap<u64, Vec<u64>>,
    /// Rids that got an answer without an end of the session.
    pub(super) answered: BTreeSet<u64>,
    /// When the client last read an answer or began to wait for one.
    pub(super) last: Duration,
}

/// What is written down of a run.
pub(super) struct History {
    start: Instant,
    /// How long after its end a fault excuses what happens.
    calm: Duration,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    outages: Vec<Outage>,
    sessions: BTreeMap<String, SessionHistory>,
    broken: Vec<Broken>,
    requests: usize,
    answers: usize,
    trace: Trace,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) broken: Vec<Broken>,
    pub(super) sessions: usize,
    pub(super) requests: usize,
    pub(super) answers: usize,
    /// Stanzas that nodes took and clients read.
    pub(super) stanzas: usize,
    /// A digest of every event with its time.
    pub(super) digest: u64,
    /// Every event, one line each, if it was asked for.
    pub(super) lines: Vec<String>,
}

impl History {
    /// `traced` keeps a line for each event.
    pub(super) fn new(calm: Duration, traced: bool) -> Self {
        let written = Written {
            trace: Trace::new(traced),
            ..Written::default()
        };
        Self {
            start: Instant::now(),
            calm,
            written: Mutex::new(written),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event down. `more` is only asked for when lines are kept.
    pub(super) fn note(
        &self,
        who: Who,
        what: &'static str,
        request: (&str, u64),
        more: impl FnOnce() -> String,
    ) {
        let now = self.now();
        let mut written = self.written();
        let (sid, rid) = request;
        let base = written.sessions.get(sid).map(|session| session.rid);
        written.trace.add(now, who, what, (sid, rid, base), more);
    }

    /// A promise is broken.
    pub(super) fn broken(&self, invariant: Invariant, what: &str) {
        self.note(Who::Checker, "BROKEN", ("", 0), || {
            format!("{invariant:?}: {what}")
        });
        let at = self.now();
        let text = what.to_owned();
        let broken = Broken {
            invariant,
            at,
            text,
        };
        self.written().broken.push(broken);
    }

    pub(super) fn begin(&self, node: usize, fault: Fault) {
        self.note(Who::Node(node), "FAULT", ("", 0), || format!("{fault:?}"));
        self.outage(node, Why::Failed(fault));
    }

    fn outage(&self, node: usize, why: Why) {
        let from = self.now();
        self.written().outages.push(Outage {
            node,
            why,
            from,
            until: None,
        });
    }

    pub(super) fn heal(&self, node: usize) {
        self.note(Who::Node(node), "HEALED", ("", 0), String::new);
        self.end(node, |why| matches!(why, Why::Failed(_)));
    }

    fn end(&self, node: usize, these: fn(Why) -> bool) {
        let now = self.now();
        let mut written = self.written();
        let of_node = written.outages.iter_mut().filter(|o| o.node == node);
        for outage in of_node.filter(|o| these(o.why)) {
            outage.until.get_or_insert(now);
        }
    }

    /// The operator has set a node to another state.
    pub(super) fn set(&self, node: usize, state: OperatorState) {
        let word = || state.word().to_owned();
        self.note(Who::Node(node), "STATE", ("", 0), word);
        self.end(node, |why| matches!(why, Why::Set(_)));
        if state != OperatorState::Ready {
            self.outage(node, Why::Set(state));
        }
    }

    /// Whether any fault has begun.
    pub(super) fn has_failed(&self) -> bool {
        let written = self.written();
        let mut outages = written.outages.iter();
        outages.any(|outage| matches!(outage.why, Why::Failed(_)))
    }

    /// A node has read a request of `sid`, or a creation. It must not if the operator has forbidden it.
    pub(super) fn came(&self, node: usize, sid: Option<&str>) {
        let now = self.now();
        let unwanted = |outage: &&Outage| match outage.why {
            Why::Set(OperatorState::Drain) => sid.is_none(),
            Why::Set(_) => true,
            Why::Failed(_) => false,
        };
        let against = {
            let written = self.written();
            let of_node = written.outages.iter().filter(|o| o.node == node);
            let open = of_node.filter(|o| o.until.is_none() && o.from < now);
            open.clone().find(unwanted).copied()
        };
        if let Some(Outage { why, from, .. }) = against {
            let sid = sid.unwrap_or("a creation");
            let text = format!("{sid} came to t{node}, {why:?} since {from:?}");
            self.broken(Invariant::OperatorState, &text);
        }
    }

    /// A node has made a session.
    pub(super) fn made(&self, owner: usize, sid: &str, rid: u64) {
        let born = self.now();
        let session = SessionHistory {
            owner,
            born,
            rid,
            arrivals: Vec::new(),
            sent: BTreeMap::new(),
            taken: Vec::new(),
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            answered: BTreeSet::new(),
            last: born,
        };
        self.written().sessions.insert(sid.to_owned(), session);
        self.note(Who::Node(owner), "makes", (sid, rid), String::new);
    }

    /// Changes what is known of a session. Nothing happens if no node made it.
    fn of(&self, sid: &str, change: impl FnOnce(&mut SessionHistory)) {
        if let Some(session) = self.written().sessions.get_mut(sid) {
            change(session);
        }
    }

    /// A node has read a request. Returns its place among the arrivals of its session.
    pub(super) fn arrived(&self, node: usize, sid: &str, rid: u64) -> usize {
        self.note(Who::Node(node), "reads", (sid, rid), String::new);
        let at = self.now();
        self.written().requests += 1;
        let mut place = 0;
        self.of(sid, |session| {
            place = session.arrivals.len();
            session.arrivals.push(Arrival {
                at,
                node,
                rid,
                answered: None,
            });
        });
        place
    }

    /// A node is about to write the answer to an arrival.
    pub(super) fn answers(&self, sid: &str, arrival: usize) {
        let now = self.now();
        self.of(sid, |session| {
            if let Some(arrival) = session.arrivals.get_mut(arrival) {
                arrival.answered = Some(now);
            }
        });
    }

    /// A node has taken the stanzas of a request.
    pub(super) fn taken(&self, sid: &str, stanzas: &[u64]) {
        self.of(sid, |session| session.taken.extend(stanzas));
    }

    /// A node has put stanzas into its answer to `rid`.
    pub(super) fn said(&self, sid: &str, rid: u64, stanzas: Vec<u64>) {
        self.of(sid, |session| drop(session.said.insert(rid, stanzas)));
    }

    /// A client sends a request with these stanzas.
    pub(super) fn sent(&self, sid: &str, rid: u64, stanzas: Vec<u64>) {
        let now = self.now();
        self.of(sid, |session| {
            session.last = now;
            session.sent.insert(rid, stanzas);
        });
    }

    /// A client has read an answer to `rid`, with these stanzas.
    pub(super) fn heard(&self, sid: &str, rid: u64, stanzas: Vec<u64>, goes_on: bool) {
        let now = self.now();
        self.of(sid, |session| {
            session.last = now;
            session.heard.insert(rid, stanzas);
            if goes_on {
                session.answered.insert(rid);
            }
        });
    }

    /// A client has read an answer.
    pub(super) fn answered(&self) {
        self.written().answers += 1;
    }

    /// Whether a fault of `node` may have shown in this time.
    pub(super) fn failed(&self, node: usize, from: Duration, until: Duration) -> bool {
        self.any(node, from, until, |why| matches!(why, Why::Failed(_)))
    }

    /// Whether one of `count` nodes was well and ready all this time.
    pub(super) fn some_well(&self, count: usize, from: Duration, until: Duration) -> bool {
        (0..count).any(|node| !self.any(node, from, until, |_| true))
    }

    fn any(&self, node: usize, from: Duration, until: Duration, these: fn(Why) -> bool) -> bool {
        let calm = self.calm;
        let shows = |o: &&Outage| o.from <= until && o.until.is_none_or(|end| end + calm >= from);
        let written = self.written();
        let mut shown = written.outages.iter().filter(shows);
        shown.any(|o| o.node == node && these(o.why))
    }

    /// Whether the session's node has failed: killed since it made the session, or silent or in
    /// `maint` lately or since it last heard of it. Then the session may have moved or ended.
    pub(super) fn excused(&self, sid: &str, at: Duration) -> bool {
        let written = self.written();
        let Some(session) = written.sessions.get(sid) else {
            return true;
        };
        let owner = session.owner;
        let heard = session.arrivals.iter().rev();
        let heard = heard.filter(|arrival| arrival.node == owner && arrival.at <= at);
        let heard = heard.map(|arrival| arrival.at).next();
        let lately = heard.unwrap_or(session.born);
        let lately = lately.min(at.saturating_sub(self.calm));
        let maint = |o: &Outage| {
            o.node == owner
                && o.why == Why::Set(OperatorState::Maint)
                && o.from <= at
                && o.until.is_none_or(|end| end >= lately)
        };
        let excuses = |silence: &Silence| {
            let since = if silence.killed { session.born } else { lately };
            let lasted = silence.until.unwrap_or(at).saturating_sub(silence.from);
            silence.from <= at
                && (silence.killed || lasted >= SILENCE)
                && silence.until.is_none_or(|end| end >= since)
        };
        written.silences(owner).iter().any(excuses) || written.outages.iter().any(maint)
    }

    /// Every session with its sid.
    pub(super) fn sessions(&self) -> BTreeMap<String, SessionHistory> {
        self.written().sessions.clone()
    }

    /// Ends the run.
    pub(super) fn close(&self) -> Outcome {
        let mut written = self.written();
        let stanzas = written.sessions.values().map(|session| {
            let heard: usize = session.heard.values().map(Vec::len).sum();
            session.taken.len() + heard
        });
        Outcome {
            stanzas: stanzas.sum(),
            broken: written.broken.clone(),
            sessions: written.sessions.len(),
            requests: written.requests,
            answers: written.answers,
            digest: written.trace.digest(),
            lines: written.trace.take_lines(),
        }
    }
}

impl Written {
    /// The silences of a node; faults with a short gap between them are one.
    fn silences(&self, node: usize) -> Vec<Silence> {
        let mut silences: Vec<Silence> = Vec::new();
        for outage in self.outages.iter().filter(|o| o.node == node) {
            let Why::Failed(fault) = outage.why else {
                continue;
            };
            let Outage { from, until, .. } = *outage;
            let killed = fault == Fault::Kill;
            match silences.last_mut() {
                Some(last) if last.until.is_none_or(|end| end + GAP >= from) => {
                    last.until = until;
                    last.killed |= killed;
                }
                _ => silences.push(Silence {
                    from,
                    until,
                    killed,
                }),
            }
        }
        silences
    }
}
