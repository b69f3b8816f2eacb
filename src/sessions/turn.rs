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
//! A rid waits for every lower one that is in the balancer, however long that one takes: it has
//! deadlines of its own. How long it waits for one that has not come is its owner's to decide.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Time;

/// The least time from one request of a session to the next. Measured with Tigase 8.4: of two requests
/// 2 to 3 ms apart it left one unanswered in 10 of 200 pairs, at 5 to 50 ms in 1 of 520.
pub const SPACING: Duration = Duration::from_millis(5);

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
}

/// A request of a session, from [`Session::begin`](super::Session::begin) to its end.
#[derive(Debug)]
pub struct Place {
    rid: u64,
    /// It was written to the node, and nobody asked to write it again.
    at_node: AtomicBool,
}

impl Place {
    fn listed(&self) -> u64 {
        let at_node = self.at_node.load(Ordering::Relaxed);
        LISTED | if at_node { AT_NODE } else { 0 } | self.rid
    }
}

/// The bits of a rid (XEP-0124 §7: at most 2^53 − 1) in a listed request; above them are its flags.
const RID: u64 = (1 << 53) - 1;
/// There is a request.
const LISTED: u64 = 1 << 63;
/// It was written to the node.
const AT_NODE: u64 = 1 << 62;

/// What is only there while requests meet; nearly always nothing.
#[derive(Debug, Default)]
struct Crossing {
    /// Those that wait for a lower rid. Dropping a sender lets its request ask again.
    waiting: Vec<oneshot::Sender<()>>,
    /// Requests under way for which `few` has no room.
    more: Vec<u64>,
}

/// The order of one session's requests.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The lowest rid not sent yet; 0 while none has been seen.
    next: u64,
    /// The earliest time for the next request.
    clear_at: Time,
    /// The requests under way, each in one word; 0 is none. There are two as a rule: one held, one
    /// sent.
    few: [u64; 2],
    crossing: Option<Box<Crossing>>,
}

impl Turns {
    /// The order of a session whose creation carried `rid` and is answered.
    pub(super) fn after_creation(rid: u64) -> Self {
        Self {
            next: rid + 1,
            ..Self::default()
        }
    }

    /// The request `rid` has come.
    pub(super) fn begin(&mut self, rid: u64) -> Place {
        let place = Place {
            rid: rid & RID,
            at_node: AtomicBool::new(false),
        };
        match self.few.iter_mut().find(|one| **one == 0) {
            Some(free) => *free = place.listed(),
            None => {
                let crossing = self.crossing.get_or_insert_default();
                crossing.more.push(place.listed());
            }
        }
        place
    }

    /// A request is over.
    pub(super) fn end(&mut self, place: &Place) {
        let listed = place.listed();
        if let Some(one) = self.few.iter_mut().find(|one| **one == listed) {
            *one = 0;
        } else if let Some(crossing) = &mut self.crossing
            && let Some(at) = crossing.more.iter().position(|one| *one == listed)
        {
            crossing.more.swap_remove(at);
        }
        self.let_go();
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
        self.set_at_node(place, true);
        self.next = self.next.max(place.rid.saturating_add(1));
        self.clear_at = self.clear_at.max(now + SPACING);
        self.let_go();
    }

    /// Notes that a request was sent and has to be sent again: higher rids wait for it once more.
    pub(super) fn again(&mut self, place: &Place) {
        self.set_at_node(place, false);
    }

    /// Notes that a request is answered, though it is not over yet. If it was the only one at the
    /// node, there is none any more that the node could mix the next one up with.
    pub(super) fn answered(&mut self) {
        let at_node = self.requests().filter(|one| one & AT_NODE != 0).count();
        if at_node <= 1 {
            self.clear_at = Time::default();
        }
    }

    /// Has every request that waits ask again.
    pub(super) fn let_go(&mut self) {
        let Some(crossing) = &mut self.crossing else {
            return;
        };
        crossing.waiting.clear();
        if crossing.more.is_empty() {
            self.crossing = None;
        }
    }

    fn set_at_node(&mut self, place: &Place, at_node: bool) {
        let listed = place.listed();
        place.at_node.store(at_node, Ordering::Relaxed);
        let more = self.crossing.iter_mut().flat_map(|all| &mut all.more);
        let mut all = self.few.iter_mut().chain(more);
        if let Some(one) = all.find(|one| **one == listed) {
            *one = place.listed();
        }
    }

    /// Whether a lower rid is in the balancer and not at the node.
    fn is_behind(&self, place: &Place) -> bool {
        let waits = |one: u64| one & (LISTED | AT_NODE) == LISTED;
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
