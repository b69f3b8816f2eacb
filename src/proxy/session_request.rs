//! A request with a sid: it belongs to its session's node.
//!
//! The node is the session's until it refuses a connection, closes on a request and on a probe, or is
//! called down; only then the session moves to a survivor. A session without a pin runs here too, at
//! its rendezvous node, and becomes a pin when the node answers it.

mod connect;
mod order;
mod reassign;
mod response;
mod search;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use order::Lost;
use reassign::Moved;

use super::answer::Answer;
use super::attempt::{self, Attempt, AttemptEnd, OVERDUE_AFTER};
use super::deadline::AttemptTimes;
use super::landing::Permit;
use super::lookup::{Earlier, Joined};
use super::reject::Cause;
use super::release;
use super::request::PendingRequest;
use super::request_record::Reply;
use super::retry::Broken;
use super::retry_policy::Writes;
use super::shared::Proxy;
use super::termination_state::Phase;
use crate::bosh::{self, Condition};
use crate::cluster::{Node, NodeId};
use crate::limits::Client;
use crate::observe::metrics::Kind;
use crate::sessions::{Place, Session, Time};
use crate::upstream::{Connection, Priority};

/// A request of a session, counted as under way there until dropped.
pub(super) struct SessionRequest {
    pub(super) proxy: Arc<Proxy>,
    pub(super) session: Arc<Session>,
    /// Its place in the order of the session's requests.
    pub(super) place: Place,
    /// It began after the session was terminated.
    pub(super) late: bool,
    /// The hash of its body, where answers are kept.
    pub(super) hash: u64,
    /// Who pays for it, if its session was provisional when it began and stays so.
    pub(super) owing: Option<Client>,
    /// It has run to its end.
    pub(super) finished: bool,
}

impl SessionRequest {
    /// Notes that it has run to its end.
    const fn finish(&mut self) {
        self.finished = true;
    }

    /// Notes that its client went away before its answer.
    fn went_away(&self) {
        let (now, retry) = (self.proxy.now(), self.proxy.retry());
        self.session.went_away(self.place.rid(), now, retry);
    }

    /// Who would pay if the request ended now.
    pub(super) fn owes(&self) -> Option<Client> {
        self.owing.filter(|_| self.session.is_provisional())
    }
}

impl Drop for SessionRequest {
    fn drop(&mut self) {
        if let Some(client) = self.owes() {
            let now = self.proxy.started.elapsed();
            self.proxy.limits().unknown.count(client, now);
        }
        let (session, now) = (&self.session, self.proxy.now());
        if !self.finished {
            self.went_away();
        }
        self.proxy.sessions.end(session, &self.place, now);
    }
}

/// What the request has been through.
#[derive(Default)]
pub(super) struct RetryState {
    /// The session's node when the request began.
    home: Option<NodeId>,
    /// Where it was written.
    pub(super) writes: Writes,
    /// It has been sent again on a fresh connection.
    pub(super) repeated: bool,
    /// It goes on a fresh connection next, for no fault of its node.
    renew: bool,
    /// How often its node answered with an error of HTTP.
    pub(super) errors: u8,
    /// Its answer was overdue once.
    pub(super) overdue: bool,
    /// What few requests come to.
    moves: Option<Box<Moves>>,
}

/// What a request has been through whose node failed.
#[derive(Default)]
pub(super) struct Moves {
    /// Nodes that could not take the session.
    tried: Vec<NodeId>,
    /// How long it waits for a node to come, since there is none.
    homeless_until: Option<Instant>,
    /// Nodes that do not know the sid.
    searched: Vec<NodeId>,
    /// Since when its node, which is not down, cannot be connected to.
    pub(super) unreachable_since: Option<Instant>,
    /// The right to go to a survivor, until its answer says what became of the session.
    landing: Option<Permit>,
}

impl RetryState {
    pub(super) fn moves(&mut self) -> &mut Moves {
        self.moves.get_or_insert_default()
    }

    /// The right to go to a survivor, if it has one.
    fn landing(&mut self) -> Option<&mut Permit> {
        self.moves.as_mut()?.landing.as_mut()
    }
}

/// What a try came to.
pub(super) enum Step {
    Done(Answer),
    Rejected(Cause),
    Again,
    /// Again, on a new connection: its node has lost it.
    Lost,
    /// Again, after a pause.
    Later(Duration),
    /// Again, here or elsewhere or never, as a probe of the node says.
    Doubt,
    Reassign,
}

/// Runs a request whose sid is not in the table: locates its session first.
pub(super) async fn run_unknown(
    proxy: Arc<Proxy>,
    sid: Box<str>,
    pending: PendingRequest,
) -> Reply {
    match proxy.locate(&sid, &pending).await {
        Ok(Joined::Request(request)) => run(request, pending).await,
        Ok(Joined::Kept(answer)) => pending.record.answer(answer),
        Ok(Joined::Waits(session, earlier)) => {
            Box::pin(run_copy(proxy, (session, earlier), pending)).await
        }
        Err(refused) => pending.record.reject(refused.cause, refused.legacy),
    }
}

/// Runs a request that is under way already, for an earlier connection of its client: it gets the answer to
/// that one, and takes its place at the node if that one ends without an answer.
pub(super) async fn run_copy(
    proxy: Arc<Proxy>,
    (session, mut earlier): (Arc<Session>, Earlier),
    pending: PendingRequest,
) -> Reply {
    loop {
        drop(earlier.await);
        match proxy.join(Arc::clone(&session), &pending, true) {
            Ok(Some(Joined::Request(request))) => return Box::pin(run(request, pending)).await,
            Ok(Some(Joined::Kept(answer))) => {
                pending.record.enters(Phase::Stead);
                return pending.record.answer(answer);
            }
            Ok(Some(Joined::Waits(_, again))) => earlier = again,
            Ok(None) => {
                return pending
                    .record
                    .reject(Cause::SessionLost, session.terms().legacy);
            }
            Err(refused) => return pending.record.reject(refused.cause, refused.legacy),
        }
    }
}

/// Runs a request of a session to its answer.
///
/// Not an `async fn`: that would have room for `request` and `pending` twice.
pub(super) fn run(
    request: SessionRequest,
    pending: PendingRequest,
) -> impl Future<Output = Reply> + Send {
    let manner = release::Manner::of(pending.record.kind());
    let mut request = request;
    async move {
        // A poll waits for no lower rid any more once the process stops: its node must see its rid.
        let turn = request.turn(&pending);
        let _ = request.proxy.release.unless(manner, turn).await;
        let mut state = RetryState {
            home: Some(request.session.node()),
            ..RetryState::default()
        };
        let answer = loop {
            let id = request.session.node();
            let step = if !state.writes.may(id, request.owes().is_none()) {
                request.give_up(&pending)
            } else if request.proxy.cluster.node(id).serves() {
                request.attempt(id, &pending, &mut state).await
            } else {
                Step::Reassign
            };
            match step {
                Step::Done(answer) => break answer,
                Step::Rejected(cause) => break request.lost(cause),
                // Nothing is tried again for a client that is gone.
                _ if pending.record.has_left() => break Answer::ok(bosh::empty()),
                // Boxed with what it needs: few requests come to it.
                step => match Box::pin(request.go_on(id, step, &pending, &mut state)).await {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(answer) => break answer,
                },
            }
        };
        request.finish();
        pending.record.answer(answer)
    }
}

impl SessionRequest {
    /// What follows a try at the node `id` that did not end the request: nothing, once it may be tried
    /// again, or an answer.
    async fn go_on(
        &self,
        id: NodeId,
        mut step: Step,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> ControlFlow<Answer> {
        let release = &self.proxy.release;
        let manner = release::Manner::of(pending.record.kind());
        if let Step::Doubt = step {
            let doubt = Box::pin(self.doubt(id, pending, state));
            let Some(next) = release.unless(manner, doubt).await else {
                return ControlFlow::Break(self.released(pending));
            };
            step = next;
        }
        match step {
            Step::Done(answer) => return ControlFlow::Break(answer),
            Step::Rejected(cause) => return ControlFlow::Break(self.lost(cause)),
            Step::Again => {
                pending.record.enters(Phase::Queue);
                self.turn_again(pending).await;
            }
            Step::Lost => {
                pending.record.enters(Phase::Queue);
                self.session.resend(&self.place);
                state.renew = true;
            }
            Step::Later(pause) => {
                pending.record.enters(Phase::Queue);
                self.session.again(&self.place);
                if release.unless(manner, sleep(pause)).await.is_none() {
                    return ControlFlow::Break(self.released(pending));
                }
                self.turn_again(pending).await;
            }
            Step::Reassign | Step::Doubt => {
                pending.record.enters(Phase::Queue);
                self.session.again(&self.place);
                let moved = Box::pin(self.reassign(id, pending, state));
                match release.unless(manner, moved).await {
                    Some(Moved::Goes) => {}
                    Some(Moved::Lost) => return ControlFlow::Break(self.lost(Cause::SessionLost)),
                    Some(Moved::Waits) | None => return ControlFlow::Break(self.released(pending)),
                }
                self.turn_again(pending).await;
            }
        }
        ControlFlow::Continue(())
    }

    /// One try at the session's node. Like [`run`] it has room for its arguments once.
    fn attempt<'a>(
        &'a self,
        id: NodeId,
        pending: &'a PendingRequest,
        state: &'a mut RetryState,
    ) -> impl Future<Output = Step> + Send + 'a {
        pending.record.goes_to(id);
        async move {
            let node = self.proxy.cluster.node(id);
            let mut connection = match self.idle_connection(state) {
                Some(connection) => connection,
                None => match self.connection(node, pending, state).await {
                    Ok(connection) => connection,
                    Err(step) => return step,
                },
            };
            let stay = pending.record.at_node(self.distance(&pending.record).await);
            if let Some(permit) = state.landing() {
                permit.at(id, stay.begun());
            }
            let mut written = false;
            let began = self.proxy.time_of(stay.begun());
            let sent = || {
                written = true;
                self.written(pending, began);
            };
            let times = AttemptTimes::new(stay.begun(), self.patience())
                .released(release::Manner::of(pending.record.kind()));
            let attempt = Attempt {
                node,
                connection: &mut connection,
                request: pending,
                times,
            };
            let ended = self.proxy.exchange(attempt, sent, Lost::watch(self)).await;
            let took = stay.end(Instant::now());
            // A request that its node does not answer hurts no node.
            let was_lost = matches!(ended, AttemptEnd::Lost);
            let left = matches!(&ended, AttemptEnd::Failed(error) if error.request_left());
            if !was_lost && (written || left) {
                state.writes.add(id);
            }
            match ended {
                AttemptEnd::Answered(response) => {
                    pending.record.enters(Phase::Answer);
                    self.learn(id, pending, response, connection, state)
                }
                AttemptEnd::Failed(error) => {
                    let reused = connection.is_reused();
                    let broken = Broken {
                        error,
                        reused,
                        took,
                    };
                    self.failed(id, &broken, pending, state)
                }
                AttemptEnd::Overdue if pending.record.has_left() => Step::Again,
                AttemptEnd::Overdue => {
                    attempt::overdue(node);
                    self.overdue(pending, state)
                }
                AttemptEnd::NodeDown => {
                    // It had a node until now.
                    if let Some(moves) = &mut state.moves {
                        moves.homeless_until = None;
                    }
                    Step::Reassign
                }
                AttemptEnd::Lost => {
                    node.metrics.resent_unanswered.inc();
                    Step::Lost
                }
                AttemptEnd::Released => Step::Done(self.released(pending)),
            }
        }
    }

    /// A connection to the node that has nothing to do.
    fn idle_connection(&self, state: &mut RetryState) -> Option<Box<Connection>> {
        if std::mem::take(&mut state.renew) || state.repeated {
            None
        } else {
            self.session.take_idle()
        }
    }

    /// Notes that the request has been written to the node at `now`.
    fn written(&self, pending: &PendingRequest, now: Time) {
        let asks = pending.record.kind() == Kind::Send;
        self.session.sent(&self.place, asks, now);
        (self.proxy.sessions).sent(&self.session, self.place.rid());
        if pending.terminate {
            self.session.leave();
        }
    }

    /// How long its node may take to answer.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.session.terms().wait.into()) + OVERDUE_AFTER
    }

    /// A new connection to the session's node, or what follows if there is none.
    async fn connection(
        &self,
        node: &Node,
        pending: &PendingRequest,
        state: &mut RetryState,
    ) -> Result<Box<Connection>, Step> {
        if self.session.is_lost() {
            return Err(Step::Rejected(Cause::SessionLost));
        }
        let give_up = Instant::now() + self.patience();
        let priority = Priority::of_session(state.home == Some(node.id));
        pending.record.enters(Phase::Connect);
        match Box::pin(self.open(node, pending.client(), priority, give_up)).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => Err(self.failed(node.id, &error.into(), pending, state)),
            None => Err(Step::Rejected(Cause::UnknownBudget)),
        }
    }

    /// The process stops: the client is to ask the next one. Or the session waits for a survivor: the client
    /// is to ask again.
    fn released(&self, pending: &PendingRequest) -> Answer {
        if self.proxy.release.has_begun() {
            self.proxy.release.count();
        }
        pending.record.enters(Phase::Stead);
        Answer::ok(bosh::empty())
    }

    /// The session cannot go on: a clean end, at which clients log in again at once.
    fn lost(&self, cause: Cause) -> Answer {
        let condition = cause.row().condition.map_or("none", Condition::as_str);
        self.proxy
            .sessions
            .terminate(&self.session, condition, self.proxy.now());
        Answer::reject(cause, self.session.terms().legacy)
    }
}
