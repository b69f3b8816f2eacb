//! Whether a node still knows its sessions, or was started anew and knows none of them.
//!
//! A node that restarts between two probes is never called down, and each of its sessions would
//! have to ask it to learn that it is gone. A node has lost its sessions when all of this holds:
//!
//! - a connection to it broke without an answer, or was refused, or it was called down: from then
//!   on it is under *suspicion*;
//! - no exchange that began before is still under way there;
//! - since then none of the sessions that it had made before has been answered as one that lives;
//! - [`ENOUGH`] of them, of two networks at least, were answered item-not-found within [`SPAN`],
//!   none of which had stayed away for too long. Gone are those that are as old as these.
//!
//! No client brings this about alone: it would have to end the exchanges of all others. No cluster
//! that shares its sessions does: what lives elsewhere was not made here, and does not count.
//!
//! Pure: no I/O and no clock. What begins notes the node's [`Epoch`], which costs one load; only under
//! suspicion more is kept.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ClientKey;

/// This many sessions must be unknown to a node until it counts as restarted.
const ENOUGH: usize = 3;

/// Their item-not-found answers must come within this time.
const SPAN: Duration = Duration::from_secs(10);

/// No more of them are kept; the oldest goes.
const MOST_KEPT: usize = 15;

/// A suspicion that nothing has confirmed after this time is given up.
const SUSPICION: Duration = Duration::from_secs(120);

/// A stretch of a node's life: odd while it is under suspicion, even otherwise. Later ones are higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u32);

impl Epoch {
    /// As a number that fits an atomic; never 0 but once in four billion suspicions.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The epoch with this number.
    pub const fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// The node was under suspicion.
    pub const fn is_suspect(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether it is before `other`. They may have gone round since: then it is not.
    pub const fn is_before(self, other: Self) -> bool {
        let apart = other.0.wrapping_sub(self.0);
        apart != 0 && apart <= u32::MAX / 2
    }

    /// How many epochs it is before `present`.
    const fn age(self, present: Self) -> u32 {
        present.0.wrapping_sub(self.0)
    }
}

/// What speaks for and against a node that its sessions are gone.
#[derive(Debug)]
pub struct RestartDetector {
    epoch: AtomicU32,
    suspicion: Mutex<Suspicion>,
    /// Wakes the requests that wait to be sent to the node when its sessions are lost.
    pub forgot: Notify,
}

#[derive(Debug, Default)]
struct Suspicion {
    since: Option<Instant>,
    /// Exchanges under way that began during this suspicion.
    late: u32,
    /// The sessions that were unknown, the last one first.
    unknown: Vec<Unknown>,
}

/// A session that its node ought to know, and does not.
#[derive(Debug)]
struct Unknown {
    when: Instant,
    client: ClientKey,
    made: Epoch,
}

impl Default for RestartDetector {
    fn default() -> Self {
        Self {
            // 0 is not an epoch.
            epoch: AtomicU32::new(2),
            suspicion: Mutex::default(),
            forgot: Notify::new(),
        }
    }
}

impl RestartDetector {
    /// The present epoch: what begins now notes it.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// What began in `began` broke, or was refused, or ended because the node is down. Whatever
    /// began before the present suspicion says nothing new.
    pub fn broke(&self, began: Epoch, now: Instant) {
        let mut suspicion = self.suspicion();
        let epoch = self.epoch();
        if epoch.is_suspect() && began != epoch {
            return;
        }
        *suspicion = Suspicion {
            since: Some(now),
            ..Suspicion::default()
        };
        let next = epoch.0.wrapping_add(if epoch.is_suspect() { 2 } else { 1 });
        self.epoch.store(next, Ordering::Release);
    }

    /// An exchange begins that noted the epoch `began`, which was under suspicion.
    pub fn enter(&self, began: Epoch, now: Instant) {
        let mut suspicion = self.suspicion();
        if began != self.epoch() {
            return;
        }
        suspicion.late = suspicion.late.saturating_add(1);
        if suspicion.since.is_some_and(|since| now > since + SUSPICION) {
            self.end(&mut suspicion);
        }
    }

    /// An exchange ends that noted the epoch `began`, which was under suspicion.
    pub fn leave(&self, began: Epoch) {
        let mut suspicion = self.suspicion();
        if began == self.epoch() {
            suspicion.late = suspicion.late.saturating_sub(1);
        }
    }

    /// A session that the node made in the epoch `made` was answered as one that lives.
    pub fn knows(&self, made: Epoch) {
        let mut suspicion = self.suspicion();
        if made.is_before(self.epoch()) {
            self.end(&mut suspicion);
        }
    }

    /// A session of `client` that the node made in the epoch `made`, and that it ought to know,
    /// was answered item-not-found; `held` requests are under way at the node. If the node has
    /// lost its sessions: those that it made before the returned epoch are gone.
    ///
    /// That is the epoch after the one in which the last three of them were made. A session that the
    /// node made since, after its restart, is not among them, though a connection may have broken after it.
    pub fn lacks(&self, made: Epoch, client: ClientKey, held: u64, now: Instant) -> Option<Epoch> {
        let mut suspicion = self.suspicion();
        let epoch = self.epoch();
        if !epoch.is_suspect() || !made.is_before(epoch) {
            return None;
        }
        let unknown = &mut suspicion.unknown;
        unknown.retain(|seen| now < seen.when + SPAN);
        unknown.truncate(MOST_KEPT);
        let when = now;
        unknown.insert(0, Unknown { when, client, made });
        let networks = unknown.iter().any(|other| other.client != client);
        let mut ages: Vec<u32> = unknown.iter().map(|seen| seen.made.age(epoch)).collect();
        ages.sort_unstable();
        let earlier = held > u64::from(suspicion.late);
        let gone = ages.get(ENOUGH - 1).filter(|_| networks && !earlier)?;
        self.end(&mut suspicion);
        Some(Epoch(epoch.0.wrapping_sub(*gone).wrapping_add(1)))
    }

    /// Ends a suspicion, if there is one.
    fn end(&self, suspicion: &mut Suspicion) {
        let epoch = self.epoch();
        if epoch.is_suspect() {
            *suspicion = Suspicion::default();
            self.epoch.store(epoch.0.wrapping_add(1), Ordering::Release);
        }
    }

    fn suspicion(&self) -> MutexGuard<'_, Suspicion> {
        self.suspicion
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    fn three(detector: &RestartDetector, made: Epoch, held: u64, now: Instant) -> Option<Epoch> {
        assert_eq!(detector.lacks(made, client(1), held, now), None);
        assert_eq!(detector.lacks(made, client(2), held, now), None);
        detector.lacks(made, client(3), held, now)
    }

    #[test]
    fn a_node_has_lost_its_sessions_when_connections_broke_and_it_knows_no_session() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        let since = detector.epoch();
        assert!(since.is_suspect());
        assert_eq!(three(&detector, before, 0, now), Some(since));
        assert!(before.is_before(since));
        assert!(
            !detector.epoch().is_before(since),
            "what it makes now is new"
        );
        assert!(!detector.epoch().is_suspect());
    }

    #[test]
    fn with_no_broken_connection_nothing_follows() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        assert_eq!(three(&detector, detector.epoch(), 0, now), None);
    }

    #[test]
    fn one_session_that_it_knows_is_proof_enough() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        assert_eq!(detector.lacks(before, client(1), 0, now), None);
        assert_eq!(detector.lacks(before, client(2), 0, now), None);
        detector.knows(detector.epoch());
        assert!(
            detector.epoch().is_suspect(),
            "a new session proves nothing"
        );
        detector.knows(before);
        assert!(!detector.epoch().is_suspect());
        assert_eq!(three(&detector, before, 0, now), None);
    }

    #[test]
    fn one_network_alone_is_not_enough() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        for _ in 0..100 {
            assert_eq!(detector.lacks(before, client(1), 0, now), None);
        }
        assert!(detector.lacks(before, client(2), 0, now).is_some());
    }

    #[test]
    fn an_exchange_from_before_speaks_against_it_and_one_from_after_does_not() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        let late = detector.epoch();
        detector.enter(late, now);
        assert_eq!(three(&detector, before, 2, now), None);
        assert!(detector.lacks(before, client(1), 1, now).is_some());
        detector.leave(late);
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        assert_eq!(detector.lacks(before, client(1), 0, now), None);
        let later = now + SPAN;
        assert_eq!(detector.lacks(before, client(2), 0, later), None);
        assert_eq!(detector.lacks(before, client(3), 0, later), None);
        detector.enter(detector.epoch(), now + SUSPICION + SECOND);
        assert!(!detector.epoch().is_suspect());
    }

    #[test]
    fn sessions_made_in_the_doubt_are_not_those_that_are_gone() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        detector.broke(detector.epoch(), now);
        assert_eq!(three(&detector, detector.epoch(), 0, now), None);
    }

    /// A connection of an old session breaks after the restart, since its session has ended. That starts
    /// another suspicion, but says nothing of the sessions that were made between.
    #[test]
    fn sessions_made_after_the_restart_stay_when_another_connection_breaks() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        let after = detector.epoch();
        detector.broke(after, now);
        let gone = three(&detector, before, 0, now).expect("old sessions are gone");
        assert!(before.is_before(gone));
        assert!(
            !after.is_before(gone),
            "those made after the restart are there"
        );
    }

    /// The node restarted twice: sessions made between are gone as well, once as many of them show it.
    #[test]
    fn sessions_made_between_two_restarts_go_when_enough_of_them_are_unknown() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        let between = detector.epoch();
        detector.broke(between, now);
        assert_eq!(detector.lacks(between, client(1), 0, now), None);
        assert_eq!(detector.lacks(between, client(2), 0, now), None);
        let gone = detector.lacks(between, client(3), 0, now).expect("gone");
        assert!(between.is_before(gone) && before.is_before(gone));
    }

    #[test]
    fn what_breaks_late_is_part_of_the_same_failure() {
        let (detector, now) = (RestartDetector::default(), Instant::now());
        let before = detector.epoch();
        detector.broke(before, now);
        let first = detector.epoch();
        detector.broke(before, now + SECOND);
        assert_eq!(detector.epoch(), first);
        detector.broke(first, now + SECOND);
        let second = detector.epoch();
        assert!(first.is_before(second) && second.is_suspect(), "a new one");
    }

    #[test]
    fn lives_go_round_without_harm() {
        let detector = RestartDetector::default();
        detector.epoch.store(u32::MAX, Ordering::Relaxed);
        let last = detector.epoch();
        detector.broke(last, Instant::now());
        assert!(last.is_before(detector.epoch()));
        assert!(!detector.epoch().is_before(last));
        assert!(!last.is_before(last));
    }
}
