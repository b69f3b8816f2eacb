//! From single probes to a verdict, and to the haste of the next probe. No I/O; time comes in as
//! an argument.
//!
//! A probe without an answer is not a probe that was refused. Enough of the first kind make a node
//! silent: it may only pause, so it keeps its sessions until `health.silence` has passed without a
//! sign of life. Enough of the second kind make it down at once.

use std::time::Duration;

use tokio::time::Instant;

use super::flap_damping::FlapDamping;
use crate::cluster::Verdict;

/// The most probes that wait at a node that is silent or down.
const MOST_AT_ONCE: u32 = 5;

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It passed.
    Passed,
    /// Nothing came back, and the connection, if there was one, stayed open.
    Silent,
    /// The connection was refused, reset, or closed without an answer.
    Gone,
    /// The node answered, and not as it should.
    Faulty,
}

/// What it takes to change a verdict, and how long to wait between probes.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Passed probes in a row that make a node up.
    pub(super) rise: u32,
    /// Failed probes in a row that make a node silent or down.
    pub(super) fall: u32,
    /// From one probe to the next while all is well.
    pub(super) interval: Duration,
    /// From one probe to the next while something is amiss; at most `interval`.
    pub(super) fast: Duration,
    /// How long a node may be silent before it is down.
    pub(super) silence: Duration,
}

/// Counts the probes that contradict the verdict, and changes it when there are enough in a row.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    verdict: Verdict,
    /// Probes in a row that contradict the verdict.
    run: u32,
    /// Failed probes in a row since the node is down.
    failed: u32,
    damping: FlapDamping,
    /// The node went down and has not served the penalty for it.
    owes_penalty: bool,
    /// When a node that is held back began to serve its penalty.
    well_since: Option<Instant>,
    /// The last byte from the node.
    heard: Option<Instant>,
    /// When the first probe was sent that has no answer, of those after the last byte.
    unanswered: Option<Instant>,
}

impl Judge {
    /// A judge with no verdict.
    pub(super) const fn new(rules: Rules, damping: FlapDamping) -> Self {
        Self {
            rules,
            verdict: Verdict::Unknown,
            run: 0,
            failed: 0,
            damping,
            owes_penalty: false,
            well_since: None,
            heard: None,
            unanswered: None,
        }
    }

    /// Takes the outcome of a probe that was sent at `asked`; says the verdict when it is the
    /// first one or a new one.
    ///
    /// The first probe decides alone: a balancer that has just started knows nothing better, and
    /// would keep clients waiting for `rise` probes otherwise. So does the first pass when
    /// `none_up`, with no node up: a doubtful node is then better than none, penalty or not.
    pub(super) fn observe(
        &mut self,
        outcome: Outcome,
        asked: Instant,
        none_up: bool,
        now: Instant,
    ) -> Option<Verdict> {
        match outcome {
            Outcome::Passed | Outcome::Faulty => self.hear(now),
            Outcome::Silent => {
                let first = self.unanswered.get_or_insert(asked);
                *first = asked.min(*first);
            }
            Outcome::Gone => {}
        }
        let next = match outcome {
            Outcome::Passed => self.passed(none_up, now),
            Outcome::Silent | Outcome::Gone | Outcome::Faulty => self.failed(outcome),
        };
        next.map(|next| self.turn(next, now))
    }

    /// The verdict that follows from a pass, if it is another one.
    fn passed(&mut self, none_up: bool, now: Instant) -> Option<Verdict> {
        self.failed = 0;
        match self.verdict {
            Verdict::Up => {
                self.run = 0;
                None
            }
            Verdict::Unknown => Some(Verdict::Up),
            _ if none_up => Some(Verdict::Up),
            Verdict::Silent | Verdict::Down => {
                self.run += 1;
                let enough = self.run >= self.rules.rise;
                let held = self.owes_penalty && !self.damping.length().is_zero();
                enough.then_some(if held { Verdict::HeldBack } else { Verdict::Up })
            }
            Verdict::HeldBack => {
                self.run = 0;
                let since = *self.well_since.get_or_insert(now);
                let served = now.saturating_duration_since(since) >= self.damping.length();
                served.then_some(Verdict::Up)
            }
        }
    }

    /// The verdict that follows from a failure, if it is another one.
    fn failed(&mut self, outcome: Outcome) -> Option<Verdict> {
        let silent = outcome == Outcome::Silent;
        let found = if silent {
            Verdict::Silent
        } else {
            Verdict::Down
        };
        self.well_since = None;
        match self.verdict {
            Verdict::Unknown => Some(found),
            Verdict::Up | Verdict::HeldBack => {
                self.run += 1;
                (self.run >= self.rules.fall).then_some(found)
            }
            Verdict::Silent if silent => {
                self.run = 0;
                None
            }
            // A node that wakes up may close a connection or two that it cannot serve.
            Verdict::Silent => {
                self.run += 1;
                (self.run >= self.rules.fall).then_some(found)
            }
            Verdict::Down => {
                self.run = 0;
                self.failed += 1;
                None
            }
        }
    }

    /// Takes a new verdict.
    fn turn(&mut self, next: Verdict, now: Instant) -> Verdict {
        let known = self.verdict != Verdict::Unknown;
        match next {
            Verdict::Up => {
                self.damping.rose(now);
                self.owes_penalty = false;
                self.well_since = None;
            }
            Verdict::Down if known => {
                // One that was held back has not gone up since its last fall.
                if !self.owes_penalty {
                    self.damping.fell(now);
                }
                self.owes_penalty = true;
            }
            Verdict::HeldBack => self.well_since = Some(now),
            Verdict::Down | Verdict::Silent | Verdict::Unknown => {}
        }
        self.verdict = next;
        self.run = 0;
        next
    }

    /// Notes a byte from the node, on whatever connection.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
        self.unanswered = None;
    }

    /// Since when a silent node says nothing: from its last byte, or from the first probe that it
    /// left unanswered if that is later.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let since = self.unanswered.max(self.heard);
        since.filter(|_| self.verdict == Verdict::Silent)
    }

    /// How long a node may be silent.
    pub(super) const fn silence(&self) -> Duration {
        self.rules.silence
    }

    /// The same for a node that has said nothing since; none once a byte has come, although it
    /// takes more than one to be up again.
    pub(super) fn unheard_since(&self) -> Option<Instant> {
        self.silent_since().filter(|_| self.unanswered.is_some())
    }

    /// When a silent node is down, if nothing comes from it until then. The time counts from
    /// `not_before` if that is later than the beginning of the silence.
    pub(super) fn silence_ends(&self, not_before: Option<Instant>) -> Option<Instant> {
        let since = self.silent_since()?;
        Some(not_before.map_or(since, |earliest| since.max(earliest)) + self.rules.silence)
    }

    /// Calls a silent node down when its time is up ([`Self::silence_ends`]).
    pub(super) fn expire(&mut self, not_before: Option<Instant>, now: Instant) -> Option<Verdict> {
        let over = self.silence_ends(not_before)? <= now;
        over.then(|| self.turn(Verdict::Down, now))
    }

    /// How long the node must pass its probes before it is up again; nothing while it is up.
    pub(super) fn penalty(&self) -> Duration {
        if self.owes_penalty {
            self.damping.length()
        } else {
            Duration::ZERO
        }
    }

    /// When a node that is held back is up, if it passes its probes until then.
    pub(super) fn penalty_ends(&self) -> Option<Instant> {
        let since = self
            .well_since
            .filter(|_| self.verdict == Verdict::HeldBack)?;
        Some(since + self.damping.length())
    }

    /// How often it went down and nothing of it is forgotten yet.
    pub(super) fn falls(&self, now: Instant) -> u32 {
        self.damping.falls(now)
    }

    /// Whether no probe contradicts the verdict.
    pub(super) const fn is_settled(&self) -> bool {
        self.run == 0
    }

    /// Whether another probe goes out while `waiting` of them wait for their answers: as many as
    /// it takes to change the verdict, if none is answered; and some while the node is silent or
    /// no node is up, so that its return is not missed for a whole timeout.
    pub(super) fn wants_more(&self, waiting: usize, none_up: bool) -> bool {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        match self.verdict {
            Verdict::Unknown => false,
            Verdict::Up | Verdict::HeldBack => self.run.saturating_add(waiting) < self.rules.fall,
            Verdict::Silent => waiting < MOST_AT_ONCE,
            Verdict::Down => none_up && waiting < MOST_AT_ONCE,
        }
    }

    /// From the start of one probe to the next. Fast until the verdict is settled, at a silent
    /// node, and at one that is down while no node is up; otherwise a node that is down is asked
    /// less and less often, down to the regular interval. One that is held back is asked at the
    /// end of its penalty.
    pub(super) fn pause(&self, none_up: bool, now: Instant) -> Duration {
        let Rules { interval, fast, .. } = self.rules;
        match self.verdict {
            _ if !self.is_settled() => fast,
            Verdict::Unknown | Verdict::Up => interval,
            Verdict::Silent => fast,
            Verdict::Down | Verdict::HeldBack if none_up => fast,
            Verdict::Down => fast.saturating_mul(1 << self.failed.min(20)).min(interval),
            Verdict::HeldBack => {
                let served = self
                    .well_since
                    .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                let left = self.damping.length().saturating_sub(served);
                left.clamp(fast, interval)
            }
        }
    }
}

#[cfg(test)]
mod tests;
