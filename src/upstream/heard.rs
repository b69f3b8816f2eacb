//! Whether a byte has come from a node lately, whichever connection it came on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that every connection to a node raises when a byte arrives, and that the node's probe
/// task lowers when it looks. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Notes a byte.
    pub fn note(&self) {
        // Read first: the line stays shared between the threads that serve requests.
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a byte has come since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
