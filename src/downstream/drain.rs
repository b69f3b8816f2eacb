//! How far the end of the process has come, for those that serve clients.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::timers;

/// The drain: nothing new is taken, and what is under way runs to its end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: AtomicBool,
    woken: Arc<Wakes>,
}

/// What wakes those who wait for a drain.
#[derive(Debug, Default)]
struct Wakes {
    notify: Notify,
    /// The drain is gone.
    over: AtomicBool,
}

thread_local! {
    /// The drains for which a task of this thread wakes its idle connections.
    static ATTENDED: RefCell<Vec<Arc<Wakes>>> = const { RefCell::new(Vec::new()) };
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
        let mut woken = std::pin::pin!(self.woken.notify.notified());
        loop {
            // Enabled before the look: a beginning in between still wakes us.
            woken.as_mut().enable();
            if self.is_closing() {
                return;
            }
            woken.as_mut().await;
            woken.set(self.woken.notify.notified());
        }
    }

    /// Has idle connections look whether they are to end.
    pub(super) fn wake_idle(&self) {
        self.woken.notify.notify_waiters();
    }

    /// Sees to it that [`wake_idle`](Self::wake_idle) reaches the idle connections of this thread: those
    /// that wait with [`timers::Slow::poll_until_called`]. One task of the thread listens for all of them.
    #[inline]
    pub(super) fn attend(&self) {
        let is_new = ATTENDED.with_borrow_mut(|attended| {
            let is_new = !attended.iter().any(|one| Arc::ptr_eq(one, &self.woken));
            if is_new {
                attended.push(Arc::clone(&self.woken));
            }
            is_new
        });
        if is_new {
            tokio::spawn(wake_connections(Attending(Arc::clone(&self.woken))));
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.woken.over.store(true, Ordering::Release);
        self.wake_idle();
    }
}

/// A task of this thread that listens to a drain, until dropped.
struct Attending(Arc<Wakes>);

impl Drop for Attending {
    fn drop(&mut self) {
        // The thread may be ending, and its list gone.
        let _ = ATTENDED.try_with(|attended| {
            if let Ok(mut attended) = attended.try_borrow_mut() {
                attended.retain(|one| !Arc::ptr_eq(one, &self.0));
            }
        });
    }
}

/// Wakes the idle connections of this thread each time that the drain says so.
async fn wake_connections(attending: Attending) {
    let mut woken = std::pin::pin!(attending.0.notify.notified());
    loop {
        // Enabled before they look: a call in between still wakes them.
        woken.as_mut().enable();
        timers::wake_listeners();
        woken.as_mut().await;
        if attending.0.over.load(Ordering::Acquire) {
            return;
        }
        woken.set(attending.0.notify.notified());
    }
}
