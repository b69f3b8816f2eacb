//! The times of one try at a node: when a probe looks after the node, when the try is given up, and when
//! a stop releases it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::release::{self, Release};
use crate::timers::Slow;

/// The times of one try. Spans are in milliseconds, since each held request has them in memory.
#[derive(Debug)]
pub(super) struct AttemptTimes {
    /// When it begins.
    begun: Instant,
    /// How long it may take.
    patience: u32,
    /// When a probe looks after its node, counted from its beginning.
    nudge: Option<u32>,
    /// The request asks for a new session.
    pub(super) creation: bool,
    /// How a stop ends it; none if only its answer can.
    pub(super) release: Option<release::Manner>,
    /// Its client is gone: the node is to give the request up.
    gives_up: bool,
}

impl AttemptTimes {
    /// Those of a try that begins at `now`.
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        Self {
            begun: now,
            patience: millis(patience),
            nudge: None,
            creation: false,
            release: None,
            gives_up: false,
        }
    }

    /// Whether it ends for its client being gone.
    pub(super) const fn gives_up(&self) -> bool {
        self.gives_up
    }

    /// The client is gone. The request ends as it does at a stop, or within `span` from now.
    pub(super) fn client_gone(&mut self, stays: Stays) {
        match stays {
            Stays::UntilReleased => self.gives_up = true,
            Stays::For(span) => {
                let patience = millis(self.begun.elapsed() + span);
                self.patience = self.patience.min(patience);
            }
        }
    }

    /// The same for a request that a stop ends in this manner.
    pub(super) fn released(self, release: Option<release::Manner>) -> Self {
        Self { release, ..self }
    }

    /// The same for a creation, with a probe after `nudge`.
    pub(super) fn of_creation(self, nudge: Duration) -> Self {
        Self {
            nudge: Some(millis(nudge)),
            creation: true,
            ..self
        }
    }

    fn after(&self, millis: u32) -> Instant {
        self.begun + Duration::from_millis(millis.into())
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// How long a request stays at its node when its client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// The node is asked to give it up, as at a stop.
    UntilReleased,
    /// Its answer is awaited for this long.
    For(Duration),
}

/// The deadlines of one try, one after the other.
pub(super) struct Deadline {
    wait: Slow,
    stage: Stage,
}

/// What a [`Deadline`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The end of the time in which most tries are answered.
    Young,
    Nudge,
    Overdue,
    /// The end of a release, at this time.
    Release(Instant),
    /// The same as `Overdue`, after a release.
    LastOverdue,
}

/// What a [`Deadline`] rings for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The try is held: it takes longer than most.
    Held,
    /// A probe is to look after the node.
    Nudge,
    /// The try is over.
    Overdue,
    /// The process stops: the node is to give the request up.
    Release,
    /// The node has had its time to give the request up.
    Released,
}

impl Deadline {
    /// The first deadline of a try.
    pub(super) fn new() -> Self {
        Self {
            wait: Slow::default(),
            stage: Stage::Young,
        }
    }

    /// What is due. It goes on to what comes next. Once the try is [`Due::Held`] its owner sees to it that
    /// the beginning of `release` wakes the task.
    pub(super) fn poll(
        &mut self,
        times: &AttemptTimes,
        release: &Release,
        context: &Context<'_>,
    ) -> Poll<Due> {
        if self.stage == Stage::Young {
            ready!(self.wait.poll_soon(context));
            self.stage = times.nudge.map_or(Stage::Overdue, |_| Stage::Nudge);
            return Poll::Ready(Due::Held);
        }
        if matches!(self.stage, Stage::Nudge | Stage::Overdue)
            && let Some(manner) = times.release
            && (times.gives_up || release.has_begun())
        {
            ready!(self.poll_until(times.begun + manner.patience(), context));
            self.stage = Stage::Release(Instant::now() + release::WITHIN);
            return Poll::Ready(Due::Release);
        }
        let until = match self.stage {
            Stage::Nudge => times.after(times.nudge.unwrap_or(0)),
            Stage::Young | Stage::Overdue | Stage::LastOverdue => times.after(times.patience),
            Stage::Release(until) => until,
        };
        ready!(self.poll_until(until, context));
        let (next, due) = match self.stage {
            Stage::Nudge => (Stage::Overdue, Due::Nudge),
            Stage::Release(_) => (Stage::LastOverdue, Due::Released),
            stage @ (Stage::Young | Stage::Overdue | Stage::LastOverdue) => (stage, Due::Overdue),
        };
        self.stage = next;
        Poll::Ready(due)
    }

    fn poll_until(&mut self, until: Instant, context: &Context<'_>) -> Poll<()> {
        self.wait.poll_until(until, context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn due(deadline: &mut Deadline, times: &AttemptTimes, release: &Release) -> Due {
        poll_fn(|context| deadline.poll(times, release, context)).await
    }

    /// Nothing but the deadline's own times polls it.
    #[tokio::test(start_paused = true)]
    async fn a_try_is_held_then_looked_after_then_overdue() {
        let begun = Instant::now();
        let late = Duration::from_millis(150);
        let times = AttemptTimes::new(begun, Duration::from_secs(10));
        let times = times.of_creation(Duration::from_secs(3));
        let (release, mut deadline) = (Release::default(), Deadline::new());
        for (expected, span) in [
            (Due::Held, Duration::from_millis(50)),
            (Due::Nudge, Duration::from_secs(3)),
            (Due::Overdue, Duration::from_secs(10)),
        ] {
            assert_eq!(due(&mut deadline, &times, &release).await, expected);
            let took = begun.elapsed();
            assert!(
                took >= span && took <= span + late,
                "{expected:?}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_releases_a_poll_at_once_and_stanzas_when_they_are_held() {
        for (manner, from) in [(release::Manner::Poll, 100), (release::Manner::Send, 1000)] {
            let begun = Instant::now();
            let late = Duration::from_millis(150);
            let times = AttemptTimes::new(begun, Duration::from_secs(10));
            let times = times.released(Some(manner));
            let (release, mut deadline) = (Release::default(), Deadline::new());
            release.begin();
            assert_eq!(due(&mut deadline, &times, &release).await, Due::Held);
            for (expected, millis) in [
                (Due::Release, from),
                (Due::Released, from + 1000),
                (Due::Overdue, 10_000),
            ] {
                let span = Duration::from_millis(millis);
                assert_eq!(due(&mut deadline, &times, &release).await, expected);
                let took = begun.elapsed();
                assert!(
                    took + late >= span && took <= span + late,
                    "{expected:?}: {took:?}"
                );
            }
        }
    }
}
