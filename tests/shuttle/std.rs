//! The standard library with shuttle's locks and atomics in place of its own.
//!
//! `models.rs` compiles the product's source under this name. So shuttle decides on each interleaving,
//! and the product needs no other types for it.

pub use ::std::*;

/// As `std::sync`.
pub mod sync {
    pub use ::std::sync::*;
    pub use shuttle::sync::{Mutex, MutexGuard};

    /// As `std::sync::atomic`.
    pub mod atomic {
        pub use shuttle::sync::atomic::*;
    }
}
