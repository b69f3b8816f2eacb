//! What follows when an exchange fails: a pure table, since it decides whether a client loses a
//! session or only a few milliseconds.
//!
//! To send the same rid again to the same node is safe: the node recognises a rid that it has
//! processed (XEP-0124 §14.3).

use crate::upstream::Error;

/// How often one request is sent to nodes that let go of it without an answer. There may be something in
/// it that no node survives. Enough for a node that stops, and takes connections for a moment still.
pub(super) const MOST_SENT: u8 = 16;

/// The same for a sid that no node is known to have: once, and once more.
pub(super) const MOST_SENT_UNKNOWN: u8 = 2;

/// What is known when an exchange has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The connection had carried an exchange before, so that the node may have closed it as
    /// idle before it saw the request.
    pub reused: bool,
    /// The request has been sent again on a fresh connection already.
    pub repeated: bool,
    /// The request was `type='terminate'`.
    pub terminate: bool,
    /// Another request of the session was under way.
    pub company: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again, on a new connection to the same node.
    Again,
    /// The node is no good: another one.
    Reassign,
    /// The session is over, as the client wanted.
    Terminated,
    /// The cause is this machine; the node and the session are not to suffer for it.
    Overloaded,
    /// The node answers what nobody can pass on.
    Garbage,
}

/// The table of design §5.
pub(super) const fn after(error: &Error, now: Circumstances) -> Next {
    match error {
        Error::Refused(_) | Error::Unreachable(_) | Error::ConnectTimeout | Error::NoAddress => {
            Next::Reassign
        }
        Error::Local(_) | Error::Queue => Next::Overloaded,
        // Tigase answers the held poll and closes both sockets.
        Error::Closed(_) | Error::Send { .. } if now.terminate && now.company => Next::Terminated,
        Error::Closed(_) | Error::Send { .. } if now.reused || !now.repeated => Next::Again,
        Error::Closed(_) | Error::Send { .. } if now.terminate => Next::Terminated,
        Error::Closed(_) | Error::Send { .. } => Next::Reassign,
        Error::Cut(_) | Error::Stalled if !now.repeated => Next::Again,
        Error::Cut(_) | Error::Stalled => Next::Reassign,
        Error::NotHttp | Error::Invalid(_) | Error::TooLarge => Next::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const FIRST: Circumstances = Circumstances {
        reused: false,
        repeated: false,
        terminate: false,
        company: false,
    };

    fn refused() -> Error {
        Error::Refused(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn the_table_of_the_design() {
        let closed = Error::Closed(None);
        let rows = [
            ("refuses the connection", &refused(), FIRST, Next::Reassign),
            (
                "closes a reused idle connection",
                &closed,
                Circumstances {
                    reused: true,
                    ..FIRST
                },
                Next::Again,
            ),
            (
                "closes a fresh connection with no answer",
                &closed,
                FIRST,
                Next::Again,
            ),
            (
                "closes a fresh connection again",
                &closed,
                Circumstances {
                    repeated: true,
                    ..FIRST
                },
                Next::Reassign,
            ),
            (
                "closes with no answer to a terminate, a poll is held",
                &closed,
                Circumstances {
                    reused: true,
                    terminate: true,
                    company: true,
                    ..FIRST
                },
                Next::Terminated,
            ),
            (
                "closes with no answer to a lonely terminate",
                &closed,
                Circumstances {
                    terminate: true,
                    ..FIRST
                },
                Next::Again,
            ),
            (
                "closes with no answer to a lonely terminate again",
                &closed,
                Circumstances {
                    terminate: true,
                    repeated: true,
                    ..FIRST
                },
                Next::Terminated,
            ),
            ("cuts an answer", &Error::Cut(None), FIRST, Next::Again),
            ("stalls in an answer", &Error::Stalled, FIRST, Next::Again),
            (
                "cuts an answer again",
                &Error::Cut(None),
                Circumstances {
                    repeated: true,
                    ..FIRST
                },
                Next::Reassign,
            ),
            (
                "writes bytes that are no HTTP",
                &Error::NotHttp,
                FIRST,
                Next::Garbage,
            ),
            (
                "writes invalid HTTP",
                &Error::Invalid("x"),
                FIRST,
                Next::Garbage,
            ),
            (
                "is not to blame",
                &Error::Local(io::ErrorKind::AddrInUse.into()),
                FIRST,
                Next::Overloaded,
            ),
            (
                "waits for too many connects of ours",
                &Error::Queue,
                FIRST,
                Next::Overloaded,
            ),
            ("writes too much", &Error::TooLarge, FIRST, Next::Garbage),
        ];
        for (what, error, now, expected) in rows {
            assert_eq!(after(error, now), expected, "a node that {what}");
        }
    }
}
