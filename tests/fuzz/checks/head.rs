//! A client's bytes through a whole connection (`downstream`) up to the request that is written for a
//! node: what goes up is what a second, strict reading of the same bytes finds, in the same order, and
//! nothing else.
//!
//! Held one way: what Bowline sends on must be a good request at that very place. It may refuse more
//! than the second reading does (bounds, methods, targets).

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};

use bowline::cluster::Cluster;
use bowline::config::{NodeSettings, Settings};
use bowline::downstream::{Downstream, Drain, Listener};
use bowline::limits::Files;
use bowline::observe::metrics::{Kind, Metrics};
use bowline::observe::traces::Parent;
use bowline::proxy::{Answer, BoshRequest, Handled, Proxy, Reply, RequestRecord, request_for_node};
use bowline::transport::{Pipe, pair};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use super::{address, exchange};

/// What a request that was recorded is answered with.
const RECORDED: &[u8] = b"<recorded/>";

/// What a client's connection came to.
struct Served {
    /// The requests for nodes, as they would be sent.
    requests: Vec<Box<[u8]>>,
    /// What the client was sent.
    answers: Vec<u8>,
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let mut settings = Settings::for_nodes(vec![NodeSettings::new("t1", "192.0.2.1:5280")]);
    settings.trusted_proxies = address::trusted();
    settings.bosh.max_body = 1024;
    settings
});

/// Holds it for one input: a byte that says how it is cut, and what the client sends.
pub fn check(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let settings = &*SETTINGS;
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let piece = if piece == 0 {
        bytes.len().max(1)
    } else {
        usize::from(piece)
    };
    let served = serve(settings, bytes.chunks(piece), peer);
    let mut requests = served.requests.iter();
    let mut rest = Some(bytes);
    for recorded in answers(&served.answers) {
        // What the client asked here, if that can be told.
        let asked = rest.and_then(|rest| asked(rest, settings.bosh.max_body));
        rest = asked.as_ref().map(|asked| asked.rest);
        if recorded {
            let sent = requests.next().expect("it was recorded");
            check_sent(sent, asked, peer, settings);
        }
    }
    // What was recorded is answered, unless the connection ended at just that.
    if let Some(sent) = requests.next() {
        let asked = rest.and_then(|rest| asked(rest, settings.bosh.max_body));
        check_sent(sent, asked, peer, settings);
    }
    assert!(
        requests.next().is_none(),
        "a second request without an answer"
    );
}

thread_local! {
    static RECORD: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a request in place of the proxy.
fn record(proxy: &Arc<Proxy>, ask: &BoshRequest<'_>) -> Handled {
    RECORD.with_borrow_mut(|record| record.push(request_for_node(ask, ask.body)));
    let answer = Answer::ok(RECORDED.into());
    let record = RequestRecord::new(
        Arc::clone(proxy),
        Kind::Other,
        (ask.client, ask.protocol),
        &Parent::default(),
    );
    let delivery = record.finish(&answer);
    Handled::Answered(Reply { answer, delivery })
}

/// Serves a connection whose bytes come in `pieces`, from `peer`, and then end.
fn serve<'a>(settings: &Settings, pieces: impl Iterator<Item = &'a [u8]>, peer: IpAddr) -> Served {
    thread_local! {
        static SERVING: RefCell<Option<(Runtime, Arc<Listener>)>> = const { RefCell::new(None) };
    }
    RECORD.take();
    let mut answers = Vec::new();
    SERVING.with_borrow_mut(|serving| {
        let (runtime, listener) = serving.get_or_insert_with(|| {
            let runtime = Builder::new_current_thread().enable_time().build();
            (
                runtime.expect("a runtime without sockets"),
                listener(settings),
            )
        });
        let _entered = runtime.enter();
        let (near, mut far) = pair();
        let mut connection = pin!(listener.serve(near.into(), peer));
        let mut context = Context::from_waker(Waker::noop());
        for piece in pieces {
            let mut rest = piece;
            while !rest.is_empty() {
                let written = Pin::new(&mut far).poll_write(&mut context, rest);
                let std::task::Poll::Ready(Ok(taken)) = written else {
                    break;
                };
                rest = &rest[taken..];
                let over = connection.as_mut().poll(&mut context).is_ready();
                drain(&mut far, &mut answers);
                if over {
                    return;
                }
            }
        }
        let _ = Pin::new(&mut far).poll_shutdown(&mut context);
        let over = connection.as_mut().poll(&mut context).is_ready();
        assert!(over, "it goes on without a client");
        drain(&mut far, &mut answers);
    });
    Served {
        requests: RECORD.take(),
        answers,
    }
}

/// Reads what there is.
fn drain(far: &mut Pipe, answers: &mut Vec<u8>) {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut room = [0; 1024];
        let mut buffer = ReadBuf::new(&mut room);
        let read = Pin::new(&mut *far).poll_read(&mut context, &mut buffer);
        if read.is_pending() || buffer.filled().is_empty() {
            return;
        }
        answers.extend_from_slice(buffer.filled());
    }
}

/// The client's side of a balancer in front of the nodes of `settings`.
fn listener(settings: &Settings) -> Arc<Listener> {
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(settings, &metrics));
    let proxy = Proxy::new(settings, cluster, metrics).expect("no traces are sent");
    let files = Files::raise(1, 1, 1);
    let drain = Arc::new(Drain::default());
    let downstream = Downstream::new(Arc::new(proxy), settings.clone(), drain, files);
    let downstream = Arc::new(downstream.with_handler(record));
    Arc::new(Listener::new(downstream, settings.listen[0].clone()))
}

/// What a client asks at the start of `bytes`, empty lines aside: servers are to pass over one (RFC 9112
/// §2.2).
fn asked(mut bytes: &[u8], max: usize) -> Option<exchange::Request<'_>> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    exchange::request(bytes, max)
}

/// Holds what goes up against what the client asked.
fn check_sent(
    sent: &[u8],
    asked: Option<exchange::Request<'_>>,
    peer: IpAddr,
    settings: &Settings,
) {
    let shown = String::from_utf8_lossy(sent);
    let asked = asked.unwrap_or_else(|| panic!("sent on, and no good request: {shown}"));
    let up = exchange::request(sent, settings.bosh.max_body).expect("a strict request");
    assert!(up.rest.is_empty(), "something behind it: {shown}");
    assert_eq!((&*asked.method, &*up.method), ("POST", "POST"));
    // One slash at the end is none, where the path without it is configured.
    let without = asked.path.strip_suffix('/');
    assert!(
        asked.path == up.path || without == Some(&*up.path),
        "{shown}"
    );
    assert!(settings.bosh.paths.contains(&up.path), "{shown}");
    assert_eq!(asked.host, up.host);
    assert_eq!(asked.body, up.body);
    let client = address::expected(peer, &asked.fields, &settings.trusted_proxies);
    let secure = address::says_https(&asked.fields);
    let fields = exchange::expected_fields(&asked.host, asked.body.len(), client, secure);
    assert_eq!(up.fields, fields, "{shown}");
    let head = &sent[..sent.len() - up.body.len()];
    assert!(head.is_ascii() && !head.contains(&b'<'), "{shown}");
}

/// The answers on a connection, interim ones aside: whether each is that of a recorded request.
fn answers(mut bytes: &[u8]) -> Vec<bool> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let (head, rest) = bytes.split_at(end + 4);
        bytes = rest;
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        if head.starts_with("http/1.1 1") {
            continue;
        }
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let body = bytes.get(..length.unwrap_or(0)).unwrap_or_default();
        // The answer to a HEAD has a length and no body.
        let body = if body.starts_with(b"HTTP/1.1 ") {
            &[]
        } else {
            body
        };
        answers.push(body == RECORDED);
        bytes = &bytes[body.len()..];
    }
    answers
}
