//! What a connection to a node begins with.

use std::path::PathBuf;

/// TLS towards a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTls {
    /// Whether its certificate is verified; true by default.
    pub verify: bool,
    /// A PEM file with the authorities of which one must have signed its certificate. None, the default,
    /// for those that the system trusts. Only with `verify`.
    pub ca: Option<PathBuf>,
    /// The name that it is asked for (SNI), and that its certificate must have: a host name or an IP
    /// address without brackets. None, the default, for the host of its address.
    pub server_name: Option<String>,
}

/// A version of the PROXY protocol, whose header tells a node the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}
