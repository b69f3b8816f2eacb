//! What wakes a connection that waits: one timer for every wait, and the call to idle connections.
//!
//! A timer for each wait would cost more than most requests take otherwise. So the timer is set
//! earlier when a wait needs that, but never later: when it rings too early, it is set anew.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::Drain;

/// The timer and the call of one connection. Made when it waits for the first time.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    call: Option<Call>,
}

/// A registration for the next call to idle connections.
struct Call {
    /// How often they had been called when it was made.
    before: u32,
    next: Pin<Box<OwnedNotified>>,
}

impl Alarm {
    /// Waits until `deadline`.
    pub(super) fn poll_until(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Makes sure that the next call to idle connections wakes this one. The caller looks afterwards
    /// whether it is to end. A call that comes while it is not idle costs one wake-up.
    pub(super) fn listen(&mut self, drain: &Drain, context: &mut Context<'_>) {
        loop {
            let before = drain.wakes();
            if self.call.as_ref().is_some_and(|call| call.before == before) {
                return;
            }
            match &mut self.call {
                Some(call) => call.next.set(drain.next_wake()),
                None => {
                    let next = Box::pin(drain.next_wake());
                    self.call = Some(Call { before, next });
                }
            }
            let Some(call) = &mut self.call else { return };
            call.before = before;
            if call.next.as_mut().poll(context).is_ready() {
                call.before = before.wrapping_sub(1);
            }
            // A call between the count and the registration is seen in the next round.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_end_in_their_time_whichever_came_first() {
        let mut alarm = Alarm::default();
        for seconds in [60, 10, 1, 30, 90, 2] {
            let begun = Instant::now();
            let deadline = begun + Duration::from_secs(seconds);
            poll_fn(|context| alarm.poll_until(deadline, context)).await;
            assert_eq!(begun.elapsed(), Duration::from_secs(seconds));
            // Another wait was begun meanwhile, and given up.
            let later = Instant::now() + Duration::from_secs(5);
            let given_up = poll_fn(|context| Poll::Ready(alarm.poll_until(later, context)));
            assert!(given_up.await.is_pending());
        }
    }

    #[tokio::test]
    async fn each_call_wakes_once_it_is_listened_for_again() {
        let (drain, mut alarm) = (Drain::default(), Alarm::default());
        for _ in 0..3 {
            let before = drain.wakes();
            let waiting = poll_fn(|context| {
                alarm.listen(&drain, context);
                if drain.wakes() == before {
                    return Poll::Pending;
                }
                Poll::Ready(())
            });
            tokio::join!(waiting, async {
                tokio::task::yield_now().await;
                drain.wake_idle();
            });
        }
    }
}
