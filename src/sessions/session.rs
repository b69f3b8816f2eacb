//! One live session: its pin, and what is in progress beside it.

use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::Time;
use super::pin::{FRESH, GRACE, TOMBSTONE, Terms};
use super::rid_order::{Look, Place, Proof, RidOrder, Turn};
use crate::cluster::{Epoch, NodeId, QueryGroup};
use crate::upstream::Connection;

mod begin;
mod conversion;
pub(super) mod operator;
mod passing;

pub use begin::{Begun, Refusal, Start};

/// Requests of one session under way at the same time. XEP-0124 §11 allows `requests`, which is
/// 2 everywhere, and one more to pause or terminate; repeats come on top.
const MOST_UNDER_WAY: u8 = 12;

/// No node has this id.
const NO_NODE: NodeId = NodeId(u16::MAX);

/// One live session. Its sid is a credential, so that `{:?}` leaves it out.
///
/// It is made from a [`Pin`](super::Pin), and [`Self::pin`] gives that back. The fields of the pin that every request
/// reads are here without a lock; the others are in `State`.
pub struct Session {
    sid: Box<str>,
    terms: Terms,
    group: Option<QueryGroup>,
    node: AtomicU16,
    /// The epoch of its node in which it was made there; 0 if it was made elsewhere, or before this
    /// process began.
    made: AtomicU32,
    /// When the pin expires, in seconds since the Unix epoch. It counts only while nothing is under
    /// way.
    expires: AtomicU32,
    /// When the node was asked for something that it has not reacted to yet, as
    /// [`Time::low_micros`]; 0 if it was not.
    asked: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Keeps the pin's last rid too.
    order: RidOrder,
    stage: Stage,
    under_way: u8,
    /// The node that made it, or that last answered it as one that it knows. The session may have
    /// moved since, to a node that has not answered.
    /// [`NO_NODE`] if there is none: an `Option` takes two bytes more, and with them another word.
    owner: NodeId,
    /// No request has come since its creation.
    fresh: bool,
    /// Its client has asked for its end.
    leaving: bool,
    /// The pause that is in force, in seconds; 0 if there is none.
    paused: u16,
    /// The low half of the rid that asked for it; the rest is that of the last rid.
    paused_by: u32,
    /// Where its last answers are kept; 0 if there are none.
    kept: u32,
    /// A connection to the node that has nothing to do. One is enough: while a request is held on
    /// one connection, the others take turns on another.
    idle: Option<Box<Connection>>,
}

impl State {
    fn owner(&self) -> Option<NodeId> {
        (self.owner != NO_NODE).then_some(self.owner)
    }

    /// Notes the pause that the request `rid` asks for, or that it ends the one before.
    fn pause(&mut self, rid: u64, pause: Option<u32>) {
        if self.paused == 0 || rid >= self.paused_by() {
            let seconds = u16::try_from(pause.unwrap_or(0)).unwrap_or(u16::MAX);
            (self.paused, self.paused_by) = (seconds, low_half(rid));
        }
    }

    /// The rid that asked for the pause: the nearest to the last one that has its low half.
    fn paused_by(&self) -> u64 {
        let last = self.order.last().unwrap_or(0);
        let ahead = self.paused_by.wrapping_sub(low_half(last)).cast_signed();
        last.saturating_add_signed(ahead.into())
    }
}

/// Where a session is in its life. The first and the last stage are no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its creation was not seen, and no node has yet said that it knows it.
    Provisional,
    /// A node made it or knows it: a pin.
    Pinned,
    /// It was terminated; kept for late requests.
    Ended,
    /// Its node has lost it; kept so that its client need not ask the node to learn that.
    Lost,
    /// The operator has ended it; kept so that its client learns that.
    Closed,
    /// It is out of the table.
    Gone,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("node", &self.node())
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Its sid. A credential: never whole in a log, never in a label.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// What its node said of it.
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// What its creation was placed by, if it was a query parameter.
    pub const fn group(&self) -> Option<QueryGroup> {
        self.group
    }

    /// The node that it is pinned to.
    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Acquire))
    }

    /// The epoch of its node in which it was made there; none if another node made it, or if
    /// that is not known.
    pub fn made_in(&self) -> Option<Epoch> {
        let made = self.made.load(Ordering::Relaxed);
        (made != 0).then(|| Epoch::of_number(made))
    }

    /// Whether its node cannot have forgotten it by itself: its last answer is younger than its
    /// inactivity, with a second to spare.
    pub fn is_young(&self, now: Time) -> bool {
        let end = self.expires.load(Ordering::Relaxed);
        (now + GRACE + Duration::from_secs(1)).seconds() <= end
    }

    /// The node that is known to have had it last, whichever it is pinned to now.
    pub fn owner(&self) -> Option<NodeId> {
        self.state().owner()
    }

    /// Whether its node was found to have lost it, or the operator has ended it.
    pub fn is_lost(&self) -> bool {
        matches!(self.state().stage, Stage::Lost | Stage::Closed)
    }

    /// Whether a node is known to have it.
    pub fn is_pinned(&self) -> bool {
        self.state().stage == Stage::Pinned
    }

    /// Notes that its client's `terminate` has been written to the node.
    pub fn leave(&self) {
        self.state().leaving = true;
    }

    /// Whether it has ended, or its client has asked for that.
    pub fn is_leaving(&self) -> bool {
        let state = self.state();
        state.leaving || state.stage == Stage::Ended
    }

    /// Whether no node has said yet that it knows it.
    pub fn is_provisional(&self) -> bool {
        self.state().stage == Stage::Provisional
    }

    /// Ends a request.
    pub fn end(&self, place: &Place, now: Time) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        state.order.end(place, self.terms.hold <= 1, now);
        let until = match state.stage {
            Stage::Ended | Stage::Lost | Stage::Closed => return,
            Stage::Provisional | Stage::Pinned | Stage::Gone => {
                self.terms.expiry(state.paused, now)
            }
        };
        self.expires.store(until.seconds(), Ordering::Relaxed);
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> u8 {
        self.state().under_way
    }

    /// Asks for the turn of a request as far as the order is concerned; without `patience` it does not
    /// wait for lower rids that have not come. A session that is over has no order to keep.
    pub fn turn(&self, place: &Place, patience: bool) -> Turn {
        let mut state = self.state();
        match state.stage {
            Stage::Ended | Stage::Lost | Stage::Closed => Turn::Now,
            Stage::Provisional | Stage::Pinned | Stage::Gone => state.order.ask(place, patience),
        }
    }

    /// Whether a request whose turn has come may be written now. If so, it has to be: the next one
    /// keeps its distance from now on.
    pub fn go(&self, place: &Place, now: Time) -> Turn {
        let mut state = self.state();
        match state.stage {
            Stage::Ended | Stage::Lost | Stage::Closed => state.order.go_regardless(now),
            Stage::Provisional | Stage::Pinned | Stage::Gone => state.order.go(place, now),
        }
    }

    /// The same without regard to lower rids.
    pub fn go_regardless(&self, now: Time) -> Turn {
        self.state().order.go_regardless(now)
    }

    /// Notes that a request has been written to the node. `asks` says that it had stanzas: if
    /// another request is held there, the node answers one of them at once.
    pub fn sent(&self, place: &Place, asks: bool, now: Time) {
        let State {
            order, under_way, ..
        } = &mut *self.state();
        order.sent(place, now);
        if asks && *under_way > 1 && self.asked.load(Ordering::Relaxed) == 0 {
            self.asked.store(now.low_micros(), Ordering::Relaxed);
        }
    }

    /// Notes that the node has answered a request. Says how long it took to react to stanzas, if
    /// this is what it did; only then it asks for the time.
    pub fn reacted(&self, now: impl FnOnce() -> Time) -> Option<Duration> {
        if self.asked.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match self.asked.swap(0, Ordering::Relaxed) {
            0 => None,
            asked => {
                let took = now().low_micros().wrapping_sub(asked);
                Some(Duration::from_micros(took.into()))
            }
        }
    }

    /// Notes that a request has to be written again: it asks for its turn anew, and those with higher
    /// rids wait for it.
    pub fn again(&self, place: &Place) {
        self.state().order.again(place);
    }

    /// Notes that a node has answered a request that goes on to another node, which need not wait.
    pub fn passed_on(&self) {
        self.state().order.answered();
    }

    /// Looks at a request that waits for its node's answer. A node that holds one request of the session
    /// never keeps two. `alive` is the last probe that the node has passed.
    pub fn look(
        &self,
        place: &Place,
        now: Time,
        alive: impl FnOnce() -> Option<Proof>,
        waker: &Waker,
    ) -> Look {
        let mut state = self.state();
        match state.stage {
            Stage::Provisional | Stage::Pinned if self.terms.hold <= 1 => {
                state.order.look(place, now, alive, waker)
            }
            _ => Look::Fine,
        }
    }

    /// Notes that a request that its node has lost has to be written again; no other one waits for it.
    pub fn resend(&self, place: &Place) {
        self.state().order.resend(place);
    }

    /// An idle connection to the session's node, if it keeps one that is open and quiet.
    pub fn take_idle(&self) -> Option<Box<Connection>> {
        let mut idle = self.state().idle.take()?;
        idle.is_quiet().then_some(idle)
    }

    /// Keeps a connection to `node` for the session's next request, if the session still lives
    /// there and keeps none yet.
    pub fn keep_idle(&self, connection: Box<Connection>, node: NodeId) {
        let mut state = self.state();
        if state.stage == Stage::Pinned && self.node() == node {
            state.idle.get_or_insert(connection);
        }
    }

    /// Drops the idle connection.
    pub(super) fn drop_idle(&self) {
        self.state().idle = None;
    }

    /// Drops the idle connection if its node has closed it.
    pub(super) fn drop_closed(&self) {
        let mut state = self.state();
        if state.idle.as_mut().is_some_and(|idle| !idle.is_quiet()) {
            state.idle = None;
        }
    }

    /// Moves the session from a failed node to a survivor. Returns whether it is a pin, or none if another
    /// request has moved it already.
    pub(super) fn move_to(&self, from: NodeId, to: NodeId) -> Option<bool> {
        let mut state = self.state();
        if self.node() != from {
            return None;
        }
        state.idle = None;
        self.asked.store(0, Ordering::Relaxed);
        self.made.store(0, Ordering::Relaxed);
        self.node.store(to.0, Ordering::Release);
        Some(state.stage == Stage::Pinned)
    }

    /// The node `at` has shown that it knows the session, in answer to a request that began `late`,
    /// after the session was terminated, or not. Says where, if it is a pin only from now on: a
    /// moment later another request may have moved it.
    pub(super) fn prove(&self, at: NodeId, late: bool) -> Option<NodeId> {
        let mut state = self.state();
        state.owner = at;
        state.order.answered();
        let proved = match state.stage {
            Stage::Provisional => true,
            Stage::Lost => {
                // It is not one of those that its node had lost.
                self.made.store(0, Ordering::Relaxed);
                true
            }
            Stage::Ended => late,
            Stage::Pinned | Stage::Closed | Stage::Gone => false,
        };
        proved.then(|| {
            state.stage = Stage::Pinned;
            state.leaving = false;
            self.node()
        })
    }

    /// The session is over: its connections close, and a pin stays known for late requests only.
    /// Says where it was a pin, if it was one.
    pub(super) fn terminate(&self, now: Time) -> Option<NodeId> {
        let mut state = self.state();
        state.idle = None;
        let pinned = state.stage == Stage::Pinned;
        pinned.then(|| {
            state.stage = Stage::Ended;
            // Who waits for a lower rid need not any longer.
            state.order.let_go();
            self.expires
                .store((now + TOMBSTONE).seconds(), Ordering::Relaxed);
            self.node()
        })
    }

    /// Gives the pin up if `node` made it before `epoch`: the node has lost its sessions. Its
    /// client is told so as long as it may come. Says whether this was done.
    pub(super) fn lose(&self, node: NodeId, epoch: Epoch, now: Time) -> bool {
        let mut state = self.state();
        let made = self.made_in().is_some_and(|made| made.is_before(epoch));
        if state.stage != Stage::Pinned || self.node() != node || !made {
            return false;
        }
        state.idle = None;
        state.order.let_go();
        state.stage = Stage::Lost;
        let until = self.terms.expiry(u16::MAX, now);
        self.expires.store(until.seconds(), Ordering::Relaxed);
        true
    }

    /// Makes the session gone if nothing is under way and its time has passed, or if no node has
    /// proven it. When the table is `crowded`, the time of one that was made and never used is
    /// short. Says what it was before.
    pub(super) fn forget(&self, crowded: bool, now: Time) -> Option<Stage> {
        let mut state = self.state();
        let mut expires = self.expires.load(Ordering::Relaxed);
        if crowded && state.fresh {
            let promised = Duration::from_secs(self.terms.inactivity.into()) + GRACE;
            let early = promised.saturating_sub(FRESH).as_secs();
            expires = expires.saturating_sub(u32::try_from(early).unwrap_or(0));
        }
        let expired = expires < now.seconds();
        if state.under_way > 0 || !(expired || state.stage == Stage::Provisional) {
            return None;
        }
        state.idle = None;
        Some(std::mem::replace(&mut state.stage, Stage::Gone))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The low half of a rid.
const fn low_half(rid: u64) -> u32 {
    (rid & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests;
