//! Listeners, limits and everything else of the client side in a running balancer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use bowline::config::{AccessLog, Listen, Origins, Settings};
use bowline::demo::client::Client;
use bowline::server::ReloadError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::balancer::*;

/// An address with a free port that stays free long enough: a reload takes no port 0 for another one.
async fn free_address() -> SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

fn client_at(address: SocketAddr) -> Client {
    Client::to(address).deadline(PATIENCE)
}

/// A connection that stays open from request to request.
struct Raw(TcpStream);

impl Raw {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// The head of the answer to a `GET`.
    async fn get(&mut self) -> String {
        let request = "GET /http-bind HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\n\r\n";
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains("by POST.\n") {
            let mut bytes = [0; 1024];
            let count = self.0.read(&mut bytes).await.unwrap();
            assert!(count > 0, "{answer}");
            answer += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        answer
            .split("\r\n\r\n")
            .next()
            .unwrap()
            .to_ascii_lowercase()
    }

    async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0)))
    }
}

#[tokio::test]
async fn ipv4_beside_an_open_listener_for_both_is_refused_as_in_use() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.listen = vec![Listen::new(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))];
    let balancer = Balancer::start(&settings).await;
    let port = balancer.address().port();
    let mut client = client_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    client.create().await.unwrap();
    let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    settings.listen.push(Listen::new(ipv4));
    let refused = balancer.server.reload(&settings).unwrap_err();
    assert!(matches!(refused, ReloadError::Bind(_)), "{refused:?}");
    let words = format!(
        "cannot listen on {ipv4}: the address is in use by the open listener [::]:{port}; restart \
         Bowline to change it"
    );
    assert_eq!(refused.to_string(), words);
    assert_eq!(balancer.server.addresses().len(), 1);
    assert_goes_on(&client.ping("nothing changed").await.unwrap());
}

#[tokio::test]
async fn listeners_open_and_close_while_polls_are_held() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let balancer = Balancer::start(&settings).await;
    let first = balancer.address();
    let mut old = balancer.session().await;
    let poll = old.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();

    let address = free_address().await;
    settings.listen.push(Listen::new(address));
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), format!("listener {address} opens"));
    let mut new = client_at(address);
    new.create().await.unwrap();

    let closed = settings.listen.remove(0).address;
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), format!("listener {closed} closes"));
    assert_eq!(balancer.server.addresses(), [address]);
    let refused = async || TcpStream::connect(first).await.is_err();
    assert!(crate::support::waiting::until(PATIENCE, refused).await);
    // A poll that was held at the listener that closed is answered, and its session goes on elsewhere.
    nodes[0].push(old.sid(), "<message xmlns='jabber:client' id='m'/>");
    assert!(poll.reply().await.unwrap().text().contains("id='m'"));
    let mut moved = client_at(address);
    moved.adopt(old.sid(), old.rid());
    assert_goes_on(&moved.ping("one").await.unwrap());
    assert_goes_on(&new.ping("one").await.unwrap());
    balancer.server.drain().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_next_answer_when_the_settings_of_clients_change() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.cors.origins = Origins::Only(vec!["https://a.example".to_owned()]);
    let balancer = Balancer::start(&settings).await;
    let mut open = Raw::to(balancer.address()).await;
    let head = open.get().await;
    assert!(!head.contains("access-control-allow-origin: https://b.example"));
    assert!(!head.contains("connection: close"), "{head}");
    // Nodes and health leave connections open.
    settings.health.rise += 1;
    balancer.server.reload(&settings).unwrap();
    assert!(!open.get().await.contains("connection: close"));

    settings.cors.origins = Origins::Only(vec!["https://b.example".to_owned()]);
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), "cors");
    assert!(open.get().await.contains("connection: close"));
    assert!(open.is_closed().await);
    let head = Raw::to(balancer.address()).await.get().await;
    assert!(
        head.contains("access-control-allow-origin: https://b.example"),
        "{head}"
    );
    assert!(!head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn a_reload_that_cannot_listen_changes_nothing() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let balancer = Balancer::start(&settings).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = settings.clone();
    settings
        .listen
        .push(Listen::new(taken.local_addr().unwrap()));
    settings.timeouts.connect = Duration::from_secs(9);
    let error = balancer.server.reload(&settings).unwrap_err();
    assert!(matches!(error, ReloadError::Bind(_)), "{error}");
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
    assert_eq!(balancer.server.addresses().len(), 1);
    assert_eq!(
        balancer.server.reload(&good).unwrap().words(),
        "nothing changes"
    );
}

#[tokio::test]
async fn limits_apply_at_once() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.exempt = Vec::new();
    let balancer = Balancer::start(&settings).await;
    let reload = |settings: &Settings| balancer.server.reload(settings).unwrap().words();
    let mut session = balancer.session().await;

    settings.limits.sessions = 1;
    assert_eq!(reload(&settings), "limits.sessions");
    assert!(
        balancer.client().create().await.is_err(),
        "the table is full"
    );
    settings.limits.sessions = 10;
    settings.limits.creations_per_client = 1;
    settings.limits.creations_burst = 1;
    reload(&settings);
    balancer.client().create().await.unwrap();
    assert!(balancer.client().create().await.is_err(), "one in a second");

    settings.limits.connections_per_client = 1;
    assert_eq!(reload(&settings), "limits.connections_per_client");
    let open = |series| balancer.metric(series);
    session.hang_up();
    eventually("no connection", || open("bowline_connections ") == 0).await;
    let mut one = Raw::to(balancer.address()).await;
    one.get().await;
    let mut other = Raw::to(balancer.address()).await;
    assert!(other.is_closed().await, "a second one is refused");
    settings.limits.connections_per_client = 5;
    reload(&settings);
    // The settings of clients changed, so this one ends with its answer.
    one.get().await;
    assert!(one.is_closed().await);
    assert_goes_on(&session.ping("one").await.unwrap());
}

#[tokio::test]
async fn fewer_connections_are_let_in_as_others_end() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.connections = 3;
    let balancer = Balancer::start(&settings).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut one = Raw::to(balancer.address()).await;
        one.get().await;
        open.push(one);
    }
    settings.limits.connections = 1;
    balancer.server.reload(&settings).unwrap();
    let mut waiting = Raw::to(balancer.address()).await;
    let answered = waiting.get();
    tokio::pin!(answered);
    for mut one in open {
        assert!(futures_poll(&mut answered).await, "there is no place yet");
        one.get().await;
        assert!(one.is_closed().await);
    }
    answered.await;
    assert_eq!(balancer.metric("bowline_connections_limit "), 1);
    settings.limits.connections = 2;
    balancer.server.reload(&settings).unwrap();
    let mut second = Raw::to(balancer.address()).await;
    second.get().await;
}

/// Whether a future is pending.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

#[tokio::test]
async fn the_log_of_requests_and_its_filter_change() {
    let mut old = Settings::for_nodes(Vec::new());
    old.log.access = AccessLog::Off;
    let mut new = old.clone();
    new.log.access = AccessLog::Sample(NonZeroU32::new(5).unwrap());
    new.log.filter = "debug".to_owned();
    let step = bowline::config::Reload::new(&old, &new);
    assert_eq!(step.words(), "log.filter, log.access");
    assert!(!step.client_side);
}
