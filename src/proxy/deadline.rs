//! The times of one try at a node: when a probe looks after the node, when the try is given up, and when
//! a stop releases it. One timer for all of them, and none for an answer that comes at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::release::{self, Release};
use crate::timers::Young;
use crate::upstream::WaitControl;

/// The times of one try.
#[derive(Debug)]
pub(super) struct AttemptTimes {
    /// When it begins.
    begun: Instant,
    /// When a probe looks after its node.
    nudge: Option<Instant>,
    /// When it is given up.
    deadline: Instant,
    /// The request asks for a new session.
    pub(super) creation: bool,
    /// How a stop ends it; none if only its answer can.
    pub(super) release: Option<release::Manner>,
}

impl AttemptTimes {
    /// Those of a try that begins at `now`.
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        Self {
            begun: now,
            nudge: None,
            deadline: now + patience,
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

/// A deadline that has no timer of tokio's while the try is [`Young`]: most answers are there by then.
pub(super) struct Deadline<'a> {
    at: Instant,
    /// The release that it looks out for as well, and when the try is old enough for it.
    release: Option<(&'a Release, Instant)>,
    /// The end of the time without a timer.
    young: Option<Young>,
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
    /// The end of the time without a timer.
    Young,
}

/// What follows when a [`Deadline`] has rung.
pub(super) enum DeadlineStep {
    /// The try goes on.
    Wait,
    /// It goes on, and a probe looks after the node.
    Nudge,
    /// It ends: its time is over.
    Overdue,
    /// It ends: the process stops.
    Released,
}

impl<'a> Deadline<'a> {
    /// The first deadline of a try.
    pub(super) fn of(times: &AttemptTimes, release: &'a Release) -> Self {
        let manner = times.release;
        Self {
            at: times.nudge.unwrap_or(times.deadline),
            release: manner.map(|manner| (release, times.begun + manner.patience())),
            releasing: false,
            young: Some(Young::default()),
            timer: None,
        }
    }

    /// What follows when it has rung. It is set anew unless the try ends.
    pub(super) fn next(
        &mut self,
        due: Due,
        times: &AttemptTimes,
        control: &WaitControl,
    ) -> DeadlineStep {
        if due == Due::Young {
            control.watch();
            return DeadlineStep::Wait;
        }
        if due == Due::Release {
            control.half_close();
            self.releasing = true;
            self.release = None;
            self.reset(Instant::now() + release::WITHIN);
            return DeadlineStep::Wait;
        }
        if std::mem::take(&mut self.releasing) {
            if control.is_silent() && times.release == Some(release::Manner::Poll) {
                return DeadlineStep::Released;
            }
            // Its answer has begun, or it has stanzas that the node may not have read.
            self.reset(times.deadline);
            return DeadlineStep::Wait;
        }
        if self.at >= times.deadline {
            return DeadlineStep::Overdue;
        }
        self.reset(times.deadline);
        DeadlineStep::Nudge
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
        if let Some(young) = &mut self.young {
            ready!(Pin::new(young).poll(context));
            self.young = None;
            return Poll::Ready(Due::Young);
        }
        let mut timer = self.timer.take().unwrap_or_else(|| self.timer());
        let due = timer.as_mut().poll(context);
        self.timer = Some(timer);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but the deadline's own times polls it.
    #[tokio::test(start_paused = true)]
    async fn a_try_has_a_timer_of_its_own_once_it_is_not_young() {
        let begun = Instant::now();
        let times = AttemptTimes::new(begun, Duration::from_secs(1));
        let (release, control) = (Release::default(), WaitControl::default());
        let mut deadline = Deadline::of(&times, &release);
        let due = (&mut deadline).await;
        assert_eq!(due, Due::Young);
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
        assert!(matches!(
            deadline.next(due, &times, &control),
            DeadlineStep::Wait
        ));
        let due = (&mut deadline).await;
        assert_eq!(due, Due::Time);
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert!(matches!(
            deadline.next(due, &times, &control),
            DeadlineStep::Overdue
        ));
    }
}
