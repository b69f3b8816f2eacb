//! TLS on listeners, with real sockets and rustls as the client.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::config::{Listen, Settings, Tls};
use bowline::demo::node::Node;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::balancer::*;
use crate::clients::post;
use crate::operator::admin;
use crate::routing::creation;
use crate::support::tls::{Authority, connect, listener};

const NAME: &str = "chat.example.com";

fn with(nodes: &[Node], listen: Listen) -> Settings {
    let mut settings = settings(nodes);
    settings.listen = vec![listen];
    settings
}

fn request(body: &str) -> String {
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads one answer, by its `content-length`.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lines = &mut head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return text;
            }
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "closed after {text:?}");
    }
}

/// The value of an attribute.
fn attribute<'a>(text: &'a str, name: &str) -> &'a str {
    let at = text.find(&format!(" {name}=")).unwrap() + name.len() + 3;
    text[at..].split(['"', '\'']).next().unwrap()
}

#[tokio::test]
async fn a_session_lives_over_tls_of_both_versions_and_close_notify_or_fin_ends_its_poll() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let settings = with(&nodes, listener(vec![authority.files(NAME)]));
    let balancer = Balancer::start(&settings).await;
    for version in [&TLS12, &TLS13] {
        let client = authority.client(&[version], None);
        for notify in [true, false] {
            let mut stream = connect(&client, balancer.address(), NAME).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            // A byte at a time: no record and no request is whole at once.
            for byte in request(&creation()).bytes() {
                stream.write_all(&[byte]).await.unwrap();
                stream.flush().await.unwrap();
            }
            let created = answer(&mut stream).await;
            assert!(created.starts_with("HTTP/1.1 200 OK\r\n"), "{created}");
            let sid = attribute(&created, "sid").to_owned();
            stream.write_all(post(&sid, 2).as_bytes()).await.unwrap();
            nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
            if notify {
                // Only the alert: the TCP connection stays open.
                stream.get_mut().1.send_close_notify();
                stream.flush().await.unwrap();
            } else {
                drop(stream.into_inner_tcp());
            }
            nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
            eventually("nothing is held", || balancer.held() == 0).await;
        }
    }
    let record = nodes[0].record();
    // Probes have another host.
    let of_clients = |text: &String| text.contains("\r\nHost: a\r\n");
    let texts: Vec<_> = record
        .iter()
        .map(|seen| seen.text())
        .filter(of_clients)
        .collect();
    assert_eq!(texts.len(), 8);
    for text in texts {
        assert!(text.contains("X-Forwarded-Proto: https\r\n"), "{text}");
    }
    let full = "bowline_tls_handshakes_total{result=\"full\"}";
    let resumed = "bowline_tls_handshakes_total{result=\"resumed\"}";
    assert_eq!(balancer.metric(full) + balancer.metric(resumed), 4);
    assert!(balancer.metric(resumed) >= 2, "tickets were not used");
}

/// The TCP connection of a TLS connection, to be closed without an alert.
trait IntoTcp {
    fn into_inner_tcp(self) -> TcpStream;
}

impl IntoTcp for tokio_rustls::client::TlsStream<TcpStream> {
    fn into_inner_tcp(self) -> TcpStream {
        self.into_inner().0
    }
}

#[tokio::test]
async fn large_answers_arrive_whole_at_a_slow_reader() {
    let authority = Authority::new();
    let text = "x".repeat(3_000_000);
    let body = format!("<body xmlns='http://jabber.org/protocol/httpbind'><m>{text}</m></body>");
    let raw = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let nodes = tigase_nodes(1).await;
    let settings = with(&nodes, listener(vec![authority.files(NAME)]));
    let balancer = Balancer::start(&settings).await;
    let client = authority.client(&[&TLS13, &TLS12], None);
    let mut stream = connect(&client, balancer.address(), NAME).await.unwrap();
    stream
        .write_all(request(&creation()).as_bytes())
        .await
        .unwrap();
    let created = answer(&mut stream).await;
    let sid = attribute(&created, "sid").to_owned();
    let fault = bowline::demo::node::Fault::answering_rubbish(raw).on(|seen| seen.sid.is_some());
    nodes[0].misbehave(fault.once());
    stream.write_all(post(&sid, 2).as_bytes()).await.unwrap();
    let got = answer(&mut stream).await;
    assert!(got.ends_with("</m></body>"), "{} bytes", got.len());
    assert!(got.contains(&text));
}

/// An end without `close_notify` is an error for the client: the connection may have been cut.
#[tokio::test]
async fn connections_that_bowline_closes_end_with_close_notify() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = with(&nodes, listener(vec![authority.files(NAME)]));
    settings.timeouts.idle = Duration::from_millis(200);
    settings.timeouts.head = Duration::from_millis(200);
    let get = "GET /http-bind HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /http-bind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for version in [&TLS12, &TLS13] {
        let balancer = Balancer::start(&settings).await;
        // Fresh, idle, with a part of a head, lingering, and refused.
        for sent in ["", get, &get[..30], last, "rubbish\r\n\r\n"] {
            let client = authority.client(&[version], None);
            let mut stream = connect(&client, balancer.address(), NAME).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut seen = Vec::new();
            let ended = timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
            let ended = ended.expect("closed in time");
            assert!(ended.is_ok(), "{sent:?}: {ended:?}");
            let is_whole = sent.ends_with("\r\n\r\n");
            assert_eq!(seen.starts_with(b"HTTP/1.1 "), is_whole, "{sent:?}");
        }
        let client = authority.client_of(b"h2", &[version], None);
        for sent in [
            &b""[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let mut stream = connect(&client, balancer.address(), NAME).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
            let ended = ended.expect("closed in time");
            assert!(ended.is_ok(), "HTTP/2 {sent:?}: {ended:?}");
        }
    }
}

/// The name of the certificate that a client gets for `name`, if it trusts it for that.
async fn served(authority: &Authority, balancer: &Balancer, name: &str) -> Option<Vec<u8>> {
    let client = authority.client(&[&TLS13], None);
    let stream = connect(&client, balancer.address(), name).await.ok()?;
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates()?[0].to_vec())
}

#[tokio::test]
async fn each_name_gets_its_certificate() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let names = [
        "first.example.com",
        "second.example.com",
        "*.wild.example.com",
    ];
    let files = names.map(|name| authority.files(name)).to_vec();
    let balancer = Balancer::start(&with(&nodes, listener(files))).await;
    let mut seen = Vec::new();
    for name in [
        names[0],
        names[1],
        "a.wild.example.com",
        "SECOND.example.com",
    ] {
        seen.push(served(&authority, &balancer, name).await.expect(name));
    }
    assert_ne!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
    assert_eq!(seen[1], seen[3]);
    for unknown in ["other.example.com", "a.b.wild.example.com"] {
        let got = served(&authority, &balancer, unknown).await;
        assert_eq!(got, None, "{unknown}: the first certificate is not for it");
    }
}

#[tokio::test]
async fn a_client_needs_a_certificate_where_an_authority_for_clients_is_set() {
    let (nodes, authority, other) = (tigase_nodes(1).await, Authority::new(), Authority::new());
    let mut listen = listener(Vec::new());
    listen.tls = Some(Tls {
        certificates: vec![authority.files(NAME)],
        client_ca: Some(authority.file()),
    });
    let balancer = Balancer::start(&with(&nodes, listen)).await;
    let (own, foreign) = (authority.issue("client"), other.issue("client"));
    for version in [&TLS12, &TLS13] {
        for (own, good) in [(Some(&own), true), (None, false), (Some(&foreign), false)] {
            let client = authority.client(&[version], own);
            let got = async {
                let mut stream = connect(&client, balancer.address(), NAME).await?;
                stream.write_all(request(&creation()).as_bytes()).await?;
                let mut byte = [0];
                // TLS 1.3 clients hear of a refusal with their first read.
                stream.read_exact(&mut byte).await
            };
            let got: std::io::Result<usize> = timeout(PATIENCE, got).await.unwrap();
            assert_eq!(got.is_ok(), good, "{version:?} {got:?}");
        }
    }
    let failed = "bowline_tls_handshakes_total{result=\"failed\"}";
    eventually("all are counted", || balancer.metric(failed) == 4).await;
}

#[tokio::test]
async fn the_wrong_protocol_is_closed_without_an_answer() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = with(&nodes, listener(vec![authority.files(NAME)]));
    let plain = Listen::new(settings.listen[0].address.clone());
    settings.listen.push(plain);
    let balancer = Balancer::start(&settings).await;
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream
        .write_all(request(&creation()).as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, b"");
    let foreign = "bowline_tls_handshakes_total{result=\"not_tls\"}";
    eventually("it is counted", || balancer.metric(foreign) == 1).await;
    let plain = balancer.server.addresses()[1];
    let mut stream = TcpStream::connect(plain).await.unwrap();
    stream
        .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
        .await
        .unwrap();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head_and_its_place_only_for_a_second() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = with(&nodes, listener(vec![authority.files(NAME)]));
    settings.timeouts.head = Duration::from_secs(3);
    settings.limits.handshakes = 1;
    let balancer = Balancer::start(&settings).await;
    // One that says nothing, and one that begins a record and goes on no further.
    let mut silent = TcpStream::connect(balancer.address()).await.unwrap();
    let mut stalled = TcpStream::connect(balancer.address()).await.unwrap();
    stalled.write_all(&[22, 3]).await.unwrap();
    let client = authority.client(&[&TLS13], None);
    let shaken = timeout(
        Duration::from_millis(2500),
        connect(&client, balancer.address(), NAME),
    );
    shaken.await.expect("a place is free before 3 s").unwrap();
    let mut answer = Vec::new();
    for stream in [&mut silent, &mut stalled] {
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    let late = "bowline_tls_handshakes_total{result=\"timeout\"}";
    eventually("both are too late", || balancer.metric(late) == 2).await;
}

#[tokio::test]
async fn a_redirecting_listener_sends_everything_to_https() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.listen[0].redirect_to_https = true;
    let balancer = Balancer::start(&settings).await;
    let cases = [
        (
            "GET /a?b=c HTTP/1.1\r\nHost: chat.example.com:80\r\n\r\n",
            "https://chat.example.com/a?b=c",
        ),
        ("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", "https://a/x"),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "https://a"),
        (
            "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
            "https://[::1]/",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "https://a/"),
        (
            "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
            "https://a/http-bind",
        ),
    ];
    for (request, url) in cases {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let got = crate::http::raw(&balancer, request.as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 308 "), "{request}: {got}");
        assert!(
            got.contains(&format!("\r\nlocation: {url}\r\n")),
            "{request}: {got}"
        );
    }
    let bad = crate::http::raw(&balancer, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
    assert_eq!(
        nodes[0].count(|seen| seen.raw.starts_with(b"POST") && seen.sid.is_none()),
        0
    );
}

/// The clients use both versions, and every other one goes on with tickets.
#[tokio::test]
async fn a_thousand_exchanges_of_the_certificate_fail_no_handshake() {
    const EXCHANGES: usize = 1000;
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let files = authority.files(NAME);
    let others: Vec<_> = (0..4).map(|_| authority.issue(NAME)).collect();
    let balancer = Balancer::start(&with(&nodes, listener(vec![files]))).await;
    let address = balancer.address();
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for (version, resumes) in [
        (&TLS12, true),
        (&TLS12, false),
        (&TLS13, true),
        (&TLS13, false),
    ] {
        let fresh = || authority.client(&[version], None);
        let (done, client) = (Arc::clone(&done), fresh());
        let others: Vec<_> = if resumes {
            vec![]
        } else {
            (0..64).map(|_| fresh()).collect()
        };
        clients.spawn(async move {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) || count < 16 {
                let client = others.get(count % others.len().max(1)).unwrap_or(&client);
                let mut stream = connect(client, address, NAME)
                    .await
                    .expect("no handshake fails");
                let get = "GET /http-bind HTTP/1.1\r\nHost: a\r\n\r\n";
                stream.write_all(get.as_bytes()).await.unwrap();
                let served = answer(&mut stream).await;
                assert!(served.starts_with("HTTP/1.1 200 OK\r\n"), "{served}");
                count += 1;
            }
            count
        });
    }
    // The same code as that of the watch, without its second between two looks.
    let mut exchanged = 0;
    for number in 0..EXCHANGES {
        authority.write(NAME, &others[number % others.len()]);
        exchanged += balancer.server.certificates().look();
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    let shaken: Vec<usize> = clients.join_all().await;
    // The look of every second may have been faster.
    let watched = balancer.metric("bowline_certificate_reloads_total{result=\"ok\"}");
    assert_eq!(exchanged + usize::try_from(watched).unwrap(), EXCHANGES);

    let ended = |result: &str| {
        balancer.metric(&format!(
            "bowline_tls_handshakes_total{{result=\"{result}\"}}"
        ))
    };
    let all: usize = shaken.iter().sum();
    let (full, resumed) = (ended("full"), ended("resumed"));
    assert_eq!(full + resumed, all as u64);
    assert!(resumed > 10, "{resumed} of {all}");
    for bad in ["failed", "closed", "timeout", "not_tls"] {
        assert_eq!(ended(bad), 0, "{bad}");
    }
}

#[tokio::test]
async fn new_certificates_are_taken_and_bad_ones_are_not() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    // As Kubernetes mounts a secret: the files are links through a link that is exchanged.
    let root = authority.folder.path().to_owned();
    let put = |version: &str, certificate: &str, key: &str| {
        let folder = root.join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), certificate).unwrap();
        fs::write(folder.join("tls.key"), key).unwrap();
        std::os::unix::fs::symlink(version, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("data")).unwrap();
    };
    let (first, second) = (authority.issue(NAME), authority.issue(NAME));
    put("1", &first.certificate, &first.key);
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("data/{file}"), root.join(file)).unwrap();
    }
    let files = bowline::config::CertificateFiles {
        certificate: root.join("tls.crt"),
        key: root.join("tls.key"),
    };
    let balancer = Balancer::start(&with(&nodes, listener(vec![files]))).await;
    let before = served(&authority, &balancer, NAME).await.unwrap();
    let reloads = |result: &str| {
        balancer.metric(&format!(
            "bowline_certificate_reloads_total{{result=\"{result}\"}}"
        ))
    };

    // A key that belongs to another certificate.
    put("2", &second.certificate, &first.key);
    eventually("a bad pair is refused", || reloads("failed") == 1).await;
    assert_eq!(
        served(&authority, &balancer, NAME).await,
        Some(before.clone())
    );
    let health = admin(&balancer, "GET", "/health").await;
    let health: serde_json::Value = serde_json::from_str(health.text()).unwrap();
    assert_eq!(health["status"], "degraded");
    let why = health["reasons"][0].as_str().unwrap();
    assert!(
        why.contains("keeps its old certificates: ") && why.contains("is not the key"),
        "{why}"
    );
    let events = admin(&balancer, "GET", "/events").await;
    assert!(
        events.text().contains("\"kind\": \"certificates\""),
        "{events:?}"
    );

    put("3", &second.certificate, &second.key);
    eventually("the new one is taken", || reloads("ok") == 1).await;
    let after = served(&authority, &balancer, NAME).await.unwrap();
    assert_ne!(before, after);
    let health = admin(&balancer, "GET", "/health").await;
    let health: serde_json::Value = serde_json::from_str(health.text()).unwrap();
    assert_eq!(health["status"], "ok", "{health}");
    let expiry = balancer.metric("bowline_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, 2_082_758_400);
}

#[tokio::test]
async fn a_reload_gives_a_listener_tls_and_takes_it_away() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = with(&nodes, listener(Vec::new()));
    settings.listen[0].tls = None;
    let balancer = Balancer::start(&settings).await;
    let mut session = balancer.session().await;
    assert_eq!(served(&authority, &balancer, NAME).await, None);
    let encrypted = listener(vec![authority.files(NAME)]).tls;
    settings.listen[0].tls.clone_from(&encrypted);
    let address = settings.listen[0].address.clone();
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), format!("listener {address}"));
    assert!(served(&authority, &balancer, NAME).await.is_some());
    assert!(
        balancer
            .metrics()
            .contains("bowline_certificate_expiry_timestamp")
    );
    // A file that is missing changes nothing.
    let mut bad = settings.clone();
    let tls = bad.listen[0].tls.as_mut().unwrap();
    tls.certificates[0].key = "missing.pem".into();
    let error = balancer.server.reload(&bad).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    assert!(served(&authority, &balancer, NAME).await.is_some());
    settings.listen[0].tls = None;
    balancer.server.reload(&settings).unwrap();
    assert_goes_on(&session.ping("one").await.unwrap());
    let expiry = "bowline_certificate_expiry_timestamp_seconds{";
    assert!(!balancer.metrics().contains(expiry));
}
