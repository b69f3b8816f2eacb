//! Time as sessions count it: microseconds since the Unix epoch, in one word.
//!
//! A pin outlives the process, so its expiry is a wall-clock time. A wall clock may be set at any
//! moment, and a step of it must not end sessions. So [`Clock`] takes the wall-clock time once, at the
//! start, and adds the monotonic time since then.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Microseconds since the Unix epoch. Fits a word for half a million years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The time `since_epoch` after the Unix epoch.
    pub fn after(since_epoch: Duration) -> Self {
        Self(micros(since_epoch))
    }

    /// The low half of the microseconds, made odd so that it is never 0. It tells apart times that lie
    /// less than 71 minutes apart, to 2 µs: later minus earlier, wrapping.
    pub(super) const fn low_micros(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32 | 1
    }

    /// From an earlier time until this one; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// So much earlier.
    pub fn before(self, time: Duration) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// Whole seconds since the Unix epoch, rounded up, so that nothing counted in seconds ends early.
    /// They end at `u32::MAX`, in the year 2106.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

/// Wall-clock time that cannot jump: what the wall clock showed at the start, and the monotonic time
/// since then.
///
/// It differs from the wall clock when that is set later, and by the time for which the machine
/// was suspended. Two processes agree as far as their wall clocks agreed at their starts.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    anchor: Time,
}

impl Clock {
    /// The clock that shows `wall` at `started`. A wall clock before 1970 counts as 1970.
    pub fn anchored(started: Instant, wall: SystemTime) -> Self {
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started,
            anchor: Time::after(since_epoch.unwrap_or_default()),
        }
    }

    /// The time at `instant`. An instant before the start counts as the start.
    pub fn time_of(&self, instant: Instant) -> Time {
        self.anchor + instant.saturating_duration_since(self.started)
    }

    /// The instant of `time`. A time before the start counts as the start.
    pub fn instant_of(&self, time: Time) -> Instant {
        self.started + self.since_start(time)
    }

    /// From the start until `time`; zero if `time` is earlier.
    pub const fn since_start(&self, time: Time) -> Duration {
        time.since(self.anchor)
    }
}

/// As [`Duration::as_micros`], in 64 bits, which takes a division less.
const fn micros(span: Duration) -> u64 {
    let micros = span.subsec_micros() as u64;
    span.as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_micros(1_800_000_000_250_000);

    #[tokio::test(start_paused = true)]
    async fn a_clock_shows_the_wall_time_of_its_start_and_the_monotonic_time_since() {
        let started = Instant::now();
        let clock = Clock::anchored(started, SystemTime::UNIX_EPOCH + WALL);
        assert_eq!(clock.time_of(started), Time::after(WALL));
        let span = Duration::from_micros(90_000_001);
        let time = clock.time_of(started + span);
        assert_eq!(time, Time::after(WALL + span));
        assert_eq!(clock.instant_of(time), started + span);
        assert_eq!(clock.since_start(time), span);
        assert_eq!(time.seconds(), 1_800_000_091, "rounded up");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_earlier_than_the_start_counts_as_the_start() {
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        let started = Instant::now();
        let clock = Clock::anchored(started, SystemTime::UNIX_EPOCH + WALL);
        assert_eq!(clock.time_of(early), Time::after(WALL));
        assert_eq!(clock.instant_of(Time::default()), started);
        assert_eq!(clock.since_start(Time::default()), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_was_never_set_is_no_reason_to_fail() {
        let wall = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let clock = Clock::anchored(Instant::now(), wall);
        assert_eq!(clock.time_of(Instant::now()), Time::default());
    }
}
