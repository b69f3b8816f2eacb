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
pub(super) struct SlowStart {
    over: Duration,
    /// When it began; none if the node has its whole share.
    begun: Option<Instant>,
}

impl SlowStart {
    /// A slow start that takes `over`; with zero there is none.
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
        let mut slow_start = SlowStart::new(over);
        let begun = Instant::now();
        assert_eq!(slow_start.share(begun), Share::WHOLE, "the first verdict");
        assert_eq!(slow_start.next_step(begun), None);
        slow_start.begin(begun);
        assert_eq!(slow_start.share(begun), FIRST);
        let mut shares = vec![];
        let mut now = begun;
        while let Some(next) = slow_start.next_step(now) {
            now = next;
            shares.push(slow_start.share(now));
        }
        assert!(shares.is_sorted());
        assert_eq!(shares.last(), Some(&Share::WHOLE));
        let took = now.duration_since(begun);
        assert!(took >= over && took < over + over / STEPS, "{took:?}");
        let half = (f64::from(FIRST.0) + f64::from(Share::WHOLE.0)) / 2.0;
        slow_start.begin(begun);
        let middle = slow_start.share(begun + over / 2);
        assert!((f64::from(middle.0) - half).abs() <= 1.0, "{middle:?}");
    }

    #[test]
    fn with_nothing_configured_the_share_is_whole_at_once() {
        let mut slow_start = SlowStart::new(Duration::ZERO);
        let now = Instant::now();
        slow_start.begin(now);
        assert_eq!(slow_start.share(now), Share::WHOLE);
        assert_eq!(slow_start.next_step(now), None);
    }
}
