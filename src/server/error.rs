//! Why the balancer does not start, or does not take a new configuration.

use std::io;

use crate::admin::TokenError;
use crate::cluster::TooManyNodes;
use crate::config::ListenAddress;
use crate::handover::Unclaimed;
use crate::tls::LoadError;
use crate::upstream::TlsLoadError;

/// Why the balancer did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(BindError),
    /// A socket was passed that no listener takes.
    Unclaimed(Unclaimed),
    /// A worker thread or its runtime could not be made.
    Worker(io::Error),
    /// The certificates of a listener cannot be used.
    Tls(LoadError),
    /// The TLS of a node cannot be used.
    NodeTls(TlsLoadError),
    /// The admin listener's token cannot be had.
    Token(TokenError),
    /// Traces cannot be sent.
    Traces(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(source) => write!(f, "{source}"),
            Self::Unclaimed(source) => write!(f, "{source}"),
            Self::Worker(source) => write!(f, "cannot start a worker: {source}"),
            Self::Tls(source) => write!(f, "{source}"),
            Self::NodeTls(source) => write!(f, "{source}"),
            Self::Token(source) => write!(f, "{source}"),
            Self::Traces(source) => write!(f, "cannot send traces: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(source) => Some(source),
            Self::Unclaimed(source) => Some(source),
            Self::Worker(source) | Self::Traces(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::NodeTls(source) => Some(source),
            Self::Token(source) => Some(source),
        }
    }
}

/// An address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: ListenAddress,
    /// Why.
    pub source: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a new configuration was not applied. Then nothing has changed.
#[derive(Debug)]
pub enum ReloadError {
    /// A new listener.
    Bind(BindError),
    /// A listener's certificates.
    Tls(LoadError),
    /// The TLS of a node.
    NodeTls(TlsLoadError),
    /// The list of nodes.
    Nodes(TooManyNodes),
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(source) => write!(f, "{source}"),
            Self::Tls(source) => write!(f, "{source}"),
            Self::NodeTls(source) => write!(f, "{source}"),
            Self::Nodes(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for ReloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::NodeTls(source) => Some(source),
            Self::Nodes(source) => Some(source),
        }
    }
}
