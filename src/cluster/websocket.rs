//! What a node is for WebSocket: where it takes tunnels, and how many it has.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Node;
use super::count::Count;
use crate::config::{NodeSettings, WebSocketUrl};
use crate::upstream::Candidates;

/// The path at nodes that name none.
const PATH: &str = "/xmpp-websocket";

/// The tunnels of one node.
#[derive(Debug)]
pub struct Tunnels {
    /// Tunnels open to it. Each counts as one of its sessions as well.
    pub open: Count,
    url: Mutex<Option<Arc<WebSocketUrl>>>,
}

impl Tunnels {
    pub(super) fn new(settings: &NodeSettings) -> Self {
        let tunnels = Self {
            open: Count::default(),
            url: Mutex::default(),
        };
        tunnels.configure(settings);
        tunnels
    }

    /// Takes the URL from `settings`. Tunnels that are open stay.
    pub(super) fn configure(&self, settings: &NodeSettings) {
        let mut url = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        if url.as_deref() != settings.websocket.as_ref() {
            *url = settings.websocket.clone().map(Arc::new);
        }
    }

    fn url(&self) -> Option<Arc<WebSocketUrl>> {
        let url = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        url.clone()
    }
}

/// Where a node takes WebSocket.
#[derive(Debug, Clone)]
pub struct TunnelTarget {
    url: Option<Arc<WebSocketUrl>>,
    /// The addresses to try; none if they are those of the node.
    pub addresses: Option<Candidates>,
}

impl TunnelTarget {
    /// The path to ask for.
    pub fn path(&self) -> &str {
        self.url.as_ref().map_or(PATH, |url| &url.path)
    }
}

impl Node {
    /// Where it takes WebSocket.
    pub fn tunnel_target(&self) -> TunnelTarget {
        let url = self.tunnels.url();
        let addresses = url.as_ref().map(|url| self.addresses_at(url));
        TunnelTarget { url, addresses }
    }

    /// The addresses of a URL: an IP address, or the node's own name and another port. `wss` has the
    /// TLS of the node.
    fn addresses_at(&self, url: &WebSocketUrl) -> Candidates {
        let mut opening = self.opening();
        opening.tls = opening.tls.filter(|_| url.tls);
        opening.unix = None;
        let at = |addresses: &[SocketAddr]| Candidates {
            opening,
            ..addresses.into()
        };
        let address = &url.address;
        if let Ok(address) = address.parse::<SocketAddr>() {
            return at(&[address]);
        }
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let own = self.addresses();
        let moved = |own: &SocketAddr| port.map(|port| SocketAddr::new(own.ip(), port));
        let addresses: Vec<_> = own.iter().filter_map(moved).collect();
        at(&addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NodeId;
    use super::*;
    use crate::observe::metrics::Metrics;
    use crate::upstream::ConnectLimiter;

    fn node(settings: &NodeSettings) -> Node {
        let metrics = Metrics::new().node(&settings.name);
        Node::new(NodeId(0), settings, ConnectLimiter::new(5, 900), metrics)
    }

    fn url(address: &str) -> Option<WebSocketUrl> {
        let (address, path) = (address.to_owned(), "/ws".to_owned());
        Some(WebSocketUrl {
            tls: false,
            address,
            path,
        })
    }

    #[test]
    fn a_target_is_the_node_itself_unless_it_has_a_url() {
        let mut settings = NodeSettings::new("t1", "t1.example.com:5280");
        let node = node(&settings);
        let target = node.tunnel_target();
        assert_eq!(target.path(), PATH);
        assert_eq!(target.addresses, None);
        settings.websocket = url("192.0.2.9:5290");
        node.tunnels.configure(&settings);
        let target = node.tunnel_target();
        assert_eq!(target.path(), "/ws");
        let addresses = |target: TunnelTarget| target.addresses.unwrap().addresses.to_vec();
        assert_eq!(addresses(target), ["192.0.2.9:5290".parse().unwrap()]);
        settings.websocket = url("t1.example.com:5290");
        node.tunnels.configure(&settings);
        assert_eq!(addresses(node.tunnel_target()), []);
        let own = ["192.0.2.1:5280", "[2001:db8::1]:5280"].map(|own| own.parse().unwrap());
        node.resolved(own.into());
        let moved = ["192.0.2.1:5290", "[2001:db8::1]:5290"].map(|own| own.parse().unwrap());
        assert_eq!(addresses(node.tunnel_target()), moved);
    }
}
