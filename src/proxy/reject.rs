//! The answers that the balancer writes itself: one table from the cause to what the client sees,
//! what is counted, and how loudly it is logged.
//!
//! The codes and conditions are those on which real clients recover fastest. A session that cannot
//! go on gets 200 with `item-not-found`: Strophe and Converse log in again within a second, where
//! a bare 502 costs them nine. Never `remote-connection-failed`, on which Converse stops for good;
//! never `type='error'`, on which Strophe loses stanzas.

use bytes::Bytes;
use tracing::Level;

use crate::bosh::{self, Condition};

/// Why the balancer answers in a node's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The body is no wrapper, or breaks a rule of XEP-0124.
    Malformed,
    /// The request head is not what RFC 9112 allows.
    BadHead,
    /// The body has a content coding.
    Coding,
    /// The body is larger than `bosh.max_body`.
    TooLarge,
    /// The body did not arrive within `timeouts.body`.
    BodyTimeout,
    /// The bodies that are coming take `limits.body_memory` already.
    BodyMemory,
    /// No BOSH path.
    NotFound,
    /// A method other than `POST`, `GET`, `HEAD` and `OPTIONS`.
    Method,
    /// No node was up within `placement_wait`.
    NoNode,
    /// The table of sessions is full.
    Full,
    /// Every node that takes new sessions has as many as its `max_sessions`.
    NodesFull,
    /// The client asks for sessions faster than `limits.creations_per_client`.
    CreationRate,
    /// A node said a moment ago that it does not know the sid.
    UnknownSid,
    /// The sid has no pin, and `limits.unknown_sids_per_second` or `…_per_client` is used up.
    UnknownBudget,
    /// This machine could open no connection: out of file descriptors or ports. The session stays
    /// where it is.
    Overloaded,
    /// No node gave a creation an answer that can be passed on.
    CreationFailed,
    /// A node answered a creation with the sid of another session, which may be its own.
    SidConflict,
    /// The session's node is gone, or did not answer, and no other could take the session.
    SessionLost,
    /// The operator has ended the session.
    SessionClosed,
    /// The session's node answered with something that is not HTTP, or with another session's sid.
    InvalidResponse,
    /// A node answered with an error of HTTP and no wrapper, as often as it was asked. The session
    /// stays where it is.
    NodeError,
    /// The request was at its nodes as often as it may be, or cannot be answered. Its session goes
    /// on without it.
    RequestFailed,
    /// Too many requests of one session at the same time.
    TooMany,
    /// A request on a WebSocket path that asks for no upgrade to WebSocket, or for another version
    /// than 13.
    NoUpgrade,
    /// An upgrade to WebSocket that breaks a rule of RFC 6455, or does not offer `xmpp`.
    BadUpgrade,
    /// An upgrade from a page of an origin that is not in `cors.origins`.
    Origin,
    /// An upgrade while the balancer stops: its tunnel would end at once.
    Stopping,
}

/// What one cause means.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The HTTP status.
    pub status: u16,
    /// The HTTP status for a client that named no `ver` (XEP-0124 §17.2's older codes).
    pub legacy_status: u16,
    /// The condition of the wrapper; none for an empty one, which ends nothing.
    pub condition: Option<Condition>,
    /// The label in `bowline_rejects_total`.
    pub label: &'static str,
    /// How loudly it is logged.
    pub level: Level,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u8>,
    /// Whether the connection's rest cannot be trusted or is not worth reading.
    pub close: bool,
}

impl Cause {
    /// The row of the table.
    pub const fn row(self) -> Row {
        use Condition::{
            BadRequest, InternalServerError, ItemNotFound, PolicyViolation, SystemShutdown,
            UndefinedCondition,
        };
        match self {
            Self::Malformed => row(400, BadRequest, "malformed"),
            Self::BadHead => row(400, BadRequest, "bad_head").closing(),
            Self::Coding => row(415, BadRequest, "coding").closing(),
            Self::TooLarge => row(413, PolicyViolation, "too_large").closing(),
            Self::BodyTimeout => row(408, BadRequest, "body_timeout").closing(),
            Self::BodyMemory => row(503, SystemShutdown, "body_memory")
                .retrying(1)
                .closing(),
            Self::NotFound => row(404, BadRequest, "not_found").closing(),
            Self::Method => row(405, BadRequest, "method").closing(),
            Self::NoNode => row(503, SystemShutdown, "no_node").retrying(2),
            Self::Full => row(503, SystemShutdown, "full").retrying(5),
            Self::NodesFull => row(503, SystemShutdown, "nodes_full").retrying(5),
            Self::CreationRate => row(503, PolicyViolation, "creation_rate").retrying(5),
            Self::UnknownSid => row(200, ItemNotFound, "unknown_sid").legacy(404),
            Self::UnknownBudget => row(200, ItemNotFound, "unknown_budget").legacy(404),
            Self::Overloaded => row(503, SystemShutdown, "overloaded").retrying(1),
            Self::CreationFailed => row(200, InternalServerError, "creation_failed").legacy(503),
            Self::SidConflict => row(200, InternalServerError, "sid_conflict")
                .legacy(503)
                .loud(),
            Self::SessionLost => row(200, ItemNotFound, "session_lost").legacy(404),
            Self::SessionClosed => row(200, ItemNotFound, "session_closed").legacy(404),
            Self::InvalidResponse => row(200, ItemNotFound, "node_garbage").legacy(404),
            // Strophe sends the same rid again, and does not read the wrapper.
            Self::NodeError => row(503, SystemShutdown, "node_error").retrying(2),
            // The only answer after which every client goes on with its session: a 4xx or 5xx, or a
            // condition, ends it at some of them.
            Self::RequestFailed => Row {
                condition: None,
                ..row(200, UndefinedCondition, "request_failed")
            },
            Self::TooMany => row(200, PolicyViolation, "too_many").legacy(403),
            Self::NoUpgrade => row(426, BadRequest, "no_upgrade"),
            Self::BadUpgrade => row(400, BadRequest, "bad_upgrade").closing(),
            Self::Origin => row(403, PolicyViolation, "origin").closing(),
            Self::Stopping => row(503, SystemShutdown, "stopping").retrying(1).closing(),
        }
    }

    /// The wrapper.
    pub fn wrapper(self) -> Bytes {
        match self.row().condition {
            Some(condition) => bosh::terminate(Some(condition)),
            None => bosh::empty(),
        }
    }
}

const fn row(status: u16, condition: Condition, label: &'static str) -> Row {
    Row {
        status,
        legacy_status: status,
        condition: Some(condition),
        label,
        level: Level::DEBUG,
        retry_after: None,
        close: false,
    }
}

impl Row {
    const fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }

    const fn legacy(self, legacy_status: u16) -> Self {
        Self {
            legacy_status,
            ..self
        }
    }

    const fn retrying(self, seconds: u8) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    const fn loud(self) -> Self {
        Self {
            level: Level::WARN,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Cause; 27] = [
        Cause::Malformed,
        Cause::BadHead,
        Cause::Coding,
        Cause::TooLarge,
        Cause::BodyTimeout,
        Cause::BodyMemory,
        Cause::NotFound,
        Cause::Method,
        Cause::NoNode,
        Cause::Full,
        Cause::NodesFull,
        Cause::CreationRate,
        Cause::UnknownSid,
        Cause::UnknownBudget,
        Cause::Overloaded,
        Cause::CreationFailed,
        Cause::SidConflict,
        Cause::SessionLost,
        Cause::SessionClosed,
        Cause::InvalidResponse,
        Cause::NodeError,
        Cause::RequestFailed,
        Cause::TooMany,
        Cause::NoUpgrade,
        Cause::BadUpgrade,
        Cause::Origin,
        Cause::Stopping,
    ];

    #[test]
    fn no_answer_has_a_condition_on_which_a_client_gives_up() {
        for cause in ALL {
            let wrapper = String::from_utf8(cause.wrapper().to_vec()).unwrap();
            let ends = wrapper.contains("type='terminate'");
            assert_eq!(ends, cause != Cause::RequestFailed, "{cause:?}: {wrapper}");
            for never in ["remote-connection-failed", "host-unknown", "type='error'"] {
                assert!(!wrapper.contains(never), "{cause:?}: {wrapper}");
            }
        }
    }

    #[test]
    fn a_lost_session_is_a_clean_terminate() {
        for cause in [
            Cause::SessionLost,
            Cause::SessionClosed,
            Cause::InvalidResponse,
        ] {
            assert_eq!(cause.row().status, 200);
            assert_eq!(cause.row().legacy_status, 404);
            assert_eq!(cause.row().condition, Some(Condition::ItemNotFound));
        }
    }

    #[test]
    fn what_leaves_the_session_where_it_is_ends_it_at_no_client() {
        for cause in [Cause::NodeError, Cause::Overloaded] {
            for status in [cause.row().status, cause.row().legacy_status] {
                assert_eq!(status, 503, "{cause:?}");
            }
            assert!(cause.row().retry_after.is_some(), "{cause:?}");
        }
        let row = Cause::RequestFailed.row();
        assert_eq!((row.status, row.legacy_status), (200, 200));
        assert_eq!(Cause::RequestFailed.wrapper(), bosh::empty());
    }

    #[test]
    fn every_label_is_counted() {
        let known = crate::observe::metrics::CAUSES;
        assert!(ALL.iter().all(|cause| known.contains(&cause.row().label)));
        assert_eq!(known.len(), ALL.len() + 1);
        let conditions = crate::observe::metrics::CONDITIONS;
        for condition in Condition::ALL {
            assert!(conditions.contains(&condition.as_str()), "{condition:?}");
        }
    }

    #[test]
    fn labels_are_unique() {
        let mut labels: Vec<_> = ALL.iter().map(|cause| cause.row().label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ALL.len());
    }
}
