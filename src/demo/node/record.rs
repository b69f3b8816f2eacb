//! What a simulated node saw: one entry per request, in the order of arrival.

use bytes::Bytes;
use tokio::time::Instant;

/// What a request was, as the node understood it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A wrapper without a sid.
    Create,
    /// An empty wrapper of a session.
    Poll,
    /// A wrapper with stanzas, or one that restarts the stream.
    Send,
    /// A wrapper with `type='terminate'`.
    Terminate,
    /// An HTTP `GET` or `HEAD`.
    Get,
    /// An HTTP `OPTIONS`.
    Options,
    /// Bytes that the node could not read.
    Unreadable,
}

/// What became of a request when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Taken: answered, or held until there is something to answer.
    Served,
    /// Answered with a refusal: an unknown sid, a wrong rid, an unknown host.
    Refused,
    /// Recognised as a repetition; its stanzas were not run again.
    Repeated,
    /// Arrived too soon behind an unanswered one of its session: run, and never answered.
    TooClose,
    /// Met by the named misbehaviour before the session saw it.
    Misbehaved(&'static str),
}

/// One request as the node saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its last byte was read.
    pub when: Instant,
    /// The number of its connection: unique in the node's cluster, in the order of accepting.
    pub connection: u64,
    /// Whether an earlier request had come over the same connection.
    pub reused: bool,
    /// Whether bytes of a further request came before this one was answered.
    pub followed: bool,
    /// The sid that it named.
    pub sid: Option<String>,
    /// The rid that it named, where that is a number.
    pub rid: Option<u64>,
    /// What it was.
    pub kind: Kind,
    /// Its bytes, head and body.
    pub raw: Bytes,
    /// What became of it.
    pub fate: Fate,
}

impl Seen {
    /// Its bytes as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }
}
