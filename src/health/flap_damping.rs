//! A node that goes down again and again: how long it must be well before it counts as up.
//! No I/O; time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What a node's falls cost it.
#[derive(Debug, Clone)]
pub(super) struct FlapDamping {
    /// The penalty for the second fall; it doubles with each one more. Zero is no penalty.
    base: Duration,
    /// The longest penalty, and also how long a node must be up for one fall to be forgotten.
    most: Duration,
    /// Falls that are not forgotten.
    falls: u32,
    /// When the node went up, if it is; falls are forgotten from then on.
    up_since: Option<Instant>,
}

impl FlapDamping {
    /// Of a node that has not gone down yet.
    pub(super) const fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            falls: 0,
            up_since: None,
        }
    }

    /// The node went up.
    pub(super) fn rose(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// The node went down.
    pub(super) fn fell(&mut self, now: Instant) {
        self.falls = self.falls(now).saturating_add(1);
        self.up_since = None;
    }

    /// How many of its falls are not forgotten.
    pub(super) fn falls(&self, now: Instant) -> u32 {
        let Some(since) = self.up_since else {
            return self.falls;
        };
        let up = now.saturating_duration_since(since).as_millis();
        let forgotten = up / self.most.as_millis().max(1);
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.falls.saturating_sub(forgotten)
    }

    /// How long the node, which is down, must pass its probes behind `rise` before it is up. The
    /// first fall is free: a restart is no flapping.
    pub(super) fn length(&self) -> Duration {
        match self.falls {
            0 | 1 => Duration::ZERO,
            falls => {
                let doublings = (falls - 2).min(31);
                self.base.saturating_mul(1 << doublings).min(self.most)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(5);
    const MOST: Duration = Duration::from_secs(300);

    #[test]
    fn penalties_double_from_the_second_fall_on() {
        let mut damping = FlapDamping::new(BASE, MOST);
        let now = Instant::now();
        assert_eq!(damping.length(), Duration::ZERO, "down from the start");
        let mut seconds = vec![];
        for _ in 0..10 {
            damping.rose(now);
            damping.fell(now);
            seconds.push(damping.length().as_secs());
        }
        assert_eq!(seconds, [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]);
        for _ in 0..100 {
            damping.fell(now);
        }
        assert_eq!(damping.length(), MOST);
    }

    #[test]
    fn one_fall_is_forgotten_for_each_longest_penalty_that_the_node_is_up() {
        let mut damping = FlapDamping::new(BASE, MOST);
        let now = Instant::now();
        for _ in 0..4 {
            damping.rose(now);
            damping.fell(now);
        }
        assert_eq!(damping.falls(now + 9 * MOST), 4, "not while it is down");
        damping.rose(now);
        assert_eq!(damping.falls(now + MOST / 2), 4);
        assert_eq!(damping.falls(now + MOST * 5 / 2), 2);
        assert_eq!(damping.falls(now + 100 * MOST), 0);
        damping.fell(now + MOST * 5 / 2);
        assert_eq!(damping.length(), 2 * BASE, "the third fall");
    }

    #[test]
    fn with_nothing_configured_there_is_no_damping() {
        let mut damping = FlapDamping::new(Duration::ZERO, MOST);
        let now = Instant::now();
        for _ in 0..5 {
            damping.fell(now);
        }
        assert_eq!(damping.length(), Duration::ZERO);
        assert_eq!(damping.falls(now), 5);
    }
}
