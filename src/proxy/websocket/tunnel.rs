//! A tunnel as one of its node's sessions: counted from the node's agreement to its end.

use std::pin::Pin;
use std::sync::Arc;

use super::super::request_record::Delivery;
use super::super::shared::Proxy;
use super::super::termination_state;
use super::attempt::Opened;
use crate::cluster::{Node, NodeId, OperatorState};
use crate::upstream::{Heard, NodeStream};
use crate::websocket::accept_key;

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client closed the stream or the connection.
    ClientClosed,
    /// The client's connection ended without that.
    ClientGone,
    /// The client did not answer a ping.
    ClientSilent,
    /// The client did not take what the node sent.
    ClientSlow,
    /// The client broke a rule of RFC 6455.
    ClientInvalid,
    /// The node closed the stream or the connection.
    NodeClosed,
    /// The node's connection ended without that.
    NodeGone,
    /// The node went down.
    NodeDown,
    /// The node did not take what the client sent.
    NodeSlow,
    /// The node broke a rule of RFC 6455.
    NodeInvalid,
    /// The operator set the node to `maint`.
    Maint,
    /// The balancer stops.
    Stop,
    /// The balancer was at its deadline, and cut the connection.
    Cut,
}

impl TunnelEnd {
    /// The value of the label `cause`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientGone => "client_gone",
            Self::ClientSilent => "client_silent",
            Self::ClientSlow => "client_slow",
            Self::ClientInvalid => "client_invalid",
            Self::NodeClosed => "node_closed",
            Self::NodeGone => "node_gone",
            Self::NodeDown => "node_down",
            Self::NodeSlow => "node_slow",
            Self::NodeInvalid => "node_invalid",
            Self::Maint => "maint",
            Self::Stop => "stop",
            Self::Cut => "cut",
        }
    }
}

/// The wait for the end of a node.
pub type NodeEnd = Pin<Box<dyn Future<Output = TunnelEnd> + Send>>;

/// The node's end of a tunnel.
#[expect(missing_debug_implementations, reason = "a stream of a user")]
pub struct NodeTunnel {
    /// The connection to the node.
    pub stream: NodeStream,
    /// What the node sent behind its answer.
    pub early: Vec<u8>,
    /// The `Sec-WebSocket-Accept` for the client.
    pub accept: String,
    /// Ready when the node is down, or in `maint`.
    pub node_end: NodeEnd,
    /// To be raised when the node sends something.
    pub heard: Heard,
    /// The tunnel.
    pub tunnel: Tunnel,
}

impl NodeTunnel {
    pub(super) fn new(opened: Opened, key: &str, delivery: Delivery) -> Self {
        let Opened {
            stream,
            early,
            mut tunnel,
        } = opened;
        tunnel.delivery = Some(delivery);
        let (proxy, node) = (Arc::clone(&tunnel.proxy), tunnel.node);
        Self {
            stream,
            early,
            accept: accept_key(key),
            heard: tunnel.node().heard.clone(),
            node_end: Box::pin(async move { end_of(proxy.cluster.node(node)).await }),
            tunnel,
        }
    }
}

/// Returns when `node` is down, or in `maint`.
async fn end_of(node: &Node) -> TunnelEnd {
    let mut changed = std::pin::pin!(node.went_down.notified());
    loop {
        // Enabled before the look: a change in between still wakes us.
        changed.as_mut().enable();
        if node.state() == OperatorState::Maint {
            return TunnelEnd::Maint;
        }
        if !node.serves() {
            return TunnelEnd::NodeDown;
        }
        changed.as_mut().await;
        changed.set(node.went_down.notified());
    }
}

/// A tunnel that is open: it counts as a session of its node. Dropped without an end, it was cut.
#[derive(Debug)]
pub struct Tunnel {
    proxy: Arc<Proxy>,
    node: NodeId,
    delivery: Option<Delivery>,
    end: TunnelEnd,
}

impl Tunnel {
    pub(super) fn begin(proxy: Arc<Proxy>, node: NodeId) -> Self {
        let tunnel = Self {
            proxy,
            node,
            delivery: None,
            end: TunnelEnd::Cut,
        };
        let node = tunnel.node();
        node.sessions.inc();
        node.tunnels.open.inc();
        node.metrics.created.inc();
        node.metrics.tunnels_opened.inc();
        tunnel
    }

    fn node(&self) -> &Node {
        self.proxy.cluster.node(self.node)
    }

    /// Notes why it ended, and how many bytes its client was sent.
    pub fn end(mut self, end: TunnelEnd, sent: u64) {
        self.end = end;
        if end == TunnelEnd::NodeGone {
            // A node that was killed is seen to be down before the next probe is due.
            self.node().probe_now.notify_one();
        }
        if let Some(delivery) = self.delivery.take() {
            let sent = usize::try_from(sent).unwrap_or(usize::MAX);
            delivery.tunnel_ended(termination_state::of_tunnel(end), sent);
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let node = self.node();
        node.sessions.dec();
        node.tunnels.open.dec();
        node.metrics.tunnels_ended.inc(self.end.label());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::TUNNEL_ENDS;

    const ALL: [TunnelEnd; 13] = [
        TunnelEnd::ClientClosed,
        TunnelEnd::ClientGone,
        TunnelEnd::ClientSilent,
        TunnelEnd::ClientSlow,
        TunnelEnd::ClientInvalid,
        TunnelEnd::NodeClosed,
        TunnelEnd::NodeGone,
        TunnelEnd::NodeDown,
        TunnelEnd::NodeSlow,
        TunnelEnd::NodeInvalid,
        TunnelEnd::Maint,
        TunnelEnd::Stop,
        TunnelEnd::Cut,
    ];

    #[test]
    fn every_end_is_counted() {
        let labels: Vec<_> = ALL.iter().map(|end| end.label()).chain(["other"]).collect();
        assert_eq!(labels, TUNNEL_ENDS);
    }
}
