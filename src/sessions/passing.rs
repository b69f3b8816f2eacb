//! Sessions on their way to another process that takes over: their kept answers, and what changes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::Session;
use super::kept::{self, KeptAnswer};
use super::table::{Sessions, address};

/// A change of a session that the other process has to hear of.
#[derive(Debug)]
pub enum Change {
    /// It was made.
    Made(Arc<Session>),
    /// Its node has read the request with this rid.
    Sent(Arc<Session>, u64),
    /// The answer to the request with this rid and this hash is kept. An empty body is none.
    Kept(Arc<Session>, (u64, u64), Bytes),
}

/// What hears of changes, if anything does.
#[derive(Debug, Default)]
pub(super) struct Follower {
    is_there: AtomicBool,
    sender: ArcSwapOption<mpsc::Sender<Change>>,
}

impl Follower {
    /// Passes a change on. It costs next to nothing if nothing hears of it.
    #[inline]
    pub(super) fn hear(&self, change: impl FnOnce() -> Change) {
        if self.is_there.load(Ordering::Acquire)
            && let Some(sender) = &*self.sender.load()
        {
            // It may have enough, or be gone.
            let _ = sender.try_send(change());
        }
    }
}

impl Sessions {
    /// Hears of each change from now on, of `most` at a time; the rest is left out. Ends the hearing of the
    /// one before.
    pub fn follow(&self, most: usize) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel(most);
        self.follower.sender.store(Some(Arc::new(sender)));
        self.follower.is_there.store(true, Ordering::Release);
        receiver
    }

    /// Ends the hearing.
    pub fn unfollow(&self) {
        self.follower.is_there.store(false, Ordering::Release);
        self.follower.sender.store(None);
    }

    /// Notes that the node has read the request `rid`, for those that hear of changes.
    #[inline]
    pub fn sent(&self, session: &Arc<Session>, rid: u64) {
        self.follower
            .hear(|| Change::Sent(Arc::clone(session), rid));
    }

    /// What the hashes of kept answers depend on; none if none are kept.
    pub fn answers_key(&self) -> Option<&[u8]> {
        self.kept.is_on().then(|| &self.kept.passed_key()[..])
    }

    /// Takes the key of another process, in front of the first request. Says whether it is one.
    pub fn take_answers_key(&self, key: &[u8]) -> bool {
        let Ok(key) = <[u8; kept::KEY]>::try_from(key) else {
            return false;
        };
        self.kept.take_key(key);
        true
    }

    /// The rid, the hash and the body of each kept answer of a session that can be passed on.
    pub fn kept_answers(&self, session: &Arc<Session>) -> Vec<(u64, u64, Bytes)> {
        session.with_kept(|slot| self.kept.passed(address(session), *slot))
    }

    /// Keeps an answer that another process has kept, unless there is a later one that it could displace.
    pub fn keep_passed(&self, sid: &str, (rid, hash): (u64, u64), body: &[u8]) {
        let Some(session) = self.find(sid) else {
            return;
        };
        let is_late = self.kept_answers(&session).iter().any(|one| one.0 > rid);
        if is_late || body.is_empty() || !self.may_keep(body.len()) {
            return;
        }
        self.keep(&session, (rid, hash), KeptAnswer::of_body(body));
    }
}
