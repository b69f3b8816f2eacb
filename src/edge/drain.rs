//! How far the end of the process has come, for whoever serves clients.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The drain: nothing new is taken, and what is under way runs to its end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: AtomicBool,
    woken: Notify,
}

impl Drain {
    /// Begins it: listeners and idle connections close, answers close their connections.
    pub fn begin(&self) {
        self.closing.store(true, Ordering::Release);
        self.woken.notify_waiters();
    }

    /// Whether it has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns when it has begun.
    pub async fn begun(&self) {
        self.begun_or(|| false).await;
    }

    /// Returns when it has begun, or when `over` holds; that is looked at when idle connections are
    /// woken ([`Self::wake_idle`]).
    pub(super) async fn begun_or(&self, over: impl Fn() -> bool) {
        let mut woken = std::pin::pin!(self.woken.notified());
        loop {
            // Enabled before the look: what begins in between still wakes us.
            woken.as_mut().enable();
            if self.is_closing() || over() {
                return;
            }
            woken.as_mut().await;
            woken.set(self.woken.notified());
        }
    }

    /// Has idle connections look whether they are to end.
    pub(super) fn wake_idle(&self) {
        self.woken.notify_waiters();
    }
}
