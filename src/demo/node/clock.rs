//! When a node's sessions are to be looked after: the ends of waits, inactivity, batches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The appointments of one node.
#[derive(Debug, Default)]
pub(super) struct Clock {
    appointments: Mutex<BTreeSet<(Instant, Arc<str>)>>,
    earlier: Notify,
    stopped: AtomicBool,
}

impl Clock {
    /// Makes an appointment.
    pub(super) fn arm(&self, at: Instant, sid: Arc<str>) {
        let mut appointments = self
            .appointments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = appointments.first().is_none_or(|(first, _)| at < *first);
        appointments.insert((at, sid));
        if first {
            self.earlier.notify_one();
        }
    }

    /// Forgets everything; the node is gone.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.appointments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Whether the node is gone.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits until at least one appointment has come, and takes all that have.
    pub(super) async fn due(&self) -> Vec<Arc<str>> {
        loop {
            let now = Instant::now();
            let (due, next) = self.split(now);
            if !due.is_empty() {
                return due;
            }
            match next {
                None => self.earlier.notified().await,
                Some(next) => tokio::select! {
                    biased;
                    () = sleep_until(next) => {}
                    () = self.earlier.notified() => {}
                },
            }
        }
    }

    fn split(&self, now: Instant) -> (Vec<Arc<str>>, Option<Instant>) {
        let mut appointments = self
            .appointments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some((at, _)) = appointments.first() {
            if *at > now {
                return (due, Some(*at));
            }
            due.extend(appointments.pop_first().map(|(_, sid)| sid));
        }
        (due, None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_earlier_appointment_wakes_the_waiting() {
        let clock = Arc::new(Clock::default());
        let start = Instant::now();
        clock.arm(start + Duration::from_secs(60), "late".into());
        let waiting = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { clock.due().await }
        });
        tokio::task::yield_now().await;
        clock.arm(start + Duration::from_secs(1), "early".into());
        assert_eq!(waiting.await.expect("no panic"), [Arc::from("early")]);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(clock.due().await, [Arc::from("late")]);
    }
}
