//! The nodes, what is known of their state, and the choice among them.
//!
//! Owns the verdict that probes reach, and placement. Opens no socket and reads no clock.

mod node;

pub use node::{Failure, Node, NodeId};
