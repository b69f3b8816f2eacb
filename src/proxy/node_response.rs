//! What an answer says, and the form in which it is passed on.

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use tracing::warn;

use super::answer::Answer;
use super::shared::Proxy;
use crate::bosh::{self, AttributeRange, Condition, Malformed};
use crate::cluster::Node;
use crate::config::HostAttribute;
use crate::upstream;

/// What a node's answer is.
pub(super) enum NodeResponse<'a> {
    /// A wrapper, with whatever HTTP status.
    Wrapper(bosh::Response<'a>),
    /// One of the HTTP codes that XEP-0124 had before conditions (400, 403, 404).
    LegacyCode(u16),
    /// Another code of 4xx and no wrapper: the request itself is at fault.
    Refused(Malformed),
    /// No wrapper. The node, or a proxy in front of it, could not answer just now: 408, 429, 5xx, or
    /// a page of another kind.
    Error(Malformed),
}

/// Reads the wrapper's start tag.
pub(super) fn read(answer: &upstream::Response) -> NodeResponse<'_> {
    match (bosh::read_response(&answer.body), answer.status) {
        (Ok(wrapper), _) => NodeResponse::Wrapper(wrapper),
        (Err(_), status @ (400 | 403 | 404)) => NodeResponse::LegacyCode(status),
        (Err(malformed), 408 | 429) => NodeResponse::Error(malformed),
        (Err(malformed), 400..=499) => NodeResponse::Refused(malformed),
        (Err(malformed), _) => NodeResponse::Error(malformed),
    }
}

/// Notes at `node` that it gave an answer without a wrapper, and asks for a probe at once.
pub(super) fn no_wrapper(node: &Node, status: u16, malformed: Malformed) {
    let what = format!("answered {status} without a wrapper: {malformed}");
    node.metrics.exchange_failures.inc();
    node.suspect(what, SystemTime::now());
}

/// A node answers one session's request with the sid of another. It may have
/// mixed up their stanzas as well, so nothing of the response goes to the client.
pub(super) fn refuse_foreign(node: &Node) {
    const WHAT: &str = "answered with another session's sid";
    // Once, and not for each request, until something else goes wrong there.
    if node.last_failure().is_none_or(|last| last.what != WHAT) {
        warn!(node = %node.name, "a node {WHAT}");
    }
    node.metrics.exchange_failures.inc();
    node.suspect(WHAT, SystemTime::now());
}

/// The node's answer for the client. A wrapper goes out with 200, as XEP-0124 §17.1 asks, whatever
/// HTTP status its node gave it (Tigase: 404 for an unknown sid, at which Strophe gives up); only
/// a client that named no `ver` gets the status as it is.
pub(super) fn pass_on(answer: upstream::Response, legacy: bool) -> Answer {
    Answer {
        status: if legacy { answer.status } else { 200 },
        content_type: answer.content_type,
        fields: answer.fields,
        ..Answer::ok(answer.body)
    }
}

impl Proxy {
    /// A node's answer without the name of its host, or with the one that clients are to know.
    pub(super) fn hide_host(&self, body: Bytes, host: Option<&AttributeRange>) -> Bytes {
        let Some(host) = host else {
            return body;
        };
        match &self.live().host_attribute {
            HostAttribute::Pass => body,
            HostAttribute::Strip => bosh::without(body, &host.whole),
            HostAttribute::Rewrite(name) => bosh::with(&body, &host.value, name.as_bytes()),
        }
    }

    /// The same for the answer to a creation, which loses `accept` as well: that invites compressed
    /// requests (XEP-0124 §7.2), which no node here could read.
    pub(super) fn without_invitations(
        &self,
        body: Bytes,
        host: Option<&AttributeRange>,
        accept: Option<&Range<usize>>,
    ) -> Bytes {
        let Some(accept) = accept else {
            return self.hide_host(body, host);
        };
        // What stands further back goes first, so that the other place does not move.
        if host.is_some_and(|host| host.whole.start > accept.start) {
            bosh::without(self.hide_host(body, host), accept)
        } else {
            self.hide_host(bosh::without(body, accept), host)
        }
    }
}

/// What a code from before conditions says (XEP-0124 §17.1).
pub(super) const fn condition_of(status: u16) -> Condition {
    match status {
        400 => Condition::BadRequest,
        403 => Condition::PolicyViolation,
        _ => Condition::ItemNotFound,
    }
}

/// A condition in the node's words as one of ours, so that it can be a label.
pub(super) fn known_condition(word: &str) -> Option<&'static str> {
    let known = Condition::ALL.iter().map(|known| known.as_str());
    Some(
        known
            .into_iter()
            .find(|known| *known == word)
            .unwrap_or("other"),
    )
}
