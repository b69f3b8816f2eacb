//! How often and how much: what one client, and all of them together, may ask for.
//!
//! Owns the rates, the memory of sids that no node knows, the count of each client's connections,
//! and the limit of open files. Decides and counts nothing else: `proxy` and `downstream` ask, and
//! answer the client. Reads no clock: time comes in as the time since the start.
//!
//! Every table here has a fixed number of places. Whoever finds none takes the place of the entry
//! that says least: a client that used least of its rate, the sid that is forgotten next. So a
//! flood from many addresses never takes memory, and never refuses somebody else.

mod clients;
mod connections;
mod files;
mod fixed_table;
mod landing;
mod rate;
mod unknown;

pub use clients::{Client, Clients};
pub use connections::{Connections, Counted};
pub use files::Files;
pub use landing::Landing;
pub use rate::Rates;
pub use unknown::{Unasked, UnknownSids};
