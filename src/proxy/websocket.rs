//! A WebSocket: the choice of its node, and the tunnel as one of that node's sessions.
//!
//! A tunnel has one node from its beginning to its end. It is placed as a creation is: by the same
//! placement, at a node that is up, ready and not full, and within the same limits. Until a node has
//! agreed to the upgrade the next one may take it.

mod attempt;
mod tunnel;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::answer::Answer;
use super::protocol::Protocol;
use super::reject::Cause;
use super::request_record::{Reply, RequestRecord};
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::cluster::{NodeId, Placed, PlacementKey, QueryGroup};
use crate::observe::metrics::Kind;
use crate::observe::traces::Parent;
use crate::upstream::{Authority, Path, Proto, Query};

use attempt::{Opened, Try};
pub use tunnel::{NodeEnd, NodeTunnel, Tunnel, TunnelEnd};

/// How often an upgrade is written to nodes, each time to the next one where there is one.
const MOST_WRITES: usize = 3;

/// What `downstream` knows of an upgrade, all of it checked. Its query may hold a token, so that it has
/// no `{:?}`.
#[expect(missing_debug_implementations, reason = "a query may hold a token")]
#[derive(Clone, Copy)]
pub struct UpgradeRequest<'a> {
    /// The query without its `?`; empty if there is none, or none is passed on.
    pub query: Query<'a>,
    /// The `Host`.
    pub host: Authority<'a>,
    /// The group of the query parameter that placement looks at.
    pub group: Option<QueryGroup>,
    /// The client's address.
    pub client: IpAddr,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whether the client's side is encrypted.
    pub secure: bool,
    /// The client's `Sec-WebSocket-Key`.
    pub key: &'a str,
    /// The `Origin`, for the node.
    pub origin: Option<&'a str>,
}

/// What became of an upgrade.
#[expect(missing_debug_implementations, reason = "a tunnel has no use for it")]
pub enum Upgraded {
    /// A node has agreed.
    Tunnel(NodeTunnel),
    /// It is refused.
    Refused(Reply),
}

/// An upgrade that is under way.
pub type Upgrading = Pin<Box<dyn Future<Output = Upgraded> + Send>>;

/// What is kept of an upgrade until a node agrees to it.
struct PendingUpgrade {
    query: String,
    /// What its placement is computed from.
    placement: PlacementKey,
    /// The head for a node behind its first line, without the end.
    fields: String,
    key: String,
    record: RequestRecord,
}

impl PendingUpgrade {
    fn new(request: &UpgradeRequest<'_>, record: RequestRecord) -> Self {
        let proto = if request.secure {
            Proto::Https
        } else {
            Proto::Http
        };
        let host = request.host.as_str();
        let mut fields = format!(
            " HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {}\r\n\
             X-Forwarded-For: {}\r\nX-Forwarded-Proto: {}\r\nX-Forwarded-Host: {host}\r\n",
            request.key,
            crate::websocket::SUBPROTOCOL,
            request.client.to_canonical(),
            proto.as_str(),
        );
        if let Some(origin) = request.origin.filter(|origin| is_origin(origin)) {
            fields = fields + "Origin: " + origin + "\r\n";
        }
        Self {
            query: request.query.as_str().to_owned(),
            placement: match request.group {
                Some(group) => PlacementKey::Query(group),
                None => request.client.into(),
            },
            fields,
            key: request.key.to_owned(),
            record,
        }
    }

    /// The head for a node that takes WebSocket at `path`.
    fn head(&self, path: Path<'_>) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let (path, query, fields) = (path.as_str(), &self.query, &self.fields);
        format!("GET {path}{mark}{query}{fields}\r\n")
    }
}

/// Whether an `Origin` may stand in the head for a node: visible ASCII without markup.
fn is_origin(origin: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"<>&\"'".contains(&byte);
    origin.len() <= 255 && origin.bytes().all(plain)
}

impl Proxy {
    /// Begins an upgrade.
    pub fn upgrade(self: &Arc<Self>, request: &UpgradeRequest<'_>, parent: &Parent) -> Upgrading {
        let (kind, client) = (Kind::WebSocket, (request.client, request.protocol));
        let record = RequestRecord::new(Arc::clone(self), kind, client, parent);
        let pending = PendingUpgrade::new(request, record);
        Box::pin(run(Arc::clone(self), pending))
    }

    /// The node for a tunnel: the one that its client's address or its room is tied to, or by placement. It
    /// counts as the node's load until dropped.
    fn place_tunnel(&self, upgrade: &PendingUpgrade, tried: &[NodeId]) -> Option<Placed<'_>> {
        let key = upgrade.placement;
        let addresses = self.addresses.as_ref();
        let tied = addresses.and_then(|addresses| addresses.find(key, self.now()));
        self.cluster.place_new(key, tied, tried)
    }
}

/// Opens a tunnel, or refuses it.
async fn run(proxy: Arc<Proxy>, upgrade: PendingUpgrade) -> Upgraded {
    match choose(&proxy, &upgrade).await {
        Ok((node, opened)) => {
            if let Some(addresses) = &proxy.addresses {
                addresses.tie(upgrade.placement, node, proxy.now());
            }
            let PendingUpgrade { key, record, .. } = upgrade;
            let agreed = Answer {
                status: 101,
                ..Answer::ok(bytes::Bytes::new())
            };
            let delivery = record.finish(&agreed);
            Upgraded::Tunnel(NodeTunnel::new(opened, &key, delivery))
        }
        // A status that says no: there is no 200 for an upgrade.
        Err(cause) => Upgraded::Refused(upgrade.record.reject(cause, true)),
    }
}

/// Finds a node that agrees to the upgrade.
async fn choose(proxy: &Arc<Proxy>, upgrade: &PendingUpgrade) -> Result<(NodeId, Opened), Cause> {
    proxy.admit(upgrade.record.client())?;
    upgrade.record.enters(Phase::Queue);
    let mut give_up = None;
    let mut tried = Vec::new();
    let mut writes = 0;
    loop {
        let Some(placed) = proxy.place_tunnel(upgrade, &tried) else {
            if tried.is_empty() && proxy.cluster.is_full() {
                return Err(Cause::NodesFull);
            }
            tried.clear();
            upgrade.record.enters(Phase::Queue);
            let until =
                *give_up.get_or_insert_with(|| Instant::now() + proxy.live().placement_wait);
            if Box::pin(proxy.await_node(until)).await {
                continue;
            }
            return Err(Cause::NoNode);
        };
        let node = placed.id();
        match Box::pin(attempt::run(proxy, node, upgrade)).await {
            Try::Opened(opened) => return Ok((node, opened)),
            Try::Local => return Err(Cause::Overloaded),
            Try::Untouched => {}
            Try::Refused => writes += 1,
        }
        tried.push(node);
        if writes >= MOST_WRITES.min(proxy.cluster.nodes().members().len().max(1)) {
            return Err(Cause::CreationFailed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_queries_and_origins_go_to_a_node() {
        let is_query = |text: &str| Query::new(text).is_some();
        assert!(is_query("room=a%20b&previd=x-1_2.3~4") && is_query(""));
        assert!(is_query(&"x".repeat(4096)) && !is_query(&"x".repeat(4097)));
        for byte in 0..=u8::MAX {
            let text = char::from(byte).to_string();
            let plain = byte.is_ascii_graphic() && !b"\"#<>\\`".contains(&byte);
            assert_eq!(is_query(&text), plain, "{byte:#x}");
            let plain = byte.is_ascii_graphic() && !b"\"'<>&".contains(&byte);
            assert_eq!(is_origin(&text), plain, "{byte:#x}");
        }
    }
}
