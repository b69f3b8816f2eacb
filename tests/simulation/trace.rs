//! What happened in one run, and what must hold of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::cluster::OperatorState;
use tokio::time::Instant;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is gone with all its sessions and refuses connections until it comes back.
    Kill,
    /// It accepts connections and does nothing.
    Freeze,
    /// Nothing reaches it, connections are not answered.
    Cut,
    /// As `Freeze`, for less than `health.silence`: it keeps its sessions, and so must the balancer.
    Pause,
    /// As `Cut`, for less than `health.silence`.
    Blip,
}

/// How long a node may say nothing until its sessions may be ended: `health.silence`, less what an
/// answer takes that was asked for before.
const SILENCE: Duration = Duration::from_millis(4950);

/// Two faults of one node with less than this between them are one: the node may not have said a
/// byte in between.
const GAP: Duration = Duration::from_secs(2);

/// A time in which a node said nothing, or nearly nothing.
struct Silence {
    from: Duration,
    until: Option<Duration>,
    killed: bool,
}

/// Why a node is not to have sessions, or new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Failed(Fault),
    /// It is well, and the operator has set it so: to `drain` or `maint`.
    Set(OperatorState),
}

/// From when until when something was wrong with a node.
#[derive(Debug, Clone, Copy)]
struct Ailment {
    node: usize,
    why: Why,
    from: Duration,
    until: Option<Duration>,
}

/// A request as a node read it.
#[derive(Debug, Clone)]
struct Arrival {
    at: Duration,
    node: usize,
    rid: u64,
    /// When its answer left.
    answered: Option<Duration>,
}

/// What is written down of a run.
pub(super) struct Trace {
    start: Instant,
    /// How long a fault excuses what happens behind its end.
    calm: Duration,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    ailments: Vec<Ailment>,
    /// By sid.
    arrivals: BTreeMap<String, Vec<Arrival>>,
    owners: BTreeMap<String, (usize, Duration)>,
    broken: Vec<String>,
    requests: usize,
    answers: usize,
    /// Everything in one number, to see whether two runs were the same.
    trace: u64,
}

impl Written {
    /// When the node failed, faults that follow each other at once taken together.
    fn silences(&self, node: usize) -> Vec<Silence> {
        let mut silences: Vec<Silence> = Vec::new();
        for Ailment {
            node: of,
            why,
            from,
            until,
        } in &self.ailments
        {
            let Why::Failed(fault) = why else { continue };
            if *of != node {
                continue;
            }
            let killed = *fault == Fault::Kill;
            match silences.last_mut() {
                Some(last) if last.until.is_none_or(|end| end + GAP >= *from) => {
                    last.until = *until;
                    last.killed |= killed;
                }
                _ => silences.push(Silence {
                    from: *from,
                    until: *until,
                    killed,
                }),
            }
        }
        silences
    }
}

impl Trace {
    pub(super) fn new(calm: Duration) -> Self {
        Self {
            start: Instant::now(),
            calm,
            written: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trace(&self, what: &str) {
        let now = self.now().as_micros();
        let line = format!("{now} {what}");
        if std::env::var_os("SIMULATION_TRACE").is_some() {
            eprintln!("{line}");
        }
        let mut written = self.written();
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(line.as_bytes(), written.trace);
        written.trace = hash;
    }

    /// Notes something that must not be.
    pub(super) fn broken(&self, what: &str) {
        self.trace(what);
        let line = format!("at {:.3} s: {what}", self.now().as_secs_f64());
        self.written().broken.push(line);
    }

    pub(super) fn begin(&self, node: usize, fault: Fault) {
        self.trace(&format!("node {node} {fault:?}"));
        self.ails(node, Why::Failed(fault));
    }

    fn ails(&self, node: usize, why: Why) {
        let from = self.now();
        self.written().ailments.push(Ailment {
            node,
            why,
            from,
            until: None,
        });
    }

    pub(super) fn heal(&self, node: usize) {
        self.trace(&format!("node {node} is well"));
        self.end(node, |why| matches!(why, Why::Failed(_)));
    }

    fn end(&self, node: usize, these: fn(Why) -> bool) {
        let now = self.now();
        let mut written = self.written();
        let of_node = written.ailments.iter_mut().filter(|a| a.node == node);
        for ailment in of_node.filter(|a| these(a.why)) {
            ailment.until.get_or_insert(now);
        }
    }

    /// The operator has set a node to another state.
    pub(super) fn set(&self, node: usize, state: OperatorState) {
        self.trace(&format!("node {node} is set to {}", state.word()));
        self.end(node, |why| matches!(why, Why::Set(_)));
        if state != OperatorState::Ready {
            self.ails(node, Why::Set(state));
        }
    }

    /// A node has read a request of `sid`, or for a new session, which the operator may not want there.
    pub(super) fn came(&self, node: usize, sid: Option<&str>) {
        let now = self.now();
        let unwanted = |a: &&Ailment| match a.why {
            Why::Set(OperatorState::Drain) => sid.is_none(),
            Why::Set(_) => true,
            Why::Failed(_) => false,
        };
        let against = {
            let written = self.written();
            let open = written
                .ailments
                .iter()
                .filter(|a| a.node == node && a.until.is_none());
            open.filter(|a| a.from < now).find(unwanted).copied()
        };
        if let Some(Ailment { why, from, .. }) = against {
            let sid = sid.unwrap_or("a creation");
            self.broken(&format!(
                "{sid} came to node {node}, {why:?} since {from:?}"
            ));
        }
    }

    /// A node has made a session.
    pub(super) fn made(&self, node: usize, sid: &str) {
        self.trace(&format!("node {node} made {sid}"));
        let now = self.now();
        self.written().owners.insert(sid.to_owned(), (node, now));
    }

    /// A node has read a request.
    pub(super) fn arrived(&self, node: usize, sid: &str, rid: u64) -> usize {
        self.trace(&format!("node {node} got {sid} {rid}"));
        let at = self.now();
        let arrival = Arrival {
            at,
            node,
            rid,
            answered: None,
        };
        let mut written = self.written();
        written.requests += 1;
        let arrivals = written.arrivals.entry(sid.to_owned()).or_default();
        arrivals.push(arrival);
        arrivals.len() - 1
    }

    /// A node writes the answer to the request that was the `arrival`th of its session.
    pub(super) fn answers(&self, sid: &str, arrival: usize) {
        let now = self.now();
        let mut written = self.written();
        let arrivals = written.arrivals.get_mut(sid);
        if let Some(arrival) = arrivals.and_then(|arrivals| arrivals.get_mut(arrival)) {
            arrival.answered = Some(now);
        }
    }

    /// A client has got an answer.
    pub(super) fn answered(&self, client: usize, what: &str) {
        self.trace(&format!("client {client} got {what}"));
        self.written().answers += 1;
    }

    /// Whether a fault of `node` can have shown in this time.
    pub(super) fn ailed(&self, node: usize, from: Duration, until: Duration) -> bool {
        self.any(node, from, until, |why| matches!(why, Why::Failed(_)))
    }

    /// Whether some node of `count` was well all this time, and free to take sessions.
    pub(super) fn some_well(&self, count: usize, from: Duration, until: Duration) -> bool {
        (0..count).any(|node| !self.any(node, from, until, |_| true))
    }

    /// Whether there was, or may have shown, one of `these` faults at `node` in this time.
    fn any(&self, node: usize, from: Duration, until: Duration, these: fn(Why) -> bool) -> bool {
        let calm = self.calm;
        let shows = |a: &&Ailment| a.from <= until && a.until.is_none_or(|end| end + calm >= from);
        let written = self.written();
        let mut shown = written.ailments.iter().filter(shows);
        shown.any(|a| a.node == node && these(a.why))
    }

    /// Whether the session's node has failed: killed since it made it, ill (or in `maint`) lately, or
    /// since it last heard of it. Then the session may have moved, and to more than one node.
    pub(super) fn excused(&self, sid: &str, at: Duration) -> bool {
        let written = self.written();
        let Some((owner, born)) = written.owners.get(sid).copied() else {
            return true;
        };
        let arrivals = written.arrivals.get(sid).into_iter().flatten();
        let mut heard = arrivals.filter(|arrival| arrival.node == owner && arrival.at <= at);
        let heard = heard.next_back().map_or(born, |arrival| arrival.at);
        let lately = heard.min(at.saturating_sub(self.calm));
        let maint = |a: &Ailment| {
            a.node == owner
                && a.why == Why::Set(OperatorState::Maint)
                && a.from <= at
                && a.until.is_none_or(|end| end >= lately)
        };
        let excuses = |silence: &Silence| {
            let since = if silence.killed { born } else { lately };
            let lasted = silence.until.unwrap_or(at).saturating_sub(silence.from);
            silence.from <= at
                && (silence.killed || lasted >= SILENCE)
                && silence.until.is_none_or(|end| end >= since)
        };
        written.silences(owner).iter().any(excuses) || written.ailments.iter().any(maint)
    }

    /// Holds the invariants of what the nodes saw.
    pub(super) fn judge(&self) {
        let (owners, sessions) = {
            let written = self.written();
            (written.owners.clone(), written.arrivals.clone())
        };
        for (sid, arrivals) in &sessions {
            let Some((owner, _)) = owners.get(sid) else {
                continue;
            };
            let strayed = arrivals.iter().find(|arrival| arrival.node != *owner);
            if let Some(Arrival { at, node, rid, .. }) = strayed
                && !self.excused(sid, *at)
            {
                self.broken(&format!(
                    "{sid} {rid} of node {owner} went to node {node} at {at:?}, and {owner} was well"
                ));
            }
            self.judge_distance(sid, arrivals);
            self.judge_order(sid, arrivals);
        }
    }

    /// A request comes 5 ms behind every one that is unanswered at the same node.
    fn judge_distance(&self, sid: &str, arrivals: &[Arrival]) {
        for (place, later) in arrivals.iter().enumerate() {
            let open = |one: &&Arrival| {
                one.node == later.node && one.answered.is_none_or(|answered| answered > later.at)
            };
            let before = arrivals.get(..place).unwrap_or_default();
            for one in before.iter().filter(open) {
                let apart = later.at.saturating_sub(one.at);
                if apart < Duration::from_millis(5) {
                    let (one, other) = (one.rid, later.rid);
                    self.broken(&format!("{sid}: {one} and {other} are {apart:?} apart"));
                }
            }
        }
    }

    /// A rid is first seen before every higher one, at each node.
    fn judge_order(&self, sid: &str, arrivals: &[Arrival]) {
        let mut highest: BTreeMap<usize, u64> = BTreeMap::new();
        let mut seen = Vec::new();
        for Arrival { node, rid, at, .. } in arrivals {
            if seen.contains(rid) {
                continue;
            }
            seen.push(*rid);
            let top = highest.entry(*node).or_default();
            if *rid < *top {
                self.broken(&format!("{sid}: {rid} came behind {top} at {at:?}"));
            }
            *top = (*top).max(*rid);
        }
    }

    /// What came of the run.
    pub(super) fn close(&self) -> Outcome {
        let written = self.written();
        let mut faults = String::new();
        for Ailment {
            node,
            why,
            from,
            until,
        } in &written.ailments
        {
            let _ = write!(
                faults,
                " node {node} {why:?} {from:.1?}–{:.1?};",
                until.unwrap_or_default()
            );
        }
        Outcome {
            broken: written.broken.clone(),
            faults,
            sessions: written.owners.len(),
            requests: written.requests,
            answers: written.answers,
            trace: written.trace,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) broken: Vec<String>,
    pub(super) faults: String,
    pub(super) sessions: usize,
    pub(super) requests: usize,
    pub(super) answers: usize,
    pub(super) trace: u64,
}
