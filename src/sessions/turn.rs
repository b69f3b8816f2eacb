//! Whose turn it is: the requests of one session go to its node in rid order, and at least
//! [`SPACING`] apart while one of them is unanswered.
//!
//! XEP-0124 §14.2 has requests processed in rid order; over two client connections they arrive in
//! any order, and Tigase processes them as they come. Two requests within the same millisecond
//! are worse: Tigase never answers one of them (measured: 5 of 12 pairs). It keeps the requests
//! that wait for their answer in a map, by the millisecond of their arrival, so that the second
//! takes the place of the first. An answered request is out of that map before its answer leaves:
//! the next one needs no distance from it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Time;

/// The least time from one request of a session to the next.
pub const SPACING: Duration = Duration::from_millis(2);

/// A rid further ahead than this is no request that overtook another, but a client that counts
/// on its own; its node judges it.
const WINDOW: u64 = 16;

/// The answer to a request that wants to go to the node.
#[derive(Debug)]
pub enum Turn {
    /// It may go at this time, which is now or a little later.
    At(Time),
    /// A request with a lower rid has not been seen yet. Ask again when this resolves, or go
    /// without it when the caller's patience ends.
    After(oneshot::Receiver<()>),
}

/// What is only there while requests overtake each other or are sent again; nearly always nothing.
pub(super) type Queue = Option<Box<Crossing>>;

/// Requests out of their order.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    /// Those that wait for a lower rid.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// Rids that were sent once and have to be sent again.
    again: Vec<u64>,
}

/// The order of one session's requests.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The lowest rid not sent yet; 0 while none has been seen.
    next: u64,
    /// The earliest time for the next request.
    free_at: Time,
    /// The earliest time for the next request whatever it was promised before: slots are handed
    /// out ahead of time, and one that is late for its own (its timer was, or its connection) must
    /// not meet the next.
    clear_at: Time,
}

impl Turns {
    /// The order of a session whose creation carried `rid` and is answered.
    pub(super) fn after_creation(rid: u64) -> Self {
        Self {
            next: rid + 1,
            free_at: Time::default(),
            clear_at: Time::default(),
        }
    }

    /// Notes that no request is at the node any more that it could mix the next one up with.
    pub(super) fn all_answered(&mut self) {
        self.free_at = Time::default();
        self.clear_at = Time::default();
    }

    /// Asks for the turn of `rid`.
    pub(super) fn ask(&mut self, rid: u64, now: Time, queue: &mut Queue) -> Turn {
        if self.must_wait(rid, queue) {
            let (sender, receiver) = oneshot::channel();
            let crossing = queue.get_or_insert_default();
            crossing.waiting.push((rid, sender));
            return Turn::After(receiver);
        }
        self.reserve(now)
    }

    fn must_wait(&self, rid: u64, queue: &Queue) -> bool {
        let overtakes = self.next != 0 && rid > self.next && rid - self.next <= WINDOW;
        let again = queue.as_ref().map_or(&[][..], |crossing| &crossing.again);
        overtakes || again.iter().any(|lower| *lower < rid)
    }

    /// The next free time, without regard to the order.
    pub(super) fn reserve(&mut self, now: Time) -> Turn {
        let at = self.free_at.max(now);
        self.free_at = at + SPACING;
        Turn::At(at)
    }

    /// Whether a request whose time has come may be written now; else when to ask again.
    pub(super) fn go(&mut self, now: Time) -> Result<(), Time> {
        if now < self.clear_at {
            return Err(self.clear_at);
        }
        self.clear_at = now + SPACING;
        Ok(())
    }

    /// Notes that `rid` was sent and has to be sent again: higher ones wait for it once more.
    pub(super) fn again(rid: u64, queue: &mut Queue) {
        let crossing = queue.get_or_insert_default();
        if !crossing.again.contains(&rid) {
            crossing.again.push(rid);
        }
    }

    /// Notes that `rid` is at the node, and lets those go that waited for it.
    pub(super) fn sent(&mut self, rid: u64, now: Time, queue: &mut Queue) {
        self.next = self.next.max(rid.saturating_add(1));
        self.free_at = self.free_at.max(now + SPACING);
        self.settle(rid, queue);
    }

    /// Notes that nobody waits for `rid` to be sent (again).
    pub(super) fn settle(&self, rid: u64, queue: &mut Queue) {
        let Some(crossing) = queue else {
            return;
        };
        crossing.again.retain(|again| *again != rid);
        let Some(mut crossing) = queue.take() else {
            return;
        };
        let waiting = std::mem::take(&mut crossing.waiting);
        if !crossing.again.is_empty() {
            *queue = Some(crossing);
        }
        // A sender that is dropped lets its request ask again.
        let blocked = waiting
            .into_iter()
            .filter(|(rid, sender)| !sender.is_closed() && self.must_wait(*rid, queue));
        let blocked: Vec<_> = blocked.collect();
        if !blocked.is_empty() {
            queue.get_or_insert_default().waiting = blocked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::after(Duration::from_millis(millis))
    }

    fn go(turn: &Turn) -> Time {
        match turn {
            Turn::At(time) => *time,
            Turn::After(_) => panic!("has to wait for a lower rid"),
        }
    }

    fn wait(turn: Turn) -> oneshot::Receiver<()> {
        match turn {
            Turn::At(time) => panic!("may go at {time:?}"),
            Turn::After(receiver) => receiver,
        }
    }

    #[test]
    fn the_next_rid_goes_at_once() {
        let mut turns = Turns::after_creation(100);
        assert_eq!(go(&turns.ask(101, at(10), &mut None)), at(10));
    }

    #[test]
    fn two_unanswered_requests_are_never_within_two_milliseconds() {
        let mut turns = Turns::after_creation(100);
        let waiting = &mut None;
        assert_eq!(go(&turns.ask(101, at(2), waiting)), at(2));
        turns.sent(101, at(2), waiting);
        assert_eq!(go(&turns.ask(102, at(3), waiting)), at(4));
        assert_eq!(
            go(&turns.ask(102, at(3), waiting)),
            at(6),
            "a repeat has a slot of its own"
        );
        turns.sent(102, at(6), waiting);
        turns.all_answered();
        assert_eq!(go(&turns.ask(103, at(6), waiting)), at(6));
    }

    #[test]
    fn requests_that_are_sent_again_keep_their_order_and_their_distance() {
        let mut turns = Turns::after_creation(100);
        let queue = &mut None;
        for rid in [101, 102] {
            go(&turns.ask(rid, at(rid), queue));
            turns.sent(rid, at(rid), queue);
        }
        // Their node died: the later one comes first, and waits.
        Turns::again(102, queue);
        Turns::again(101, queue);
        let mut later = wait(turns.ask(102, at(500), queue));
        assert_eq!(go(&turns.ask(101, at(501), queue)), at(501));
        assert!(later.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        turns.sent(101, at(501), queue);
        assert!(later.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(go(&turns.ask(102, at(501), queue)), at(503));
        turns.sent(102, at(503), queue);
        assert!(queue.is_none());
        assert_eq!(
            go(&turns.ask(103, at(600), queue)),
            at(600),
            "the next is not held up"
        );
    }

    #[test]
    fn a_request_given_up_holds_nobody_up() {
        let mut turns = Turns::after_creation(100);
        let queue = &mut None;
        turns.sent(101, at(1), queue);
        turns.sent(102, at(4), queue);
        Turns::again(101, queue);
        Turns::again(102, queue);
        let mut later = wait(turns.ask(102, at(10), queue));
        turns.settle(101, queue);
        assert!(later.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(go(&turns.ask(102, at(11), queue)), at(11));
    }

    #[test]
    fn whoever_is_late_for_a_slot_does_not_meet_the_next() {
        let mut turns = Turns::after_creation(100);
        let queue = &mut None;
        // Two that are sent again have their slots, and their timers end late, both at once.
        assert_eq!(go(&turns.ask(101, at(10), queue)), at(10));
        assert_eq!(go(&turns.reserve(at(10))), at(12));
        assert_eq!(turns.go(at(13)), Ok(()));
        turns.sent(101, at(13), queue);
        assert_eq!(turns.go(at(13)), Err(at(15)));
        assert_eq!(turns.go(at(15)), Ok(()));
    }

    #[test]
    fn a_late_send_moves_the_next_slot() {
        let mut turns = Turns::after_creation(100);
        let waiting = &mut None;
        assert_eq!(go(&turns.ask(101, at(10), waiting)), at(10));
        turns.sent(101, at(50), waiting);
        assert_eq!(go(&turns.ask(102, at(51), waiting)), at(52));
    }

    #[test]
    fn a_rid_that_overtook_waits_for_the_one_before_it() {
        let mut turns = Turns::after_creation(100);
        let waiting = &mut None;
        let mut late = wait(turns.ask(102, at(10), waiting));
        assert!(late.try_recv().is_err());
        assert_eq!(go(&turns.ask(101, at(11), waiting)), at(11));
        assert!(waiting.is_some());
        turns.sent(101, at(11), waiting);
        assert!(waiting.is_none(), "the waiting one was let go");
        assert_eq!(go(&turns.ask(102, at(12), waiting)), at(13));
    }

    #[test]
    fn an_old_or_a_wild_rid_is_the_nodes_to_judge() {
        let mut turns = Turns::after_creation(100);
        let waiting = &mut None;
        go(&turns.ask(50, at(10), waiting));
        go(&turns.ask(100_000, at(20), waiting));
    }

    #[test]
    fn the_first_rid_of_an_adopted_session_sets_the_order() {
        let mut turns = Turns::default();
        let waiting = &mut None;
        go(&turns.ask(7, at(1), waiting));
        turns.sent(7, at(1), waiting);
        wait(turns.ask(9, at(5), waiting));
    }
}
