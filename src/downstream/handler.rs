//! One request: what is answered here, and what goes to a node. Knows nothing of connections.

use std::sync::Arc;

use bytes::Bytes;

use super::client::{Peer, client_address, is_secure, parent};
use super::cors::Allowed;
use super::{Downstream, node_list};
use crate::cluster::QueryGroup;
use crate::config::{CorsOwner, Placement, QueryPolicy};
use crate::http1::{Fields, Method, Request, RequestHead};
use crate::observe::metrics::Kind;
use crate::observe::traces::Parent;
use crate::proxy::{Answer, BoshRequest, Cause, Delivery, Exchange, Handled, Reply, RequestRecord};
use crate::upstream::{Authority, OriginValue, Path, Preflight, Query};

const TEXT: Bytes = Bytes::from_static(b"text/plain; charset=utf-8");

/// What a `GET` shows: to a person who looks whether the service is there.
const ABOUT: &str = "This is a BOSH service (XEP-0124, XEP-0206), balanced by Bowline.\n\
    It is made for XMPP clients, which send their requests by POST.\n";

/// An answer, and what its head says beside the usual.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) answer: Answer,
    /// None if the request was counted without an answer.
    pub(super) delivery: Option<Delivery>,
    pub(super) extra: Extra,
}

/// What the head of an answer says beside the usual.
#[derive(Debug)]
pub(super) enum Extra {
    Nothing,
    /// The methods that the path takes.
    Allow(&'static str),
    /// That the path takes WebSocket only.
    WebSocket,
    /// What a preflight asks for, in place of a content type.
    Preflight,
    /// How long the answer may be kept.
    Cache(Bytes),
    /// Where the client is to ask in place of here.
    Location(Bytes),
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        Self {
            answer: reply.answer,
            delivery: Some(reply.delivery),
            extra: Extra::Nothing,
        }
    }
}

/// What becomes of a request whose head was read.
pub(super) enum Decision<'a> {
    /// It is answered, whatever its body is.
    Answer(Response),
    /// It is for a node, once its body is there.
    Forward(Request<'a>, Path<'a>),
    /// It is at a node, or waits for one. It has no body.
    Hold(Exchange),
}

/// The configured path that `path` names: itself, or itself with one `/` more at its end. A
/// configured path that ends in `/` is compared to the letter.
pub(super) fn configured_path<'a>(paths: &'a [String], path: &str) -> Option<&'a str> {
    let find = |wanted: &str| paths.iter().find(|one| *one == wanted).map(String::as_str);
    find(path).or_else(|| find(path.strip_suffix('/').filter(|bare| !bare.ends_with('/'))?))
}

impl Downstream {
    /// What an answer to a request with these fields says of origins.
    #[inline]
    pub(super) fn allowed(&self, fields: Fields<'_>) -> Allowed {
        self.cors.allowed(fields)
    }

    /// Decides about a request by its head.
    pub(super) fn decide<'a>(&'a self, head: &RequestHead<'a>, peer: Peer) -> Decision<'a> {
        let refuse = |cause| Decision::Answer(self.refuse(cause, head.fields, peer));
        let Ok(request) = head.request() else {
            return refuse(Cause::BadHead);
        };
        if request.coded {
            return refuse(Cause::Coding);
        }
        let configured = configured_path(&self.settings.bosh.paths, request.path);
        let Some(path) = configured.and_then(Path::new) else {
            return Decision::Answer(self.off_bosh(head, request.path, peer));
        };
        Decision::Answer(match head.method {
            Method::Post => return Decision::Forward(request, path),
            Method::Options if self.settings.cors.owner == CorsOwner::Pass => {
                return self.pass_preflight(&request, path, head.fields, peer);
            }
            Method::Options => self.preflight(head.fields, peer),
            Method::Get | Method::Head => self.about(head.fields, peer),
            Method::Other => {
                let refused = self.refuse(Cause::Method, head.fields, peer);
                refused.with(Extra::Allow("GET, HEAD, OPTIONS, POST"))
            }
        })
    }

    /// Hands a request on with its body.
    #[inline]
    pub(super) fn begin(
        &self,
        fields: Fields<'_>,
        (request, path): (&Request<'_>, Path<'_>),
        body: &[u8],
        peer: Peer,
    ) -> Handled {
        let trusted = &self.settings.trusted_proxies;
        let query = self.query_for_node(request);
        let (Some(host), Some(query)) = (Authority::new(request.host), query) else {
            let record = self.record(Kind::Other, fields, peer);
            let answer = Answer::reject(Cause::BadHead, false);
            let delivery = record.finish(&answer);
            return Handled::Answered(Reply { answer, delivery });
        };
        let ask = BoshRequest {
            path,
            query,
            group: self.group_of(request.query),
            origin: match self.settings.cors.owner {
                CorsOwner::Own => None,
                CorsOwner::Pass => fields.first("origin").and_then(OriginValue::new),
            },
            host,
            client: client_address(peer.address, fields, trusted),
            connected: peer.connected(trusted),
            protocol: peer.protocol,
            secure: peer.is_encrypted() || is_secure(peer.address, fields, trusted),
            parent: parent(peer.address, fields, trusted),
            body,
        };
        (self.handler)(&self.proxy, &ask)
    }

    /// The query that nodes get; none if they must not get this one.
    fn query_for_node<'a>(&self, request: &Request<'a>) -> Option<Query<'a>> {
        match self.settings.bosh.query {
            QueryPolicy::Drop => Some(Query::default()),
            QueryPolicy::Pass => Query::new(request.query),
        }
    }

    /// Hands a preflight to a node.
    fn pass_preflight<'a>(
        &self,
        request: &Request<'_>,
        path: Path<'_>,
        fields: Fields<'_>,
        peer: Peer,
    ) -> Decision<'a> {
        let host = Authority::new(request.host);
        let (Some(host), Some(query)) = (host, self.query_for_node(request)) else {
            return Decision::Answer(self.refuse(Cause::BadHead, fields, peer));
        };
        let value = |name| fields.first(name).and_then(OriginValue::new);
        let preflight = Preflight {
            path,
            query,
            host,
            origin: value("origin"),
            method: value("access-control-request-method"),
            headers: value("access-control-request-headers"),
        };
        let record = self.record(Kind::Preflight, fields, peer);
        let client = client_address(peer.address, fields, &self.settings.trusted_proxies);
        Decision::Hold(self.proxy.preflight(&preflight, client, record))
    }

    /// The group of the parameter that placement looks at.
    pub(super) fn group_of(&self, query: &str) -> Option<QueryGroup> {
        match &self.settings.placement {
            Placement::Query(name) if !query.is_empty() => QueryGroup::of(query, name),
            _ => None,
        }
    }

    /// Refuses a request.
    pub(super) fn refuse(&self, cause: Cause, fields: Fields<'_>, peer: Peer) -> Response {
        let record = self.record(Kind::Other, fields, peer);
        answered(Answer::reject(cause, false), record)
    }

    /// Refuses what is not a request: of its head nothing is known.
    pub(super) fn refuse_head(&self, status: u16, peer: Peer) -> Response {
        let answer = Answer {
            status,
            ..Answer::reject(Cause::BadHead, false)
        };
        answered(answer, self.record(Kind::Other, Fields::default(), peer))
    }

    /// Answers a request whose client ended its side before the end of the body. It counts as gone.
    pub(super) fn broken_off(&self, fields: Fields<'_>, peer: Peer) -> Response {
        drop(self.record(Kind::Other, fields, peer));
        Response {
            answer: Answer::reject(Cause::BadHead, false),
            delivery: None,
            extra: Extra::Nothing,
        }
    }

    /// Answers a request whose path is not BOSH: with the list of nodes, if it asks for that.
    fn off_bosh(&self, head: &RequestHead<'_>, path: &str, peer: Peer) -> Response {
        let list = self.node_list.as_ref();
        let found: Option<(&node_list::NodeList, _)> =
            list.and_then(|list| Some((list, list.find(path)?)));
        let Some((list, document)) = found else {
            return self.refuse(Cause::NotFound, head.fields, peer);
        };
        match head.method {
            Method::Get | Method::Head => {}
            Method::Options => return self.preflight(head.fields, peer),
            Method::Post | Method::Other => {
                let refused = self.refuse(Cause::Method, head.fields, peer);
                return refused.with(Extra::Allow("GET, HEAD, OPTIONS"));
            }
        }
        let (answer, cache) = list.answer(&self.proxy.cluster, document);
        let record = self.record(Kind::Other, head.fields, peer);
        answered(answer, record).with(Extra::Cache(cache))
    }

    /// Sends the client to the same URL over `https`, at the usual port.
    pub(super) fn redirect(&self, head: &RequestHead<'_>, peer: Peer) -> Response {
        let Ok(request) = head.request() else {
            return self.refuse(Cause::BadHead, head.fields, peer);
        };
        let url = format!("https://{}{}", request.bare_host(), head.path_and_query());
        let answer = Answer {
            status: 308,
            content_type: Some(TEXT),
            ..Answer::ok(Bytes::from_static(b"This service is at https only.\n"))
        };
        let record = self.record(Kind::Other, head.fields, peer);
        answered(answer, record).with(Extra::Location(url.into()))
    }

    fn preflight(&self, fields: Fields<'_>, peer: Peer) -> Response {
        let record = self.record(Kind::Preflight, fields, peer);
        answered(Answer::ok(Bytes::new()), record).with(Extra::Preflight)
    }

    fn about(&self, fields: Fields<'_>, peer: Peer) -> Response {
        let answer = Answer {
            content_type: Some(TEXT),
            ..Answer::ok(Bytes::from_static(ABOUT.as_bytes()))
        };
        answered(answer, self.record(Kind::Other, fields, peer))
    }

    fn record(&self, kind: Kind, fields: Fields<'_>, peer: Peer) -> RequestRecord {
        let trusted = &self.settings.trusted_proxies;
        let client = client_address(peer.address, fields, trusted);
        let client = (client, peer.protocol);
        let parent: Parent = parent(peer.address, fields, trusted);
        RequestRecord::new(Arc::clone(&self.proxy), kind, client, &parent)
    }
}

impl Response {
    pub(super) fn with(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }
}

/// An answer, counted.
fn answered(answer: Answer, record: RequestRecord) -> Response {
    let delivery = record.finish(&answer);
    Reply { answer, delivery }.into()
}
