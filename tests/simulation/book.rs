//! What happened in one run, and what must hold of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
}

/// From when until when something was wrong with a node.
#[derive(Debug, Clone, Copy)]
struct Ailment {
    node: usize,
    fault: Fault,
    from: Duration,
    until: Option<Duration>,
}

/// A request as a node read it.
#[derive(Debug, Clone)]
struct Arrival {
    at: Duration,
    node: usize,
    rid: u64,
}

/// What is written down of a run.
pub(super) struct Book {
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
    /// Sids with two clients, whose requests have no order.
    twice: Vec<String>,
    broken: Vec<String>,
    requests: usize,
    answers: usize,
    /// Everything in one number, to see whether two runs were the same.
    trace: u64,
}

impl Book {
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
        let from = self.now();
        self.written().ailments.push(Ailment {
            node,
            fault,
            from,
            until: None,
        });
    }

    pub(super) fn heal(&self, node: usize) {
        self.trace(&format!("node {node} is well"));
        let now = self.now();
        let mut written = self.written();
        let of_node = written.ailments.iter_mut().filter(|a| a.node == node);
        for ailment in of_node {
            ailment.until.get_or_insert(now);
        }
    }

    /// A node has made a session.
    pub(super) fn made(&self, node: usize, sid: &str) {
        self.trace(&format!("node {node} made {sid}"));
        let now = self.now();
        self.written().owners.insert(sid.to_owned(), (node, now));
    }

    /// A client has got the sid of another one.
    pub(super) fn given_twice(&self, sid: &str) {
        self.written().twice.push(sid.to_owned());
    }

    /// A node has read a request.
    pub(super) fn arrived(&self, node: usize, sid: &str, rid: u64) {
        self.trace(&format!("node {node} got {sid} {rid}"));
        let at = self.now();
        let arrival = Arrival { at, node, rid };
        let mut written = self.written();
        written.requests += 1;
        let arrivals = written.arrivals.entry(sid.to_owned()).or_default();
        arrivals.push(arrival);
    }

    /// A client has got an answer.
    pub(super) fn answered(&self, client: usize, what: &str) {
        self.trace(&format!("client {client} got {what}"));
        self.written().answers += 1;
    }

    /// Whether a fault of `node` can have shown in this time.
    pub(super) fn ailed(&self, node: usize, from: Duration, until: Duration) -> bool {
        let calm = self.calm;
        let shows = |a: &Ailment| a.from <= until && a.until.is_none_or(|end| end + calm >= from);
        let written = self.written();
        written.ailments.iter().any(|a| a.node == node && shows(a))
    }

    /// Whether some node of `count` was well all this time.
    pub(super) fn some_well(&self, count: usize, from: Duration, until: Duration) -> bool {
        (0..count).any(|node| !self.ailed(node, from, until))
    }

    /// Whether the session's node has failed: killed since it made it, ill lately, or ill since it
    /// last heard of it. Then the session may have moved, and to more than one node.
    pub(super) fn excused(&self, sid: &str, at: Duration) -> bool {
        let written = self.written();
        let Some((owner, born)) = written.owners.get(sid).copied() else {
            return true;
        };
        let arrivals = written.arrivals.get(sid).into_iter().flatten();
        let mut heard = arrivals.filter(|arrival| arrival.node == owner && arrival.at <= at);
        let heard = heard.next_back().map_or(born, |arrival| arrival.at);
        let excuses = |a: &Ailment| {
            let since = match a.fault {
                Fault::Kill => born,
                Fault::Freeze | Fault::Cut => heard.min(at.saturating_sub(self.calm)),
            };
            a.node == owner && a.from <= at && a.until.is_none_or(|end| end >= since)
        };
        written.ailments.iter().any(excuses)
    }

    /// Holds the invariants of what the nodes saw.
    pub(super) fn judge(&self) {
        let (owners, sessions) = {
            let mut written = self.written();
            let twice = std::mem::take(&mut written.twice);
            let mut arrivals = written.arrivals.clone();
            arrivals.retain(|sid, _| !twice.contains(sid));
            (written.owners.clone(), arrivals)
        };
        for (sid, arrivals) in &sessions {
            let Some((owner, _)) = owners.get(sid) else {
                continue;
            };
            let strayed = arrivals.iter().find(|arrival| arrival.node != *owner);
            if let Some(Arrival { at, node, rid }) = strayed
                && !self.excused(sid, *at)
            {
                self.broken(&format!(
                    "{sid} {rid} of node {owner} went to node {node} at {at:?}, and {owner} was well"
                ));
            }
            for pair in arrivals.windows(2) {
                let apart = pair[1].at.saturating_sub(pair[0].at);
                if apart < Duration::from_millis(2) {
                    let (one, other) = (pair[0].rid, pair[1].rid);
                    self.broken(&format!("{sid}: {one} and {other} are {apart:?} apart"));
                }
            }
            self.judge_order(sid, arrivals);
        }
    }

    /// A rid is first seen before every higher one, at each node.
    fn judge_order(&self, sid: &str, arrivals: &[Arrival]) {
        let mut highest: BTreeMap<usize, u64> = BTreeMap::new();
        let mut seen = Vec::new();
        for Arrival { node, rid, at } in arrivals {
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
            fault,
            from,
            until,
        } in &written.ailments
        {
            let _ = write!(
                faults,
                " node {node} {fault:?} {from:.1?}–{:.1?};",
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
