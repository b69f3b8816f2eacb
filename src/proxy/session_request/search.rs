//! The search for the node of a sid without a pin: after a restart without a snapshot, or when another
//! balancer or an application server made the session.
//!
//! One node is asked after the other, in the rendezvous order of the client's address. A node that answers
//! item-not-found does not know the sid, and the next one is asked. Any other answer makes it the owner, and
//! a node that holds the request is waited for. All requests of a sid share one provisional session, so there
//! is one search for it.

use super::super::request::PendingRequest;
use super::super::retry_policy::Writes;
use super::{RetryState, SessionRequest, Step};
use crate::cluster::NodeId;

impl SessionRequest {
    /// The node `id` does not know the sid. Goes on with the next node; none if all of them were asked, or
    /// if the budget for such searches is used up.
    pub(super) fn search_on(
        &self,
        id: NodeId,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> Option<Step> {
        let client = self.owes()?;
        let proxy = &self.proxy;
        if self.session.node() == id {
            let searched = &mut state.moves().searched;
            searched.push(id);
            let next = proxy.cluster.home(pending.client(), searched)?;
            if !proxy
                .limits()
                .unknown
                .may_search(client, proxy.started.elapsed())
            {
                return None;
            }
            proxy.sessions.reassign(&self.session, id, next);
            proxy.metrics.unknown_sid_searches.inc();
        } else if state.moves().searched.contains(&self.session.node()) {
            // Another request of the session has come back to a node that this one asked.
            return None;
        } else {
            state.moves().searched.push(id);
        }
        // The node answered: the request did it no harm, and the next node gets it as a new one.
        state.writes = Writes::default();
        state.repeated = false;
        self.session.passed_on();
        Some(Step::Again)
    }

    /// No node knows the sid: pays for the further nodes that were asked.
    pub(super) fn pay_for_search(&self, state: &RetryState) {
        let Some(client) = self.owes() else { return };
        let searched = state.moves.as_ref().map_or(0, |moves| moves.searched.len());
        let now = self.proxy.started.elapsed();
        // The first node has its own budget.
        for _ in 1..searched {
            self.proxy.limits().unknown.count_search(client, now);
        }
    }
}
