//! Floods and the limits against them: creations, made-up sids, connections. Each test is named
//! after its threat.

use bowline::config::Settings;
use bowline::demo::client::Client;
use bowline::demo::node::{Fate, Hub, Node, Profile};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Duration, Instant, timeout};

use crate::balancer::*;
use crate::routing::creation;

/// Settings under which the tests' own address is a client like any other.
fn strict(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.limits.exempt = Vec::new();
    settings
}

/// A client behind a trusted proxy, at another address each.
fn client_at(balancer: &Balancer, address: &str) -> Client {
    balancer.client().header("X-Forwarded-For", address)
}

fn rejects(balancer: &Balancer, cause: &str) -> u64 {
    balancer.metric(&format!("bowline_rejects_total{{cause=\"{cause}\"}}"))
}

/// Requests with a sid that reached nodes, probes aside.
fn asked(nodes: &[Node], prefix: &str) -> usize {
    let of = |node: &Node| {
        node.count(|seen| {
            seen.sid
                .as_deref()
                .is_some_and(|sid| sid.starts_with(prefix))
        })
    };
    nodes.iter().map(of).sum()
}

#[tokio::test]
async fn a_creation_flood_from_one_address_is_turned_away_and_nobody_else() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    settings.limits.creations_per_client = 1;
    settings.limits.creations_burst = 20;
    let balancer = Balancer::start(&settings).await;
    let mut early = client_at(&balancer, "198.51.100.7");
    early.create().await.unwrap();
    let mut refused = 0;
    for _ in 0..60 {
        let answer = client_at(&balancer, "198.51.100.7");
        let answer = answer.post(&creation()).await.unwrap();
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            assert!(answer.is_terminate(), "{answer:?}");
            refused += 1;
        }
    }
    assert!((35..=41).contains(&refused), "{refused}");
    assert_eq!(rejects(&balancer, "creation_rate"), refused);
    assert_goes_on(&early.ping("p").await.unwrap());
    let other = client_at(&balancer, "198.51.100.8");
    assert_eq!(other.post(&creation()).await.unwrap().status, 200);
    // The proxy itself stands for many.
    for _ in 0..30 {
        let answer = balancer.client().post(&creation()).await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_are_one_client() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    settings.limits.creations_per_client = 1;
    settings.limits.creations_burst = 5;
    let balancer = Balancer::start(&settings).await;
    for number in 0..20 {
        let client = client_at(&balancer, &format!("2001:db8::{number:x}"));
        client.post(&creation()).await.unwrap();
    }
    assert!(rejects(&balancer, "creation_rate") >= 10);
    let other = client_at(&balancer, "2001:db8:0:1::1");
    assert_eq!(other.post(&creation()).await.unwrap().status, 200);
}

#[tokio::test]
async fn nodes_with_all_the_sessions_they_may_have_keep_them_and_get_no_more() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.nodes[0].max_sessions = 1;
    settings.nodes[1].max_sessions = 2;
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(balancer.session().await);
    }
    assert_eq!(
        [nodes[0].sessions().len(), nodes[1].sessions().len()],
        [1, 2]
    );
    let refused = balancer.client().post(&creation()).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some() && refused.is_terminate());
    assert_eq!(rejects(&balancer, "nodes_full"), 1);
    for client in &mut clients {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    clients[0].terminate().await.unwrap();
    balancer.session().await;
}

#[tokio::test]
async fn made_up_sids_make_no_pin_and_their_answers_do_not_multiply() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&strict(&nodes)).await;
    let mut honest = balancer.session().await;
    for number in 0..200 {
        let mut client = balancer.client();
        client.adopt(&format!("made-up-{number}"), 7);
        assert_item_not_found(&client.poll().await.unwrap());
    }
    // One request each, and a few more while the budget for searches lasts.
    let asked_for = asked(&nodes, "made-up-");
    assert!((200..=230).contains(&asked_for), "{asked_for}");
    assert_eq!(balancer.proxy().sessions.len(), 1, "no trace of them");
    assert_eq!(rejects(&balancer, "unknown_budget"), 0);
    assert_goes_on(&honest.ping("p").await.unwrap());
}

#[tokio::test]
async fn made_up_sids_whose_node_closes_do_not_go_from_node_to_node() {
    let nodes = tigase_nodes(2).await;
    for node in &nodes {
        node.misbehave(bowline::demo::node::Fault::resetting().on(|seen| {
            seen.sid
                .as_deref()
                .is_some_and(|sid| sid.starts_with("made-up"))
        }));
    }
    let balancer = Balancer::start(&strict(&nodes)).await;
    for number in 0..10 {
        let mut client = balancer.client();
        client.adopt(&format!("made-up-{number}"), 7);
        // The node may have the session, and does not say that it has not.
        let reply = client.poll().await.unwrap();
        assert!(reply.is_empty() && !reply.is_terminate(), "{reply:?}");
    }
    assert_eq!(asked(&nodes, "made-up-"), 20, "once, and once more");
    assert!(balancer.proxy().sessions.is_empty(), "no trace of them");
}

#[tokio::test]
async fn an_unknown_sid_flood_beyond_the_budget_reaches_no_node() {
    let nodes = tigase_nodes(2).await;
    let mut settings = strict(&nodes);
    settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    settings.limits.unknown_sids_per_client = 1;
    settings.limits.unknown_sids_per_second = 1000;
    let balancer = Balancer::start(&settings).await;
    let mut honest = client_at(&balancer, "198.51.100.1");
    honest.create().await.unwrap();
    for number in 0..300 {
        let mut client = client_at(&balancer, "198.51.100.1");
        client.adopt(&format!("made-up-{number}"), 7);
        assert_item_not_found(&client.poll().await.unwrap());
    }
    let asked_for = asked(&nodes, "made-up-");
    assert!((10..100).contains(&asked_for), "{asked_for}");
    let refused = rejects(&balancer, "unknown_budget");
    let searches = balancer.metric("bowline_unknown_sid_searches_total");
    assert_eq!(refused + u64::try_from(asked_for).unwrap() - searches, 300);
    assert!(searches < 10, "{searches}");
    // What has a pin is not concerned, nor is another client.
    assert_goes_on(&honest.ping("p").await.unwrap());
    let mut other = client_at(&balancer, "198.51.100.2");
    other.adopt("other-1", 7);
    other.poll().await.unwrap();
    assert!((1..=2).contains(&asked(&nodes, "other-")));
}

#[tokio::test]
async fn an_unknown_sid_flood_at_once_reaches_no_node_beyond_the_line_for_it() {
    let nodes = tigase_nodes(1).await;
    let mut settings = strict(&nodes);
    settings.limits.unknown_sids_per_client = 1;
    settings.upstream.connects_per_second = 50;
    let balancer = Balancer::start(&settings).await;
    // Nothing is opened until all of them have come.
    let limiter = &balancer.proxy().cluster.nodes()[0].connect_limiter;
    while limiter.try_permit(Instant::now()).is_some() {}
    let mut pending = Vec::new();
    for number in 0..200 {
        let mut client = balancer.client();
        client.adopt(&format!("made-up-{number}"), 7);
        pending.push((client.begin_poll().await.unwrap(), client));
    }
    for (poll, _client) in pending {
        assert_item_not_found(&poll.reply().await.unwrap());
    }
    // 64 stand in line; who gets there later finds the budget of ten used up.
    let asked_for = asked(&nodes, "made-up-");
    assert!((64..120).contains(&asked_for), "{asked_for}");
}

#[tokio::test]
async fn a_sid_that_its_node_did_not_know_is_not_asked_for_again_at_once() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.client();
    client.adopt("made-up", 7);
    for _ in 0..10 {
        assert_item_not_found(&client.poll().await.unwrap());
    }
    assert_eq!(asked(&nodes, "made-up"), 1);
    assert_eq!(rejects(&balancer, "unknown_sid"), 9);
}

#[tokio::test]
async fn a_sid_that_was_refused_and_is_made_a_moment_later_works() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let sid = "made-a-moment-later";
    let mut client = balancer.client();
    client.adopt(sid, 1);
    assert_item_not_found(&client.poll().await.unwrap());
    let answer = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' wait='5' requests='2' \
         inactivity='10'/>"
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    nodes[0]
        .misbehave(bowline::demo::node::Fault::answering_rubbish(format!("{head}{answer}")).once());
    let made = balancer.client().post(&creation()).await.unwrap();
    assert!(made.text().contains(sid), "{made:?}");
    client.adopt(sid, 1);
    client.poll().await.unwrap();
    assert_eq!(asked(&nodes, sid), 2, "it has a pin, and its node is asked");
    assert_eq!(rejects(&balancer, "unknown_sid"), 0);
}

#[tokio::test]
async fn sessions_that_nodes_know_cost_no_budget_however_many_come_after_a_restart() {
    let hub = Hub::default();
    let node = Node::start(Profile::shared("e1", &hub)).await.unwrap();
    let nodes = [node];
    let mut settings = strict(&nodes);
    settings.bosh.paths.push("/bosh".to_owned());
    settings.limits.unknown_sids_per_client = 1;
    settings.limits.unknown_sids_per_second = 1;
    let balancer = Balancer::start(&settings).await;
    for _ in 0..40 {
        let mut direct = Client::to(nodes[0].address()).path("/bosh");
        direct.create().await.unwrap();
        let mut client = balancer.client().path("/bosh");
        client.adopt(direct.sid(), direct.rid());
        assert_goes_on(&client.ping("a").await.unwrap());
    }
    assert_eq!(balancer.metric("bowline_unknown_sids_total"), 40);
    assert_eq!(rejects(&balancer, "unknown_budget"), 0);
}

#[tokio::test]
async fn a_flood_of_made_up_sids_whose_clients_do_not_wait_is_paid_for_too() {
    let nodes = tigase_nodes(1).await;
    let mut settings = strict(&nodes);
    settings.limits.unknown_sids_per_client = 1;
    let balancer = Balancer::start(&settings).await;
    nodes[0].misbehave(bowline::demo::node::Fault::never_answering().on(|seen| {
        seen.sid
            .as_deref()
            .is_some_and(|sid| sid.starts_with("made-up"))
    }));
    for number in 0..30 {
        let mut client = balancer.client();
        client.adopt(&format!("made-up-{number}"), 7);
        let pending = client.begin_poll().await.unwrap();
        if number < 10 {
            eventually("it is at the node", || balancer.held() > 0).await;
        }
        drop((pending, client));
        eventually("it is gone", || balancer.held() == 0).await;
    }
    eventually("the rest reached no node", || {
        rejects(&balancer, "unknown_budget") >= 15
    })
    .await;
    let never = |seen: &bowline::demo::node::Seen| {
        seen.fate != Fate::Refused
            && seen
                .sid
                .as_deref()
                .is_some_and(|sid| sid.starts_with("made"))
    };
    assert!(nodes[0].count(never) <= 14);
}

/// So many connections that say nothing.
async fn hoard(balancer: &Balancer, count: usize) -> Vec<TcpStream> {
    let mut hoard = Vec::new();
    for _ in 0..count {
        hoard.push(TcpStream::connect(balancer.address()).await.unwrap());
    }
    hoard
}

/// Whether the other side has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_millis(1), stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn connections_beyond_those_of_one_client_are_closed() {
    let nodes = tigase_nodes(1).await;
    let mut settings = strict(&nodes);
    settings.limits.connections_per_client = 5;
    let balancer = Balancer::start(&settings).await;
    let _hoard = hoard(&balancer, 5).await;
    let metrics = &balancer.proxy().metrics;
    eventually("they are there", || metrics.connections.get() == 5).await;
    let mut sixth = TcpStream::connect(balancer.address()).await.unwrap();
    let read = timeout(PATIENCE, sixth.read(&mut [0]))
        .await
        .expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(balancer.metric("bowline_connections_refused_total"), 1);
    drop(_hoard);
    eventually("they are gone", || metrics.connections.get() == 0).await;
    balancer.session().await;
}

#[tokio::test]
async fn of_an_idle_hoard_the_oldest_are_given_up_and_held_polls_are_not() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.connections = 40;
    let balancer = Balancer::start(&settings).await;
    let mut honest = balancer.session().await;
    let held = honest.begin_poll().await.unwrap();
    eventually("it is held", || balancer.held() == 1).await;
    let mut hoard = hoard(&balancer, 60).await;
    // It fills the places and the queue, and still everybody is served.
    for number in 0..10 {
        let mut client = balancer.client();
        client.create().await.unwrap();
        assert_goes_on(&client.ping(&number.to_string()).await.unwrap());
    }
    assert!(balancer.metric("bowline_connections_given_up_total") >= 30);
    assert!(is_closed(&mut hoard[0]).await, "the oldest");
    nodes[0].push(honest.sid(), "<message id='still-there'/>");
    assert!(held.reply().await.unwrap().text().contains("still-there"));
}

#[tokio::test]
async fn idle_connections_stay_while_there_are_places() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.connections = 40;
    let balancer = Balancer::start(&settings).await;
    let mut idle = hoard(&balancer, 30).await;
    for _ in 0..20 {
        balancer.session().await;
    }
    assert_eq!(balancer.metric("bowline_connections_given_up_total"), 0);
    for stream in &mut idle {
        assert!(!is_closed(stream).await);
    }
}

#[tokio::test]
async fn slow_bodies_together_take_no_more_memory_than_they_may() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.body_memory = 1024 * 1024;
    let balancer = Balancer::start(&settings).await;
    let mut honest = balancer.session().await;
    let head = "POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The balancer stops reading where the memory ends.
        let _ = timeout(PATIENCE, stream.write_all(&[b' '; 199_999])).await;
        slow.push(stream);
    }
    eventually("some are refused", || {
        rejects(&balancer, "body_memory") >= 3
    })
    .await;
    assert_goes_on(&honest.ping("p").await.unwrap());
    drop(slow);
    let long = format!("<iq type='get' id='long'>{}</iq>", " ".repeat(100_000));
    eventually("the memory is free again", || {
        balancer.proxy().metrics.connections.get() <= 2
    })
    .await;
    assert_goes_on(&honest.send(&long).await.unwrap());
}

/// How long until the balancer has ended a connection on which `bytes` were sent, `then` again and
/// again, and nothing is ever read.
async fn ended_after(balancer: &Balancer, bytes: &[u8], then: &[u8]) -> Duration {
    let socket = TcpSocket::new_v4().unwrap();
    // Little room for answers that nobody reads.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(balancer.address()).await.unwrap();
    let begun = Instant::now();
    stream.write_all(bytes).await.unwrap();
    while balancer.proxy().metrics.connections.get() > 0 || begun.elapsed().as_millis() < 50 {
        assert!(begun.elapsed() < PATIENCE, "never ended");
        let _ = timeout(Duration::from_millis(20), stream.write_all(then)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn slowloris_slow_bodies_slow_readers_and_silence_are_ended_in_their_time() {
    let nodes = tigase_nodes(1).await;
    let head = "POST /http-bind HTTP/1.1\r\nHost: a\r\n";
    let body = format!("{head}Content-Length: 200000\r\n\r\n<body");
    let get = "GET /http-bind HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    // A refused body is read away for two seconds.
    let cases: [(&str, &str, &str, u64); 4] = [
        ("slowloris", head, "X-a: b\r\n", 0),
        ("slow body", &body, " ", 2000),
        ("slow reader", &get, &get, 0),
        ("silence", "", "", 0),
    ];
    for (name, bytes, then, lingering) in cases {
        let mut settings = settings(&nodes);
        settings.timeouts.head = Duration::from_millis(600);
        settings.timeouts.body = Duration::from_millis(600);
        settings.timeouts.write_stall = Duration::from_millis(600);
        settings.timeouts.idle = Duration::from_millis(600);
        let balancer = Balancer::start(&settings).await;
        let took = ended_after(&balancer, bytes.as_bytes(), then.as_bytes()).await;
        let took = u64::try_from(took.as_millis()).unwrap();
        assert!(took >= 500, "{name} ended after {took} ms");
        assert!(
            took < 600 + lingering + 3000,
            "{name} ended after {took} ms"
        );
    }
}

/// A connection that its client may keep has its times, however it came to be kept.
#[tokio::test]
async fn connections_that_odd_requests_keep_open_have_their_times_too() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.head = Duration::from_millis(300);
    settings.timeouts.idle = Duration::from_millis(300);
    let balancer = Balancer::start(&settings).await;
    let old = b"GET /http-bind HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_vec();
    let odd = b"GET /http-bind HTTP/1.1\r\nHost: a\r\nConnection: close, \xff\r\n\r\n".to_vec();
    for (name, request) in [("old", old), ("odd", odd)] {
        for then in ["", "GET /http-bind HTTP/1.1\r\n"] {
            let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
            stream.write_all(&request).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"POST.\n") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{name}");
            }
            let answer = String::from_utf8_lossy(&answer);
            let closes = answer.contains("connection: close\r\n");
            assert_eq!(closes, name == "odd", "{name}: {answer}");
            // It may have closed already.
            let _ = stream.write_all(then.as_bytes()).await;
            let end = timeout(PATIENCE, stream.read(&mut [0; 8])).await;
            let end = end.unwrap_or_else(|_| panic!("{name}, then {then:?}: it never ends"));
            assert!(matches!(end, Ok(0) | Err(_)), "{name}: {end:?}");
        }
    }
}
