//! Why the balancer does not start.

use std::io;
use std::net::SocketAddr;

use crate::admin::TokenError;
use crate::tls::LoadError;

/// Why the balancer did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A worker thread or its runtime could not be made.
    Worker(io::Error),
    /// The certificates of a listener cannot be used.
    Tls(LoadError),
    /// The admin listener's token cannot be had.
    Token(TokenError),
    /// Traces cannot be sent.
    Traces(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Worker(source) => write!(f, "cannot start a worker: {source}"),
            Self::Tls(source) => write!(f, "{source}"),
            Self::Token(source) => write!(f, "{source}"),
            Self::Traces(source) => write!(f, "cannot send traces: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. } | Self::Worker(source) | Self::Traces(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::Token(source) => Some(source),
        }
    }
}
