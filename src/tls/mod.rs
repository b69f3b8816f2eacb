//! TLS of listeners: certificates and their reload.
//!
//! Owns what a listener's files are, and when they are read again. Knows nothing of HTTP, and accepts
//! no connection.

mod acceptor;
mod certificate;
mod der;
mod files;
mod resolver;
mod watch;

pub use acceptor::Acceptor;
pub use certificate::{Certificate, Warning};
pub use files::{LoadError, warnings_of};
pub use watch::{Acceptors, Certificates};
