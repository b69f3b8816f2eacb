//! Why a probe failed, in the words that the log and the admin endpoints show.

use std::time::Duration;
use std::{fmt, io};

/// Why a probe failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The host name stands for no address, or nobody could say for which.
    Unresolved(io::Error),
    /// The name service did not answer in time.
    ResolverSilent(Duration),
    /// No connection could be opened; the error of the last address tried.
    Connect(io::Error),
    /// The connection did not open in time.
    ConnectTimeout(Duration),
    /// The request could not be written down, which the configuration should have prevented.
    Request(hyper::http::Error),
    /// The connection opened, but no whole answer came in time.
    NoAnswer(Duration),
    /// The node closed the connection before a whole answer.
    Closed,
    /// What came is not HTTP.
    NotHttp,
    /// Anything else that went wrong while asking.
    Exchange(hyper::Error),
    /// The answer is larger than a probe's answer can be.
    TooLarge,
    /// An answer with a status of 400 or above (probe `http`).
    Status(u16),
    /// An answer with this status that holds no BOSH wrapper (probe `bosh`).
    NoWrapper(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(error) => write!(f, "host name not resolved: {error}"),
            Self::ResolverSilent(limit) => write!(f, "host name not resolved within {limit:?}"),
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("connection refused")
            }
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::ConnectTimeout(limit) => write!(f, "no connection within {limit:?}"),
            Self::Request(error) => write!(f, "the probe cannot be written: {error}"),
            Self::NoAnswer(limit) => write!(f, "no answer within {limit:?}"),
            Self::Closed => f.write_str("connection closed with no answer"),
            Self::NotHttp => f.write_str("answer is no HTTP"),
            Self::Exchange(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => write!(f, "{error}"),
            },
            Self::TooLarge => f.write_str("answer is too large"),
            Self::Status(status) => write!(f, "answer has status {status}"),
            Self::NoWrapper(status) => {
                write!(f, "answer is no BOSH wrapper (status {status})")
            }
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_status() {
            Self::NotHttp
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Self::Closed
        } else {
            Self::Exchange(error)
        }
    }
}
