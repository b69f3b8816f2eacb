//! What follows when an exchange fails: a pure table, since it decides whether a client loses a
//! session or only a few milliseconds.
//!
//! To send the same rid again to the same node is safe: the node recognises a rid that it has
//! processed (XEP-0124 §14.3).

use std::time::Duration;

use crate::cluster::NodeId;
use crate::upstream::Error;

/// How often a request is written to the node that has its session: once, and twice more.
const MOST_AT_OWN: u8 = 3;

/// How often a request is written in all for a sid that no node is known to have.
const MOST_UNKNOWN: u8 = 2;

/// How long a request waits after an error of its node before it is sent again; twice as long each
/// further time.
const PAUSE: Duration = Duration::from_millis(200);

/// Where one request was written. There may be something in it that no node survives, so it does not
/// tour the cluster: it reaches the node that has its session, and one other at most.
#[derive(Debug, Default)]
pub(super) struct Writes {
    own: Option<NodeId>,
    at_own: u8,
    other: Option<NodeId>,
}

impl Writes {
    /// Whether the request may be written to `node`. `known` says that a node is known to have its
    /// session.
    pub(super) fn may(&self, node: NodeId, known: bool) -> bool {
        if !known && self.at_own + u8::from(self.other.is_some()) >= MOST_UNKNOWN {
            return false;
        }
        match self.own {
            Some(own) if own == node => self.at_own < MOST_AT_OWN,
            Some(_) => self.other.is_none(),
            None => true,
        }
    }

    /// Notes that a byte of the request may have reached `node`.
    pub(super) fn add(&mut self, node: NodeId) {
        let own = *self.own.get_or_insert(node);
        if own == node {
            self.at_own = self.at_own.saturating_add(1);
        } else {
            self.other = Some(node);
        }
    }

    /// Whether it was written to another node than the first.
    pub(super) const fn left_its_own(&self) -> bool {
        self.other.is_some()
    }
}

/// How long a request waits before it is sent again for the `count`th time after an error of its
/// node; from 0.
pub(super) const fn pause(count: u8) -> Duration {
    let doubled = if count > 4 { 4 } else { count };
    PAUSE.saturating_mul(1 << doubled)
}

/// What is known when an exchange has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureContext {
    /// The connection had carried an exchange before, so that the node may have closed it as
    /// idle before it saw the request.
    pub reused: bool,
    /// The request has been sent again on a fresh connection already.
    pub repeated: bool,
    /// The request was `type='terminate'`.
    pub terminate: bool,
    /// Another request of the session was under way.
    pub company: bool,
    /// The session has ended meanwhile, or its client has asked for that.
    pub leaving: bool,
    /// The request may be written to this node once more.
    pub may_repeat: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryDecision {
    /// Send it again, on a new connection to the same node.
    Again,
    /// The node took no connection: another one.
    Reassign,
    /// The node or the request is at fault, and a probe of the node says which.
    Doubt,
    /// The session is over, as the client wanted.
    Terminated,
    /// The cause is this machine; the node and the session are not to suffer for it.
    Overloaded,
    /// The node answers what is not HTTP. The session cannot go on.
    InvalidResponse,
    /// This request has no answer. The session goes on.
    GiveUp,
}

/// The table of design §5.
pub(super) const fn after(error: &Error, now: FailureContext) -> RetryDecision {
    match error {
        Error::Refused(_)
        | Error::Unreachable(_)
        | Error::ConnectTimeout
        | Error::Tls(_)
        | Error::NoAddress => RetryDecision::Reassign,
        Error::Local(_) | Error::Queue => RetryDecision::Overloaded,
        // Tigase answers one of a held poll and a terminate, and closes both sockets.
        Error::Closed(_) | Error::Send { .. } if now.leaving || (now.terminate && now.company) => {
            RetryDecision::Terminated
        }
        Error::Closed(_) | Error::Send { .. }
            if now.may_repeat && (now.reused || !now.repeated) =>
        {
            RetryDecision::Again
        }
        Error::Closed(_) | Error::Send { .. } if now.terminate => RetryDecision::Terminated,
        Error::Closed(_) | Error::Send { .. } => RetryDecision::Doubt,
        Error::Cut(_) | Error::Stalled if now.may_repeat && !now.repeated => RetryDecision::Again,
        Error::Cut(_) | Error::Stalled => RetryDecision::Doubt,
        // What came may be older than the request: a node wrote it when it let go of the connection.
        Error::NotHttp | Error::Invalid(_) if now.may_repeat && now.reused => RetryDecision::Again,
        Error::NotHttp | Error::Invalid(_) => RetryDecision::InvalidResponse,
        // The same rid would bring the same answer.
        Error::TooLarge => RetryDecision::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const FIRST: FailureContext = FailureContext {
        reused: false,
        repeated: false,
        terminate: false,
        company: false,
        leaving: false,
        may_repeat: true,
    };
    const REUSED: FailureContext = FailureContext {
        reused: true,
        ..FIRST
    };
    const REPEATED: FailureContext = FailureContext {
        repeated: true,
        ..FIRST
    };
    /// As often at its node as it may be.
    const SPENT: FailureContext = FailureContext {
        may_repeat: false,
        ..FIRST
    };
    const TERMINATE: FailureContext = FailureContext {
        terminate: true,
        ..FIRST
    };

    #[test]
    fn the_table_of_the_design() {
        let refused = Error::Refused(io::ErrorKind::ConnectionRefused.into());
        let local = Error::Local(io::ErrorKind::AddrInUse.into());
        let (closed, cut) = (Error::Closed(None), Error::Cut(None));
        let (rubbish, invalid) = (Error::NotHttp, Error::Invalid("x"));
        let company = FailureContext {
            company: true,
            ..TERMINATE
        };
        let leaving = FailureContext {
            leaving: true,
            ..FIRST
        };
        let repeated_terminate = FailureContext {
            repeated: true,
            ..TERMINATE
        };
        let reused_and_spent = FailureContext {
            reused: true,
            ..SPENT
        };
        let rows = [
            (
                "refuses the connection",
                &refused,
                FIRST,
                RetryDecision::Reassign,
            ),
            (
                "closes an idle connection",
                &closed,
                REUSED,
                RetryDecision::Again,
            ),
            (
                "closes a fresh connection",
                &closed,
                FIRST,
                RetryDecision::Again,
            ),
            (
                "closes a fresh one again",
                &closed,
                REPEATED,
                RetryDecision::Doubt,
            ),
            ("closes the last one", &closed, SPENT, RetryDecision::Doubt),
            (
                "closes on a logout",
                &closed,
                company,
                RetryDecision::Terminated,
            ),
            (
                "closes when it is over",
                &closed,
                leaving,
                RetryDecision::Terminated,
            ),
            (
                "closes on a lone terminate",
                &closed,
                TERMINATE,
                RetryDecision::Again,
            ),
            (
                "closes on a lone terminate again",
                &closed,
                repeated_terminate,
                RetryDecision::Terminated,
            ),
            ("cuts an answer", &cut, FIRST, RetryDecision::Again),
            (
                "stalls in an answer",
                &Error::Stalled,
                FIRST,
                RetryDecision::Again,
            ),
            ("cuts an answer again", &cut, REPEATED, RetryDecision::Doubt),
            ("cuts the last answer", &cut, SPENT, RetryDecision::Doubt),
            (
                "writes no HTTP when idle",
                &rubbish,
                REUSED,
                RetryDecision::Again,
            ),
            (
                "writes no HTTP",
                &rubbish,
                FIRST,
                RetryDecision::InvalidResponse,
            ),
            (
                "writes no HTTP at last",
                &rubbish,
                reused_and_spent,
                RetryDecision::InvalidResponse,
            ),
            (
                "writes bad HTTP when idle",
                &invalid,
                REUSED,
                RetryDecision::Again,
            ),
            (
                "writes bad HTTP",
                &invalid,
                FIRST,
                RetryDecision::InvalidResponse,
            ),
            ("is not to blame", &local, FIRST, RetryDecision::Overloaded),
            (
                "waits for too many connects of ours",
                &Error::Queue,
                FIRST,
                RetryDecision::Overloaded,
            ),
            (
                "writes too much",
                &Error::TooLarge,
                REUSED,
                RetryDecision::GiveUp,
            ),
        ];
        for (what, error, now, expected) in rows {
            assert_eq!(after(error, now), expected, "a node that {what}");
        }
    }

    #[test]
    fn a_request_reaches_its_own_node_three_times_and_another_once() {
        let (own, other, third) = (NodeId(4), NodeId(0), NodeId(2));
        let mut writes = Writes::default();
        for _ in 0..3 {
            assert!(writes.may(own, true) && !writes.left_its_own());
            writes.add(own);
        }
        assert!(!writes.may(own, true));
        assert!(writes.may(other, true) && writes.may(third, true));
        writes.add(other);
        assert!(writes.left_its_own());
        for node in [own, other, third] {
            assert!(!writes.may(node, true));
        }
    }

    #[test]
    fn a_request_may_come_back_to_its_own_node() {
        let mut writes = Writes::default();
        writes.add(NodeId(1));
        writes.add(NodeId(2));
        assert!(writes.may(NodeId(1), true));
        assert!(!writes.may(NodeId(2), true) && !writes.may(NodeId(3), true));
    }

    #[test]
    fn a_request_of_an_unknown_session_is_written_twice() {
        for second in [NodeId(1), NodeId(2)] {
            let mut writes = Writes::default();
            assert!(writes.may(NodeId(1), false));
            writes.add(NodeId(1));
            assert!(writes.may(second, false));
            writes.add(second);
            assert!(!writes.may(NodeId(1), false) && !writes.may(NodeId(2), false));
        }
    }

    #[test]
    fn pauses_grow_and_stay_short() {
        let millis = |count| pause(count).as_millis();
        assert_eq!([millis(0), millis(1), millis(2)], [200, 400, 800]);
        assert_eq!(millis(255), 3200);
    }
}
