//! The move of a session from a node that failed to one that serves.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::request::PendingRequest;
use super::{RetryState, SessionRequest};
use crate::cluster::{NodeId, PlacementKey};

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
        let key = match self.session.group() {
            Some(group) => PlacementKey::Query(group),
            None => pending.key(),
        };
        let addresses = self.proxy.addresses.as_ref();
        let is_room = matches!(key, PlacementKey::Query(_));
        let tied = addresses.filter(|_| is_room);
        let tied = tied.and_then(|addresses| addresses.find(key, self.proxy.now()));
        let fits =
            |id: &NodeId| cluster.node(*id).takes_newcomers() && !state.moves().tried.contains(id);
        let tied = tied.filter(fits);
        let to = owner.or(tied);
        if let Some(to) = to.or_else(|| cluster.place(key, &state.moves().tried)) {
            // A room leaves its node only with the node: one connection that failed does not take the
            // room's newcomers elsewhere.
            let moves_on = !is_room || !cluster.node(from).serves();
            if self.proxy.sessions.reassign(&self.session, from, to)
                && let Some(addresses) = addresses.filter(|_| moves_on)
            {
                addresses.tie(key, to, self.proxy.now());
            }
            return true;
        }
        let moves = state.moves();
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
