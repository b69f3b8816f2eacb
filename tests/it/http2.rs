//! HTTP/2 towards the client, by prior knowledge: the same service as over HTTP/1.1, many sessions on
//! one connection, and what a client may not do.

use std::time::Duration;

use bowline::config::Settings;
use bowline::demo::node::{Fault, Kind, Node, Seen};
use bytes::Bytes;
use h2::Reason;
use hyper::{Request, StatusCode};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balancer::*;
use crate::clients::read_response;
use crate::routing::creation;
use crate::support::http2::{Asked, Http2, Reply, post, request};
use crate::support::tls::{Authority, connect, listener};

/// The settings of a balancer that takes HTTP/2.
fn h2c(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.listen[0].h2c = true;
    settings
}

/// A session over HTTP/2.
struct Session {
    sid: String,
    rid: u64,
}

impl Session {
    async fn create(client: &mut Http2) -> Self {
        let reply = client.post(&creation()).await;
        let sid = reply
            .attribute("sid")
            .unwrap_or_else(|| panic!("{reply:?}"));
        Self {
            sid: sid.to_owned(),
            rid: 1,
        }
    }

    /// The body of its next request.
    fn next(&mut self, stanzas: &str) -> String {
        self.rid += 1;
        format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' sid='{}' rid='{}'>{stanzas}</body>",
            self.sid, self.rid
        )
    }

    async fn poll(&mut self, client: &mut Http2) -> Asked {
        let body = self.next("");
        client.begin_post(&body).await
    }
}

const PING: &str = "<iq type='get' id='p' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>";

#[tokio::test]
async fn a_listener_with_h2c_serves_both_protocols() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut old = balancer.session().await;
    assert_goes_on(&old.ping("p").await.unwrap());
    let mut client = Http2::to(balancer.address()).await;
    let mut session = Session::create(&mut client).await;
    let reply = client.post(&session.next(PING)).await;
    assert!(reply.body.contains("id=\"p\""), "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("text/xml; charset=utf-8")
    );
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("connection"), None);
    assert_eq!(
        reply.header("content-length"),
        Some(&*reply.body.len().to_string())
    );
    assert!(
        reply
            .header("date")
            .is_some_and(|date| date.ends_with(" GMT"))
    );
    let seen = seen_of(&nodes[0], &session.sid)[0].text();
    assert!(
        seen.starts_with("POST /http-bind HTTP/1.1\r\nHost: a\r\n"),
        "{seen}"
    );
    assert_eq!(balancer.metric("bowline_http2_connections"), 1);
    drop(client);
    eventually("it is counted no more", || {
        balancer.metric("bowline_http2_connections") == 0
    })
    .await;
}

#[tokio::test]
async fn over_tls_a_client_chooses_http_2_by_alpn() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = settings(&nodes);
    settings.listen = vec![listener(vec![authority.files("chat.example.com")])];
    let balancer = Balancer::start(&settings).await;
    for version in [&TLS12, &TLS13] {
        let connector = authority.client_of(b"h2", &[version], None);
        let stream = connect(&connector, balancer.address(), "chat.example.com").await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Http2::over(stream, &h2::client::Builder::new()).await;
        let mut sessions = Vec::new();
        for _ in 0..10 {
            let mut session = Session::create(&mut client).await;
            let poll = session.poll(&mut client).await;
            sessions.push((session, poll));
        }
        nodes[0].wait_until(|node| node.held() == 10).await.unwrap();
        for (session, poll) in sessions {
            let seen = seen_of(&nodes[0], &session.sid)[0].text();
            assert!(seen.contains("X-Forwarded-Proto: https\r\n"), "{seen}");
            nodes[0].push(&session.sid, "<message xmlns='jabber:client' id='m'/>");
            let reply = poll.reply().await.unwrap();
            assert!(reply.body.contains("id='m'"), "{reply:?}");
        }
        // The end of the connection ends what is held.
        let mut session = Session::create(&mut client).await;
        let _poll = session.poll(&mut client).await;
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        drop(client);
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    }
}

#[tokio::test]
async fn a_listener_without_h2c_closes_on_http_2() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
}

/// The preface and an HTTP/1.1 request have their first bytes in common, and may come in any pieces.
#[tokio::test]
async fn what_a_client_speaks_is_found_out_byte_by_byte() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let body = creation();
    let length = body.len();
    let bytes =
        format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    for byte in bytes.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_response(&mut stream).await;
    assert!(answer.contains(" sid="), "{answer}");
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame: {frame:?}");
}

#[tokio::test]
async fn many_sessions_share_a_connection_and_hold_their_polls() {
    const SESSIONS: usize = 40;
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut polls = Vec::new();
    for _ in 0..SESSIONS {
        let mut session = Session::create(&mut client).await;
        let poll = session.poll(&mut client).await;
        polls.push((session, poll));
    }
    eventually("all polls are held", || balancer.held() == SESSIONS as u64).await;
    assert_eq!(balancer.proxy().metrics.connections.get(), 1);
    // In another order than they were asked.
    while !polls.is_empty() {
        let (session, poll) = polls.swap_remove(polls.len() * 7 / 11);
        let node = &nodes[owner(&nodes, &session.sid)];
        let id = format!("id='{}'", session.sid);
        assert!(node.push(
            &session.sid,
            format!("<message xmlns='jabber:client' {id}/>")
        ));
        let reply = poll.reply().await.unwrap();
        assert!(reply.body.contains(&id), "{reply:?}");
    }
}

#[tokio::test]
async fn a_client_that_resets_a_stream_or_goes_away_ends_its_request_at_the_node() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut session = Session::create(&mut client).await;
    let mut other = Session::create(&mut client).await;
    let staying = other.poll(&mut client).await;
    let mut poll = session.poll(&mut client).await;
    nodes[0].wait_until(|node| node.held() == 2).await.unwrap();
    poll.stream.send_reset(Reason::CANCEL);
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    // The stanza that comes meanwhile is there for the next request.
    assert!(nodes[0].push(&session.sid, "<message xmlns='jabber:client' id='kept'/>"));
    session.rid -= 1;
    let reply = session.poll(&mut client).await.reply().await.unwrap();
    assert!(reply.body.contains("kept"), "{reply:?}");
    drop((client, staying));
    nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    eventually("nothing is held", || balancer.held() == 0).await;
    let gone = "bowline_requests_total{kind=\"poll\",outcome=\"client_gone\"}";
    eventually("both are counted", || balancer.metric(gone) == 2).await;
}

/// What an HTTP/1.1 client is answered, an HTTP/2 client is answered as well.
#[tokio::test]
async fn paths_methods_and_codings_are_as_over_http_1() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut ask = async |request: Request<()>, body: &str| {
        let asked = client.ask(request, body).await.unwrap();
        asked.reply().await.unwrap()
    };
    let about = ask(request("GET", "/http-bind?x"), "").await;
    assert!(
        about.status == 200 && about.body.contains("BOSH service"),
        "{about:?}"
    );
    let head = ask(request("HEAD", "/http-bind"), "").await;
    assert!(head.status == 200 && head.body.is_empty(), "{head:?}");
    assert_eq!(
        head.header("content-length"),
        about.header("content-length")
    );
    let preflight = ask(request("OPTIONS", "/http-bind"), "").await;
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    for (wanted, method, path) in [
        (404, "POST", "/other"),
        (404, "GET", "/"),
        (404, "POST", "/http-bind//"),
        (405, "PUT", "/http-bind"),
        (405, "TRACE", "/http-bind"),
    ] {
        let reply = ask(request(method, path), "").await;
        assert_refused(&reply, wanted);
    }
    let mut coded = post();
    let gzip = hyper::header::HeaderValue::from_static("gzip");
    coded.headers_mut().insert("content-encoding", gzip);
    assert_refused(&ask(coded, "x").await, 415);
    assert_refused(&ask(post(), "<body").await, 400);
    assert_refused(&ask(post(), "").await, 400);
    // The connection goes on.
    assert_eq!(ask(request("GET", "/http-bind/"), "").await.status, 200);
}

/// A wrapper of the balancer's own.
fn assert_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status.as_u16(), status, "{reply:?}");
    assert!(reply.body.contains("type='terminate'"), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

/// `:authority` is held to the rules for a `Host`, and to the `Host` beside it.
#[tokio::test]
async fn the_authority_is_the_host() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let with_host = |authority: &str, host: Option<&'static str>| {
        let uri = format!("http://{authority}/http-bind");
        let mut request = Request::builder().method("POST").uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(()).unwrap()
    };
    for (authority, host, status) in [
        ("a.example", None, 200),
        ("a.example:5280", Some("a.example:5280"), 200),
        ("a.example", Some("A.example"), 200),
        ("[::1]:5280", None, 200),
        ("a.example", Some("b.example"), 400),
        ("a.example", Some("a.example:80"), 400),
        ("a.example", Some(""), 400),
        ("user@a.example", None, 400),
        ("a~b", None, 400),
    ] {
        let request = with_host(authority, host);
        let asked = client.ask(request, &creation()).await.unwrap();
        let reply = asked.reply().await.unwrap();
        assert_eq!(reply.status, status, "{authority} {host:?}: {reply:?}");
    }
    let mut twice = with_host("a", Some("a"));
    let host = hyper::header::HeaderValue::from_static("b");
    twice.headers_mut().append("host", host);
    let asked = client.ask(twice, &creation()).await.unwrap();
    assert_refused(&asked.reply().await.unwrap(), 400);
}

#[tokio::test]
async fn connect_is_refused() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let connect = Request::builder().method("CONNECT").uri("a:80").body(());
    let asked = client.ask(connect.unwrap(), "").await.unwrap();
    assert_eq!(asked.reset().await, Reason::PROTOCOL_ERROR);
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_in_time() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.bosh.max_body = 4096;
    settings.timeouts.body = Duration::from_millis(200);
    let balancer = Balancer::start(&settings).await;
    let mut client = Http2::to(balancer.address()).await;
    let large = "x".repeat(5000);
    assert_refused(&client.post(&large).await, 413);
    let announced = Request::builder()
        .method("POST")
        .uri("http://a/http-bind")
        .header("content-length", "5000");
    let asked = client.begin(announced.body(()).unwrap()).unwrap();
    assert_refused(&asked.reply().await.unwrap(), 413);
    // A body that stops is refused, one in several pieces is taken.
    let mut slow = client.begin(post()).unwrap();
    slow.stream.send_data("<body".into(), false).unwrap();
    assert_refused(&slow.reply().await.unwrap(), 408);
    let mut pieces = client.begin(post()).unwrap();
    for piece in creation().as_bytes().chunks(40) {
        pieces
            .stream
            .send_data(Bytes::copy_from_slice(piece), false)
            .unwrap();
        tokio::task::yield_now().await;
    }
    pieces
        .stream
        .send_trailers(hyper::HeaderMap::new())
        .unwrap();
    let reply = pieces.reply().await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
}

/// Bodies that have arrived in part share `limits.body_memory`.
#[tokio::test]
async fn a_body_that_comes_in_pieces_takes_of_the_memory_for_bodies() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.limits.body_memory = 10_000;
    let balancer = Balancer::start(&settings).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut asked = client.begin(post()).unwrap();
        asked
            .stream
            .send_data("x".repeat(6000).into(), false)
            .unwrap();
        waiting.push(asked);
    }
    let last = waiting.pop().unwrap();
    assert_refused(&last.reply().await.unwrap(), 503);
    drop(waiting);
}

#[tokio::test]
async fn a_client_has_no_more_streams_than_it_may() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.limits.streams = 3;
    let balancer = Balancer::start(&settings).await;
    // This client believes that it may open more.
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(10);
    let mut client = Http2::with(balancer.address(), &builder).await;
    let mut polls = Vec::new();
    for _ in 0..3 {
        let mut session = Session::create(&mut client).await;
        polls.push(session.poll(&mut client).await);
    }
    eventually("all polls are held", || balancer.held() == 3).await;
    let mut fourth = client.begin(request("GET", "/http-bind")).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), async {
        std::future::poll_fn(|context| fourth.stream.poll_reset(context)).await
    });
    assert!(
        waited.await.is_err(),
        "the client's own count holds it back"
    );
    polls.pop().unwrap().stream.send_reset(Reason::CANCEL);
    fourth.stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(fourth.reply().await.unwrap().status, 200);
}

/// Each request beyond the first of a connection counts as a connection.
#[tokio::test]
async fn streams_count_as_connections() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.limits.connections = 3;
    let balancer = Balancer::start(&settings).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut polls = Vec::new();
    for _ in 0..3 {
        let mut session = Session::create(&mut client).await;
        polls.push(session.poll(&mut client).await);
    }
    eventually("all polls are held", || balancer.held() == 3).await;
    let fourth = client.ask(request("GET", "/http-bind"), "").await.unwrap();
    assert_eq!(fourth.reset().await, Reason::REFUSED_STREAM);
    assert_eq!(balancer.metric("bowline_connections_refused_total"), 1);
    polls.pop().unwrap().stream.send_reset(Reason::CANCEL);
    eventually("one is given up", || balancer.held() == 2).await;
    let fourth = client.ask(request("GET", "/http-bind"), "").await.unwrap();
    assert_eq!(fourth.reply().await.unwrap().status, StatusCode::OK);
}

/// CVE-2023-44487: requests that are begun and given up at once.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let nodes = tigase_nodes(1).await;
    let is_creation = |seen: &Seen| seen.kind == Kind::Create;
    nodes[0].misbehave(Fault::never_answering().on(is_creation));
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let floods = || balancer.metric("bowline_http2_floods_total");
    let mut given_up = 0;
    let reason = loop {
        let mut asked = match client.ask(post(), &creation()).await {
            Ok(asked) => asked,
            Err(error) => break error.reason(),
        };
        eventually("it is at the node", || {
            balancer.held() == 1 || floods() == 1
        })
        .await;
        if floods() == 1 {
            break Some(asked.reset().await);
        }
        asked.stream.send_reset(Reason::CANCEL);
        given_up += 1;
        assert!(given_up < 1000, "it is cut");
        eventually("it is given up", || balancer.held() == 0).await;
    };
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    assert!((100..110).contains(&given_up), "{given_up}");
    assert_eq!(floods(), 1);
}

/// An answer for which the client opens no window has the time of one that it does not read.
#[tokio::test]
async fn a_client_that_opens_no_window_is_cut_off_in_time() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.timeouts.write_stall = Duration::from_millis(200);
    let balancer = Balancer::start(&settings).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(10);
    let mut client = Http2::with(balancer.address(), &builder).await;
    let asked = client.ask(request("GET", "/http-bind"), "").await.unwrap();
    let error = asked.unread().await;
    assert_eq!(error.reason(), Some(Reason::CANCEL), "{error:?}");
}

/// The same for one that reads nothing from its socket.
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off_in_time() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.timeouts.write_stall = Duration::from_millis(200);
    let balancer = Balancer::start(&settings).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    socket2::SockRef::from(&stream)
        .set_recv_buffer_size(4096)
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Answers to pings fill the socket; each is asked for and never read.
    let pings = b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(1000);
    let cut = async { while stream.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, cut)
        .await
        .expect("it is cut");
    eventually("it is closed", || {
        balancer.proxy().metrics.connections.get() == 0
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_told_its_end() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.timeouts.idle = Duration::from_millis(200);
    let balancer = Balancer::start(&settings).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut session = Session::create(&mut client).await;
    let poll = session.poll(&mut client).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let reply = poll.reply().await.unwrap();
    assert_eq!(reply.status, 200, "held for longer than `idle`: {reply:?}");
    client.ended().await.unwrap();
}

/// One that does not answer either.
#[tokio::test]
async fn an_idle_connection_of_a_dead_client_is_closed() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.timeouts.idle = Duration::from_millis(100);
    settings.timeouts.head = Duration::from_millis(100);
    let balancer = Balancer::start(&settings).await;
    for bytes in [&b""[..], b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
        let _ = end.await.expect("it is closed");
    }
}

#[tokio::test]
async fn a_drain_says_goaway_and_serves_streams_to_their_end() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let next = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let idle = Http2::to(balancer.address()).await;
    let mut polls = Vec::new();
    for _ in 0..24 {
        let mut session = Session::create(&mut client).await;
        let poll = session.poll(&mut client).await;
        polls.push((session, poll));
    }
    nodes[0].wait_until(|node| node.held() == 24).await.unwrap();
    let begun = tokio::time::Instant::now();
    let drained = tokio::spawn(balancer.server.drain());
    let mut other = Http2::to(next.address()).await;
    for (mut session, poll) in polls {
        let reply = poll.reply().await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        let poll = session.poll(&mut other).await;
        assert!(nodes[0].push(&session.sid, "<message xmlns='jabber:client' id='m'/>"));
        assert!(poll.reply().await.unwrap().body.contains("id='m'"));
    }
    client.ended().await.unwrap();
    idle.ended().await.unwrap();
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// With `keep`, polls stay at their node. The connection gets GOAWAY at once.
#[tokio::test]
async fn a_drain_that_keeps_polls_says_goaway_and_waits() {
    let nodes = tigase_nodes(1).await;
    let mut settings = h2c(&nodes);
    settings.upstream.release = bowline::config::Release::Keep;
    let balancer = Balancer::start(&settings).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut session = Session::create(&mut client).await;
    let poll = session.poll(&mut client).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let address = balancer.address();
    let drained = tokio::spawn(balancer.server.drain());
    // A request on a new connection is served, and its connection ends behind it.
    let mut other = Http2::to(address).await;
    let reply = other.post(&session.next(PING)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(poll.reply().await.unwrap().status, 200);
    other.ended().await.unwrap();
    client.ended().await.unwrap();
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
}

/// A stream of a request without a body may end in a frame of its own. To answer before that would need
/// a reset to end the stream.
#[tokio::test]
async fn a_get_is_answered_at_the_end_of_its_stream() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&h2c(&nodes)).await;
    let mut client = Http2::to(balancer.address()).await;
    let mut get = client.begin(request("GET", "/http-bind")).unwrap();
    let other = client.ask(request("GET", "/http-bind"), "").await.unwrap();
    assert_eq!(other.reply().await.unwrap().status, 200);
    let ok = "bowline_requests_total{kind=\"other\",outcome=\"ok\"}";
    assert_eq!(balancer.metric(ok), 1, "the first one waits");
    get.stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(get.reply().await.unwrap().status, 200);
}
