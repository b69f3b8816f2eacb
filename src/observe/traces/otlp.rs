//! Traces by OTLP over HTTP: the SDK's spans, sampler and batches, sent by hyper.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{SpanEnd, Stage};
use crate::config;
use crate::http1::Fields;

/// How long the collector may take for a batch.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// The most that a collector's answer may have, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// How long the end of the process waits for the last batch.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// A shorter wait for a turn is none.
const SHORTEST_QUEUE: Duration = Duration::from_micros(100);

/// The span that a request belongs to.
#[derive(Debug, Clone, Default)]
pub struct Parent(Context);

impl Parent {
    /// What the head of a request says (W3C `traceparent`). The peer must be trusted.
    pub fn of(fields: Fields<'_>) -> Self {
        let propagator = TraceContextPropagator::new();
        Self(propagator.extract_with_context(&Context::new(), &Head(fields)))
    }
}

/// The fields of a head, as the propagator reads them.
struct Head<'a>(Fields<'a>);

impl Extractor for Head<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.0.first(key)?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name).collect()
    }
}

/// Where traces go.
#[derive(Debug)]
pub struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

impl Traces {
    /// Starts them, if they are configured: a thread that sends batches to the collector.
    ///
    /// # Errors
    /// If the endpoint is not good.
    pub fn start(settings: Option<&config::Traces>) -> io::Result<Self> {
        let Some(settings) = settings else {
            return Ok(Self(None));
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector)
            .with_endpoint(&settings.endpoint)
            .with_timeout(SEND_WITHIN)
            .build()
            .map_err(io::Error::other)?;
        let root = match settings.sample {
            1 => Sampler::AlwaysOn,
            every => Sampler::TraceIdRatioBased(1.0 / f64::from(every)),
        };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name("bowline")
            .with_attribute(version)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::parent_based(root))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("bowline");
        Ok(Self(Some((provider, tracer))))
    }

    /// The trace of a request that begins now.
    pub fn begin(&self, parent: &Parent) -> Trace {
        let Some((_, tracer)) = &self.0 else {
            return Trace(None);
        };
        let builder = tracer.span_builder("request").with_kind(SpanKind::Server);
        let span = tracer.build_with_context(builder, &parent.0);
        if !span.is_recording() {
            return Trace(None);
        }
        Trace(Some(Box::new(Active {
            tracer: tracer.clone(),
            context: parent.0.with_span(span),
            at: Mutex::new((Stage::Other, SystemTime::now())),
        })))
    }

    /// Sends what still waits, on a thread that may wait for it.
    pub async fn flush(&self) {
        if let Some((provider, _)) = &self.0 {
            let provider = provider.clone();
            let flushed = move || provider.shutdown_with_timeout(FLUSH_WITHIN);
            match tokio::task::spawn_blocking(flushed).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
                Err(error) => tracing::warn!(%error, "the last traces were not sent"),
            }
        }
    }
}

/// One request's trace: nothing if it is not sampled.
#[derive(Debug)]
pub struct Trace(Option<Box<Active>>);

#[derive(Debug)]
struct Active {
    tracer: SdkTracer,
    /// Has the span of the request.
    context: Context,
    /// The present stage, and since when.
    at: Mutex<(Stage, SystemTime)>,
}

impl Trace {
    /// Whether anything is noted.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The request is at another stage; what it leaves was at `node`, if at one.
    pub fn enters<'a>(&self, stage: Stage, node: impl FnOnce() -> Option<&'a str>) {
        if let Some(active) = &self.0 {
            active.enters(stage, node());
        }
    }

    /// The request has ended.
    pub fn end(&self, ended: &SpanEnd<'_>) {
        let Some(active) = &self.0 else {
            return;
        };
        active.enters(Stage::Other, ended.node);
        let span = active.context.span();
        span.set_attributes([
            KeyValue::new("bowline.kind", ended.kind),
            KeyValue::new("bowline.outcome", ended.outcome),
            KeyValue::new("bowline.end", ended.state),
            KeyValue::new("bowline.protocol", ended.protocol),
            KeyValue::new("client.address", ended.client.to_string()),
            KeyValue::new("http.response.status_code", i64::from(ended.status)),
            KeyValue::new(
                "http.response.body.size",
                i64::try_from(ended.bytes).unwrap_or(0),
            ),
        ]);
        for (name, word) in [
            ("bowline.cause", ended.cause),
            ("bowline.node", ended.node),
            ("bowline.session", ended.session),
            ("bowline.tls", ended.tls),
        ] {
            if let Some(word) = word {
                span.set_attribute(KeyValue::new(name, word.to_owned()));
            }
        }
        // A client that was refused for what it asked has made no error of ours.
        if ended.state.starts_with(['S', 's', 'R', 'K']) {
            span.set_status(Status::error(ended.cause.unwrap_or(ended.outcome)));
        }
        span.end();
    }
}

impl Active {
    fn enters(&self, stage: Stage, node: Option<&str>) {
        let now = SystemTime::now();
        let (left, since) = {
            let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *at, (stage, now))
        };
        let took = now.duration_since(since).unwrap_or_default();
        let (name, kind) = match left {
            Stage::Queue if took >= SHORTEST_QUEUE => ("queue", SpanKind::Internal),
            Stage::Connect => ("connect", SpanKind::Client),
            Stage::Exchange => ("exchange", SpanKind::Client),
            Stage::Queue | Stage::Other => return,
        };
        let builder = self.tracer.span_builder(name);
        let builder = builder.with_kind(kind).with_start_time(since);
        let mut span = builder.start_with_context(&self.tracer, &self.context);
        if let Some(node) = node.filter(|_| left != Stage::Queue) {
            span.set_attribute(KeyValue::new("bowline.node", node.to_owned()));
        }
        span.end_with_timestamp(now);
    }
}

/// Posts batches. It is called on the exporter's own thread, which has no runtime and may wait.
#[derive(Debug)]
struct Collector;

type Sent = Result<Response<Bytes>, HttpError>;

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Sent> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(send(request)))
    }
}

fn send(request: Request<Bytes>) -> Sent {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { timeout(SEND_WITHIN, post(request)).await? })
}

async fn post(request: Request<Bytes>) -> Sent {
    let authority = request.uri().authority().ok_or("no host")?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    head.headers
        .insert(hyper::header::HOST, authority.as_str().parse()?);
    head.uri = head
        .uri
        .path_and_query()
        .ok_or("no path")?
        .as_str()
        .parse()?;
    let answer = sender
        .send_request(Request::from_parts(head, Full::new(body)))
        .await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
    driver.abort();
    Ok(Response::from_parts(head, body.to_bytes()))
}
