//! The trace of one run: a digest of every event, and on request one line for each.

use std::fmt;
use std::time::Duration;

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Client(usize),
    Node(usize),
    Balancer,
    /// The simulation, which found a broken invariant.
    Checker,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => f.pad(&format!("client {number}")),
            Self::Node(index) => f.pad(&format!("t{index}")),
            Self::Balancer => f.pad("balancer"),
            Self::Checker => f.pad("checker"),
        }
    }
}

/// The heading of the lines.
pub(super) const HEADING: &str = "time (s)    who        what       session      rid    more";

/// Events, as a digest and as lines.
#[derive(Default)]
pub(super) struct Trace {
    digest: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// `lines` keeps a line for each event.
    pub(super) fn new(lines: bool) -> Self {
        Self {
            digest: 0,
            lines: lines.then(Vec::new),
        }
    }

    /// Adds an event. `base` is the rid of the session's creation: a line counts rids from there,
    /// since clients begin at a random one.
    pub(super) fn add(
        &mut self,
        at: Duration,
        who: Who,
        what: &'static str,
        (sid, rid, base): (&str, u64, Option<u64>),
        more: impl FnOnce() -> String,
    ) {
        let number = match who {
            Who::Client(number) => number * 4,
            Who::Node(index) => index * 4 + 1,
            Who::Balancer => 2,
            Who::Checker => 3,
        };
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        let mut digest = self.digest;
        for word in [micros, number, rid] {
            digest = (digest ^ word)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        for text in [what, sid] {
            digest = xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), digest);
        }
        self.digest = digest;
        let Some(lines) = &mut self.lines else { return };
        let rid = match (rid, base) {
            (0, _) => String::new(),
            (rid, Some(base)) if rid >= base => format!("+{}", rid - base),
            (rid, _) => rid.to_string(),
        };
        let (at, more) = (at.as_secs_f64(), more());
        let line = format!("{at:>10.6}  {who:<9}  {what:<9}  {sid:<11}  {rid:<5}  {more}");
        lines.push(line.trim_end().to_owned());
    }

    /// A number that differs when any event differs.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines; none if they were not asked for.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_line_stand_under_the_heading() {
        let mut trace = Trace::new(true);
        let at = Duration::from_micros(3_015_000);
        let request = ("s0-1-4", 1007, Some(1000));
        trace.add(at, Who::Client(2), "sends", request, || "a poll".to_owned());
        trace.add(at, Who::Node(0), "FAULT", ("", 0, None), || {
            "Kill".to_owned()
        });
        let lines = trace.take_lines();
        for (column, line, text) in [
            ("who", 0, "client 2"),
            ("what", 0, "sends"),
            ("session", 0, "s0-1-4"),
            ("rid", 0, "+7"),
            ("more", 0, "a poll"),
            ("more", 1, "Kill"),
        ] {
            assert_eq!(HEADING.find(column), lines[line].find(text), "{column}");
        }
    }

    #[test]
    fn the_digest_tells_events_apart() {
        let digest = |at, who, what, request| {
            let mut trace = Trace::new(false);
            trace.add(Duration::from_micros(at), who, what, request, String::new);
            trace.digest()
        };
        let one = digest(1, Who::Client(1), "reads", ("s", 1, None));
        for other in [
            digest(2, Who::Client(1), "reads", ("s", 1, None)),
            digest(1, Who::Client(2), "reads", ("s", 1, None)),
            digest(1, Who::Client(1), "sends", ("s", 1, None)),
            digest(1, Who::Client(1), "reads", ("t", 1, None)),
            digest(1, Who::Client(1), "reads", ("s", 2, None)),
        ] {
            assert_ne!(one, other);
        }
    }
}
