//! The end of held requests at a stop: each gives up its place at its node, so that its client asks
//! again at once and finds the next process.
//!
//! The node is told by a half-close, and what it still answers is passed on. A poll that it closes
//! without a byte gets an empty wrapper. So does a request with stanzas that is held like a poll: the
//! node has taken it, and keeps what it has to say for the session's next request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::observe::metrics::Kind;

/// How long a half-closed connection may stay open without a byte.
pub(super) const WITHIN: Duration = Duration::from_secs(1);

/// A request with stanzas that its node has not answered for this long is held like a poll.
const HELD: Duration = Duration::from_secs(1);

/// How a request is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It asks for nothing: at once, and its client gets an answer in any case.
    Poll,
    /// It has stanzas: once it has been at its node for [`HELD`], and only a node that closes has
    /// taken them for certain.
    Send,
}

impl Manner {
    /// The manner of a request of this kind; none if only an answer of its node can end it.
    pub(super) const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Poll => Some(Self::Poll),
            Kind::Send => Some(Self::Send),
            Kind::Creation
            | Kind::Restart
            | Kind::Terminate
            | Kind::WebSocket
            | Kind::Preflight
            | Kind::Other => None,
        }
    }

    /// How old it has to be.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Poll => Duration::ZERO,
            Self::Send => HELD,
        }
    }
}

/// Whether the release has begun, and how many requests it has ended.
#[derive(Debug, Default)]
pub(super) struct Release {
    begun: AtomicBool,
    woken: Notify,
    ended: AtomicU64,
}

impl Release {
    /// Begins it.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.woken.notify_waiters();
    }

    /// Whether it has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Returns when it has begun.
    pub(super) async fn begun(&self) {
        let mut woken = std::pin::pin!(self.woken.notified());
        // Enabled before the look: a beginning in between still wakes us.
        woken.as_mut().enable();
        if !self.has_begun() {
            woken.await;
        }
    }

    /// Does `work`, and gives it up when the release begins, if a poll waits for it.
    pub(super) async fn unless<T>(
        &self,
        manner: Option<Manner>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        if manner != Some(Manner::Poll) {
            return Some(work.await);
        }
        tokio::select! {
            // Without a wait it costs nothing.
            biased;
            done = work => Some(done),
            () = self.begun() => None,
        }
    }

    /// Counts a request that ended with an empty wrapper.
    pub(super) fn count(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests ended with an empty wrapper.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}
