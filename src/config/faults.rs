//! What is found wrong with a file while it is read.

use std::cell::{Ref, RefCell};

/// The most faults that are kept: to find the place of each, the text is read once more.
pub(super) const MOST_FAULTS: usize = 20;

/// What is wrong, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    /// The key as the message shows it; may name a key that is absent.
    pub(super) key: String,
    /// The number of the node at which it stands; 0 for the file as a whole.
    pub(super) number: usize,
    /// The words for it.
    pub(super) reason: String,
}

/// The faults found so far, at most [`MOST_FAULTS`].
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Adds one, unless it is there or there are enough.
    pub(super) fn add(&self, fault: Fault) {
        let mut faults = self.0.borrow_mut();
        // Rules that look at two sections read one of them again.
        if faults.len() < MOST_FAULTS && !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Whether no further one is kept.
    pub(super) fn is_full(&self) -> bool {
        self.0.borrow().len() >= MOST_FAULTS
    }

    /// All of them, in the order in which they were found.
    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0.into_inner()
    }

    /// Those found so far.
    pub(super) fn borrow(&self) -> Ref<'_, Vec<Fault>> {
        self.0.borrow()
    }
}
