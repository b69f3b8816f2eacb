//! Why the balancer does not start, or does not take a new configuration.

use std::io;

use crate::admin::TokenError;
use crate::cluster::TooManyNodes;
use crate::config::ListenAddress;
use crate::handover::{HandoverError, Unclaimed};
use crate::snapshot::format::Broken;
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

/// Why this process did not take over. The other one goes on.
#[derive(Debug)]
pub enum TakeoverError {
    /// This process cannot start.
    Start(StartError),
    /// What went wrong between the two.
    Handover(HandoverError),
    /// The other process sent pins that cannot be read.
    Pins(Broken),
}

impl std::fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(source) => write!(f, "{source}"),
            Self::Handover(source) => write!(f, "no takeover: {source}"),
            Self::Pins(source) => write!(f, "no takeover: the other process's sessions: {source}"),
        }
    }
}

impl std::error::Error for TakeoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(source) => Some(source),
            Self::Handover(source) => Some(source),
            Self::Pins(source) => Some(source),
        }
    }
}

impl From<HandoverError> for TakeoverError {
    fn from(source: HandoverError) -> Self {
        Self::Handover(source)
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
    /// Another process takes over.
    Takeover,
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(source) => write!(f, "{source}"),
            Self::Tls(source) => write!(f, "{source}"),
            Self::NodeTls(source) => write!(f, "{source}"),
            Self::Nodes(source) => write!(f, "{source}"),
            Self::Takeover => f.write_str("no reload while another process takes over"),
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
            Self::Takeover => None,
        }
    }
}
