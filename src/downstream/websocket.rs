//! WebSocket towards the client (RFC 7395): which requests are upgrades, and the tunnel behind them.

mod tunnel;
mod way;

use super::Downstream;
use super::client::{Peer, client_address, is_secure, parent};
use super::handler::{Extra, Response, configured_path};
use crate::config::QueryPolicy;
use crate::http1::{Method, RequestHead};
use crate::proxy::{Cause, UpgradeRequest, Upgrading};
use crate::upstream::{Authority, Query};
use crate::websocket::{UpgradeFault, check_upgrade};

pub(super) use tunnel::{Behind, ClientTunnel};

/// What becomes of a request on a WebSocket path.
pub(super) enum Decision {
    /// It is answered.
    Answer(Response),
    /// A node is asked.
    Upgrade(Upgrading),
}

impl Downstream {
    /// Decides about a request on a WebSocket path; none for any other path, and for a POST, which is
    /// BOSH's.
    pub(super) fn upgrade(&self, head: &RequestHead<'_>, peer: Peer) -> Option<Decision> {
        let websocket = self.settings.websocket.as_ref()?;
        if head.method == Method::Post {
            return None;
        }
        let request = head.request().ok()?;
        configured_path(&websocket.paths, request.path)?;
        let refuse = |cause| Some(Decision::Answer(self.refuse(cause, head.fields, peer)));
        if head.method != Method::Get {
            let refused = self.refuse(Cause::Method, head.fields, peer);
            return Some(Decision::Answer(refused.with(Extra::Allow("GET"))));
        }
        let upgrade = match check_upgrade(head) {
            Ok(upgrade) => upgrade,
            Err(UpgradeFault::NotWebSocket) => {
                let refused = self.refuse(Cause::NoUpgrade, head.fields, peer);
                return Some(Decision::Answer(refused.with(Extra::WebSocket)));
            }
            Err(UpgradeFault::Invalid(rule)) => {
                tracing::debug!(peer = %peer.address, rule, "bad upgrade");
                return refuse(Cause::BadUpgrade);
            }
        };
        let query = match websocket.query {
            QueryPolicy::Drop => Some(Query::default()),
            QueryPolicy::Pass => Query::new(request.query),
        };
        let (Some(host), Some(query)) = (Authority::new(request.host), query) else {
            return refuse(Cause::BadUpgrade);
        };
        if !self.cors.lets_in(head.fields) {
            return refuse(Cause::Origin);
        }
        if self.drain.is_closing() {
            return refuse(Cause::Stopping);
        }
        let trusted = &self.settings.trusted_proxies;
        let origin = head.fields.first("origin");
        let asked = UpgradeRequest {
            query,
            group: self.group_of(request.query),
            host,
            client: client_address(peer.address, head.fields, trusted),
            protocol: peer.protocol,
            secure: peer.is_encrypted() || is_secure(peer.address, head.fields, trusted),
            key: upgrade.key,
            origin: origin.and_then(|origin| std::str::from_utf8(origin).ok()),
        };
        let parent = parent(peer.address, head.fields, trusted);
        Some(Decision::Upgrade(self.proxy.upgrade(&asked, &parent)))
    }
}
