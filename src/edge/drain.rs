//! How far the end of the process has come, for whoever serves clients.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The drain: nothing new is taken, and what is under way runs to its end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: AtomicBool,
    begun: Notify,
}

impl Drain {
    /// Begins it: listeners and idle connections close, answers close their connections.
    pub fn begin(&self) {
        self.closing.store(true, Ordering::Release);
        self.begun.notify_waiters();
    }

    /// Whether it has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns when it has begun.
    pub async fn begun(&self) {
        let mut begun = std::pin::pin!(self.begun.notified());
        begun.as_mut().enable();
        if !self.is_closing() {
            begun.await;
        }
    }
}
