//! What requests and counts are told apart by: every label and every value that it may have.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// What a request is, as far as metrics and logs tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No sid: a new session is asked for.
    Creation,
    /// An empty wrapper of a session.
    Poll,
    /// A wrapper with stanzas.
    Send,
    /// `type='terminate'`.
    Terminate,
    /// `xmpp:restart='true'`.
    Restart,
    /// An upgrade to WebSocket.
    WebSocket,
    /// `OPTIONS`.
    Preflight,
    /// What never became a BOSH request: other methods, other paths, malformed.
    Other,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Creation,
        Self::Poll,
        Self::Send,
        Self::Terminate,
        Self::Restart,
        Self::WebSocket,
        Self::Preflight,
        Self::Other,
    ];

    /// The value of the label `kind`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Poll => "poll",
            Self::Send => "send",
            Self::Terminate => "terminate",
            Self::Restart => "restart",
            Self::WebSocket => "websocket",
            Self::Preflight => "preflight",
            Self::Other => "other",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client got the answer of a node, or what it asked of the balancer itself.
    Ok,
    /// The client got an answer of the balancer in place of a node's.
    Rejected,
    /// The client went away before there was an answer.
    ClientGone,
    /// The balancer ended before there was an answer.
    Cut,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] = [Self::Ok, Self::Rejected, Self::ClientGone, Self::Cut];

    /// The value of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
        }
    }
}

/// The causes of the balancer's own answers, as `proxy` labels them.
pub const CAUSES: &[&str] = &[
    "malformed",
    "bad_head",
    "coding",
    "too_large",
    "body_timeout",
    "body_memory",
    "not_found",
    "method",
    "no_node",
    "full",
    "nodes_full",
    "creation_rate",
    "unknown_sid",
    "unknown_budget",
    "overloaded",
    "creation_failed",
    "sid_conflict",
    "session_lost",
    "session_closed",
    "node_garbage",
    "node_error",
    "request_failed",
    "too_many",
    "no_upgrade",
    "bad_upgrade",
    "origin",
    "stopping",
    "other",
];

/// Why WebSocket tunnels end, as `proxy` labels it.
pub const TUNNEL_ENDS: &[&str] = &[
    "client_closed",
    "client_gone",
    "client_silent",
    "client_slow",
    "client_invalid",
    "node_closed",
    "node_gone",
    "node_down",
    "node_slow",
    "node_invalid",
    "maint",
    "stop",
    "cut",
    "other",
];

/// Why sessions end: the conditions of XEP-0124 §17.2, and none.
pub const CONDITIONS: &[&str] = &[
    "none",
    "bad-request",
    "host-gone",
    "host-unknown",
    "improper-addressing",
    "internal-server-error",
    "item-not-found",
    "other-request",
    "policy-violation",
    "remote-connection-failed",
    "remote-stream-error",
    "see-other-uri",
    "system-shutdown",
    "undefined-condition",
    "other",
];

/// Why probes fail, as `health` and `upstream` label it.
pub const PROBE_FAILURES: &[&str] = &[
    "unresolved",
    "refused",
    "unreachable",
    "connect_timeout",
    "tls",
    "local",
    "no_answer",
    "closed",
    "cut",
    "status",
    "no_wrapper",
    "not_http",
    "other",
];

/// Why the admin listener refuses a request.
pub(super) const ADMIN_REFUSALS: &[&str] =
    &["token", "role", "host", "origin", "listeners", "other"];

/// How handshakes of TLS end.
pub(super) const HANDSHAKES: &[&str] = &[
    "full", "resumed", "failed", "timeout", "not_tls", "closed", "other",
];

/// What becomes of a PROXY header, or of its absence.
pub(super) const PROXY_HEADERS: &[&str] = &[
    "client",
    "no_client",
    "missing",
    "malformed",
    "closed",
    "timeout",
    "refused",
];

/// How reloads of certificates end.
pub(super) const CERTIFICATE_RELOADS: &[&str] = &["ok", "failed"];

/// The tables whose size is told.
pub(super) const TABLES: &[&str] = &["sessions", "addresses"];

/// The operator's states, in the order of their numbers.
pub(super) const STATES: &[&str] = &["ready", "drain", "maint"];

/// What the probes say of a node, in the order of the verdicts' numbers.
pub(super) const VERDICTS: &[&str] = &["unknown", "up", "silent", "held_back", "down"];

/// A label value that is known when the program is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FixedLabel(pub(super) &'static str);

impl EncodeLabelValue for FixedLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) kind: FixedLabel,
    pub(super) outcome: FixedLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CertificateLabels {
    pub(super) listener: String,
    pub(super) certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct NodeLabels {
    pub(super) node: String,
}

/// Defines label sets of a node and one more label with fixed values.
macro_rules! node_and {
    ($($set:ident: $label:ident;)*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $set {
            pub(super) node: String,
            pub(super) $label: FixedLabel,
        }

        impl $set {
            pub(super) fn new(node: &str, value: &'static str) -> Self {
                Self { node: node.to_owned(), $label: FixedLabel(value) }
            }
        }
    )*};
}

node_and! {
    NodeOutcome: outcome;
    NodeState: state;
    NodeVerdict: verdict;
    NodeReason: reason;
    NodeCause: cause;
}

/// Defines label sets of one label with fixed values.
macro_rules! one {
    ($($set:ident: $label:ident;)*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $set {
            pub(super) $label: FixedLabel,
        }

        impl From<&'static str> for $set {
            fn from(value: &'static str) -> Self {
                Self { $label: FixedLabel(value) }
            }
        }
    )*};
}

one! {
    CauseLabels: cause;
    ConditionLabels: condition;
    ReasonLabels: reason;
    ResultLabels: result;
    TableLabels: table;
}

/// What program this is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BuildLabels {
    version: FixedLabel,
    os: FixedLabel,
    arch: FixedLabel,
}

impl BuildLabels {
    pub(super) const fn of_this_program() -> Self {
        Self {
            version: FixedLabel(env!("CARGO_PKG_VERSION")),
            os: FixedLabel(std::env::consts::OS),
            arch: FixedLabel(std::env::consts::ARCH),
        }
    }
}
