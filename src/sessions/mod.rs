//! Sessions: which node each sid is pinned to, whose turn it is, and when it may be forgotten.
//!
//! Owns the table of pins and the order of the requests of one session. Opens no socket and reads
//! no clock: time comes in as an argument. The connections that a session keeps to its node are
//! only stored here; `proxy` opens and uses them.
//!
//! The asymmetry that drives the code: a pin forgotten early breaks a client, a pin kept late
//! costs a few hundred bytes, so doubt keeps it.

mod addresses;
mod rid_order;
mod session;
mod table;
mod time;

pub use addresses::Addresses;
pub use rid_order::{Look, Place, Proof, SPACING, Turn, UNANSWERED};
pub use session::{Begun, Refusal, Session, Terms};
pub use table::{Insert, Sessions};
pub use time::Time;
