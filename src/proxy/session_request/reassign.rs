//! The move of a session from a node that failed to one that serves.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::request::PendingRequest;
use super::{RetryState, SessionRequest};
use crate::cluster::NodeId;

/// How long a request waits for a node to come up when no node is known to have its session.
const PROVISIONAL_PATIENCE: Duration = Duration::from_secs(60);

impl SessionRequest {
    /// Moves the session off the node `from`. With no node to go to it waits for one, as long as
    /// the session itself may. False when that has passed.
    pub(super) async fn reassign(
        &self,
        from: NodeId,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> bool {
        state.repeated = false;
        if let Some(moves) = &mut state.moves {
            moves.unreachable_since = None;
        }
        if self.session.node() != from {
            return true;
        }
        let cluster = &self.proxy.cluster;
        if !cluster.node(from).serves()
            && let Some(until) = cluster.wait_for_own(from, Instant::now())
        {
            // Whatever ends the wait, the node's verdict is looked at again.
            let _ = timeout_at(until, cluster.until_serves(from)).await;
            return true;
        }
        let moves = state.moves();
        if !moves.tried.contains(&from) {
            moves.tried.push(from);
        }
        // A node that the session moved to may fail before it answers. Then the node that knew the
        // session is the better choice, if it is back.
        let owner = self.session.owner().filter(|owner| *owner != from);
        let owner = owner.filter(|owner| cluster.node(*owner).serves());
        if let Some(to) = owner.or_else(|| cluster.place(pending.client(), &moves.tried)) {
            if self.proxy.sessions.reassign(&self.session, from, to)
                && let Some(addresses) = &self.proxy.addresses
            {
                addresses.tie(pending.client(), to, self.proxy.now());
            }
            return true;
        }
        moves.tried.clear();
        let mut patience = Duration::from_secs(self.session.terms().inactivity.max(10).into());
        if self.session.is_provisional() {
            // Its terms are long because they are not known.
            patience = patience.min(PROVISIONAL_PATIENCE);
        }
        let until = moves
            .homeless_until
            .get_or_insert_with(|| Instant::now() + patience);
        self.proxy.await_node(*until).await
    }
}
