//! One admin request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap};
use hyper::header::{
    CONTENT_LENGTH, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tracing::info;

use super::access::{Caller, Refused};
use super::body::AdminBody;
use super::change::{self, Asker};
use super::{AdminState, Link, Scope, page, reload, report, sessions, stream};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const HELP: &str = "\
Bowline, a sticky-session load balancer for BOSH

GET /                  live page
GET /live              200 while the process runs
GET /ready             200 while a node takes new sessions, else 503 with the reason
GET /health            state of the balancer and its nodes as JSON; 503 when no node takes new sessions
GET /nodes             the nodes only
GET /nodes/NAME        one node
PUT /nodes/NAME/state  set ready, drain or maint
PUT /states            the same for several nodes, or for all
PUT /config            read the configuration file again, or apply the YAML in the body
GET /sessions          sessions: ?node=NAME&offset=N&limit=N
GET /sessions/SID      one session
DELETE /sessions/SID   end it
DELETE /sessions?node=NAME&limit=N   end some, idle ones first
GET /events?since=ID   events after this one
GET /history           the last 15 minutes of each node
GET /stream            health and events as server-sent events
GET /metrics           metrics for Prometheus
";

/// An answer.
pub(super) type AdminResponse = Response<AdminBody>;

/// What there is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint<'a> {
    Page,
    Help,
    Live,
    Ready,
    Health,
    Nodes,
    Node(&'a str),
    State(&'a str),
    States,
    Sessions,
    Session(&'a str),
    Config,
    Events,
    History,
    Stream,
    Metrics,
}

impl<'a> Endpoint<'a> {
    fn at(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/help" => Self::Help,
            "/live" => Self::Live,
            "/ready" => Self::Ready,
            "/health" => Self::Health,
            "/nodes" => Self::Nodes,
            "/sessions" => Self::Sessions,
            "/states" => Self::States,
            "/config" => Self::Config,
            "/events" => Self::Events,
            "/history" => Self::History,
            "/stream" => Self::Stream,
            "/metrics" => Self::Metrics,
            _ => {
                if let Some(sid) = path.strip_prefix("/sessions/") {
                    return (!sid.is_empty()).then_some(Self::Session(sid));
                }
                let rest = path.strip_prefix("/nodes/")?;
                match rest.split_once('/') {
                    None if !rest.is_empty() => Self::Node(rest),
                    Some((name, "state")) if !name.is_empty() => Self::State(name),
                    _ => return None,
                }
            }
        })
    }

    /// For those who watch from outside and can send neither a token nor our name; they tell
    /// nothing of the cluster.
    const fn is_open(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }

    /// The page has nothing of the cluster in itself, and is the place where a token is given; the
    /// list of endpoints says what every manual says.
    const fn wants_token(self) -> bool {
        !self.is_open() && !matches!(self, Self::Page | Self::Help)
    }
}

/// The answer to `request`.
pub(super) async fn to(
    state: &Arc<AdminState>,
    request: Request<Incoming>,
    link: &Link,
) -> AdminResponse {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let endpoint = Endpoint::at(path);
    if link.scope == Scope::Probes {
        return probe(state, endpoint, &head, link).await;
    }
    let caller = match admit(state, endpoint, &head.headers) {
        Ok(caller) => caller,
        Err(refused) => return closing(refuse(state, refused)),
    };
    let Some(endpoint) = endpoint else {
        let what = json!({ "error": format!("there is no {path} here; /help lists what is") });
        return closing(json(StatusCode::NOT_FOUND, &what));
    };
    let methods = match endpoint {
        Endpoint::State(_) => "GET, HEAD, PUT",
        Endpoint::Config | Endpoint::States => "PUT",
        Endpoint::Sessions | Endpoint::Session(_) => "GET, HEAD, DELETE",
        _ => "GET, HEAD",
    };
    let changes = match head.method {
        Method::GET | Method::HEAD if methods != "PUT" => false,
        Method::PUT if methods.ends_with("PUT") => true,
        Method::DELETE if methods.ends_with("DELETE") => true,
        _ => return not_allowed(path, methods),
    };
    let operates = caller.is_some_and(Caller::operates);
    if changes {
        let asker = Asker {
            peer: link.peer,
            token: caller.map(|caller| Arc::clone(&caller.name)),
        };
        let admitted = match caller {
            Some(caller) if !caller.operates() => Err(Refused::Role),
            _ => state.access.change(&head.headers),
        };
        if let Err(refused) = admitted {
            if refused == Refused::Role {
                // What follows is a sid, which belongs into no log.
                let path = match endpoint {
                    Endpoint::Session(_) => "/sessions/SID",
                    _ => path,
                };
                info!(method = %head.method, path, peer = %asker.peer, token = asker.token(),
                    "admin change refused: the token only reads");
            }
            return closing(refuse(state, refused));
        }
        let (status, told) = match endpoint {
            Endpoint::State(name) => change::run(state, name, head.uri.query(), body, &asker).await,
            Endpoint::Sessions => sessions::end_some(state, head.uri.query(), &asker).await,
            Endpoint::Session(sid) => sessions::end(state, sid, &asker),
            Endpoint::States => change::run_several(state, body, &asker).await,
            _ => reload::run(state, body, &asker).await,
        };
        let answer = json(status, &told);
        // Of a body that was refused some may be left.
        return if status == StatusCode::OK {
            answer
        } else {
            closing(answer)
        };
    }
    if !body.is_end_stream() {
        let what = json!({ "error": "a request here has no body" });
        return closing(json(StatusCode::PAYLOAD_TOO_LARGE, &what));
    }
    match endpoint {
        Endpoint::Sessions => {
            let (status, told) = sessions::page(state, head.uri.query(), operates).await;
            json(status, &told)
        }
        Endpoint::Session(sid) => {
            let (status, told) = sessions::one(state, sid, operates);
            json(status, &told)
        }
        _ => show(state, endpoint, &head, link).await,
    }
}

/// The answer at the address for probes: three endpoints, to everyone who asks, by any name.
async fn probe(
    state: &Arc<AdminState>,
    endpoint: Option<Endpoint<'_>>,
    head: &hyper::http::request::Parts,
    link: &Link,
) -> AdminResponse {
    let path = head.uri.path();
    let known = endpoint.filter(|endpoint| endpoint.is_open() || *endpoint == Endpoint::Metrics);
    let Some(endpoint) = known else {
        let what = format!("there is no {path} here, only /live, /ready and /metrics");
        return closing(json(StatusCode::NOT_FOUND, &json!({ "error": what })));
    };
    if head.method != Method::GET && head.method != Method::HEAD {
        return not_allowed(path, "GET, HEAD");
    }
    // A body that comes is not read.
    closing_if_body(show(state, endpoint, head, link).await, head)
}

/// Ends the connection after `answer` if its request announces a body.
fn closing_if_body(answer: AdminResponse, head: &hyper::http::request::Parts) -> AdminResponse {
    let headers = &head.headers;
    if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
        closing(answer)
    } else {
        answer
    }
}

/// What a `GET` shows.
async fn show(
    state: &Arc<AdminState>,
    endpoint: Endpoint<'_>,
    head: &hyper::http::request::Parts,
    link: &Link,
) -> AdminResponse {
    match endpoint {
        Endpoint::Page => page(),
        Endpoint::Help => text(StatusCode::OK, HELP),
        Endpoint::Live => text(StatusCode::OK, "live\n"),
        Endpoint::Ready => match report::not_ready(&state.cluster, state.is_draining()) {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        Endpoint::Health => {
            let health = report::health(state);
            let status = match health.status {
                report::Status::Ok | report::Status::Degraded => StatusCode::OK,
                report::Status::Down => StatusCode::SERVICE_UNAVAILABLE,
            };
            json(status, &health)
        }
        Endpoint::Nodes => json(StatusCode::OK, &report::nodes(state)),
        Endpoint::Node(name) | Endpoint::State(name) => {
            let nodes = report::nodes(state);
            match nodes.into_iter().find(|node| node.name == name) {
                Some(node) => json(StatusCode::OK, &node),
                None => {
                    let what = json!({ "error": change::unknown(state, name) });
                    json(StatusCode::NOT_FOUND, &what)
                }
            }
        }
        Endpoint::Config | Endpoint::States | Endpoint::Sessions | Endpoint::Session(_) => {
            not_allowed(head.uri.path(), "PUT")
        }
        Endpoint::Events => match since(head.uri.query()) {
            Some(id) => json(StatusCode::OK, &report::events(state, id)),
            None => {
                let what = json!({ "error": "the query is since=ID, a number, or nothing" });
                json(StatusCode::BAD_REQUEST, &what)
            }
        },
        Endpoint::History => json(StatusCode::OK, &state.history.told(&state.cluster)),
        Endpoint::Stream => listen(state, head, link),
        Endpoint::Metrics => metrics(state, &head.headers).await,
    }
}

/// Whether the request may be asked at all, and whose token it has.
fn admit<'a>(
    state: &'a AdminState,
    endpoint: Option<Endpoint<'_>>,
    headers: &HeaderMap,
) -> Result<Option<&'a Caller>, Refused> {
    if !endpoint.is_some_and(Endpoint::is_open) {
        state.access.host(headers)?;
    }
    if endpoint.is_none_or(Endpoint::wants_token) {
        return state.access.token(headers);
    }
    Ok(None)
}

fn refuse(state: &AdminState, refused: Refused) -> AdminResponse {
    let (status, reason, what) = match refused {
        Refused::Token => (
            StatusCode::UNAUTHORIZED,
            "token",
            "a token is wanted: Authorization: Bearer TOKEN",
        ),
        Refused::Role => (
            StatusCode::FORBIDDEN,
            "role",
            "this token only reads: a change wants a token with `role: operate`",
        ),
        Refused::Host => (
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "call this by an IP address, as localhost, or by a name in admin.hosts",
        ),
        Refused::Origin => (
            StatusCode::FORBIDDEN,
            "origin",
            "a change wants the header X-Bowline: 1 or a JSON body, and no other Origin",
        ),
    };
    state.metrics.admin_refusals.inc(reason);
    let mut answer = json(status, &json!({ "error": what }));
    if refused == Refused::Token {
        let scheme = HeaderValue::from_static("Bearer realm=\"bowline\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    answer
}

fn not_allowed(path: &str, methods: &'static str) -> AdminResponse {
    let what = json!({ "error": format!("{path} takes {methods} only") });
    let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &what);
    let allow = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, allow);
    closing(answer)
}

/// The number in `since=ID`; 0 without a query.
fn since(query: Option<&str>) -> Option<u64> {
    let Some(query) = query else { return Some(0) };
    query.strip_prefix("since=")?.parse().ok()
}

fn listen(
    state: &Arc<AdminState>,
    head: &hyper::http::request::Parts,
    link: &Link,
) -> AdminResponse {
    if head.method == Method::HEAD {
        return answer(StatusCode::OK, EVENTS, AdminBody::Whole(None));
    }
    let last = head.headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok());
    let last = last.map_or(0, |id| stream::last_seen(state, id));
    let Ok(place) = Arc::clone(&state.listeners).try_acquire_owned() else {
        state.metrics.admin_refusals.inc("listeners");
        let what = json!({ "error": "there are as many listeners as there may be" });
        let mut answer = json(StatusCode::SERVICE_UNAVAILABLE, &what);
        let wait = HeaderValue::from_static("5");
        answer.headers_mut().insert(RETRY_AFTER, wait);
        return answer;
    };
    let cut = link.begin_stream();
    let events = stream::start(Arc::clone(state), last, place, cut);
    answer(StatusCode::OK, EVENTS, AdminBody::Stream(events))
}

/// The live page.
fn page() -> AdminResponse {
    let mut answer = answer(StatusCode::OK, HTML, whole(page::PAGE));
    for (name, value) in page::guards() {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// The metrics, in the newer format for a reader that names it. They are written on a thread of
/// their own: with many nodes it takes milliseconds, and probes run on this one.
async fn metrics(state: &Arc<AdminState>, headers: &HeaderMap) -> AdminResponse {
    let newer = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    state.measure().await;
    let metrics = Arc::clone(&state.metrics);
    let page = tokio::task::spawn_blocking(move || {
        if newer {
            metrics.exposition()
        } else {
            metrics.older_exposition()
        }
    });
    match page.await {
        Ok(page) => {
            let kind = if newer { OPENMETRICS } else { PROMETHEUS };
            answer(StatusCode::OK, kind, whole(page))
        }
        Err(_) => {
            let what = json!({ "error": "the metrics could not be written" });
            json(StatusCode::INTERNAL_SERVER_ERROR, &what)
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> AdminResponse {
    answer(status, TEXT, whole(body))
}

fn json(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    answer(status, JSON, whole(body))
}

fn whole(body: impl Into<Bytes>) -> AdminBody {
    AdminBody::Whole(Some(body.into()))
}

fn answer(status: StatusCode, content_type: HeaderValue, body: AdminBody) -> AdminResponse {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// Ends the connection after `answer`: what follows on it may be a body that nobody reads.
fn closing(mut answer: AdminResponse) -> AdminResponse {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
    answer
}
