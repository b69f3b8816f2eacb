//! Landing control: how many sessions whose node is gone may be released to the surviving nodes at a time.
//!
//! A released session makes its client log in again. When a node with many sessions dies, all of them at
//! once would overload the survivors. So releases are limited by a window, as a sender limits its packets:
//! sessions that were released and have not logged in yet, and creations under way, must fit in it.
//!
//! The window follows the creation latency of the survivors, compared with their calm one. It grows while
//! the latency stays near the calm one, and shrinks when the latency rises. It is adjusted once a round
//! trip, since a release shows only when its client has come back. Releases are spread over the round trip.
//!
//! Pure: no I/O and no clock. Time comes in as the time since the start.

use std::collections::VecDeque;
use std::time::Duration;

use super::rate::Bucket;
use crate::config::LandingMode;

/// The window when no session was released lately.
const BURST: f64 = 100.0;

/// A node with as many sessions has them released at once: small clusters notice nothing.
const AT_ONCE: u64 = 100;

/// The smallest window: so that survivors that answer no creation still get some.
const LEAST: f64 = 10.0;

/// The largest window.
const MOST: f64 = 50_000.0;

/// A released session whose client has not come back within this time is not expected any more. Most
/// clients log in after 0.5 s, the slowest after 3 s.
const LOGIN_WITHIN: Duration = Duration::from_secs(3);

/// Without a release for this long, the window is [`BURST`] again.
const REST: Duration = Duration::from_secs(10);

/// The creation latency at which the window stays as it is, relative to the calm one. At this mean of a
/// node that serves several logins at once, one login in a hundred takes twice the calm time.
const TARGET: f64 = 1.12;

/// The most that the window grows and shrinks in one step.
const GROWTH: f64 = 1.3;
const CUT: f64 = 0.5;

/// From this relative latency on, the window shrinks before its time.
const ALARM: f64 = 2.0;

/// A longer latency, relative to the calm one, counts as this. So do creations without an answer.
const WORST: f64 = 5.0;

/// Added to both latencies that are compared, in seconds: a difference of milliseconds is no overload.
const SLACK: f64 = 0.002;

/// Latencies that make a mean.
const ENOUGH: u32 = 20;

/// The shortest time in which latencies are gathered.
const SHORTEST: Duration = Duration::from_millis(200);

/// The round trip before one was measured: from a release to the end of the creation that follows.
const ROUND_TRIP: f64 = 1.0;

/// What releases may be ahead of their even spread, as a part of a second.
const AHEAD: f64 = 0.02;

/// When this many sessions in a row went on at a survivor, the nodes share their sessions: no login follows
/// a release, and nothing is held back.
const SHARED: u32 = 20;

/// The controller.
#[derive(Debug)]
pub struct Landing {
    mode: LandingMode,
    window: f64,
    /// Releases that may happen now, in their even spread.
    credit: f64,
    credit_at: Duration,
    released_at: Option<Duration>,
    /// Released sessions that wait for the answer of a survivor.
    releasing: u32,
    /// When the clients of released sessions learned of their end, those of them that have not come back.
    expected: VecDeque<Duration>,
    /// Creations under way.
    logins: u32,
    /// Sessions in a row that went on at a survivor.
    continued: u32,
    /// From a release to the end of the creation that follows, in seconds.
    round_trip: f64,
    round: Round,
    /// Calm creation latencies of nodes by their numbers, in seconds; 0 for those that are not known.
    calm: Vec<f64>,
    /// For `PerSecond`: when the next release is due.
    full: u64,
}

/// Latencies since the last step.
#[derive(Debug, Default)]
struct Round {
    /// Latencies count from here on: earlier ones belong to the window before.
    from: Duration,
    sum: f64,
    count: u32,
    /// The window held a release back.
    limited: bool,
}

impl Landing {
    /// A controller in this mode that knows no latency yet.
    pub fn new(mode: LandingMode) -> Self {
        Self {
            mode,
            window: BURST,
            credit: BURST,
            credit_at: Duration::ZERO,
            released_at: None,
            releasing: 0,
            expected: VecDeque::new(),
            logins: 0,
            continued: 0,
            round_trip: ROUND_TRIP,
            round: Round::default(),
            calm: Vec::new(),
            full: 0,
        }
    }

    /// Sets the mode for releases from now on.
    pub fn set_mode(&mut self, mode: LandingMode) {
        self.mode = mode;
    }

    /// The window: how many sessions may be on their way.
    pub fn window(&self) -> f64 {
        self.window
    }

    /// Whether a session may be released `now`, of a node with `crowd` sessions. If so, it is counted: one of
    /// [`Self::ended`], [`Self::went_on`] and [`Self::dropped`] has to follow.
    pub fn release(&mut self, crowd: u64, now: Duration) -> bool {
        let may = match self.mode {
            LandingMode::Off => true,
            LandingMode::PerSecond(rate) => self.is_due(rate.get(), now),
            LandingMode::Auto => self.fits(crowd, now),
        };
        if may {
            self.releasing += 1;
            self.released_at = Some(now);
        }
        may
    }

    /// How many of `wanted` sessions the operator may end `now`, when asked about once a second. They are
    /// counted as ended. Their clients learn of it one after the other, so that no spread is needed.
    pub fn end(&mut self, wanted: usize, now: Duration) -> usize {
        let most = match self.mode {
            LandingMode::Off => return wanted,
            LandingMode::PerSecond(rate) => return wanted.min(to_count(rate.get().into())),
            LandingMode::Auto => {
                self.begin_if_rested(u64::MAX, now);
                self.expire(now);
                to_count(self.window - f64::from(self.on_their_way()))
            }
        };
        self.round.limited |= wanted > most;
        let may = wanted.min(most);
        self.expected.extend(std::iter::repeat_n(now, may));
        self.released_at = Some(now);
        may
    }

    fn is_due(&mut self, per_second: u32, now: Duration) -> bool {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 4);
        // The burst of a tenth of a second lets a coarse timer keep the rate.
        let bucket = Bucket::new(per_second, per_second.div_ceil(10));
        let may = bucket.is_none_or(|bucket| bucket.has(self.full, now));
        if may && let Some(bucket) = bucket {
            self.full = bucket.less_one(self.full, now);
        }
        may
    }

    fn fits(&mut self, crowd: u64, now: Duration) -> bool {
        self.expire(now);
        self.begin_if_rested(crowd, now);
        if self.continued >= SHARED {
            return true;
        }
        let rate = self.window / self.round_trip;
        let passed = now.saturating_sub(self.credit_at).as_secs_f64();
        self.credit_at = now;
        let most = self.credit.max(rate * AHEAD).max(1.0);
        self.credit = (self.credit + passed * rate).min(most);
        if self.credit < 1.0 || f64::from(self.on_their_way()) >= self.window {
            self.round.limited = true;
            return false;
        }
        self.credit -= 1.0;
        true
    }

    /// The first release for long begins with the first window.
    fn begin_if_rested(&mut self, crowd: u64, now: Duration) {
        let rests = self.released_at.is_none_or(|at| now > at + REST);
        if rests && self.releasing == 0 {
            self.window = BURST;
            self.credit = if crowd <= AT_ONCE { BURST } else { 1.0 };
            self.credit_at = now;
            self.begin_round(now);
        }
    }

    /// Sessions that were released and creations under way.
    fn on_their_way(&self) -> u32 {
        let expected = u32::try_from(self.expected.len()).unwrap_or(u32::MAX);
        self.releasing
            .saturating_add(expected)
            .saturating_add(self.logins)
    }

    fn expire(&mut self, now: Duration) {
        let is_late = |at: &Duration| now > *at + LOGIN_WITHIN;
        while self.expected.front().is_some_and(is_late) {
            self.expected.pop_front();
        }
    }

    /// A released session has ended: its client learns of it `now`, and is expected to log in.
    pub fn ended(&mut self, now: Duration) {
        self.releasing = self.releasing.saturating_sub(1);
        self.continued = 0;
        if self.mode == LandingMode::Auto {
            self.expire(now);
            self.expected.push_back(now);
        }
    }

    /// A released session goes on at a survivor.
    pub fn went_on(&mut self) {
        self.releasing = self.releasing.saturating_sub(1);
        self.continued = self.continued.saturating_add(1);
    }

    /// A released session has no use for it any more.
    pub fn dropped(&mut self) {
        self.releasing = self.releasing.saturating_sub(1);
    }

    /// A creation begins.
    pub fn login_began(&mut self, now: Duration) {
        self.logins += 1;
        self.expire(now);
        if let Some(at) = self.expected.pop_front() {
            let away = now.saturating_sub(at).as_secs_f64();
            self.round_trip += (away + self.usual_latency() - self.round_trip) / 16.0;
        }
    }

    /// The creation is over, in whatever way.
    pub fn login_over(&mut self) {
        self.logins = self.logins.saturating_sub(1);
    }

    /// The mean of the calm latencies that are known, in seconds.
    fn usual_latency(&self) -> f64 {
        let known = self.calm.iter().filter(|calm| **calm > 0.0);
        let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), calm| (sum + calm, count + 1));
        if count == 0 {
            0.0
        } else {
            sum / f64::from(count)
        }
    }

    /// The node with this number took so long for a creation; none if it gave no answer.
    pub fn created(&mut self, node: usize, took: Option<Duration>, now: Duration) {
        if self.calm.len() <= node {
            self.calm.resize(node + 1, 0.0);
        }
        let calm = &mut self.calm[node];
        let took = took.map(|took| took.as_secs_f64());
        if let (true, Some(took)) = (*calm == 0.0, took) {
            *calm = took.max(f64::MIN_POSITIVE);
        }
        let ratio = took.map_or(WORST, |took| (took + SLACK) / (*calm + SLACK));
        let ratio = ratio.min(WORST);
        if self.releasing == 0 && self.expected.is_empty() {
            if let Some(took) = took {
                *calm += (took.min(*calm * WORST) - *calm) / 32.0;
            }
            return;
        }
        let round = &mut self.round;
        round.sum += ratio;
        round.count += 1;
        let mean = round.sum / f64::from(round.count);
        let gathered = SHORTEST.max(Duration::from_secs_f64(self.round_trip / 2.0));
        let enough = round.count >= ENOUGH;
        if now < round.from {
            // What was released under the window before still comes. It counts only if it is alarming.
            if enough && mean >= ALARM {
                self.step(mean, now);
            }
        } else if enough && now >= round.from + gathered {
            self.step(mean, now);
        }
    }

    /// Adjusts the window to a mean of relative latencies.
    fn step(&mut self, mean: f64, now: Duration) {
        let slope = (GROWTH - 1.0) / (TARGET - 1.0);
        let factor = (1.0 + slope * (TARGET - mean)).clamp(CUT, GROWTH);
        if factor < 1.0 || self.round.limited {
            self.window = (self.window * factor).clamp(LEAST, MOST);
        }
        if mean < 1.0 {
            // It was taken for too slow.
            let less = 1.0 - (1.0 - mean) / 8.0;
            self.calm.iter_mut().for_each(|calm| *calm *= less);
        } else if self.window <= LEAST {
            // So few logins do not slow the nodes down: they are as slow as this.
            self.calm.iter_mut().for_each(|calm| *calm *= 1.1);
        }
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Duration) {
        self.round = Round {
            from: now + Duration::from_secs_f64(self.round_trip),
            ..Round::default()
        };
    }
}

/// A number of sessions, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 32 bits"
)]
fn to_count(number: f64) -> usize {
    number.clamp(0.0, f64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests;
