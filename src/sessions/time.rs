//! Time as sessions count it: microseconds since the balancer started, in one word.

use std::time::Duration;

/// Microseconds since the balancer started. Fits a word for half a million years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The time `since_start` after the start.
    pub fn after(since_start: Duration) -> Self {
        Self(micros(since_start))
    }

    /// From the start until this time.
    pub const fn since_start(self) -> Duration {
        Duration::from_micros(self.0)
    }

    pub(super) const fn micros(self) -> u64 {
        self.0
    }

    pub(super) const fn of_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// From an earlier time until this one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the start, rounded up, so that nothing counted in seconds ends early.
    pub(super) fn seconds(self) -> u32 {
        u32::try_from(self.0.div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

/// As [`Duration::as_micros`], in 64 bits, which takes a division less.
const fn micros(span: Duration) -> u64 {
    let micros = span.subsec_micros() as u64;
    span.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(micros)
}
