//! Who connects to a node first, and to which of its addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bowline::config::Placement;
use bowline::demo::client::Pending;
use bowline::demo::node::{Ending, Kind, Node, Profile};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::balancer::*;
use crate::routing::creation;

/// The connects that wait at the first node.
fn waiting(balancer: &Balancer) -> i64 {
    balancer.proxy().cluster.nodes()[0]
        .metrics
        .connects_waiting
        .get()
}

/// Begins `count` creations, each on a client connection of its own.
async fn begin_creations(balancer: &Balancer, count: usize) -> Vec<Pending> {
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(balancer.client().begin_post(&creation()).await.unwrap());
    }
    replies
}

fn moved(balancer: &Balancer) -> u64 {
    let nodes = balancer.proxy().cluster.nodes();
    nodes.iter().map(|node| node.reassigned.get()).sum()
}

#[tokio::test]
async fn a_send_of_a_session_does_not_wait_behind_creations() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.upstream.connects_per_second = 20;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.client().wait(1);
    client.create().await.unwrap();
    // Its one idle connection is taken by the poll, so that the send needs a new one.
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|n| n.held() == 1).await.unwrap();
    let creations = begin_creations(&balancer, 450).await;
    eventually("most creations wait", || waiting(&balancer) > 400).await;

    let asked = Instant::now();
    assert_goes_on(&client.ping("p").await.unwrap());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(waiting(&balancer) > 300, "the creations still wait");
    assert_eq!(moved(&balancer), 0);
    assert!(nodes[0].owns(client.sid()));
    drop((poll, creations));
}

#[tokio::test]
async fn a_session_whose_connect_waits_too_long_stays_at_its_node() {
    // A Tigase would end the session in the meantime: its inactivity is 10 s.
    let mut nodes = Vec::new();
    for name in ["p1", "p2"] {
        nodes.push(Node::start(Profile::prosody(name)).await.unwrap());
    }
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.client().wait(0);
    client.create().await.unwrap();
    let home = owner(&nodes, client.sid());
    let node = &balancer.proxy().cluster.nodes()[home];
    balancer.proxy().sessions.drop_idle();
    let mut turns = Vec::new();
    while let Some(turn) = node.connect_limiter.try_permit(Instant::now()) {
        turns.push(turn);
    }

    let reply = client.ping("p").await.unwrap();
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"overloaded\"}"),
        1
    );
    assert_eq!(moved(&balancer), 0);
    assert!(node.last_failure().is_none(), "{:?}", node.last_failure());
    assert_eq!(node.metrics.failures(), 0);

    drop(turns);
    assert_goes_on(&client.repeat().await.unwrap());
    assert!(nodes[home].owns(client.sid()));
}

#[tokio::test]
async fn moved_sessions_connect_after_new_ones() {
    let nodes = tigase_nodes(2).await;
    let mut settings = patient(&nodes);
    settings.placement = Placement::RoundRobin;
    settings.upstream.connects_per_second = 5;
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(balancer.session().await);
    }
    nodes[1].kill(Ending::Eof).await;
    // Nothing is opened at the survivor until all of them wait there.
    let limiter = &balancer.proxy().cluster.nodes()[0].connect_limiter;
    while limiter.try_permit(Instant::now()).is_some() {}

    let mut moved = Vec::new();
    for client in &mut clients {
        if !nodes[0].owns(client.sid()) {
            moved.push(client.begin_poll().await.unwrap());
        }
    }
    eventually("the moved sessions wait", || waiting(&balancer) == 2).await;
    let creations = begin_creations(&balancer, 5).await;
    eventually("the new ones wait, too", || waiting(&balancer) == 7).await;
    // The two that own sessions there were new once.
    nodes[0]
        .wait_until(|n| n.count(|seen| seen.kind == Kind::Create) == 7)
        .await
        .unwrap();
    for client in &clients {
        assert!(seen_of(&nodes[0], client.sid()).is_empty());
    }
    for poll in moved {
        assert_item_not_found(&poll.reply().await.unwrap());
    }
    drop(creations);
}

/// A listener whose backlog is full: it swallows what a further connect sends.
struct Swallowing {
    address: SocketAddr,
    _listener: Socket,
    _backlog: Vec<TcpStream>,
}

impl Swallowing {
    async fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&free.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut backlog = Vec::new();
        while let Ok(stream) = timeout(DEAD, TcpStream::connect(address)).await {
            backlog.push(stream.unwrap());
            assert!(backlog.len() < 100, "the backlog is bounded");
        }
        Self {
            address,
            _listener: listener,
            _backlog: backlog,
        }
    }
}

/// How long a connect on this machine may take at most, unless its address is dead.
const DEAD: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_dead_first_address_does_not_slow_down_what_connects() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let dead = Swallowing::start().await;
    let node = &balancer.proxy().cluster.nodes()[0];
    node.resolved([dead.address, nodes[0].address()].into());

    let begun = Instant::now();
    for reply in begin_creations(&balancer, 50).await {
        let reply = reply.reply().await.unwrap();
        assert!(reply.attribute("sid").is_some(), "{reply:?}");
    }
    let took = begun.elapsed();
    // At five connects per second they would take 10 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(node.metrics.connect_failures.get(), 0);
}

#[tokio::test]
async fn every_address_of_a_name_is_probed_and_one_that_fails_rests() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&settings(&nodes[..1])).await;
    let dead = Swallowing::start().await;
    let node = &balancer.proxy().cluster.nodes()[0];
    let first = nodes[0].address();
    let second = nodes[1].address();
    node.resolved([dead.address, first, second].into());

    eventually("both addresses that work are probed", || {
        nodes.iter().all(|node| node.record().len() >= 3)
    })
    .await;
    eventually("the dead one rests", || {
        let candidates = node.candidates(Instant::now());
        candidates.resting == 1 && candidates.addresses[2] == dead.address
    })
    .await;
    assert!(node.is_up());
    assert_eq!(node.metrics.probe_failures.get(), 0);

    // With the other two gone, too, the node is down.
    for node in &nodes {
        node.refuse().await;
    }
    eventually("the node is down", || !node.is_up()).await;
    nodes[1].listen().await.unwrap();
    eventually("one address is enough", || node.is_up()).await;
    assert_eq!(node.candidates(Instant::now()).addresses[0], second);
}
