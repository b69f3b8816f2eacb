//! Rates with a burst: how often something may happen in the long run, and how often at once.
//!
//! The virtual scheduling form of a token bucket: all there is to keep is the time at which the
//! bucket will be full again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Client;
use super::fixed_table::FixedTable;

/// Sets of places for clients, of eight each: 32,768 clients that have used some of their rate. A
/// client that is forgotten here gets its burst anew.
const SETS: usize = 4096;

const SECOND: u64 = 1_000_000;

/// A rate and its burst, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// What one costs.
    each: u64,
    /// What may be owed.
    most: u64,
}

impl Bucket {
    /// The rate in a second in the long run, and the burst; none without a limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let each = (SECOND / u64::from(per_second).clamp(1, SECOND)).max(1);
        (per_second > 0).then(|| Self {
            each,
            most: each * u64::from(burst.max(1)),
        })
    }

    /// Whether one more may happen `now`, when the bucket will be full at `full`.
    pub(super) fn has(self, full: u64, now: u64) -> bool {
        full.saturating_sub(now) + self.each <= self.most
    }

    /// When the bucket will be full after one more. What was counted although nothing was left is
    /// owed, but not without end.
    pub(super) fn less_one(self, full: u64, now: u64) -> u64 {
        (full.max(now) + self.each).min(now + 2 * self.most)
    }
}

/// The rate of everybody together.
#[derive(Debug)]
pub(super) struct Total {
    bucket: Bucket,
    full: AtomicU64,
}

impl Total {
    pub(super) const fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            full: AtomicU64::new(0),
        }
    }

    pub(super) fn has(&self, now: Duration) -> bool {
        self.bucket
            .has(self.full.load(Ordering::Relaxed), micros(now))
    }

    pub(super) fn count(&self, now: Duration) {
        let less = |full| Some(self.bucket.less_one(full, micros(now)));
        // Never an error: there is always a next value.
        let _ = self
            .full
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The same rate for each client.
#[derive(Debug)]
pub struct Rates {
    bucket: Bucket,
    full: FixedTable,
}

impl Rates {
    /// The rate in a second in the long run and the burst, for each client; none if any
    /// number may (`per_second` is 0).
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Self {
            bucket: Bucket::new(per_second, burst)?,
            full: FixedTable::new(SETS),
        })
    }

    /// Counts one of `client`, if it may have one more; says whether it may.
    pub fn take(&self, client: Client, now: Duration) -> bool {
        let (bucket, now) = (self.bucket, micros(now));
        client.hash().is_none_or(|hash| {
            self.full.update(hash, |full| {
                let may = bucket.has(full, now);
                (
                    if may {
                        bucket.less_one(full, now)
                    } else {
                        full
                    },
                    may,
                )
            })
        })
    }

    /// Whether `client` may have one more.
    pub(super) fn has(&self, client: Client, now: Duration) -> bool {
        let full = client.hash().map_or(0, |hash| self.full.get(hash));
        self.bucket.has(full, micros(now))
    }

    /// Counts one of `client`, whether it may or not.
    pub(super) fn count(&self, client: Client, now: Duration) {
        if let Some(hash) = client.hash() {
            let less = |full| (self.bucket.less_one(full, micros(now)), ());
            self.full.update(hash, less);
        }
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::Clients;
    use super::*;
    use crate::config::Settings;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn client(number: u32) -> Client {
        thread_local! {
            static CLIENTS: Clients = Clients::new(&Settings::for_nodes(Vec::new()));
        }
        let address = IpAddr::V4(Ipv4Addr::from(0xcb00_7100 + number));
        CLIENTS.with(|clients| clients.client(address))
    }

    #[test]
    fn a_burst_is_taken_at_once_and_comes_back_with_time() {
        let rates = Rates::new(10, 3).unwrap();
        let taken = |millis| (0..9).filter(|_| rates.take(client(1), at(millis))).count();
        assert_eq!(taken(1000), 3);
        assert_eq!(taken(1099), 0);
        assert_eq!(taken(1100), 1);
        assert_eq!(taken(1350), 2);
        assert_eq!(taken(60_000), 3, "never more than the burst");
        assert!(
            rates.take(client(2), at(60_000)),
            "another client has its own"
        );
        assert!(Rates::new(0, 3).is_none());
    }

    #[test]
    fn a_flood_of_addresses_takes_no_memory_and_refuses_nobody() {
        let rates = Rates::new(1, 100).unwrap();
        // Somebody who has used it up, with more addresses than there are places.
        while rates.take(client(0), at(0)) {}
        for number in 1..100_000 {
            assert!(rates.take(client(number), at(0)), "{number}");
        }
        assert!(rates.full.len() <= SETS * 8, "{}", rates.full.len());
        assert!(
            !rates.take(client(0), at(0)),
            "those who used least went first"
        );
    }

    #[test]
    fn what_is_owed_ends() {
        let total = Total::new(Bucket::new(10, 10).unwrap());
        for _ in 0..1000 {
            total.count(at(0));
        }
        assert!(!total.has(at(1000)));
        assert!(total.has(at(1100)), "twice the burst at most");
    }
}
