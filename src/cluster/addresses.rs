//! The addresses of one node: which one worked last, and which ones rest since they failed.
//!
//! Nothing is kept about a single address, since there is no choice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::{Candidates, Opening};

/// How long an address rests after its first failure; doubles with each further one.
const REST: Duration = Duration::from_secs(10);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a node's name stands for, and what is known of each address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    all: Arc<[SocketAddr]>,
    /// One for each of several addresses; empty otherwise.
    known: Box<[Known]>,
    /// Where the address stands that worked last.
    preferred: Option<usize>,
}

/// What is known of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was not tried yet.
    Nothing,
    /// The last attempt passed.
    Works,
    /// The last attempt failed.
    Fails { rest: Duration, until: Instant },
}

impl Known {
    fn rests(self, now: Instant) -> bool {
        matches!(self, Self::Fails { until, .. } if now < until)
    }

    /// The state after one more failure. Failures during the rest prolong it and do not double it: many
    /// connects fail at the same moment.
    fn after_failure(self, now: Instant) -> Self {
        let rest = match self {
            Self::Fails { rest, until } if now < until => rest,
            Self::Fails { rest, .. } => (rest * 2).min(LONGEST_REST),
            Self::Nothing | Self::Works => REST,
        };
        Self::Fails {
            rest,
            until: now + rest,
        }
    }
}

impl Addresses {
    /// These addresses, of which nothing is known.
    pub(super) fn new(all: Arc<[SocketAddr]>) -> Self {
        let mut addresses = Self::default();
        addresses.set(all);
        addresses
    }

    /// Takes another set; what is known of those that stay is kept.
    pub(super) fn set(&mut self, all: Arc<[SocketAddr]>) {
        let several = all.len() > 1;
        let preferred = self.worked_last().filter(|_| several);
        let known = |address: &SocketAddr| {
            let known = self.place(*address).and_then(|at| self.known.get(at));
            known.copied().unwrap_or(Known::Nothing)
        };
        self.known = all.iter().filter(|_| several).map(known).collect();
        self.all = all;
        self.preferred = preferred.and_then(|address| self.place(address));
    }

    /// All of them, in the order of the name service.
    pub(super) fn all(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.all)
    }

    /// The order in which a connect tries them: the one that worked last, others that work, those
    /// of which nothing is known, those that have rested, and those that rest. Where every address
    /// rests, none counts as resting.
    pub(super) fn candidates(&self, opening: Opening, now: Instant) -> Candidates {
        if self.known.is_empty() {
            return Candidates {
                addresses: self.all(),
                proven: false,
                resting: 0,
                opening,
            };
        }
        let rank = |at: &usize| match self.known[*at] {
            _ if self.preferred == Some(*at) => 0,
            Known::Works => 1,
            Known::Nothing => 2,
            known if known.rests(now) => 4,
            Known::Fails { .. } => 3,
        };
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(rank);
        let resting = order.iter().filter(|at| rank(at) == 4).count();
        Candidates {
            addresses: order.iter().map(|at| self.all[*at]).collect(),
            proven: self.preferred.is_some(),
            resting: if resting == order.len() { 0 } else { resting },
            opening,
        }
    }

    /// A connection to `address` was the first to open.
    pub(super) fn connected(&mut self, address: SocketAddr) {
        if let Some(at) = self.known_at(address) {
            self.known[at] = Known::Works;
            self.preferred = Some(at);
        }
    }

    /// A probe of `address` passed. The preferred address stays while it works, so that connects
    /// do not change from one to the other.
    pub(super) fn passed(&mut self, address: SocketAddr) {
        if let Some(at) = self.known_at(address) {
            self.known[at] = Known::Works;
            let works = |at: usize| self.known[at] == Known::Works;
            if !self.preferred.is_some_and(works) {
                self.preferred = Some(at);
            }
        }
    }

    /// A connect to `address`, or a probe of it, failed. The last address that worked stays
    /// preferred until another works.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        let Some(at) = self.known_at(address) else {
            return;
        };
        self.known[at] = self.known[at].after_failure(now);
        if self.preferred == Some(at) {
            let works = |known: &Known| *known == Known::Works;
            self.preferred = self.known.iter().position(works).or(self.preferred);
        }
    }

    /// The address that worked last; none if none has worked, or if there is only one.
    pub(super) fn worked_last(&self) -> Option<SocketAddr> {
        self.preferred.map(|at| self.all[at])
    }

    fn place(&self, address: SocketAddr) -> Option<usize> {
        self.all.iter().position(|one| *one == address)
    }

    /// Where `address` stands, if something is kept about it.
    fn known_at(&self, address: SocketAddr) -> Option<usize> {
        self.place(address).filter(|at| *at < self.known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u8) -> SocketAddr {
        ([192, 0, 2, number], 5280).into()
    }

    fn of(numbers: &[u8]) -> Addresses {
        Addresses::new(list(numbers))
    }

    fn list(numbers: &[u8]) -> Arc<[SocketAddr]> {
        numbers.iter().map(|number| address(*number)).collect()
    }

    fn order(addresses: &Addresses, now: Instant) -> (Vec<u8>, usize) {
        let candidates = addresses.candidates(Opening::default(), now);
        let number = |address: &SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let numbers = candidates.addresses.iter().map(number).collect();
        (numbers, candidates.resting)
    }

    #[test]
    fn the_address_that_worked_last_comes_first_and_those_that_rest_last() {
        let now = Instant::now();
        let mut addresses = of(&[1, 2, 3, 4]);
        assert_eq!(order(&addresses, now), (vec![1, 2, 3, 4], 0));
        assert!(!addresses.candidates(Opening::default(), now).proven);
        addresses.failed(address(1), now);
        assert_eq!(order(&addresses, now), (vec![2, 3, 4, 1], 1));
        addresses.passed(address(4));
        addresses.passed(address(3));
        assert_eq!(order(&addresses, now), (vec![4, 3, 2, 1], 1));
        addresses.connected(address(3));
        assert_eq!(order(&addresses, now), (vec![3, 4, 2, 1], 1));
        assert!(addresses.candidates(Opening::default(), now).proven);
        addresses.failed(address(3), now);
        assert_eq!(addresses.worked_last(), Some(address(4)));
        assert_eq!(order(&addresses, now), (vec![4, 2, 1, 3], 2));
        let rested = now + 10 * SECOND;
        assert_eq!(order(&addresses, rested), (vec![4, 2, 1, 3], 0));
    }

    #[test]
    fn when_all_have_failed_the_last_that_worked_is_still_first_and_does_not_rest() {
        let now = Instant::now();
        let mut addresses = of(&[1, 2]);
        addresses.passed(address(2));
        addresses.failed(address(1), now);
        addresses.failed(address(2), now);
        assert_eq!(order(&addresses, now), (vec![2, 1], 1));
        assert_eq!(addresses.worked_last(), Some(address(2)));
        addresses.passed(address(1));
        assert_eq!(order(&addresses, now), (vec![1, 2], 1));

        let mut never = of(&[1, 2]);
        never.failed(address(1), now);
        never.failed(address(2), now);
        assert_eq!(order(&never, now), (vec![1, 2], 0), "all may be tried");
    }

    #[test]
    fn a_rest_doubles_from_failure_to_failure_up_to_a_minute() {
        let mut now = Instant::now();
        let mut addresses = of(&[1, 2]);
        for seconds in [10, 20, 40, 60, 60] {
            // Many connects fail at the same moment.
            for _ in 0..5 {
                addresses.failed(address(2), now);
            }
            let end = now + seconds * SECOND;
            assert_eq!(order(&addresses, end - SECOND).1, 1, "{seconds}");
            assert_eq!(order(&addresses, end).1, 0, "{seconds}");
            now = end;
        }
        addresses.passed(address(2));
        addresses.failed(address(2), now);
        assert_eq!(order(&addresses, now + 10 * SECOND).1, 0, "forgotten");
    }

    #[test]
    fn another_set_keeps_what_is_known_of_those_that_stay() {
        let now = Instant::now();
        let mut addresses = of(&[1, 2, 3]);
        addresses.connected(address(3));
        addresses.failed(address(1), now);
        addresses.set(list(&[4, 1, 3]));
        assert_eq!(order(&addresses, now), (vec![3, 4, 1], 1));
        addresses.set(list(&[5, 1]));
        assert_eq!(addresses.worked_last(), None);
        assert_eq!(order(&addresses, now), (vec![5, 1], 1));
    }

    #[test]
    fn nothing_is_kept_about_a_single_address() {
        let now = Instant::now();
        let mut addresses = of(&[1]);
        addresses.failed(address(1), now);
        addresses.connected(address(1));
        addresses.passed(address(9));
        assert_eq!(order(&addresses, now), (vec![1], 0));
        assert_eq!(addresses.worked_last(), None);
        assert_eq!(order(&of(&[]), now), (vec![], 0));
    }
}
