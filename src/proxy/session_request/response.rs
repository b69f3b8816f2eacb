//! What a node's response says of the session, and what its client is answered.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::answer::Answer;
use super::super::node_response::{self, NodeResponse};
use super::super::reject::Cause;
use super::super::request::PendingRequest;
use super::super::termination_state::Phase;
use super::{RetryState, SessionRequest, Step};
use crate::bosh::{self, Condition};
use crate::cluster::{NodeId, client_key};
use crate::observe::metrics::Kind;
use crate::sessions::{KeptAnswer, KeptHead};
use crate::upstream::{Connection, Response};

/// The content type that an answer has where none is given.
const XML: &str = "text/xml; charset=utf-8";

/// The length of `</body>`.
const END_TAG: usize = 7;

impl SessionRequest {
    /// What the answer says of the session.
    pub(super) fn learn(
        &self,
        id: NodeId,
        pending: &PendingRequest,
        mut answer: Response,
        connection: Box<Connection>,
        state: &mut RetryState,
    ) -> Step {
        let sessions = &self.proxy.sessions;
        if let Some(took) = self.session.reacted(|| self.proxy.now()) {
            let metrics = &self.proxy.cluster.node(id).metrics;
            metrics.answer_seconds.observe(took);
        }
        let (terminated, condition, host, (end, is_error)) = match node_response::read(&answer) {
            NodeResponse::Refused(_) | NodeResponse::Error(_)
                if pending.terminate && answer.status < 300 =>
            {
                return self.left(pending);
            }
            NodeResponse::Refused(malformed) => {
                node_response::no_wrapper(self.proxy.cluster.node(id), answer.status, malformed);
                return self.give_up(pending);
            }
            NodeResponse::Error(malformed) => {
                node_response::no_wrapper(self.proxy.cluster.node(id), answer.status, malformed);
                return self.node_error(id, pending, state);
            }
            NodeResponse::LegacyCode(status) => {
                if status == 404
                    && let Some(next) = self.search_on(id, pending, state)
                {
                    return next;
                }
                self.pay_for_search(state);
                Self::landed(state, !pending.terminate);
                self.terminated(id, pending, node_response::condition_of(status).as_str());
                return Step::Done(self.legacy_code(status, &answer));
            }
            NodeResponse::Wrapper(wrapper)
                if wrapper
                    .sid
                    .as_deref()
                    .is_some_and(|sid| sid != self.session.sid()) =>
            {
                node_response::refuse_foreign(self.proxy.cluster.node(id));
                return Step::Rejected(Cause::InvalidResponse);
            }
            NodeResponse::Wrapper(wrapper) => {
                let condition = wrapper
                    .condition
                    .as_deref()
                    .and_then(node_response::known_condition);
                // A node that answers the client's `terminate` with anything but an error agrees.
                let ends = wrapper.terminate || (pending.terminate && !wrapper.error);
                let condition = condition.unwrap_or("none");
                (ends, condition, wrapper.host, (wrapper.end, wrapper.error))
            }
        };
        let is_empty = answer.body.len() <= end + END_TAG;
        answer.body = self.proxy.hide_host(answer.body, host.as_ref());
        if terminated {
            if condition == Condition::ItemNotFound.as_str()
                && let Some(next) = self.search_on(id, pending, state)
            {
                return next;
            }
            if condition == Condition::ItemNotFound.as_str()
                && !pending.terminate
                && self.proxy.sessions.keeps_answers()
                && self.session.went_past(pending.rid)
            {
                // It is the rid that its node does not know any more. The request behind it says more.
                pending.record.enters(Phase::Stead);
                return Step::Done(Answer::ok(bosh::empty()));
            }
            if self.owes().is_some() {
                self.pay_for_search(state);
                let now = self.proxy.started.elapsed();
                let limits = self.proxy.limits();
                limits
                    .unknown
                    .remember(&limits.clients, self.session.sid(), now);
            }
            Self::landed(state, !pending.terminate);
            self.terminated(id, pending, condition);
            if pending.terminate && !self.session.terms().legacy {
                // Also when the node no longer knew the session: the client has what it wanted.
                return Step::Done(Answer::ok(answer.body));
            }
        } else {
            let detector = &self.proxy.cluster.node(id).restart_detector;
            if detector.epoch().is_suspect()
                && let Some(made) = self.session.made_in()
            {
                detector.knows(made);
            }
            Self::landed(state, false);
            self.place.answered();
            sessions.prove(&self.session, id, self.late);
            if answer.reusable {
                self.session.keep_idle(connection, id);
            }
        }
        let answer = node_response::pass_on(answer, self.session.terms().legacy);
        if !terminated && !is_error {
            self.keep(pending, &answer, is_empty);
        }
        Step::Done(answer)
    }

    /// Keeps an answer, so that its client can ask for it again. An empty answer to a poll is not worth it:
    /// a node gives another one.
    fn keep(&self, pending: &PendingRequest, answer: &Answer, is_empty: bool) {
        let sessions = &self.proxy.sessions;
        if answer.status != 200 || !sessions.may_keep(answer.body.len()) {
            return;
        }
        let is_poll = pending.record.kind() == Kind::Poll;
        if is_empty && is_poll && !self.session.has_copy(pending.rid) {
            return;
        }
        let content_type = answer.content_type.clone().filter(|kind| *kind != XML);
        let fields = answer.fields.clone();
        let has_head = content_type.is_some() || fields.is_some();
        let kept = KeptAnswer {
            // Shared with the one that the client gets, which has memory of its size.
            body: answer.body.clone(),
            head: has_head.then(|| {
                Box::new(KeptHead {
                    content_type,
                    fields,
                })
            }),
        };
        sessions.keep(&self.session, (pending.rid, self.hash), kept);
    }

    /// The node has ended the session with this condition. If it has lost all that it had, their
    /// pins go.
    fn terminated(&self, id: NodeId, pending: &PendingRequest, condition: &str) {
        let proxy = &self.proxy;
        let young = self.session.is_young(proxy.now());
        let made = self.session.made_in();
        let pinned = proxy
            .sessions
            .terminate(&self.session, condition, proxy.now());
        let unknown = condition == Condition::ItemNotFound.as_str();
        let (true, Some(made)) = (pinned && young && unknown, made) else {
            return;
        };
        let node = proxy.cluster.node(id);
        let (client, held) = (client_key(pending.client()), node.held.get());
        if let Some(epoch) = node
            .restart_detector
            .lacks(made, client, held, Instant::now())
        {
            let proxy = Arc::clone(proxy);
            // Looks at every session, which is no work for a thread that serves requests.
            let background = proxy.background;
            background(Box::new(move || proxy.lose_sessions(id, epoch)));
        }
    }

    /// A code from before conditions: as it is for a client of that time, else its condition.
    fn legacy_code(&self, status: u16, answer: &Response) -> Answer {
        let ok = Answer::ok(bosh::terminate(Some(node_response::condition_of(status))));
        if self.session.terms().legacy {
            Answer {
                status: answer.status,
                ..ok
            }
        } else {
            ok
        }
    }
}
