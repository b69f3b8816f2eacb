//! The times of one try at a node: when a probe looks after the node, when the try is given up, and when
//! a stop releases it. One timer for all of them, and none for an answer that comes at once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::attempt::Ended;
use super::release::{self, Release};
use crate::upstream::{HalfClose, PARK_AFTER, YOUNG};

/// A try that begins so long after its request has its timer at once: where `edge` polls it again, it
/// would not be as old as [`YOUNG`] yet.
const LATE: Duration = PARK_AFTER.saturating_sub(YOUNG);

/// The times of one try.
#[derive(Debug)]
pub(super) struct Times {
    /// When it begins.
    begun: Instant,
    /// When a probe looks after its node.
    nudge: Option<Instant>,
    /// When it is given up.
    deadline: Instant,
    /// It begins so long after its request that nobody polls it any more without being woken.
    pub(super) late: bool,
    /// The request asks for a new session.
    pub(super) creation: bool,
    /// How a stop ends it; none if only its answer can.
    pub(super) release: Option<release::Manner>,
}

impl Times {
    /// Those of a try that begins at `now`, for a request that began at `begun`.
    pub(super) fn new(begun: Instant, now: Instant, patience: Duration) -> Self {
        Self {
            begun: now,
            nudge: None,
            deadline: now + patience,
            late: now.saturating_duration_since(begun) >= LATE,
            creation: false,
            release: None,
        }
    }

    /// The same for a request that a stop ends in this manner.
    pub(super) fn released(self, release: Option<release::Manner>) -> Self {
        Self { release, ..self }
    }

    /// The same for a creation, with a probe at `nudge`.
    pub(super) fn of_creation(self, nudge: Instant) -> Self {
        Self {
            nudge: Some(nudge),
            creation: true,
            ..self
        }
    }
}

/// A deadline that has no timer until the exchange has taken as long as [`YOUNG`]: most answers are
/// there by then. Whoever drives an exchange polls it again once it has taken a while, whether
/// something woke it or not: `edge` does so when it parks the connection, [`PARK_AFTER`] behind the
/// beginning of the request at the earliest. It does so once, so that the timer of a try that begins
/// [`LATE`] runs at once.
pub(super) struct Deadline<'a> {
    begun: Instant,
    at: Instant,
    /// The release that it looks out for as well, and when the try is old enough for it.
    release: Option<(&'a Release, Instant)>,
    /// It was not polled yet.
    fresh: bool,
    /// It may go without a timer still.
    young: bool,
    /// The node was asked to give the request up.
    releasing: bool,
    timer: Option<Pin<Box<dyn Future<Output = Due> + Send + 'a>>>,
}

/// What a [`Deadline`] rings for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Its time.
    Time,
    /// The release.
    Release,
}

/// What follows when a [`Deadline`] has rung.
pub(super) enum Next {
    /// The try goes on.
    Wait,
    /// It goes on, and a probe looks after the node.
    Nudge,
    /// It ends.
    End(Ended),
}

impl<'a> Deadline<'a> {
    /// The first deadline of a try.
    pub(super) fn of(times: &Times, release: &'a Release) -> Self {
        let manner = times.release;
        Self {
            begun: times.begun,
            at: times.nudge.unwrap_or(times.deadline),
            release: manner.map(|manner| (release, times.begun + manner.patience())),
            fresh: true,
            releasing: false,
            young: !(times.late || manner.is_some() && release.has_begun()),
            timer: None,
        }
    }

    /// What follows when it has rung. It is set anew unless the try ends.
    pub(super) fn next(&mut self, due: Due, times: &Times, half_close: &HalfClose) -> Next {
        if due == Due::Release {
            half_close.ask();
            self.releasing = true;
            self.release = None;
            self.reset(Instant::now() + release::WITHIN);
            return Next::Wait;
        }
        if std::mem::take(&mut self.releasing) {
            if half_close.is_silent() && times.release == Some(release::Manner::Poll) {
                return Next::End(Ended::Released);
            }
            // Its answer has begun, or it has stanzas that the node may not have read.
            self.reset(times.deadline);
            return Next::Wait;
        }
        if self.at >= times.deadline {
            return Next::End(Ended::Overdue);
        }
        self.reset(times.deadline);
        Next::Nudge
    }

    /// One future for both, so that a held exchange has one timer in memory.
    fn timer(&self) -> Pin<Box<dyn Future<Output = Due> + Send + 'a>> {
        let at = self.at;
        let Some((release, from)) = self.release else {
            return Box::pin(async move {
                sleep_until(at).await;
                Due::Time
            });
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = sleep_until(at) => return Due::Time,
                () = release.begun() => {}
            }
            sleep_until(from).await;
            Due::Release
        })
    }

    /// Puts the deadline off.
    fn reset(&mut self, at: Instant) {
        self.at = at;
        self.timer = None;
    }
}

impl Future for Deadline<'_> {
    type Output = Due;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Due> {
        let fresh = std::mem::replace(&mut self.fresh, false);
        // The clock is left alone the first time.
        self.young = self.young && (fresh || self.begun.elapsed() < YOUNG);
        if self.young {
            return Poll::Pending;
        }
        let mut timer = self.timer.take().unwrap_or_else(|| self.timer());
        let due = timer.as_mut().poll(context);
        self.timer = Some(timer);
        due
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exchange_has_a_deadline_however_late_it_begins() {
        for late in (0..40_000).step_by(500).map(Duration::from_micros) {
            let request = Instant::now();
            tokio::time::advance(late).await;
            let times = Times::new(request, Instant::now(), Duration::from_secs(1));
            let release = Release::default();
            let mut deadline = Deadline::of(&times, &release);
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut deadline).poll(&mut context).is_pending());
            let parked = request + PARK_AFTER;
            if let Some(left) = parked.checked_duration_since(Instant::now()) {
                tokio::time::advance(left).await;
                assert!(Pin::new(&mut deadline).poll(&mut context).is_pending());
            }
            assert!(deadline.timer.is_some(), "begun after {late:?}");
        }
    }
}
