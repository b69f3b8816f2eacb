//! TLS towards nodes, with real sockets.

use std::fs;
use std::time::Duration;

use bowline::config::{NodeTls, Probe, ProxyVersion, Settings};
use rcgen::date_time_ymd;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::balancer::*;
use crate::operator::admin;
use crate::routing::creation;
use crate::support::node_front::{NodeFront, server, trusting};
use crate::support::tls::{Authority, Issued};

const NAME: &str = "t1.example.com";

/// The settings with `front` in place of the first node.
fn behind(front: &NodeFront, tls: NodeTls, mut settings: Settings) -> Settings {
    settings.nodes[0].address = front.address.to_string();
    settings.nodes[0].tls = Some(tls);
    settings
}

fn failure(balancer: &Balancer) -> String {
    let failure = balancer.proxy().cluster.nodes()[0].last_failure();
    failure.map(|failure| failure.what).unwrap_or_default()
}

/// A certificate that no authority has signed.
fn self_signed() -> Issued {
    let own = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    Issued {
        certificate: own.cert.pem(),
        key: own.signing_key.serialize_pem(),
    }
}

#[tokio::test]
async fn sessions_live_over_tls_of_both_versions_and_go_on_with_tickets() {
    for version in [&TLS12, &TLS13] {
        let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
        let tls = server(&authority.issue(NAME), &[version]);
        let front = NodeFront::start(Some(tls), nodes[0].address()).await;
        let settings = behind(&front, trusting(&authority, NAME), patient(&nodes));
        let balancer = Balancer::start(&settings).await;
        for round in 0..2 {
            let mut client = balancer.session().await;
            for number in 0..3 {
                let reply = client.ping(&format!("{round}-{number}")).await.unwrap();
                assert_goes_on(&reply);
            }
            let poll = client.begin_poll().await.unwrap();
            nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
            assert_goes_on(&client.ping("ends-the-poll").await.unwrap());
            assert_goes_on(&poll.reply().await.unwrap());
            assert!(client.terminate().await.unwrap().is_terminate());
        }
        let seen = front.seen();
        assert_eq!(seen.failed, 0);
        for shaken in &seen.shaken {
            assert_eq!(shaken.name.as_deref(), Some(NAME));
            assert_eq!(shaken.version, Some(version.version));
        }
        assert!(seen.shaken.iter().any(|shaken| shaken.resumed));
    }
}

#[tokio::test]
async fn a_session_keeps_its_connection_between_requests() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let tls = server(&authority.issue(NAME), &[&TLS13]);
    let front = NodeFront::start(Some(tls), nodes[0].address()).await;
    let tls = trusting(&authority, NAME);
    let balancer = Balancer::start(&behind(&front, tls, patient(&nodes))).await;
    let mut client = balancer.session().await;
    for number in 0..5 {
        assert_goes_on(&client.ping(&number.to_string()).await.unwrap());
    }
    // One for the first probe, one for the session: tickets do not count as unasked bytes.
    assert_eq!(front.seen().accepted, 2);
}

#[tokio::test]
async fn a_bad_certificate_takes_a_node_down_with_a_reason_whatever_the_probe() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let expired = authority.issue_with(NAME, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    });
    let cases = [
        (Authority::new().issue(NAME), "another key has signed it"),
        (self_signed(), "no authority in `ca`"),
        (
            authority.issue("t2.example.com"),
            "it is not for t1.example.com but for t2.example.com; `server_name` sets the name",
        ),
        (expired, "it has expired "),
    ];
    let http = Probe::Http {
        path: "/".to_owned(),
    };
    for (issued, words) in cases {
        for probe in [Probe::Bosh, http.clone(), Probe::Tcp] {
            let front = NodeFront::start(Some(server(&issued, &[&TLS13])), nodes[0].address());
            let front = front.await;
            let tls = trusting(&authority, NAME);
            let mut settings = behind(&front, tls, settings(&nodes));
            settings.health.probe = probe.clone();
            let balancer = Balancer::start(&settings).await;
            let node = &balancer.proxy().cluster.nodes()[0];
            assert!(!node.is_up(), "{probe:?}");
            let why = failure(&balancer);
            assert!(
                why.contains("the node's certificate is not accepted: "),
                "{why}"
            );
            assert!(why.contains(words), "{why}");
            let health = admin(&balancer, "GET", "/health").await;
            let health = health.text();
            assert!(health.contains(words.trim()), "{health}");
            let failures = "bowline_probe_failures_total{node=\"t1\",reason=\"tls\"}";
            assert!(balancer.metric(failures) > 0, "{}", balancer.metrics());
            front.set(Some(server(&authority.issue(NAME), &[&TLS13])));
            eventually("the node is up", || node.is_up()).await;
        }
    }
    assert_eq!(nodes[0].sessions().len(), 0);
}

#[tokio::test]
async fn a_node_without_tls_or_without_an_answer_says_so() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let tls = trusting(&authority, NAME);
    let mut plain = settings(&nodes);
    plain.nodes[0].tls = Some(tls.clone());
    // Tigase closes what is no HTTP.
    let balancer = Balancer::start(&plain).await;
    let why = failure(&balancer);
    let closed = "in the TLS handshake: it may not speak TLS there";
    assert!(why.contains(closed), "{why}");
    // Others answer it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    plain.nodes[0].address = listener.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let balancer = Balancer::start(&plain).await;
    let why = failure(&balancer);
    let no_tls = "the node does not speak TLS at this port";
    assert!(why.contains(no_tls), "{why}");
    answering.abort();
    let front = NodeFront::start(None, nodes[0].address()).await;
    let balancer = Balancer::start(&behind(&front, tls, settings(&nodes))).await;
    let why = failure(&balancer);
    assert!(why.contains("no connection within 100ms"), "{why}");
}

#[tokio::test]
async fn the_handshake_counts_against_the_limit_of_a_connect() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let tls = server(&authority.issue(NAME), &[&TLS13]);
    let front = NodeFront::start(Some(tls), nodes[0].address()).await;
    let mut settings = behind(&front, trusting(&authority, NAME), patient(&nodes));
    settings.timeouts.connect = Duration::from_millis(300);
    settings.placement_wait = Duration::from_millis(10);
    let balancer = Balancer::start(&settings).await;
    front.set(None);
    let reply = balancer.client().post(&creation()).await.unwrap();
    assert_eq!(reply.status, 503, "{reply:?}");
    let failures = "bowline_upstream_connects_total{node=\"t1\",outcome=\"failed\"}";
    let failures = balancer.metric(failures);
    assert!(failures > 0, "{}", balancer.metrics());
}

#[tokio::test]
async fn a_session_outlives_a_certificate_that_is_wrong_for_a_moment() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let good = server(&authority.issue(NAME), &[&TLS13]);
    let bad = server(&Authority::new().issue(NAME), &[&TLS13]);
    let front = NodeFront::start(Some(good.clone()), nodes[0].address()).await;
    let tls = trusting(&authority, NAME);
    let mut settings = behind(&front, tls, patient(&nodes));
    settings.health.silence = PATIENCE;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    // Its kept connection serves the poll, so that the ping needs another.
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    front.set(Some(bad));
    let ping = tokio::spawn(async move { client.ping("one").await });
    eventually("two handshakes failed", || front.seen().failed >= 2).await;
    front.set(Some(good));
    assert_goes_on(&ping.await.unwrap().unwrap());
    assert_goes_on(&poll.reply().await.unwrap());
}

#[tokio::test]
async fn each_connection_begins_with_the_address_of_its_client_ahead_of_tls() {
    for (version, of_client, of_probe) in [
        (
            ProxyVersion::V1,
            &b"PROXY TCP4 192.0.2.7 127.0.0.1 0 "[..],
            &b"PROXY UNKNOWN\r\n"[..],
        ),
        (
            ProxyVersion::V2,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ),
    ] {
        let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
        let tls = server(&authority.issue(NAME), &[&TLS13]);
        let front = NodeFront::start(Some(tls), nodes[0].address()).await;
        front.expect_header();
        let mut settings = behind(&front, trusting(&authority, NAME), patient(&nodes));
        settings.nodes[0].send_proxy = Some(version);
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let balancer = Balancer::start(&settings).await;
        let mut client = balancer.client().header("X-Forwarded-For", "192.0.2.7");
        client.create().await.unwrap();
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        assert_goes_on(&client.ping("one").await.unwrap());
        assert_goes_on(&poll.reply().await.unwrap());
        let headers = front.seen().headers.clone();
        let (probes, clients): (Vec<_>, Vec<_>) =
            headers.iter().partition(|header| *header == of_probe);
        assert_eq!((probes.len(), clients.len()), (1, 2), "{headers:?}");
        for header in clients {
            assert!(header.starts_with(of_client), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn verify_false_takes_any_certificate() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    for version in [&TLS12, &TLS13] {
        let tls = server(&authority.issue("other.example.com"), &[version]);
        let front = NodeFront::start(Some(tls), nodes[0].address()).await;
        let tls = NodeTls {
            verify: false,
            ca: None,
            server_name: None,
        };
        let balancer = Balancer::start(&behind(&front, tls, settings(&nodes))).await;
        assert_goes_on(&balancer.session().await.ping("one").await.unwrap());
        assert_eq!(front.seen().shaken[0].name, None, "an address has no SNI");
    }
}

#[tokio::test]
async fn a_reload_changes_the_tls_of_new_connections_or_nothing() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let other = Authority::new();
    let front = NodeFront::start(
        Some(server(&authority.issue(NAME), &[&TLS13])),
        nodes[0].address(),
    )
    .await;
    let settings = behind(&front, trusting(&authority, NAME), settings(&nodes));
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let node = &balancer.proxy().cluster.nodes()[0];
    front.set(Some(server(&other.issue(NAME), &[&TLS13])));
    eventually("the node is down", || !node.is_up()).await;
    let mut new = settings.clone();
    new.nodes[0].tls = Some(trusting(&other, NAME));
    let step = balancer.server.reload(&new).unwrap();
    assert_eq!(step.words(), "node t1: tls");
    eventually("the node is up", || node.is_up()).await;
    let _ = client.ping("one").await.unwrap();
    assert_goes_on(&balancer.session().await.ping("one").await.unwrap());

    let mut missing = new.clone();
    let file = other.folder.path().join("none.pem");
    missing.nodes[0].tls.as_mut().unwrap().ca = Some(file.clone());
    let error = balancer.server.reload(&missing).unwrap_err().to_string();
    let file = file.display();
    assert!(
        error.starts_with(&format!("`tls` of node t1: {file} cannot be read: ")),
        "{error}"
    );
    assert_goes_on(&balancer.session().await.ping("two").await.unwrap());

    // The same file with other contents.
    fs::write(other.file(), &authority.pem).unwrap();
    let step = balancer.server.reload(&new).unwrap();
    assert_eq!(step.words(), "nothing changes");
    eventually("the node is down", || !node.is_up()).await;
}

#[tokio::test]
async fn a_stop_releases_the_polls_of_a_node_behind_tls() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    for version in [&TLS12, &TLS13] {
        let tls = server(&authority.issue(NAME), &[version]);
        let front = NodeFront::start(Some(tls), nodes[0].address()).await;
        let settings = behind(&front, trusting(&authority, NAME), settings(&nodes));
        let balancer = Balancer::start(&settings).await;
        let mut client = balancer.session().await;
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        let drained = tokio::spawn(balancer.server.drain());
        // The node answers a connection that is closed to it.
        let reply = poll.reply().await.unwrap();
        assert_goes_on(&reply);
        assert_eq!(drained.await.unwrap(), 0, "nothing was cut");
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let tls = server(&authority.issue(NAME), &[&TLS12, &TLS13]);
    let front = NodeFront::start(Some(tls), nodes[0].address()).await;
    let settings = behind(&front, trusting(&authority, NAME), settings(&nodes));
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let large = "x".repeat(900_000);
    let stanza = format!("<message xmlns='jabber:client' id='m'><body>{large}</body></message>");
    for _ in 0..3 {
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        assert!(nodes[0].push(client.sid(), &stanza));
        let reply = poll.reply().await.unwrap();
        assert!(reply.text().contains(&large));
        // The node holds what it has read to its end.
        let sent = client.begin("", &stanza).await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        assert!(nodes[0].push(client.sid(), "<presence xmlns='jabber:client'/>"));
        assert_goes_on(&sent.reply().await.unwrap());
    }
}
