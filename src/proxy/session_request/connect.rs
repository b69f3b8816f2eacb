//! Connections to nodes for requests of sessions.

use std::net::IpAddr;

use tokio::time::{Instant, timeout_at};

use super::SessionRequest;
use crate::cluster::Node;
use crate::upstream::{Connection, Error, Priority};

impl SessionRequest {
    /// Opens a connection to `node`. For a session that no node is known to have it gets in line
    /// with others of that kind first, so that made-up sids never hold up the connections of
    /// others; none if the budget for such sids is used up when its turn has come.
    pub(super) async fn open(
        &self,
        node: &Node,
        client: IpAddr,
        priority: Priority,
        give_up: Instant,
    ) -> Option<Result<Box<Connection>, Error>> {
        let of = Some(&*self.session);
        let Some(asker) = self.owes() else {
            return Some(self.proxy.open(node, of, client, priority, give_up).await);
        };
        let lane = node.unknown_sid_permits.acquire();
        let Ok(_place) = timeout_at(give_up, lane).await else {
            return Some(Err(Error::Queue));
        };
        if !self
            .proxy
            .limits()
            .unknown
            .has(asker, self.proxy.started.elapsed())
        {
            return None;
        }
        if !node.serves() {
            // Down meanwhile: all who waited leave at once.
            return Some(Err(Error::ConnectTimeout));
        }
        Some(
            self.proxy
                .open(node, of, client, Priority::Moved, give_up)
                .await,
        )
    }
}
