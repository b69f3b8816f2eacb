//! One admin request to its answer. No I/O: everything it tells is in memory.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{AdminState, report};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

const INDEX: &str = "\
Bowline, a sticky-session load balancer for BOSH

GET /live     200 while the process runs
GET /ready    200 while it takes new sessions, else 503 with the reason
GET /health   the state of every node, in JSON; 503 when none is up
GET /nodes    the nodes alone, in JSON
GET /metrics  counters and gauges, for Prometheus
";

/// The answer to `request`, whose body is not looked at.
pub(super) fn to<B: Body>(state: &AdminState, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let Some(endpoint) = endpoint(path) else {
        let what = json!({ "error": format!("there is no {path} here; / lists what is") });
        return json(StatusCode::NOT_FOUND, &what);
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let what = json!({ "error": format!("{path} takes GET and HEAD only") });
        let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &what);
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return closing(answer);
    }
    if !request.body().is_end_stream() {
        let what = json!({ "error": "a request here has no body" });
        return closing(json(StatusCode::PAYLOAD_TOO_LARGE, &what));
    }
    endpoint(state)
}

type Endpoint = fn(&AdminState) -> Response<Full<Bytes>>;

fn endpoint(path: &str) -> Option<Endpoint> {
    Some(match path {
        "/" => |_| text(StatusCode::OK, INDEX),
        "/live" => |_| text(StatusCode::OK, "live\n"),
        "/ready" => ready,
        "/health" => health,
        "/nodes" => |state| json(StatusCode::OK, &report::nodes(&state.cluster)),
        "/metrics" => |state| answer(StatusCode::OK, OPENMETRICS, state.metrics.exposition()),
        _ => return None,
    })
}

fn ready(state: &AdminState) -> Response<Full<Bytes>> {
    match report::not_ready(&state.cluster, state.is_draining()) {
        None => text(StatusCode::OK, "ready\n"),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn health(state: &AdminState) -> Response<Full<Bytes>> {
    let status = if state.cluster.any_up() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, &report::health(&state.cluster, state.is_draining()))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, TEXT, body)
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    answer(status, JSON, format!("{value:#}\n"))
}

fn answer(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Ends the connection after `answer`: what follows on it may be a body that nobody reads.
fn closing(mut answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
    answer
}
