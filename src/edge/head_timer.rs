//! hyper's timer for a request head, which runs only while there is a head to wait for.
//!
//! hyper sets its timer as soon as it waits for the next request. An idle connection has a deadline
//! of its own (`connection`), so until the first byte comes this timer does nothing.

#![expect(clippy::disallowed_types, reason = "hyper's trait names std's Instant")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use super::wire::Signals;

/// Makes the timers of one connection.
pub(super) struct HeadTimer(pub(super) Arc<Signals>);

struct HeadSleep {
    deadline: Instant,
    signals: Arc<Signals>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep {
            deadline,
            signals: Arc::clone(&self.0),
            sleep: None,
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        *sleep = self.sleep_until(deadline);
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signals.is_idle() {
            return Poll::Pending;
        }
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        sleep.as_mut().poll(context)
    }
}

impl Sleep for HeadSleep {}
