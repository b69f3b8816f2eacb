//! The wrappers that the balancer writes itself.
//!
//! Owns the conditions of XEP-0124 §17.2, the bytes of a terminate and those of an empty wrapper. Never writes `type='error'`:
//! Strophe.js does not know it, and loses what it sent. Never writes anything that a client said.

use bytes::Bytes;

/// Why a session is over (XEP-0124 §17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The request is not one that the binding allows.
    BadRequest,
    /// The domain is no longer served.
    HostGone,
    /// The domain is not known. Converse.js stops for good on it.
    HostUnknown,
    /// `to` is missing or empty.
    ImproperAddressing,
    /// An error inside.
    InternalServerError,
    /// The session is not known (any more); clients log in again at once.
    ItemNotFound,
    /// Another request of the session failed.
    OtherRequest,
    /// The client broke a rule of the session.
    PolicyViolation,
    /// The domain could not be reached. Converse.js stops for good on it.
    RemoteConnectionFailed,
    /// An error of the XMPP stream, which the payload has to tell.
    RemoteStreamError,
    /// The client shall go elsewhere, which the payload has to tell.
    SeeOtherUri,
    /// The service is going down.
    SystemShutdown,
    /// None of the others.
    UndefinedCondition,
}

/// A terminate wrapper: one literal, so that it costs nothing to send.
macro_rules! terminate {
    () => {
        "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate'/>"
    };
    ($condition:literal) => {
        concat!(
            "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='",
            $condition,
            "'/>"
        )
    };
}

/// The condition's name and its wrapper.
macro_rules! rows {
    ($($condition:ident => $name:literal,)*) => {
        impl Condition {
            /// Every condition, in the order of XEP-0124 §17.2.
            pub const ALL: &[Self] = &[$(Self::$condition,)*];

            /// The value of the `condition` attribute.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$condition => $name,)*
                }
            }

            const fn wrapper(self) -> &'static str {
                match self {
                    $(Self::$condition => terminate!($name),)*
                }
            }
        }
    };
}

rows! {
    BadRequest => "bad-request",
    HostGone => "host-gone",
    HostUnknown => "host-unknown",
    ImproperAddressing => "improper-addressing",
    InternalServerError => "internal-server-error",
    ItemNotFound => "item-not-found",
    OtherRequest => "other-request",
    PolicyViolation => "policy-violation",
    RemoteConnectionFailed => "remote-connection-failed",
    RemoteStreamError => "remote-stream-error",
    SeeOtherUri => "see-other-uri",
    SystemShutdown => "system-shutdown",
    UndefinedCondition => "undefined-condition",
}

/// The body of an answer that says nothing: the client asks again at once (XEP-0124 §9). Static
/// bytes: nothing is allocated.
#[must_use]
pub const fn empty() -> Bytes {
    Bytes::from_static(b"<body xmlns='http://jabber.org/protocol/httpbind'/>")
}

/// The body of an answer that ends a session, with or without a reason (XEP-0124 §13, §17.2).
/// Static bytes: nothing is allocated.
#[must_use]
pub fn terminate(condition: Option<Condition>) -> Bytes {
    let wrapper = condition.map_or(terminate!(), Condition::wrapper);
    Bytes::from_static(wrapper.as_bytes())
}
