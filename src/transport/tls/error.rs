//! Why a handshake fails.

use std::{fmt, io};

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The client does not speak TLS.
    NotTls {
        /// It began with a PROXY header.
        proxy_header: bool,
    },
    /// The client closed the connection.
    Closed,
    /// The client and this listener have no protocol in common, or the client broke the protocol.
    Tls(io::Error),
    /// The connection broke.
    Io(io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls { .. } => f.write_str("the client does not speak TLS"),
            Self::Closed => f.write_str("the client closed the connection"),
            Self::Tls(error) | Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotTls { .. } | Self::Closed => None,
            Self::Tls(error) | Self::Io(error) => Some(error),
        }
    }
}
