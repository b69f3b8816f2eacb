//! Traces, told to a collector over a real socket. Only with the cargo feature `otlp`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::config::{Settings, Traces};
use bowline::demo::node::{Fault, Node};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::balancer::{Balancer, eventually, patient, settings, tigase_nodes};

/// What a collector was sent.
type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector on a free port.
async fn collector() -> (String, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let spans = Spans::default();
    let into = Arc::clone(&spans);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let into = Arc::clone(&into);
            let take = move |request| take(request, Arc::clone(&into));
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // However it ends: the spans are what is looked at.
                let _ = http
                    .serve_connection(TokioIo::new(stream), service_fn(take))
                    .await;
            });
        }
    });
    (endpoint, spans)
}

async fn take(
    request: Request<Incoming>,
    spans: Spans,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await?.to_bytes();
    // ExportTraceServiceRequest: resource_spans.
    for of_service in messages(&body, 1) {
        let resource = messages(of_service, 1)[0];
        let words = attributes(resource, 1);
        assert_eq!(words["service.name"], "bowline");
        for scope in messages(of_service, 2) {
            let all = messages(scope, 2).into_iter().map(Span::read);
            spans.lock().unwrap().extend(all);
        }
    }
    Ok(Response::new(Full::default()))
}

fn traced(nodes: &[Node], endpoint: &str) -> Settings {
    let mut settings = settings(nodes);
    settings.traces = Some(Traces {
        endpoint: endpoint.to_owned(),
        sample: 1,
    });
    settings
}

/// What is looked at of a span (opentelemetry/proto/trace/v1/trace.proto).
#[derive(Debug, Clone)]
struct Span {
    trace_id: String,
    span_id: String,
    parent_span_id: String,
    name: String,
    start: u64,
    end: u64,
    words: BTreeMap<String, String>,
    /// Code and message.
    status: (u64, String),
}

impl Span {
    fn read(bytes: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let one = |number| messages(bytes, number).first().copied().unwrap_or_default();
        let status = one(15);
        let said = messages(status, 2).first().map(|said| text(said));
        Self {
            trace_id: hex(one(1)),
            span_id: hex(one(2)),
            parent_span_id: hex(one(4)),
            name: text(one(5)),
            start: number(bytes, 7),
            end: number(bytes, 8),
            words: attributes(bytes, 9),
            status: (number(status, 3), said.unwrap_or_default()),
        }
    }
}

/// Attributes with text or a number.
fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = messages(bytes, field).into_iter().map(|pair| {
        let key = String::from_utf8(messages(pair, 1)[0].to_vec()).unwrap();
        let value = messages(pair, 2)[0];
        let text = messages(value, 1).first().map(|text| text.to_vec());
        let text = text.map(|text| String::from_utf8(text).unwrap());
        (key, text.unwrap_or_else(|| number(value, 3).to_string()))
    });
    pairs.collect()
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads a protobuf message field by field.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (field, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(field)
            }
            wire @ (1 | 5) => {
                let (field, rest) = bytes.split_at(if wire == 1 { 8 } else { 4 });
                bytes = rest;
                let number = field.iter().rev();
                Field::Number(number.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn messages(bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
    let all = fields(bytes).into_iter();
    all.filter_map(|(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
    .collect()
}

fn number(bytes: &[u8], wanted: u64) -> u64 {
    let mut all = fields(bytes).into_iter();
    let found = all.find_map(|(number, field)| match field {
        Field::Number(value) if number == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A creation and a held poll of a client that says it is part of a trace; the spans.
async fn spans(trusted: bool, flags: &str) -> (Vec<Span>, String) {
    let nodes = tigase_nodes(1).await;
    let (endpoint, spans) = collector().await;
    let mut settings = traced(&nodes, &endpoint);
    if trusted {
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    }
    let balancer = Balancer::start(&settings).await;
    let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
    let mut client = balancer.client().header("traceparent", &traceparent);
    client.create().await.unwrap();
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    poll.reply().await.unwrap();
    client.hang_up();
    balancer.server.drain().await;
    let spans = spans.lock().unwrap().clone();
    (spans, client.sid().to_owned())
}

#[tokio::test]
async fn a_trusted_client_s_trace_goes_on() {
    let (spans, sid) = spans(true, "01").await;
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "request").collect();
    assert_eq!(roots.len(), 2, "{spans:?}");
    for span in &spans {
        assert_eq!(span.trace_id, TRACE);
        assert!(span.end >= span.start);
        assert!(!format!("{span:?}").contains(&sid), "{span:?}");
    }
    for (root, kind) in roots.iter().zip(["creation", "poll"]) {
        assert_eq!(root.parent_span_id, PARENT);
        let words = &root.words;
        assert_eq!(words["bowline.kind"], kind);
        assert_eq!(words["bowline.outcome"], "ok");
        assert_eq!(words["bowline.end"], "--");
        assert_eq!(words["bowline.node"], "t1");
        assert_eq!(words["bowline.session"].len(), 6);
        assert_eq!(words["http.response.status_code"], "200");
        assert_eq!(words["client.address"], "127.0.0.1");
        let children = spans
            .iter()
            .filter(|span| span.parent_span_id == root.span_id);
        let names = children.map(|span| span.name.as_str());
        // A wait has a span if it takes long enough.
        let names: Vec<&str> = names.filter(|name| *name != "queue").collect();
        // The poll goes over the creation's connection.
        match kind {
            "creation" => assert_eq!(names, ["connect", "exchange"]),
            _ => assert_eq!(names, ["exchange"]),
        }
    }
}

#[tokio::test]
async fn a_stranger_s_trace_is_ignored() {
    let (spans, _) = spans(false, "01").await;
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "request").collect();
    assert_eq!(roots.len(), 2, "{spans:?}");
    for root in roots {
        assert_ne!(root.trace_id, TRACE);
        assert!(root.parent_span_id.is_empty(), "{root:?}");
    }
}

#[tokio::test]
async fn a_trace_that_is_not_recorded_is_not_recorded_here() {
    let (spans, _) = spans(true, "00").await;
    assert!(spans.is_empty(), "{spans:?}");
}

#[tokio::test]
async fn a_wait_for_a_turn_and_a_failure_have_their_spans() {
    let nodes = tigase_nodes(1).await;
    let (endpoint, spans) = collector().await;
    let mut settings = traced(&nodes, &endpoint);
    settings.health = patient(&nodes).health;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    // The poll may have the connection of the creation, on which such bytes get one more try.
    let ping = client.rid() + 2;
    nodes[0].misbehave(
        Fault::answering_rubbish("SSH-2.0-x\r\n").on(move |seen| seen.rid == Some(ping)),
    );
    // The ping is there first, and waits for the poll.
    let (sid, rid) = (client.sid().to_owned(), client.rid());
    client.adopt(&sid, rid + 1);
    let late = client.begin("", "<message/>").await.unwrap();
    let session = balancer.proxy().sessions.find(&sid).unwrap();
    eventually("it waits", || session.under_way() == 1).await;
    client.adopt(&sid, rid);
    let poll = client.begin_poll().await.unwrap();
    late.reply().await.unwrap();
    drop(poll);
    eventually("the poll is over", || balancer.held() == 0).await;
    balancer.server.drain().await;
    let spans = spans.lock().unwrap().clone();
    assert!(spans.iter().any(|span| span.name == "queue"), "{spans:?}");
    let failed = spans
        .iter()
        .find(|span| span.name == "request" && span.words["bowline.end"] == "SD");
    let failed = failed.unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(failed.words["bowline.cause"], "node_garbage");
    assert_eq!(failed.status, (2, "node_garbage".to_owned()));
}

#[tokio::test]
async fn a_collector_that_is_away_stops_nothing() {
    let nodes = tigase_nodes(1).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let settings = traced(&nodes, &format!("http://{address}/v1/traces"));
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    client.ping("1").await.unwrap();
    client.terminate().await.unwrap();
    client.hang_up();
    let drained = tokio::time::timeout(Duration::from_secs(10), balancer.server.drain());
    assert_eq!(drained.await.unwrap(), 0);
}
