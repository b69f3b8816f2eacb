//! A request without a sid: a new session is asked for.
//!
//! Nothing ties it to a node yet, so any node that fails is left for the next one in placement
//! order. An orphan that this may leave at a node expires there by itself.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use super::answer::Answer;
use super::attempt::{self, Attempt, AttemptEnd, OVERDUE_AFTER};
use super::deadline::AttemptTimes;
use super::landing::Login;
use super::node_response::{self, NodeResponse};
use super::reject::Cause;
use super::request::{PendingRequest, seconds};
use super::request_record::Reply;
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::cluster::{NodeId, OperatorState, Placed};
use crate::sessions::{Insert, Terms};
use crate::upstream::{self, Connection, Error, Priority};

/// How often a creation is written to nodes, each time to the next one where there is one. There may
/// be something in it that no node survives, so it must not go round.
const MOST_WRITES: usize = 3;

/// After so much of a creation's wait a probe looks after the node: creations are answered at once.
const NUDGE_AFTER: Duration = Duration::from_secs(3);

/// When every node that is up has refused the creation, the next round begins after this.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What a try at one node came to.
enum Try {
    Done(Answer),
    /// The node took no connection: the creation was not written.
    Untouched,
    /// The node let go of the creation without an answer.
    Closed,
    /// It answered with an error of HTTP.
    Error,
    /// It answered something else that is of no use, or nothing in time. Another time at the same
    /// node would be no better.
    InvalidResponse,
}

/// Runs a creation to its answer.
pub(super) async fn run(proxy: Arc<Proxy>, request: PendingRequest) -> Reply {
    let login = proxy.landing.log_in();
    let mut give_up = None;
    let mut tried = Vec::new();
    let (mut writes, mut invalid) = (0, 0);
    loop {
        let Some(placed) = proxy.place(&request, &tried) else {
            if tried.is_empty() && proxy.cluster.is_full() {
                return request.record.reject(Cause::NodesFull, request.legacy);
            }
            tried.clear();
            request.record.enters(Phase::Queue);
            let until =
                *give_up.get_or_insert_with(|| Instant::now() + proxy.live().placement_wait);
            if Box::pin(proxy.await_node(until)).await {
                continue;
            }
            return request.record.reject(Cause::NoNode, request.legacy);
        };
        let node = placed.id();
        let tried_so_far = proxy.try_creation(node, &request, &login).await;
        tried.push(node);
        let cause = match tried_so_far {
            Try::Done(answer) => return request.record.answer(answer),
            Try::Untouched => continue,
            Try::Error => Cause::NodeError,
            Try::Closed => Cause::CreationFailed,
            Try::InvalidResponse => {
                invalid += 1;
                Cause::CreationFailed
            }
        };
        writes += 1;
        if writes == MOST_WRITES || invalid >= proxy.cluster.nodes().members().len() {
            return request.record.reject(cause, request.legacy);
        }
    }
}

impl Proxy {
    /// The node for a creation: the one that its client's address or its room is tied to, or by placement.
    /// It counts as the node's load until dropped.
    fn place(&self, request: &PendingRequest, tried: &[NodeId]) -> Option<Placed<'_>> {
        let tied = self
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.find(request.key(), self.now()));
        self.cluster.place_new(request.key(), tied, tried)
    }

    /// Waits until a node may be tried (again). False when it is too late.
    pub(super) async fn await_node(&self, give_up: Instant) -> bool {
        let pause = Instant::now() + ROUND_PAUSE;
        if self.cluster.any_up() {
            sleep_until(pause.min(give_up)).await;
        }
        Instant::now() < give_up && timeout_at(give_up, self.cluster.until_up()).await.is_ok()
    }

    /// Asks one node.
    async fn try_creation(
        self: &Arc<Self>,
        id: NodeId,
        request: &PendingRequest,
        login: &Login<'_>,
    ) -> Try {
        let node = self.cluster.node(id);
        let patience = Duration::from_secs(request.wait.into()) + OVERDUE_AFTER;
        let begun = Instant::now();
        let give_up = begun + patience;
        let state = node.state();
        request.record.goes_to(id);
        request.record.enters(Phase::Connect);
        let mut connection =
            match Box::pin(self.open(node, None, request.client(), Priority::Creation, give_up))
                .await
            {
                Ok(connection) => connection,
                Err(error) if error.is_local() => {
                    return Try::Done(Answer::reject(Cause::Overloaded, request.legacy));
                }
                Err(_) => return Try::Untouched,
            };
        // Opening a connection may take a second, when the network loses its first packet.
        if state == OperatorState::Ready && node.state() != state {
            return Try::Untouched;
        }
        let stay = request.record.at_node(Instant::now());
        let times = AttemptTimes::new(stay.begun(), patience).of_creation(NUDGE_AFTER);
        let mut written = false;
        let sent = || written = true;
        let attempt = Attempt {
            node,
            connection: &mut connection,
            request,
            times,
        };
        let ended = self.exchange(attempt, sent, pending()).await;
        let took = stay.end(Instant::now());
        match ended {
            AttemptEnd::Answered(answer) => {
                node.metrics.answer_seconds.observe(took);
                login.took(id, Some(begun.elapsed()));
                request.record.enters(Phase::Answer);
                self.learn_creation(id, request, answer, connection)
            }
            AttemptEnd::NodeDown | AttemptEnd::Released if written => Try::Closed,
            AttemptEnd::NodeDown | AttemptEnd::Released | AttemptEnd::Lost => Try::Untouched,
            AttemptEnd::Overdue => {
                attempt::overdue(node);
                login.took(id, None);
                Try::InvalidResponse
            }
            AttemptEnd::Failed(error) => {
                attempt::exchange_failed(node, &error);
                match error {
                    Error::NotHttp | Error::Invalid(_) | Error::TooLarge => {
                        request.record.enters(Phase::Answer);
                        Try::InvalidResponse
                    }
                    error if error.request_left() => Try::Closed,
                    _ => Try::Untouched,
                }
            }
        }
    }

    /// Takes the pin from a creation's answer, before the answer leaves.
    fn learn_creation(
        &self,
        id: NodeId,
        request: &PendingRequest,
        answer: upstream::Response,
        connection: Box<Connection>,
    ) -> Try {
        let node = self.cluster.node(id);
        let wrapper = match node_response::read(&answer) {
            NodeResponse::Wrapper(wrapper) => wrapper,
            NodeResponse::LegacyCode(_) => return Try::InvalidResponse,
            NodeResponse::Refused(malformed) => {
                node_response::no_wrapper(node, answer.status, malformed);
                return Try::InvalidResponse;
            }
            NodeResponse::Error(malformed) => {
                node_response::no_wrapper(node, answer.status, malformed);
                return Try::Error;
            }
        };
        if let Some(sid) = wrapper.sid.as_deref()
            && !wrapper.terminate
        {
            request.record.of_session(sid);
            let terms = Terms {
                wait: seconds(wrapper.wait.unwrap_or(request.wait.into())),
                inactivity: seconds(wrapper.inactivity.unwrap_or(60)),
                maxpause: seconds(wrapper.maxpause.unwrap_or(0)),
                hold: u8::try_from(wrapper.hold.unwrap_or(1)).unwrap_or(u8::MAX),
                legacy: request.legacy,
            };
            match self
                .sessions
                .insert(sid, id, terms, (request.rid, request.group), self.now())
            {
                Insert::Made(session) if answer.reusable => session.keep_idle(connection, id),
                Insert::Made(_) => {}
                Insert::Taken(owner) => {
                    let owner = &self.cluster.node(owner).name;
                    warn!(node = %node.name, %owner, "a node made a session with another session's sid");
                    return Try::Done(Answer::reject(Cause::SidConflict, request.legacy));
                }
                Insert::Full => return Try::Done(Answer::reject(Cause::Full, request.legacy)),
            }
            if let Some(addresses) = &self.addresses {
                addresses.tie(request.key(), id, self.now());
            }
        }
        let (host, accept) = (wrapper.host, wrapper.accept);
        let body = self.without_invitations(answer.body, host.as_ref(), accept.as_ref());
        Try::Done(node_response::pass_on(
            upstream::Response { body, ..answer },
            request.legacy,
        ))
    }
}
