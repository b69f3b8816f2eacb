//! How a request of a session begins, or gets the answer to the same request before it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{MOST_UNDER_WAY, Session, Stage, State};
use crate::sessions::Time;
use crate::sessions::rid_order::{Copy, Place};

/// A request that has begun, and what its session was then.
#[derive(Debug)]
pub struct Begun {
    /// Its place in the order.
    pub place: Place,
    /// It had been terminated.
    pub late: bool,
    /// No node had said yet that it knows it.
    pub provisional: bool,
}

/// What becomes of a request of a session whose answers are kept.
#[derive(Debug)]
pub enum Start<T> {
    /// It has begun.
    Begun(Begun),
    /// It was answered before, with this.
    Replayed(T),
    /// It asks for nothing, and was closed at its node without an answer. The request behind it has taken
    /// its place there: what this one would bring is younger.
    Overtaken,
    /// The same request is under way. It may begin when this resolves; the answer to the other one may be
    /// kept then.
    Waits(oneshot::Receiver<()>),
}

/// Why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The session was forgotten between the look-up and now; look again.
    Gone,
    /// Too many requests of the session are under way.
    TooMany,
    /// Its node was started anew and does not know it any more.
    Lost,
    /// The operator has ended it.
    Closed,
}

impl Session {
    /// Begins the request `rid`: from now until [`Self::end`] the session is not forgotten. `pause` is
    /// what it asks for, in seconds. A pause holds until a request with a higher rid begins
    /// (XEP-0124 §10), whatever older requests do meanwhile.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn begin(&self, rid: u64, pause: Option<u32>) -> Result<Begun, Refusal> {
        Self::begin_in(&mut self.state(), (rid, 0), pause)
    }

    /// The same for a request with this hash of its body, where answers are kept: `replay` is handed their
    /// place, if there are any, and the last rid at the node, and says what the answer to this request is.
    /// `connected` is when the connection opened of a request that may wait for one with the rid below whose
    /// client went away.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::sessions) fn begin_or_replay<T>(
        &self,
        (rid, hash): (u64, u64),
        (pause, connected, (is_poll, has_waited)): (Option<u32>, Option<Time>, (bool, bool)),
        replay: impl FnOnce(&mut u32, Option<u64>) -> Option<T>,
    ) -> Result<Start<T>, Refusal> {
        let mut state = self.state();
        let was_away = state.order.came(rid, connected);
        let last = state.order.last();
        if state.kept != 0
            && let Some(kept) = replay(&mut state.kept, last)
        {
            return Ok(Start::Replayed(kept));
        }
        let most = MOST_UNDER_WAY - state.under_way;
        match state.order.await_copy(rid, hash, most.into()) {
            Some(Copy::Waits(earlier)) => return Ok(Start::Waits(earlier)),
            Some(Copy::TooMany) => return Err(Refusal::TooMany),
            None => {}
        }
        if (was_away || has_waited) && is_poll && state.order.last() > Some(rid) {
            return Ok(Start::Overtaken);
        }
        Self::begin_in(&mut state, (rid, hash), pause).map(Start::Begun)
    }

    fn begin_in(
        state: &mut State,
        (rid, hash): (u64, u64),
        pause: Option<u32>,
    ) -> Result<Begun, Refusal> {
        match state.stage {
            Stage::Gone => return Err(Refusal::Gone),
            Stage::Lost => return Err(Refusal::Lost),
            Stage::Closed => return Err(Refusal::Closed),
            Stage::Provisional | Stage::Pinned | Stage::Ended => {}
        }
        if state.under_way == MOST_UNDER_WAY {
            return Err(Refusal::TooMany);
        }
        state.under_way += 1;
        state.fresh = false;
        if pause.is_some() || state.paused > 0 {
            state.pause(rid, pause);
        }
        Ok(Begun {
            place: state.order.begin(rid, hash),
            late: state.stage == Stage::Ended,
            provisional: state.stage == Stage::Provisional,
        })
    }

    /// Whether another request waits for the end of this one, which has the same rid.
    pub fn has_copy(&self, rid: u64) -> bool {
        self.state().order.has_copy(rid)
    }

    /// Whether a pinned session's node has read a higher rid.
    pub fn went_past(&self, rid: u64) -> bool {
        let state = self.state();
        state.stage == Stage::Pinned && state.order.last() > Some(rid)
    }

    /// The client of the request `rid` went away before its answer. For the time `retry` a request with the
    /// rid above waits for it to come again.
    pub fn went_away(&self, rid: u64, now: Time, retry: Option<Duration>) {
        let mut state = self.state();
        if state.stage == Stage::Pinned {
            state.order.went_away(rid, now, retry);
        }
    }

    /// Hands the place of its kept answers to `take`, under its lock.
    pub(in crate::sessions) fn with_kept<T>(&self, take: impl FnOnce(&mut u32) -> T) -> T {
        take(&mut self.state().kept)
    }
}
