//! How far the end of the process has come, for those that serve clients, and whether another process serves
//! newcomers.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::timers;

/// The drain: nothing new is taken, and what is under way runs to its end.
#[derive(Debug, Default)]
pub struct Drain {
    closing: AtomicBool,
    /// Another process serves newcomers, or is about to.
    paused: AtomicBool,
    /// Tasks that accept.
    accepting: AtomicUsize,
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

    /// Stops accepting for the present. Idle connections close and answers close their connections, so that
    /// clients make new ones, which wait in the kernel's queue. [`resume`](Self::resume) takes it back.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.wake_idle();
    }

    /// Accepts again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.wake_idle();
    }

    /// Whether newcomers are left to another process.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Whether connections end as soon as nothing is asked on them.
    pub(super) fn lets_go(&self) -> bool {
        self.is_closing() || self.is_paused()
    }

    /// Returns when no task accepts any more. They go on when the drain is resumed.
    pub async fn nothing_accepts(&self) {
        self.until(|| self.accepting.load(Ordering::SeqCst) == 0)
            .await;
    }

    /// Permits to accept until dropped; none in a pause.
    pub(super) fn accepting(&self) -> Option<Accepting<'_>> {
        self.accepting.fetch_add(1, Ordering::SeqCst);
        let accepting = Accepting(self);
        // In this order the one that pauses sees the count, or this sees the pause.
        (!self.is_paused()).then_some(accepting)
    }

    /// Returns when it is paused, or has begun.
    pub(super) async fn interrupts(&self) {
        self.until(|| self.lets_go()).await;
    }

    /// Returns when it is not paused.
    pub(super) async fn goes_on(&self) {
        self.until(|| !self.is_paused()).await;
    }

    /// Returns when it has begun.
    pub async fn begun(&self) {
        self.until(|| self.is_closing()).await;
    }

    /// Returns when a look finds what it looks for.
    async fn until(&self, found: impl Fn() -> bool) {
        let mut woken = std::pin::pin!(self.woken.notify.notified());
        loop {
            // Enabled before the look: a change in between still wakes us.
            woken.as_mut().enable();
            if found() {
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

/// A task that accepts.
#[derive(Debug)]
pub(super) struct Accepting<'a>(&'a Drain);

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::SeqCst);
        if self.0.is_paused() {
            self.0.wake_idle();
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_waits_for_those_that_accept_and_can_be_taken_back() {
        let drain = Drain::default();
        let accepting = drain.accepting().expect("not paused");
        drain.goes_on().await;
        drain.pause();
        drain.interrupts().await;
        assert!(drain.lets_go() && !drain.is_closing());
        let moment = std::time::Duration::from_secs(1);
        assert!(timeout(moment, drain.nothing_accepts()).await.is_err());
        assert!(timeout(moment, drain.goes_on()).await.is_err());
        assert!(drain.accepting().is_none(), "nothing new in a pause");
        let (both, ()) = tokio::join!(timeout(moment, drain.nothing_accepts()), async {
            drop(accepting);
        });
        assert!(both.is_ok());
        drain.resume();
        drain.goes_on().await;
        assert!(drain.accepting().is_some() && !drain.lets_go());
        drain.begin();
        drain.interrupts().await;
    }
}
