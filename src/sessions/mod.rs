//! Sessions: which node each sid is pinned to, whose turn it is, and when it may be forgotten.
//!
//! `pin` is the data that ties a sid to its node and outlives the process. `session` is what is in
//! progress beside it: the order of its requests, and its idle connection. `table` finds sessions by sid
//! and counts them.
//!
//! Opens no socket and reads no clock: time comes in as an argument. The connections that a session keeps
//! to its node are only stored here; `proxy` opens and uses them.
//!
//! The asymmetry that drives the code: a pin forgotten early breaks a client, a pin kept late
//! costs a few hundred bytes, so doubt keeps it.

mod addresses;
mod kept;
mod passing;
mod pin;
mod rid_order;
mod session;
mod table;
mod time;

pub use addresses::Addresses;
pub use kept::{Asked, KeptAnswer, KeptHead};
pub use passing::Change;
pub use pin::{Pause, Pin, PinState, Terms};
pub use rid_order::{Look, Place, Proof, SPACING, Turn, UNANSWERED};
pub use session::operator::Summary;
pub use session::{Begun, Refusal, Session, Start};
pub use table::{Insert, Sessions};
pub use time::{Clock, Time};
