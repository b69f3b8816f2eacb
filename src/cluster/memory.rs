//! Whether a node still knows its sessions, or was started anew and knows none of them.
//!
//! A node that restarts between two probes is never called down, and each of its sessions would
//! have to ask it to learn that it is gone. A node has lost its sessions when all of this holds:
//!
//! - a connection to it broke without an answer, or was refused, or it was called down: from then
//!   on it is in *doubt*;
//! - no exchange that began before is still under way there;
//! - since then none of the sessions that it had made before has been answered as one that lives;
//! - [`ENOUGH`] of them, of two networks at least, were answered item-not-found within [`SPAN`],
//!   none of which had stayed away for too long.
//!
//! No client brings this about alone: it would have to end the exchanges of all others. No cluster
//! that shares its sessions does: what lives elsewhere was not made here, and does not count.
//!
//! Pure: no I/O and no clock. What begins notes the node's [`Life`], which costs one load; only in
//! doubt more is kept.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ClientKey;

/// So many sessions that are unknown to their node make it one that has lost them all.
const ENOUGH: usize = 3;

/// They have to be told so within this time.
const SPAN: Duration = Duration::from_secs(10);

/// No more of them are kept; the oldest goes.
const MOST_KEPT: usize = 15;

/// A doubt that nothing has confirmed after this time is given up.
const DOUBT: Duration = Duration::from_secs(120);

/// A stretch of a node's life: odd while it is in doubt, even otherwise. Later ones are higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(u32);

impl Life {
    /// As a number that fits an atomic; never 0 but once in four billion doubts.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The life with this number.
    pub const fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// The node was in doubt.
    pub const fn in_doubt(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether it is before `other`. They may have gone round since: then it is not.
    pub const fn is_before(self, other: Self) -> bool {
        let apart = other.0.wrapping_sub(self.0);
        apart != 0 && apart <= u32::MAX / 2
    }
}

/// What speaks for and against a node that its sessions are gone.
#[derive(Debug)]
pub struct Memory {
    life: AtomicU32,
    doubt: Mutex<Doubt>,
    /// Wakes the requests that wait to be sent to the node when its sessions are lost.
    pub forgot: Notify,
}

#[derive(Debug, Default)]
struct Doubt {
    since: Option<Instant>,
    /// Exchanges under way that began in this doubt.
    late: u32,
    /// When a session was unknown, newest first, and whose it was.
    unknown: Vec<(Instant, ClientKey)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            // 0 is no life.
            life: AtomicU32::new(2),
            doubt: Mutex::default(),
            forgot: Notify::new(),
        }
    }
}

impl Memory {
    /// The present life: what begins now notes it.
    pub fn life(&self) -> Life {
        Life(self.life.load(Ordering::Acquire))
    }

    /// What began in `began` broke, or was refused, or ended because the node is down. Whatever
    /// began before the present doubt says nothing new.
    pub fn broke(&self, began: Life, now: Instant) {
        let mut doubt = self.doubt();
        let life = self.life();
        if life.in_doubt() && began != life {
            return;
        }
        *doubt = Doubt {
            since: Some(now),
            ..Doubt::default()
        };
        let next = life.0.wrapping_add(if life.in_doubt() { 2 } else { 1 });
        self.life.store(next, Ordering::Release);
    }

    /// An exchange begins that noted the life `began`, which was in doubt.
    pub fn enter(&self, began: Life, now: Instant) {
        let mut doubt = self.doubt();
        if began != self.life() {
            return;
        }
        doubt.late = doubt.late.saturating_add(1);
        if doubt.since.is_some_and(|since| now > since + DOUBT) {
            self.end(&mut doubt);
        }
    }

    /// An exchange ends that noted the life `began`, which was in doubt.
    pub fn leave(&self, began: Life) {
        let mut doubt = self.doubt();
        if began == self.life() {
            doubt.late = doubt.late.saturating_sub(1);
        }
    }

    /// A session that the node made in the life `made` was answered as one that lives.
    pub fn knows(&self, made: Life) {
        let mut doubt = self.doubt();
        if made.is_before(self.life()) {
            self.end(&mut doubt);
        }
    }

    /// A session of `client` that the node made in the life `made`, and that it ought to know,
    /// was answered item-not-found; `held` requests are under way at the node. If the node has
    /// lost its sessions: those that it made before the returned life are gone.
    pub fn lacks(&self, made: Life, client: ClientKey, held: u64, now: Instant) -> Option<Life> {
        let mut doubt = self.doubt();
        let life = self.life();
        if !life.in_doubt() || !made.is_before(life) {
            return None;
        }
        doubt.unknown.retain(|(when, _)| now < *when + SPAN);
        doubt.unknown.truncate(MOST_KEPT);
        doubt.unknown.insert(0, (now, client));
        let networks = doubt.unknown.iter().any(|(_, other)| *other != client);
        let earlier = held > u64::from(doubt.late);
        if doubt.unknown.len() < ENOUGH || !networks || earlier {
            return None;
        }
        self.end(&mut doubt);
        Some(life)
    }

    /// Ends a doubt, if there is one.
    fn end(&self, doubt: &mut Doubt) {
        let life = self.life();
        if life.in_doubt() {
            *doubt = Doubt::default();
            self.life.store(life.0.wrapping_add(1), Ordering::Release);
        }
    }

    fn doubt(&self) -> MutexGuard<'_, Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn client(number: u8) -> ClientKey {
        ClientKey::V4([192, 0, 2, number])
    }

    /// Three sessions of three clients, made in `made`, are unknown; what the last one brings.
    fn three(memory: &Memory, made: Life, held: u64, now: Instant) -> Option<Life> {
        assert_eq!(memory.lacks(made, client(1), held, now), None);
        assert_eq!(memory.lacks(made, client(2), held, now), None);
        memory.lacks(made, client(3), held, now)
    }

    #[test]
    fn a_node_whose_connections_broke_and_that_knows_nobody_has_lost_its_sessions() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        let since = memory.life();
        assert!(since.in_doubt());
        assert_eq!(three(&memory, before, 0, now), Some(since));
        assert!(before.is_before(since));
        assert!(!memory.life().is_before(since), "what it makes now is new");
        assert!(!memory.life().in_doubt());
    }

    #[test]
    fn with_no_broken_connection_nothing_follows() {
        let (memory, now) = (Memory::default(), Instant::now());
        assert_eq!(three(&memory, memory.life(), 0, now), None);
    }

    #[test]
    fn one_session_that_it_knows_is_proof_enough() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        assert_eq!(memory.lacks(before, client(1), 0, now), None);
        assert_eq!(memory.lacks(before, client(2), 0, now), None);
        memory.knows(memory.life());
        assert!(memory.life().in_doubt(), "a new session proves nothing");
        memory.knows(before);
        assert!(!memory.life().in_doubt());
        assert_eq!(three(&memory, before, 0, now), None);
    }

    #[test]
    fn one_network_alone_is_not_enough() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        for _ in 0..100 {
            assert_eq!(memory.lacks(before, client(1), 0, now), None);
        }
        assert!(memory.lacks(before, client(2), 0, now).is_some());
    }

    #[test]
    fn an_exchange_from_before_speaks_against_it_and_one_from_after_does_not() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        let late = memory.life();
        memory.enter(late, now);
        assert_eq!(three(&memory, before, 2, now), None);
        assert!(memory.lacks(before, client(1), 1, now).is_some());
        memory.leave(late);
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        assert_eq!(memory.lacks(before, client(1), 0, now), None);
        let later = now + SPAN;
        assert_eq!(memory.lacks(before, client(2), 0, later), None);
        assert_eq!(memory.lacks(before, client(3), 0, later), None);
        memory.enter(memory.life(), now + DOUBT + SECOND);
        assert!(!memory.life().in_doubt());
    }

    #[test]
    fn sessions_made_in_the_doubt_are_not_those_that_are_gone() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.broke(memory.life(), now);
        assert_eq!(three(&memory, memory.life(), 0, now), None);
    }

    #[test]
    fn what_breaks_late_is_part_of_the_same_failure() {
        let (memory, now) = (Memory::default(), Instant::now());
        let before = memory.life();
        memory.broke(before, now);
        let first = memory.life();
        memory.broke(before, now + SECOND);
        assert_eq!(memory.life(), first);
        memory.broke(first, now + SECOND);
        let second = memory.life();
        assert!(first.is_before(second) && second.in_doubt(), "a new one");
    }

    #[test]
    fn lives_go_round_without_harm() {
        let memory = Memory::default();
        memory.life.store(u32::MAX, Ordering::Relaxed);
        let last = memory.life();
        memory.broke(last, Instant::now());
        assert!(last.is_before(memory.life()));
        assert!(!memory.life().is_before(last));
        assert!(!last.is_before(last));
    }
}
