//! What can go wrong in an exchange with a node, told apart by what a resend may assume.

use std::{fmt, io};

use super::TlsFault;
use crate::http1;

/// Why an exchange with a node did not end with an answer.
#[derive(Debug)]
pub enum Error {
    /// The node's name stands for no address (yet).
    NoAddress,
    /// The node's machine refused the connection: nothing listens there.
    Refused(io::Error),
    /// No connection came about for another reason that lies between here and the node.
    Unreachable(io::Error),
    /// No connection came about in the time allowed.
    ConnectTimeout,
    /// The connection opened, and no TLS handshake with the node came about.
    Tls(TlsFault),
    /// This machine could not make a connection: out of file descriptors, of ports, of memory, or
    /// without the address family. It says nothing about the node.
    Local(io::Error),
    /// Too many connects to the node wait for their turn here, or for too long. It says nothing
    /// about the node.
    Queue,
    /// The request could not be handed over in full; a source of kind `TimedOut` is the deadline.
    Send {
        /// Bytes of the request that the kernel took; with 0 the node has seen nothing.
        sent: usize,
        /// What the socket said.
        source: io::Error,
    },
    /// The connection ended before any byte of an answer: closed (no source), or reset or timed
    /// out by TCP (with one).
    Closed(Option<io::Error>),
    /// The connection ended in the middle of an answer.
    Cut(Option<io::Error>),
    /// The answer began and was not complete in the time allowed.
    Stalled,
    /// What came back does not begin as HTTP (Tigase writes a bare `<stream:error>`).
    NotHttp,
    /// The answer breaks a rule of HTTP, or one of this reader's; which, in words.
    Invalid(&'static str),
    /// The head, the body, or what frames them is larger than allowed.
    TooLarge,
}

impl Error {
    /// A node that answers what it has not been asked yet.
    pub(super) const EARLY: Self = Self::Invalid("an answer before the whole request");

    /// Whether no connection came about, so that the node has seen nothing of the request.
    pub const fn is_connect(&self) -> bool {
        matches!(
            self,
            Self::NoAddress
                | Self::Refused(_)
                | Self::Unreachable(_)
                | Self::ConnectTimeout
                | Self::Tls(_)
                | Self::Local(_)
                | Self::Queue
        )
    }

    /// Whether no connection came about although nothing refused it: packets are lost, the node's
    /// machine is not there, or its certificate is at fault. The node may still have its sessions.
    pub const fn is_no_way(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::ConnectTimeout | Self::Tls(_)
        )
    }

    /// Whether the cause lies in this machine, so that the node is not to be blamed.
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Queue)
    }

    /// Whether a byte of the request may have reached the node.
    pub const fn request_left(&self) -> bool {
        match self {
            Self::Send { sent, .. } => *sent > 0,
            _ => !self.is_connect(),
        }
    }

    /// Whether a byte came back after the request was sent.
    pub const fn answer_began(&self) -> bool {
        matches!(
            self,
            Self::Cut(_) | Self::Stalled | Self::NotHttp | Self::Invalid(_) | Self::TooLarge
        )
    }

    /// The cause as a metric label: one of fourteen fixed words.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoAddress => "no_address",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::Local(_) => "local",
            Self::Queue => "queue",
            Self::Send { .. } => "send",
            Self::Closed(_) => "closed",
            Self::Cut(_) => "cut",
            Self::Stalled => "stalled",
            Self::NotHttp => "not_http",
            Self::Invalid(_) => "invalid",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("the node's name has no address"),
            Self::Refused(_) => f.write_str("the connection was refused"),
            Self::Unreachable(_) => f.write_str("the node cannot be reached"),
            Self::ConnectTimeout => f.write_str("the connection could not be opened in time"),
            Self::Tls(fault) => fault.fmt(f),
            Self::Local(_) => f.write_str("this machine could not make a connection"),
            Self::Queue => f.write_str("too many connections to the node wait to be opened"),
            Self::Send { sent, .. } => {
                write!(f, "the request could not be sent ({sent} bytes were)")
            }
            Self::Closed(None) => f.write_str("the connection was closed without an answer"),
            Self::Closed(Some(_)) => f.write_str("the connection broke without an answer"),
            Self::Cut(_) => f.write_str("the connection ended in the middle of an answer"),
            Self::Stalled => f.write_str("the answer began and did not end in time"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::Invalid(rule) => write!(f, "the answer is invalid: {rule}"),
            Self::TooLarge => f.write_str("the answer is too large"),
        }
    }
}

impl From<TlsFault> for Error {
    fn from(fault: TlsFault) -> Self {
        Self::Tls(fault)
    }
}

impl From<http1::Error> for Error {
    fn from(error: http1::Error) -> Self {
        match error {
            http1::Error::NotHttp => Self::NotHttp,
            http1::Error::Invalid(rule) => Self::Invalid(rule),
            http1::Error::TooLarge | http1::Error::TooManyTrailers => Self::TooLarge,
            http1::Error::TooManyFields => Self::Invalid("more than 100 header fields"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(source)
            | Self::Unreachable(source)
            | Self::Local(source)
            | Self::Send { source, .. }
            | Self::Closed(Some(source))
            | Self::Cut(Some(source)) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::error::Error as _;

    use super::*;

    fn all() -> Vec<Error> {
        let io = || io::Error::from(io::ErrorKind::ConnectionReset);
        vec![
            Error::NoAddress,
            Error::Refused(io()),
            Error::Unreachable(io()),
            Error::ConnectTimeout,
            Error::Tls(TlsFault::NotTls),
            Error::Local(io()),
            Error::Queue,
            Error::Send {
                sent: 0,
                source: io(),
            },
            Error::Closed(None),
            Error::Cut(Some(io())),
            Error::Stalled,
            Error::NotHttp,
            Error::Invalid("a rule"),
            Error::TooLarge,
        ]
    }

    #[test]
    fn each_cause_has_its_own_label_and_words() {
        let errors = all();
        let labels: BTreeSet<_> = errors.iter().map(Error::label).collect();
        let words: BTreeSet<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!((labels.len(), words.len()), (errors.len(), errors.len()));
    }

    #[test]
    fn an_answer_can_only_begin_after_the_request_left() {
        for error in all() {
            assert!(!error.answer_began() || error.request_left(), "{error:?}");
            assert!(!error.is_connect() || !error.request_left(), "{error:?}");
            assert!(!error.is_local() || error.is_connect(), "{error:?}");
        }
    }

    #[test]
    fn a_send_of_no_bytes_left_nothing() {
        let send = |sent| Error::Send {
            sent,
            source: io::ErrorKind::BrokenPipe.into(),
        };
        assert!(!send(0).request_left());
        assert!(send(1).request_left());
    }

    #[test]
    fn sources_are_kept() {
        let with: Vec<_> = all()
            .iter()
            .filter(|error| error.source().is_some())
            .map(Error::label)
            .collect();
        assert_eq!(with, ["refused", "unreachable", "local", "send", "cut"]);
    }
}
