//! Whose turn it is: the requests of one session go to its node in rid order, and at least
//! [`SPACING`] apart while one of them is unanswered.
//!
//! XEP-0124 §14.2 has requests processed in rid order; over two client connections they arrive in
//! any order, and Tigase processes them as they come. Two requests that come close together are
//! worse: Tigase never answers one of them. It keeps the requests that wait for their answer in a
//! map, by the millisecond of their arrival, so that the second takes the place of the first. An
//! answered request is out of that map before its answer leaves: the next one needs no distance
//! from it.
//!
//! For the rest there is a second look: a node that holds one request of a session (`hold='1'`) never
//! keeps two, so of two that stay open for [`UNANSWERED`] it has lost one (XEP-0124 §11). The older one
//! is sent again, and then the newer one if it still stays open; each once at most. A node that
//! pauses keeps both as well, so it must have answered a probe that was sent after them.
//!
//! A rid waits for every lower one that is in the balancer, however long that one takes: it has
//! deadlines of its own. How long it waits for one that has not come is its owner's to decide.

mod passing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;
use tokio::sync::oneshot;

use super::Time;
use away::Away;

mod away;

/// The least time from one request of a session to the next. Measured with Tigase 8.4: of two requests
/// 2 to 3 ms apart it left one unanswered in 10 of 200 pairs, at 5 to 50 ms in 1 of 520.
pub const SPACING: Duration = Duration::from_millis(5);

/// How long two requests of a session may be open at a node that holds one. Measured with Tigase 8.4: 95
/// of 95 requests that it had left unanswered were served when they were sent again after this time.
pub const UNANSWERED: Duration = Duration::from_millis(300);

/// How soon a node is asked again that did not pass a probe since two requests of a session are open.
const PROBED_AGAIN: Duration = Duration::from_millis(50);

/// After a pause a node answers a probe and the requests that came before it at about the same time:
/// so much later their answers are there.
const SETTLED: Duration = Duration::from_millis(100);

/// A probe that the node has passed.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// When it was sent.
    pub asked: Time,
    /// When its answer was there.
    pub answered: Time,
}

/// A rid further ahead than this is no request that overtook another, but a client that counts
/// on its own; its node judges it.
const WINDOW: u64 = 16;

/// The answer to a request that wants to go to the node.
#[derive(Debug)]
pub enum Turn {
    /// It may go now.
    Now,
    /// It may go at this time. Ask again then.
    At(Time),
    /// A request with a lower rid is in the balancer. Ask again when this resolves.
    Behind(oneshot::Receiver<()>),
    /// A request with a lower rid has not come yet. Ask again when this resolves, or without
    /// patience when the caller has none left.
    Missing(oneshot::Receiver<()>),
    /// The client of the request with the rid below went away, and has not asked again. Ask again when
    /// this resolves, or without patience at this time.
    Away(oneshot::Receiver<()>, Time),
}

/// A request of a session, from [`Session::begin`](super::Session::begin) to its end.
#[derive(Debug)]
pub struct Place {
    rid: u64,
    /// It was written to the node, and is not to be written again.
    at_node: AtomicBool,
    answered: AtomicBool,
}

/// What to do about a request that is at the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Wait for its answer. The waker is woken when it is to be looked at again.
    Fine,
    /// Wait until then, and look again.
    Until(Time),
    /// The same, and ask for a probe: the node may only pause.
    Probe(Time),
    /// Its node has lost it: close its connection and send it again.
    Lost,
}

impl Place {
    /// Its rid.
    pub const fn rid(&self) -> u64 {
        self.rid
    }

    /// Notes that the node has answered it.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    fn listed(&self) -> u64 {
        let at_node = self.at_node.load(Ordering::Relaxed);
        LISTED | if at_node { AT_NODE } else { 0 } | self.rid
    }

    /// Whether a listed request is this one, or a copy of it in the same state.
    fn is(&self, listed: u64) -> bool {
        listed & (LISTED | AT_NODE | RID) == self.listed()
    }
}

/// A mark of the request's body: five bits of a hash of it.
const MARK: u64 = 31 << 53;
/// The bits of a rid (XEP-0124 §7: at most 2^53 − 1) in a listed request; above them are its flags.
const RID: u64 = (1 << 53) - 1;
/// There is a request.
const LISTED: u64 = 1 << 63;
/// It was written to the node.
const AT_NODE: u64 = 1 << 62;
/// Its node left it unanswered, and it was or is sent again for that.
const RESENT: u64 = 1 << 61;
/// Its node left it unanswered: its connection is to be closed.
const LOST: u64 = 1 << 60;
/// Its node may have lost it, since another one beside it was lost or a later one was answered.
const DOUBTED: u64 = 1 << 59;
/// It is not at the node, and no other one waits for it: the node has read it before.
const FREE: u64 = 1 << 58;

/// The mark of a body with this hash.
const fn mark_of(hash: u64) -> u64 {
    hash >> 59 << 53
}

/// What becomes of a request with the rid of one under way.
#[derive(Debug)]
pub(super) enum Copy {
    /// It waits until that one ends, which this says.
    Waits(oneshot::Receiver<()>),
    /// Too many wait already.
    TooMany,
}

/// What is only there while requests meet; nearly always nothing.
#[derive(Debug, Default)]
struct Crossing {
    /// Those that wait for a lower rid. Dropping a sender lets its request ask again.
    waiting: Vec<oneshot::Sender<()>>,
    /// Requests under way for which `few` has no room.
    more: Vec<u64>,
    /// Requests that wait for the end of one with the same rid. Dropping a sender lets it ask again.
    copies: Vec<(u64, oneshot::Sender<()>)>,
    away: Vec<Away>,
}

/// The order of one session's requests.
#[derive(Debug, Default)]
pub(super) struct RidOrder {
    /// The lowest rid not sent yet; 0 while none has been seen.
    next: u64,
    /// The earliest time for the next request.
    clear_at: Time,
    /// The requests under way, each in one word; 0 is none. As a rule one is held and one is sent.
    few: [u64; 2],
    /// When a request was last sent, or doubted, beside another one.
    met_at: Time,
    /// When the node was known to be alive after that.
    proved_at: Time,
    /// Wakes the task of a request that has no reason to look at itself.
    lone: Option<Waker>,
    crossing: Option<Box<Crossing>>,
}

impl RidOrder {
    /// The order of a session with nothing under way. `last` is the highest rid that was sent; none
    /// if it is not known, and then the first request waits for no other.
    pub(super) fn after(last: Option<u64>) -> Self {
        Self {
            next: last.map_or(0, |rid| rid.saturating_add(1)),
            ..Self::default()
        }
    }

    /// The highest rid that was sent.
    pub(super) const fn last(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// The request `rid` has come, with this hash of its body.
    pub(super) fn begin(&mut self, rid: u64, hash: u64) -> Place {
        let place = Place {
            rid: rid & RID,
            at_node: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        };
        match self.few.iter_mut().find(|one| **one == 0) {
            Some(free) => *free = place.listed() | mark_of(hash),
            None => {
                let crossing = self.crossing.get_or_insert_default();
                crossing.more.push(place.listed() | mark_of(hash));
            }
        }
        place
    }

    /// A request is over. `holds_one` says that the node holds one request of the session at most.
    pub(super) fn end(&mut self, place: &Place, holds_one: bool, now: Time) {
        if let Some(one) = self.few.iter_mut().find(|one| place.is(**one)) {
            *one = 0;
        } else if let Some(crossing) = &mut self.crossing
            && let Some(at) = crossing.more.iter().position(|one| place.is(*one))
        {
            crossing.more.swap_remove(at);
        }
        if let Some(crossing) = &mut self.crossing {
            crossing.copies.retain(|(rid, _)| *rid != place.rid);
        }
        if place.at_node.load(Ordering::Relaxed) && !place.answered.load(Ordering::Relaxed) {
            // Its connection was closed. Prosody may never answer a request that comes at the same moment.
            self.clear_at = self.clear_at.max(now + SPACING);
        }
        if self.at_node().next().is_none() {
            self.lone = None;
        } else if holds_one && place.answered.load(Ordering::Relaxed) {
            self.doubt_older(place.rid, now);
        }
        self.let_go();
    }

    /// A node answers the older request first. If it has answered a later one, those before it are in
    /// doubt.
    fn doubt_older(&mut self, answered: u64, now: Time) {
        let mut older = false;
        for one in self.listed() {
            if *one & (AT_NODE | RESENT) == AT_NODE && *one & RID < answered {
                *one |= DOUBTED;
                older = true;
            }
        }
        if older {
            self.met_at = now;
            self.wake_lone();
        }
    }

    /// The node may pause. When it goes on it reads all of them at the same moment, and may lose one.
    fn doubt_all(&mut self) {
        for one in self.listed() {
            if *one & (AT_NODE | RESENT) == AT_NODE {
                *one |= DOUBTED;
            }
        }
    }

    /// Waits for the end of the same request under way, if there is one. `most` requests may wait.
    pub(super) fn await_copy(&mut self, rid: u64, hash: u64, most: usize) -> Option<Copy> {
        let same = |one: u64| one & (LISTED | MARK | RID) == LISTED | mark_of(hash) | rid & RID;
        if !self.requests().any(same) {
            return None;
        }
        let crossing = self.crossing.get_or_insert_default();
        crossing.copies.retain(|(_, waiting)| !waiting.is_closed());
        if crossing.copies.len() >= most {
            return Some(Copy::TooMany);
        }
        let (sender, receiver) = oneshot::channel();
        crossing.copies.push((rid & RID, sender));
        Some(Copy::Waits(receiver))
    }

    /// Whether a request waits for the end of this one.
    pub(super) fn has_copy(&self, rid: u64) -> bool {
        let copies = self.crossing.iter().flat_map(|crossing| &crossing.copies);
        copies
            .filter(|(_, waiting)| !waiting.is_closed())
            .any(|(of, _)| *of == rid & RID)
    }

    /// Looks at a request at a node that holds one request of the session at most.
    pub(super) fn look(
        &mut self,
        place: &Place,
        now: Time,
        alive: impl FnOnce() -> Option<Proof>,
        waker: &Waker,
    ) -> Look {
        let this = self.requests().find(|one| place.is(*one)).unwrap_or(0);
        if this & LOST != 0 {
            return Look::Lost;
        }
        let company = self.at_node().count() > 1;
        let target = self
            .at_node()
            .filter(|one| one & RESENT == 0)
            .min_by_key(|one| one & RID);
        let (Some(target), true) = (target, company || this & DOUBTED != 0) else {
            self.lone = Some(waker.clone());
            return Look::Fine;
        };
        let returns = self.requests().any(|one| one & FREE != 0);
        let due = self.met_at + UNANSWERED;
        if returns || now < due {
            return Look::Until(if returns { now + UNANSWERED } else { due });
        }
        if self.proved_at < self.met_at {
            let Some(proof) = alive().filter(|proof| proof.asked >= self.met_at) else {
                self.doubt_all();
                return Look::Probe(now + PROBED_AGAIN);
            };
            self.proved_at = proof.answered;
        }
        let settled = self.proved_at + SETTLED;
        if now < settled {
            return Look::Until(settled);
        }
        self.met_at = now;
        for one in self.listed() {
            if *one == target {
                *one |= LOST;
            } else if *one & (AT_NODE | RESENT) == AT_NODE {
                *one |= DOUBTED;
            }
        }
        if place.is(target) {
            return Look::Lost;
        }
        self.wake_lone();
        Look::Until(now + UNANSWERED)
    }

    /// Notes that a request that its node has lost is to be sent again. No other one waits for that.
    pub(super) fn resend(&mut self, place: &Place) {
        self.mark(place, false, RESENT | FREE);
    }

    /// Asks whether a request may go to the node as far as the order is concerned. Without
    /// `patience` it does not wait for lower rids that have not come.
    pub(super) fn ask(&mut self, place: &Place, patience: bool) -> Turn {
        if self.is_behind(place) {
            return Turn::Behind(self.wait());
        }
        let ahead = place.rid.saturating_sub(self.next);
        if patience && self.next != 0 && (1..=WINDOW).contains(&ahead) {
            return Turn::Missing(self.wait());
        }
        if patience && let Some(until) = self.awaited_until(place.rid) {
            return Turn::Away(self.wait(), until);
        }
        Turn::Now
    }

    /// Asks whether a request that may go as far as the order was concerned may be written now. A
    /// lower rid may have come since.
    pub(super) fn go(&mut self, place: &Place, now: Time) -> Turn {
        if self.is_behind(place) {
            return Turn::Behind(self.wait());
        }
        self.go_regardless(now)
    }

    /// The same for a request that has no order to keep, only its distance.
    pub(super) fn go_regardless(&mut self, now: Time) -> Turn {
        if now < self.clear_at {
            return Turn::At(self.clear_at);
        }
        self.clear_at = now + SPACING;
        Turn::Now
    }

    /// Notes that a request is at the node, and lets those go that waited for it.
    pub(super) fn sent(&mut self, place: &Place, now: Time) {
        if self.at_node().next().is_some() {
            self.met_at = now;
        }
        self.mark(place, true, 0);
        self.next = self.next.max(place.rid.saturating_add(1));
        self.clear_at = self.clear_at.max(now + SPACING);
        self.let_go();
    }

    /// Notes that a request was sent and has to be sent again: higher rids wait for it once more.
    pub(super) fn again(&mut self, place: &Place) {
        self.mark(place, false, 0);
    }

    /// Notes that a request is answered, though it is not over yet. If it was the only one at the
    /// node, there is none any more that the node could mix the next one up with.
    pub(super) fn answered(&mut self) {
        if self.at_node().count() <= 1 {
            self.clear_at = Time::default();
        }
    }

    /// Has every request that waits ask again.
    pub(super) fn let_go(&mut self) {
        let Some(crossing) = &mut self.crossing else {
            return;
        };
        crossing.waiting.clear();
        crossing.copies.retain(|(_, waiting)| !waiting.is_closed());
        let Crossing {
            more, copies, away, ..
        } = &**crossing;
        if more.is_empty() && copies.is_empty() && away.is_empty() {
            self.crossing = None;
        }
    }

    /// Sets where a request is, and its flags; that it was sent again for having been lost stays.
    fn mark(&mut self, place: &Place, at_node: bool, flags: u64) {
        let this = self.listed().find(|one| place.is(**one));
        place.at_node.store(at_node, Ordering::Relaxed);
        if let Some(one) = this {
            *one = place.listed() | (*one & (RESENT | MARK)) | flags;
        }
    }

    fn wake_lone(&mut self) {
        if let Some(lone) = self.lone.take() {
            lone.wake();
        }
    }

    fn listed(&mut self) -> impl Iterator<Item = &mut u64> {
        let more = self.crossing.iter_mut().flat_map(|all| &mut all.more);
        self.few.iter_mut().chain(more).filter(|one| **one != 0)
    }

    /// The requests that wait for their answer.
    fn at_node(&self) -> impl Iterator<Item = u64> {
        self.requests().filter(|one| one & AT_NODE != 0)
    }

    /// Whether a lower rid is in the balancer and not at the node.
    fn is_behind(&self, place: &Place) -> bool {
        let waits = |one: u64| one & (LISTED | AT_NODE | FREE) == LISTED;
        self.requests()
            .any(|one| waits(one) && one & RID < place.rid)
    }

    fn requests(&self) -> impl Iterator<Item = u64> {
        let more = self.crossing.iter().flat_map(|all| &all.more);
        self.few.iter().chain(more).copied()
    }

    fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let crossing = self.crossing.get_or_insert_default();
        // Who has given up meanwhile takes no room.
        crossing.waiting.retain(|waiting| !waiting.is_closed());
        crossing.waiting.push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests;
