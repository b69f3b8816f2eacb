//! A count that decisions read.
//!
//! The module that counts owns it. The metrics show a copy, which [`super::Cluster::measure`] takes
//! when they are asked for.

use std::sync::atomic::{AtomicI64, Ordering};

/// How many there are of something, right now or since the start.
///
/// An increment and its decrement may come from two threads, and the decrement first. So the count
/// may be below 0 for a moment, and readers get 0 then.
#[derive(Debug, Default)]
pub struct Count(AtomicI64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// `more` more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(signed(more), Ordering::Relaxed);
    }

    /// `fewer` less.
    pub fn sub(&self, fewer: u64) {
        self.0.fetch_sub(signed(fewer), Ordering::Relaxed);
    }

    /// How many there are; 0 where the count is below 0.
    pub fn get(&self) -> u64 {
        u64::try_from(self.balance()).unwrap_or(0)
    }

    /// Increments less decrements. If this stays below 0, something was counted down twice.
    pub fn balance(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decrement_that_overtakes_its_increment_reads_as_nothing() {
        let count = Count::default();
        count.dec();
        assert_eq!((count.get(), count.balance()), (0, -1));
        count.add(3);
        assert_eq!(count.get(), 2);
    }
}
