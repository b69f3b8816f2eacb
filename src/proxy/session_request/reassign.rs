//! The move of a session from a node that failed to one that serves.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::request::PendingRequest;
use super::{RetryState, SessionRequest};
use crate::cluster::{NodeId, PlacementKey};
use crate::observe::metrics::Kind;

/// How long a request waits for a node to come up when no node is known to have its session.
const PROVISIONAL_PATIENCE: Duration = Duration::from_secs(60);

/// How long a request with stanzas waits for room at the survivors.
const URGENT: Duration = Duration::from_secs(10);

/// How long a poll of a session with `wait='0'` does.
const NO_WAIT: Duration = Duration::from_secs(5);

/// What became of a session that had to move.
pub(super) enum Moved {
    /// The request goes to the session's node.
    Goes,
    /// It is answered without a node, and its client asks again.
    Waits,
    /// There was no node for it.
    Lost,
}

impl SessionRequest {
    /// Moves the session off the node `from`, when the survivors have room for a login. With no node to go
    /// to it waits for one, as long as the session itself may.
    pub(super) async fn reassign(
        &self,
        from: NodeId,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> Moved {
        state.repeated = false;
        if let Some(moves) = &mut state.moves {
            moves.unreachable_since = None;
        }
        if self.session.node() != from {
            return Moved::Goes;
        }
        let cluster = &self.proxy.cluster;
        if !cluster.node(from).serves()
            && let Some(until) = cluster.wait_for_own(from, Instant::now())
        {
            // Whatever ends the wait, the node's verdict is looked at again.
            let _ = timeout_at(until, cluster.until_serves(from)).await;
            return Moved::Goes;
        }
        let was_away = !cluster.node(from).serves();
        if !self.may_land(from, pending, state).await {
            return Moved::Waits;
        }
        let is_back = was_away && cluster.node(from).serves();
        if self.session.node() != from || is_back {
            return Moved::Goes;
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
            return Moved::Goes;
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
        if self.proxy.await_node(*until).await {
            Moved::Goes
        } else {
            Moved::Lost
        }
    }

    /// Waits until the survivors have room for the login that most likely follows the session's move. False
    /// if a poll has waited as long as its node would have held it: its client polls again, and goes on
    /// waiting. A request with stanzas moves then in any case.
    async fn may_land(
        &self,
        from: NodeId,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> bool {
        let is_free = pending.terminate || !self.session.is_pinned();
        if is_free || state.moves().landing.is_some() || !self.proxy.cluster.any_up() {
            return true;
        }
        let is_poll = pending.record.kind() == Kind::Poll && pending.pause.is_none();
        let wait = Duration::from_secs(self.session.terms().wait.into());
        let wait = if wait.is_zero() { NO_WAIT } else { wait };
        let wait = if is_poll { wait } else { wait.min(URGENT) };
        let until = pending.record.begun() + wait;
        // Those with higher rids need not wait for it: whichever of them may go takes it along.
        self.session.sent(&self.place, false, self.proxy.now());
        let crowd = self.proxy.cluster.node(from).sessions.get();
        let permit = self.proxy.landing.permit(&self.session, crowd, !is_poll);
        match timeout_at(until, permit).await {
            Ok(permit) => {
                state.moves().landing = Some(permit);
                true
            }
            Err(_) => !is_poll || self.session.node() != from,
        }
    }

    /// A survivor has answered the session: says whether its client logs in again.
    pub(super) fn landed(state: &mut RetryState, ended: bool) {
        let moves = state.moves.as_mut();
        match moves.and_then(|moves| moves.landing.take()) {
            Some(permit) if ended => permit.ended(),
            Some(permit) => permit.went_on(),
            None => {}
        }
    }
}
