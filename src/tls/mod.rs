//! TLS: certificates and their reload, and the stream that encrypts a connection with a client.
//!
//! Owns what a listener's files are, and when they are read again. Knows nothing of HTTP, and accepts
//! no connection.

mod acceptor;
mod certificate;
mod der;
mod error;
mod files;
mod resolver;
mod stream;
mod watch;

pub use acceptor::Acceptor;
pub use certificate::{Certificate, Warning};
pub use error::HandshakeError;
pub use files::{LoadError, warnings_of};
pub use stream::TlsStream;
pub use watch::{Acceptors, Certificates};
