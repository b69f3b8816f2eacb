//! An address that clients connect to, while what serves them there may be exchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::listener::Listener;

/// Serves the newcomers at one address by the listener of the moment, until it is closed.
#[derive(Debug)]
pub struct ListenerSlot {
    listener: ArcSwap<Listener>,
    /// Another process listens on the same socket after this one: connections that wait are its own.
    outlives: bool,
    closed: AtomicBool,
    woken: Notify,
}

impl ListenerSlot {
    /// An address that `listener` serves. `outlives` says that the socket stays open after this process,
    /// so that connections may wait there for the next one.
    pub fn new(listener: Arc<Listener>, outlives: bool) -> Self {
        Self {
            listener: ArcSwap::new(listener),
            outlives,
            closed: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// Whether the socket stays open after this process.
    pub(super) const fn outlives(&self) -> bool {
        self.outlives
    }

    /// What serves newcomers now.
    pub fn listener(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    /// Serves newcomers by another listener. Returns the one before, which keeps its connections.
    pub fn exchange(&self, listener: Arc<Listener>) -> Arc<Listener> {
        self.listener.swap(listener)
    }

    /// Closes the address. Connections that are open stay.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.woken.notify_waiters();
    }

    /// Returns when it is closed.
    pub(super) async fn closed(&self) {
        let mut woken = std::pin::pin!(self.woken.notified());
        // Enabled before the look: a close in between still wakes us.
        woken.as_mut().enable();
        if !self.closed.load(Ordering::Acquire) {
            woken.await;
        }
    }
}
