//! Memory for request bodies that come in several pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all bodies that come in several pieces may take together, over all connections. One that came
/// with its head takes none of it, and nearly all do.
#[derive(Debug)]
pub(super) struct BodyBudget {
    /// In bytes.
    most: AtomicUsize,
    used: AtomicUsize,
}

/// What one body takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UsedUp;

impl BodyBudget {
    /// The bytes that are reserved.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            used: AtomicUsize::new(0),
        }
    }

    /// Sets how many bytes may be reserved from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A body that has taken nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Share {
    /// The bytes that are reserved for it.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves this many bytes more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), UsedUp> {
        self.bytes += bytes;
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.budget.most.load(Ordering::Relaxed) {
            return Err(UsedUp);
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_budget_and_give_it_back() {
        let budget = Arc::new(BodyBudget::new(10));
        let (mut one, mut other) = (budget.share(), budget.share());
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(other.grow(4), Ok(()));
        assert_eq!(other.grow(1), Err(UsedUp));
        drop(other);
        assert_eq!(one.grow(4), Ok(()));
        drop(one);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
