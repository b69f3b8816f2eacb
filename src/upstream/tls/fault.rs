//! Why a handshake with a node failed, in words for the log and `/health`.

use std::{fmt, io};

use rustls::CertificateError;

use crate::transport::HandshakeError;

/// Why no TLS connection to a node came about.
#[derive(Debug)]
pub enum TlsFault {
    /// The node's certificate is not accepted, for this reason.
    Certificate(String),
    /// The node does not speak TLS.
    NotTls,
    /// The node closed the connection during the handshake.
    Closed,
    /// The connection broke during the handshake.
    Broken(io::Error),
    /// Node and balancer do not agree, or the node broke the protocol.
    Protocol(String),
    /// The file of the authorities cannot be used, for this reason.
    Settings(String),
}

impl TlsFault {
    /// What a failed handshake means.
    pub(super) fn of(error: HandshakeError) -> Self {
        match error {
            HandshakeError::NotTls { .. } => Self::NotTls,
            HandshakeError::Closed => Self::Closed,
            HandshakeError::Io(error) => Self::Broken(error),
            HandshakeError::Tls(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                match inner {
                    Some(rustls::Error::InvalidCertificate(error)) => {
                        Self::Certificate(certificate(error))
                    }
                    Some(error) => Self::Protocol(error.to_string()),
                    None => Self::Protocol(error.to_string()),
                }
            }
        }
    }
}

/// What is wrong with a certificate.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("it has expired{}", dates(error))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet{}", dates(error))
        }
        CertificateError::UnknownIssuer => {
            "no authority in `ca`, or of this system without `ca`, has signed it".to_owned()
        }
        CertificateError::BadSignature => {
            "an authority in `ca` has its issuer's name, but another key has signed it".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented: Vec<_> = presented.iter().take(4).map(|name| bare(name)).collect();
            let is_for = if presented.is_empty() {
                "no name".to_owned()
            } else {
                presented.join(", ")
            };
            let expected = expected.to_str();
            format!("it is not for {expected} but for {is_for}; `server_name` sets the name")
        }
        other => other.to_string(),
    }
}

/// How long ago, or how far ahead, in days.
fn dates(error: &CertificateError) -> String {
    let (now, then) = match error {
        CertificateError::ExpiredContext { time, not_after } => (time, not_after),
        CertificateError::NotValidYetContext { time, not_before } => (time, not_before),
        _ => return String::new(),
    };
    let days = now.as_secs().abs_diff(then.as_secs()) / 86_400;
    let past = now.as_secs() > then.as_secs();
    match (days, past) {
        (0, true) => " today".to_owned(),
        (0, false) => ", it will be within a day".to_owned(),
        (days, true) => format!(" {days} days ago"),
        (days, false) => format!(", it will be in {days} days"),
    }
}

/// The name in `DnsName("t1.example.com")`; any other name as it stands.
fn bare(name: &str) -> &str {
    let inner = name.split_once("(\"").map(|(_, rest)| rest);
    inner
        .and_then(|rest| rest.strip_suffix("\")"))
        .unwrap_or(name)
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "the node's certificate is not accepted: {why}"),
            Self::NotTls => f.write_str("the node does not speak TLS at this port"),
            Self::Closed => f.write_str(
                "the node closed the connection in the TLS handshake: it may not speak TLS there",
            ),
            Self::Broken(error) => write!(f, "the connection broke in the TLS handshake: {error}"),
            Self::Protocol(why) => write!(f, "the TLS handshake with the node failed: {why}"),
            Self::Settings(why) => write!(f, "the node's `tls` cannot be used: {why}"),
        }
    }
}
