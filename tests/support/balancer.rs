//! A balancer in this process, in front of simulated nodes, on free ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::metrics;
pub(crate) use super::waiting::{PATIENCE, eventually};
use bowline::config::{NodeSettings, Settings};
use bowline::demo::client::{Client, Reply};
use bowline::demo::node::{Node, Profile, Seen};
use bowline::proxy::Proxy;
use bowline::server::Server;

/// A running balancer.
pub(crate) struct Balancer {
    pub(crate) server: Server,
}

/// Tigase nodes t1 to tn. They answer requests that come close together: a busy machine lets a node read
/// two requests together that were sent 5 ms apart. `order.rs` and the simulation look at that distance.
pub(crate) async fn tigase_nodes(count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        let profile = Profile::tigase(format!("t{number}")).collision(None);
        nodes.push(Node::start(profile).await.unwrap());
    }
    nodes
}

/// A Tigase node that leaves one of two requests unanswered if they come close together.
pub(crate) async fn close_pairs_matter() -> [Node; 1] {
    [Node::start(Profile::tigase("t1")).await.unwrap()]
}

/// Settings for these nodes, with probes so quick that tests need not wait for them.
pub(crate) fn settings(nodes: &[Node]) -> Settings {
    let nodes = nodes
        .iter()
        .map(|node| NodeSettings::new(node.name().to_owned(), node.address().to_string()));
    let mut settings = Settings::for_nodes(nodes.collect());
    settings.threads = 1;
    settings.health.interval = Duration::from_millis(100);
    settings.health.timeout = Duration::from_millis(100);
    settings.health.rise = 1;
    settings.health.fall = 2;
    settings.health.silence = Duration::from_millis(300);
    settings
}

/// The same, with probes so rare that only the request path and what it triggers act.
pub(crate) fn patient(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.health.interval = Duration::from_secs(3600);
    // On a busy machine an answer may take this long.
    settings.health.timeout = Duration::from_secs(2);
    settings.health.fall = 100;
    settings
}

impl Balancer {
    /// Starts a balancer and waits for the first verdict on every node.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let balancer = Self {
            server: Server::start(settings).unwrap(),
        };
        eventually("every node has a verdict", || {
            balancer.proxy().cluster.ready()
        })
        .await;
        balancer
    }

    pub(crate) async fn before(nodes: &[Node]) -> Self {
        Self::start(&settings(nodes)).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    pub(crate) fn proxy(&self) -> &Arc<Proxy> {
        self.server.proxy()
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address()).deadline(PATIENCE)
    }

    /// A client with a session.
    pub(crate) async fn session(&self) -> Client {
        let mut client = self.client();
        client.create().await.unwrap();
        client
    }

    /// The exposition of the metrics.
    pub(crate) fn metrics(&self) -> String {
        self.proxy().measure();
        self.proxy().metrics.exposition()
    }

    /// The sum of the series that begin with `series`.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        metrics::sum(&self.metrics(), series)
    }

    /// Requests under way at nodes.
    pub(crate) fn held(&self) -> u64 {
        self.proxy()
            .cluster
            .nodes()
            .iter()
            .map(|node| node.held.get())
            .sum()
    }
}

/// The node that owns `sid`, by its place.
pub(crate) fn owner(nodes: &[Node], sid: &str) -> usize {
    let owners: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].owns(sid)).collect();
    assert_eq!(owners.len(), 1, "one owner of {sid}: {owners:?}");
    owners[0]
}

/// The requests of the session `sid` that `node` saw, in order.
pub(crate) fn seen_of(node: &Node, sid: &str) -> Vec<Seen> {
    let record = node.record().into_iter();
    record
        .filter(|seen| seen.sid.as_deref() == Some(sid))
        .collect()
}

/// The client is told cleanly that its session is gone.
pub(crate) fn assert_item_not_found(reply: &Reply) {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.is_terminate(), "{reply:?}");
    assert_eq!(
        reply.condition().as_deref(),
        Some("item-not-found"),
        "{reply:?}"
    );
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

/// The client got an ordinary answer.
pub(crate) fn assert_goes_on(reply: &Reply) {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!reply.is_terminate(), "{reply:?}");
}
