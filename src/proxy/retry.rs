//! What follows when a try of a session's request has failed: again, elsewhere, or an answer of the
//! balancer's own.
//!
//! The session is not to suffer for one request. Only its node's death, a verdict or an answer that
//! is not HTTP takes it off its node.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::answer::Answer;
use super::attempt;
use super::reject::Cause;
use super::request::PendingRequest;
use super::retry_policy::{self, FailureContext, RetryDecision};
use super::session_request::{RetryState, SessionRequest, Step};
use super::termination_state::Phase;
use crate::bosh;
use crate::cluster::{NodeId, Verdict};
use crate::upstream::Error;

/// A node that has had a request for so long, and then closes the connection, has not closed an idle
/// one: it failed.
const NOT_IDLE: Duration = Duration::from_secs(1);

/// From one connect to the next at a node that cannot be reached.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

/// How much longer than `health.timeout` the probe of a node in doubt is waited for.
const PROBE_GRACE: Duration = Duration::from_secs(1);

/// A failed exchange.
pub(super) struct Broken {
    pub(super) error: Error,
    /// The connection had carried an exchange before.
    pub(super) reused: bool,
    /// How long the request was at its node.
    pub(super) took: Duration,
}

impl From<Error> for Broken {
    /// A connection that did not come about.
    fn from(error: Error) -> Self {
        Self {
            error,
            reused: false,
            took: Duration::ZERO,
        }
    }
}

impl SessionRequest {
    /// What follows a failed exchange with the node `id`.
    pub(super) fn failed(
        &self,
        id: NodeId,
        broken: &Broken,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> Step {
        if self.session.is_lost() {
            return Step::Rejected(Cause::SessionLost);
        }
        let error = &broken.error;
        if error.is_no_way() && self.may_be_silent(id, state) {
            return Step::Later(CONNECT_PAUSE);
        }
        let now = FailureContext {
            reused: broken.reused && !state.repeated,
            repeated: state.repeated,
            terminate: pending.terminate,
            company: self.session.under_way() > 1,
            leaving: !self.late && self.session.is_leaving(),
            may_repeat: state.writes.may(id, self.owes().is_none()),
        };
        let next = retry_policy::after(error, now);
        // That an idle connection was closed says nothing against its node.
        let blamed = !now.reused || error.answer_began() || broken.took >= NOT_IDLE;
        if blamed && next != RetryDecision::Terminated && !error.is_connect() {
            attempt::exchange_failed(self.proxy.cluster.node(id), error);
        }
        match next {
            RetryDecision::Again => {
                // A node that closes an idle connection has done nothing wrong; the next failure
                // is the first.
                state.repeated = state.repeated || !now.reused || error.answer_began();
                Step::Again
            }
            RetryDecision::Reassign => Step::Reassign,
            RetryDecision::Doubt => Step::Doubt,
            RetryDecision::Terminated => self.left(pending),
            RetryDecision::Overloaded => {
                let legacy = self.session.terms().legacy;
                Step::Done(Answer::reject(Cause::Overloaded, legacy))
            }
            RetryDecision::InvalidResponse => Step::Rejected(Cause::InvalidResponse),
            RetryDecision::GiveUp => {
                pending.record.enters(Phase::Answer);
                self.give_up(pending)
            }
        }
    }

    /// Whether the node, to which no connection came about, may only be silent: its verdict says
    /// when it is not. Until then the session stays, for `health.silence` at most.
    fn may_be_silent(&self, id: NodeId, state: &mut RetryState) -> bool {
        let since = *state
            .moves()
            .unreachable_since
            .get_or_insert_with(Instant::now);
        let node = self.proxy.cluster.node(id);
        node.serves()
            && (node.verdict() == Verdict::Silent || since.elapsed() < self.proxy.cluster.silence())
    }

    /// The node `id` let go of the request, or cut its answers. A probe says whether the node is gone:
    /// then the session moves. If it is not, the request is sent once more or given up; a node that is
    /// silent keeps its sessions until its verdict says otherwise.
    pub(super) async fn doubt(
        &self,
        id: NodeId,
        pending: &PendingRequest,
        state: &RetryState,
    ) -> Step {
        if state.writes.left_its_own() {
            return self.give_up(pending);
        }
        // Those with higher rids wait meanwhile.
        self.session.again(&self.place);
        let node = self.proxy.cluster.node(id);
        let mut down = std::pin::pin!(node.went_down.notified());
        down.as_mut().enable();
        if !node.serves() {
            return Step::Reassign;
        }
        let gone = tokio::select! {
            biased;
            () = down => true,
            gone = timeout(self.proxy.cluster.probe_timeout() + PROBE_GRACE, node.ask_whether_gone()) => {
                gone.unwrap_or(false)
            }
        };
        if gone {
            Step::Reassign
        } else if state.writes.may(id, self.owes().is_none()) {
            Step::Later(retry_policy::pause(0))
        } else {
            self.give_up(pending)
        }
    }

    /// The node `id` answered with an error of HTTP. It has the session still, so that the request
    /// waits a moment and comes again on a fresh connection.
    pub(super) fn node_error(
        &self,
        id: NodeId,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> Step {
        state.repeated = true;
        let errors = state.errors;
        state.errors = errors.saturating_add(1);
        if state.writes.may(id, self.owes().is_none()) {
            Step::Later(retry_policy::pause(errors))
        } else if pending.terminate {
            self.left(pending)
        } else {
            let legacy = self.session.terms().legacy;
            Step::Done(Answer::reject(Cause::NodeError, legacy))
        }
    }

    /// The node did not answer in time. Once, the request is sent again.
    pub(super) fn overdue(&self, pending: &PendingRequest, state: &mut RetryState) -> Step {
        state.repeated = true;
        if std::mem::replace(&mut state.overdue, true) {
            self.give_up(pending)
        } else {
            Step::Again
        }
    }

    /// The request was where it may be, and has no answer. Its client goes on with the session.
    pub(super) fn give_up(&self, pending: &PendingRequest) -> Step {
        if pending.terminate {
            return self.left(pending);
        }
        let legacy = self.session.terms().legacy;
        Step::Done(Answer::reject(Cause::RequestFailed, legacy))
    }

    /// The client asked for the session's end, and its node does not object: it has what it wanted.
    pub(super) fn left(&self, pending: &PendingRequest) -> Step {
        self.proxy
            .sessions
            .terminate(&self.session, "none", self.proxy.now());
        pending.record.enters(Phase::Stead);
        Step::Done(Answer::ok(bosh::terminate(None)))
    }
}
