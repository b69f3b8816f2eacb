//! How far the end of the process has come, for those that serve clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The drain: nothing new is taken, and what is under way runs to its end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: AtomicBool,
    woken: Arc<Notify>,
    /// How often connections were woken; counted up before each time.
    wakes: AtomicU32,
}

impl Drain {
    /// Begins it: listeners and idle connections close, answers close their connections.
    pub fn begin(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake_idle();
    }

    /// Whether it has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns when it has begun.
    pub async fn begun(&self) {
        let mut woken = std::pin::pin!(self.woken.notified());
        loop {
            // Enabled before the look: a beginning in between still wakes us.
            woken.as_mut().enable();
            if self.is_closing() {
                return;
            }
            woken.as_mut().await;
            woken.set(self.woken.notified());
        }
    }

    /// Has idle connections look whether they are to end.
    pub(super) fn wake_idle(&self) {
        self.wakes.fetch_add(1, Ordering::Release);
        self.woken.notify_waiters();
    }

    /// How often connections were woken.
    pub(super) fn wakes(&self) -> u32 {
        self.wakes.load(Ordering::Acquire)
    }

    /// The next time that connections are woken.
    pub(super) fn next_wake(&self) -> OwnedNotified {
        Arc::clone(&self.woken).notified_owned()
    }
}
