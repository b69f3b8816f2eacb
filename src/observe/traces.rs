//! Traces: what a request spent its time with, told to an OpenTelemetry collector.
//!
//! Only with the cargo feature `otlp`; without it everything here is empty, takes no room and
//! generates no code. Owns spans and their way out, and knows nothing of sessions: whoever tells
//! it something leaves out the sid.

#[cfg(not(feature = "otlp"))]
#[path = "traces/absent.rs"]
mod imp;
#[cfg(feature = "otlp")]
#[path = "traces/otlp.rs"]
mod imp;

pub use imp::{Parent, Trace, Traces};

/// What a request spends a while with: a span within that of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its session's turn, or for a node.
    Queue,
    /// A connection to its node is being opened, or waits for its turn to be.
    Connect,
    /// It is at its node.
    Exchange,
    /// None of these.
    Other,
}

/// How a request ended, for its span.
#[derive(Debug)]
pub struct SpanEnd<'a> {
    /// What the request was.
    pub kind: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// Its end state.
    pub state: &'static str,
    /// Why the balancer answered in a node's place.
    pub cause: Option<&'static str>,
    /// The HTTP status; 0 for none.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The version of HTTP.
    pub protocol: &'static str,
    /// The version of TLS, if the client spoke TLS.
    pub tls: Option<&'static str>,
    /// The node that answered.
    pub node: Option<&'a str>,
    /// The session, as the log names it.
    pub session: Option<&'a str>,
}
