//! Slow start: how the share of a node that came back grows. No I/O; time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Share;

/// The share that a node begins with.
const FIRST: Share = Share(Share::WHOLE.0 / 10);

/// How many steps it takes from the first share to the whole.
const STEPS: u32 = 64;

/// The shortest step; a slow start of a moment needs no more of them.
const SHORTEST: Duration = Duration::from_millis(10);

/// The slow start of one node.
#[derive(Debug)]
pub(super) struct Ramp {
    over: Duration,
    /// When it began; none if the node has its whole share.
    begun: Option<Instant>,
}

impl Ramp {
    /// A ramp that takes `over`; nothing is no ramp at all.
    pub(super) const fn new(over: Duration) -> Self {
        Self { over, begun: None }
    }

    /// The node came back: its share begins to grow.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = (!self.over.is_zero()).then_some(now);
    }

    /// The node's share at `now`.
    pub(super) fn share(&mut self, now: Instant) -> Share {
        let Some(begun) = self.begun else {
            return Share::WHOLE;
        };
        let grown = now.saturating_duration_since(begun);
        if grown >= self.over {
            self.begun = None;
            return Share::WHOLE;
        }
        let (first, whole) = (f64::from(FIRST.0), f64::from(Share::WHOLE.0));
        let part = grown.as_secs_f64() / self.over.as_secs_f64();
        Share((first + (whole - first) * part) as u16)
    }

    /// When to look at the share again; never if it is whole.
    pub(super) fn next_step(&self, now: Instant) -> Option<Instant> {
        self.begun?;
        Some(now + (self.over / STEPS).max(SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_from_a_tenth_to_the_whole_and_no_further() {
        let over = Duration::from_secs(30);
        let mut ramp = Ramp::new(over);
        let begun = Instant::now();
        assert_eq!(ramp.share(begun), Share::WHOLE, "the first verdict");
        assert_eq!(ramp.next_step(begun), None);
        ramp.begin(begun);
        assert_eq!(ramp.share(begun), FIRST);
        let mut shares = vec![];
        let mut now = begun;
        while let Some(next) = ramp.next_step(now) {
            now = next;
            shares.push(ramp.share(now));
        }
        assert!(shares.is_sorted());
        assert_eq!(shares.last(), Some(&Share::WHOLE));
        let took = now.duration_since(begun);
        assert!(took >= over && took < over + over / STEPS, "{took:?}");
        let half = (f64::from(FIRST.0) + f64::from(Share::WHOLE.0)) / 2.0;
        ramp.begin(begun);
        let middle = ramp.share(begun + over / 2);
        assert!((f64::from(middle.0) - half).abs() <= 1.0, "{middle:?}");
    }

    #[test]
    fn with_nothing_configured_the_share_is_whole_at_once() {
        let mut ramp = Ramp::new(Duration::ZERO);
        let now = Instant::now();
        ramp.begin(now);
        assert_eq!(ramp.share(now), Share::WHOLE);
        assert_eq!(ramp.next_step(now), None);
    }
}
