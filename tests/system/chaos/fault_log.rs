//! What really happened to each node, and what the balancer thought of it: spans of time.

use std::time::Duration;

use super::plan::{Fault, RECOVERY};
use crate::support::log::{Line, micros, now};
use crate::world::node::SLACK;

/// A node that answers nothing for less than this keeps its sessions: `health.silence`, less what
/// signals and packets take on a busy machine.
const SILENCE: Duration = Duration::from_millis(4500);
/// Two faults of one node with less than this between them may be one silence.
const GAP: Duration = Duration::from_secs(2);

/// What the balancer says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Up,
    Silent,
    Down,
}

/// One fault of one node, as it happened.
#[derive(Clone, Copy, Debug)]
struct Span {
    fault: Fault,
    from: u64,
    until: u64,
}

/// A change of the balancer's verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) at: u64,
    pub(crate) said: Said,
}

/// The history of all nodes.
pub(crate) struct FaultLog {
    started: u64,
    faults: Vec<Vec<Span>>,
    verdicts: Vec<Vec<Verdict>>,
}

impl FaultLog {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            started: now(),
            faults: vec![Vec::new(); nodes],
            verdicts: vec![Vec::new(); nodes],
        }
    }

    /// A fault is about to begin.
    pub(crate) fn begins(&mut self, node: usize, fault: Fault) {
        let (from, until) = (now() - micros(SLACK), u64::MAX);
        self.faults[node].push(Span { fault, from, until });
    }

    /// A fault has ended.
    pub(crate) fn ends(&mut self, node: usize) {
        if let Some(span) = self.faults[node].last_mut() {
            span.until = now();
        }
    }

    /// Reads the verdicts out of the balancer's log.
    pub(crate) fn read_verdicts(&mut self, lines: &[Line]) {
        for Line { at, text } in lines {
            let said = if text.contains("node is up") || text.contains("node answers again") {
                Said::Up
            } else if text.contains("node is silent") {
                Said::Silent
            } else if text.contains("node is down") {
                Said::Down
            } else {
                continue;
            };
            for (node, verdicts) in self.verdicts.iter_mut().enumerate() {
                if text.contains(&format!("\"{}\"", name(node))) {
                    verdicts.push(Verdict { at: *at, said });
                }
            }
        }
    }

    /// Whether a fault of the node may explain what happened in a span of time.
    pub(crate) fn ailing(&self, node: usize, from: u64, until: u64) -> bool {
        let mut spans = self.faults[node].iter();
        spans.any(|span| span.from <= until && from <= span.until.saturating_add(span.aftermath()))
    }

    /// Whether a fault of the node that ends its sessions, or a verdict against it, may explain what
    /// happened then. A pause ends no session.
    pub(crate) fn excused(&self, node: usize, at: u64) -> bool {
        self.lost(node, at) || self.called_down(node, at)
    }

    /// Whether the node died or was silent for long about then.
    fn lost(&self, node: usize, at: u64) -> bool {
        let mut silence: Option<Span> = None;
        let mut lost = false;
        for span in &self.faults[node] {
            let joined = silence
                .filter(|last| span.from <= last.until.saturating_add(micros(GAP)))
                .map_or(*span, |last| Span {
                    fault: if last.fault == Fault::Killed {
                        last.fault
                    } else {
                        span.fault
                    },
                    from: last.from,
                    until: span.until,
                });
            let long = joined.until.min(at).saturating_sub(joined.from) >= micros(SILENCE);
            let ends = joined.fault == Fault::Killed || long;
            let end = joined.until.saturating_add(joined.aftermath());
            lost |= ends && (joined.from..=end).contains(&at);
            silence = Some(joined);
        }
        lost
    }

    /// Whether the node's process died in a span of time, and its sessions with it.
    pub(crate) fn died(&self, node: usize, from: u64, until: u64) -> bool {
        let mut spans = self.faults[node].iter();
        spans.any(|span| span.fault == Fault::Killed && (from..=until).contains(&span.from))
    }

    /// Whether the node was cut off for part of a span of time.
    pub(crate) fn was_cut(&self, node: usize, from: u64, until: u64) -> bool {
        let mut spans = self.faults[node].iter();
        let within = |span: &Span| span.from <= until && from <= span.until;
        spans.any(|span| span.fault == Fault::CutOff && within(span))
    }

    /// Whether some node was well, and known to be, all that time.
    pub(crate) fn some_well(&self, from: u64, until: u64) -> bool {
        (0..self.faults.len()).any(|node| !self.ailing(node, from, until))
    }

    fn called_down(&self, node: usize, at: u64) -> bool {
        let verdicts = &self.verdicts[node];
        let last = verdicts.iter().rfind(|verdict| verdict.at <= at);
        // A probe tells the log a little after it tells the requests.
        let soon = verdicts.iter().any(|verdict| {
            verdict.said == Said::Down && verdict.at > at && verdict.at - at < micros(SLACK)
        });
        soon || last.is_some_and(|verdict| verdict.said == Said::Down)
    }

    /// The verdicts on a node that were wrong: silent or down, although nothing had happened to it,
    /// or down after a pause.
    pub(crate) fn wrong_verdicts(&self, node: usize) -> Vec<Verdict> {
        let verdicts = self.verdicts[node].iter().copied();
        verdicts
            .filter(|verdict| match verdict.said {
                Said::Up => false,
                Said::Silent => !self.ailing(node, verdict.at, verdict.at),
                Said::Down => !self.lost(node, verdict.at),
            })
            .collect()
    }

    /// How long it took until a dead node was called down, or a silent one silent, from the fault.
    pub(crate) fn verdict_delays(&self, fault: Fault) -> Vec<u64> {
        let mut delays = Vec::new();
        for (spans, verdicts) in self.faults.iter().zip(&self.verdicts) {
            for span in spans.iter().filter(|span| span.fault == fault) {
                let within = span.from..=span.until;
                let down = verdicts
                    .iter()
                    .find(|verdict| verdict.said != Said::Up && within.contains(&verdict.at));
                delays.extend(down.map(|verdict| verdict.at - span.from));
            }
        }
        delays
    }

    /// A moment as seconds since the start, with the nodes' faults and verdicts at that time.
    pub(crate) fn moment(&self, at: u64) -> String {
        let seconds = Duration::from_micros(at.saturating_sub(self.started)).as_secs_f64();
        let mut text = format!("+{seconds:.3} s (");
        for node in 0..self.faults.len() {
            let mut spans = self.faults[node].iter();
            let near = spans.rfind(|span| span.from <= at);
            let state = near.map_or("well".to_owned(), |span| {
                let age = |since: u64| Duration::from_micros(at - since).as_secs_f64();
                if span.until > at {
                    format!("{:?} since {:.3} s", span.fault, age(span.from))
                } else {
                    format!("well since {:.3} s", age(span.until))
                }
            });
            let down = if self.called_down(node, at) {
                ", called down"
            } else {
                ""
            };
            let comma = if node > 0 { "; " } else { "" };
            text.push_str(&format!("{comma}{} {state}{down}", name(node)));
        }
        text + ")"
    }
}

impl Span {
    /// How long after its end it may still explain something: the balancer has to find out, and
    /// after a cut TCP sends again ever later, up to as long as the cut was.
    fn aftermath(&self) -> u64 {
        let length = match self.fault {
            Fault::CutOff => self.until - self.from,
            Fault::Killed | Fault::Frozen => 0,
        };
        micros(RECOVERY).saturating_add(length)
    }
}

/// The name of a node, from its place.
pub(crate) fn name(node: usize) -> String {
    format!("t{}", node + 1)
}
