//! Why a probe failed, in the words that the log and the admin endpoints show.

use std::time::Duration;
use std::{fmt, io};

use super::verdict::Outcome;
use crate::upstream;

/// Why a probe failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The host name has no address, or the name service failed.
    Unresolved(io::Error),
    /// The name service did not answer in time.
    ResolverSilent(Duration),
    /// No connection could be opened, or the exchange on it failed.
    Upstream(upstream::Error),
    /// The connection did not open in time.
    ConnectTimeout(Duration),
    /// The request could not be written down, which the configuration should have prevented.
    Request,
    /// The connection opened, but no whole answer came in time.
    NoAnswer(Duration),
    /// The exchange of probe `http` failed.
    Http(hyper::Error),
    /// An answer with a status of 400 or above (probe `http`).
    Status(u16),
    /// An answer with this status that holds no BOSH wrapper (probe `bosh`).
    NoWrapper(u16),
}

impl Failure {
    /// The cause as a metric label: one of [`crate::observe::metrics::PROBE_FAILURES`].
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Unresolved(_) | Self::ResolverSilent(_) => "unresolved",
            Self::Upstream(error) => error.label(),
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::NoAnswer(_) => "no_answer",
            Self::Http(_) => "not_http",
            Self::Status(_) => "status",
            Self::NoWrapper(_) => "no_wrapper",
            Self::Request => "other",
        }
    }

    /// Whether the cause lies here, so that it says nothing about the address.
    pub(super) const fn is_ours(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_local(),
            Self::Request => true,
            _ => false,
        }
    }
}

impl Failure {
    /// What it says of the node.
    pub(super) const fn outcome(&self) -> Outcome {
        use upstream::Error;
        match self {
            Self::NoAnswer(_) | Self::ConnectTimeout(_) | Self::Unresolved(_) => Outcome::Silent,
            Self::ResolverSilent(_) | Self::Request => Outcome::Silent,
            Self::Upstream(error) => match error {
                Error::ConnectTimeout | Error::Unreachable(_) | Error::Stalled => Outcome::Silent,
                Error::NoAddress | Error::Local(_) | Error::Queue => Outcome::Silent,
                Error::Refused(_) | Error::Send { .. } | Error::Closed(_) | Error::Cut(_) => {
                    Outcome::Gone
                }
                Error::Tls(_) | Error::NotHttp | Error::Invalid(_) | Error::TooLarge => {
                    Outcome::Faulty
                }
            },
            // The probe `http` tells no more.
            Self::Http(_) => Outcome::Gone,
            Self::Status(_) | Self::NoWrapper(_) => Outcome::Faulty,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(error) => write!(f, "host name not resolved: {error}"),
            Self::ResolverSilent(limit) => write!(f, "host name not resolved within {limit:?}"),
            Self::Upstream(error) => write!(f, "{error}"),
            Self::ConnectTimeout(limit) => write!(f, "no connection within {limit:?}"),
            Self::Request => f.write_str("the probe's path or host cannot be written down"),
            Self::NoAnswer(limit) => write!(f, "no answer within {limit:?}"),
            Self::Http(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => write!(f, "{error}"),
            },
            Self::Status(status) => write!(f, "the answer has status {status}"),
            Self::NoWrapper(status) => {
                write!(f, "the answer is not a BOSH wrapper (status {status})")
            }
        }
    }
}

impl From<upstream::Error> for Failure {
    fn from(error: upstream::Error) -> Self {
        Self::Upstream(error)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}
