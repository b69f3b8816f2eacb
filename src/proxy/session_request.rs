//! A request with a sid: it belongs to its session's node.
//!
//! The node is the session's until it refuses a connection, closes on a request and on a probe, or is
//! called down; only then the session moves to a survivor. A session without a pin runs here too, at
//! its rendezvous node, and becomes a pin when the node answers it.

pub(super) mod connect;
mod order;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use order::Lost;

use super::attempt::{self, AttemptEnd, OVERDUE_AFTER};
use super::deadline::AttemptTimes;
use super::failed::Broken;
use super::node_response::{self, NodeResponse};
use super::retry::Writes;
use super::{Answer, Cause, Job, Phase, Proxy, Reply, release};
use crate::bosh::{self, Condition};
use crate::cluster::{NodeId, client_key};
use crate::limits::Client;
use crate::metrics::Kind;
use crate::sessions::{Place, Session};
use crate::upstream::{self, Connection, Priority};

/// How long a request waits for a node to come up when no node is known to have its session.
const PROVISIONAL_PATIENCE: Duration = Duration::from_secs(60);

/// A request of a session, counted as under way there until dropped.
pub(super) struct SessionRequest {
    pub(super) proxy: Arc<Proxy>,
    pub(super) session: Arc<Session>,
    /// Its place in the order of the session's requests.
    pub(super) place: Place,
    /// It began after the session was terminated.
    pub(super) late: bool,
    /// Who pays for it, if its session was provisional when it began and stays so.
    owing: Option<Client>,
}

impl SessionRequest {
    /// Takes over a request that [`Session::begin`] has counted.
    pub(super) const fn new(
        proxy: Arc<Proxy>,
        session: Arc<Session>,
        place: Place,
        (late, owing): (bool, Option<Client>),
    ) -> Self {
        Self {
            proxy,
            session,
            place,
            late,
            owing,
        }
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
            self.proxy.unknown.count(client, now);
        }
        let (session, now) = (&self.session, self.proxy.now());
        self.proxy.sessions.end(session, &self.place, now);
    }
}

/// What the request has been through.
#[derive(Default)]
pub(super) struct RetryState {
    /// The session's node when the request began.
    home: Option<NodeId>,
    /// Nodes that could not take the session.
    tried: Vec<NodeId>,
    /// Where it was written.
    pub(super) writes: Writes,
    /// It has been sent again on a fresh connection.
    pub(super) repeated: bool,
    /// It goes on a fresh connection next, for no fault of its node.
    renew: bool,
    /// How often its node answered with an error of HTTP.
    pub(super) errors: u8,
    /// Its answer was overdue once.
    overdue: bool,
    /// How long it waits for a node to come, since there is none.
    homeless_until: Option<Instant>,
    /// Since when its node, which is not down, cannot be connected to.
    pub(super) unreachable_since: Option<Instant>,
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

/// Runs a request of a session to its answer.
pub(super) async fn run(request: SessionRequest, job: Job) -> Reply {
    let proxy = Arc::clone(&request.proxy);
    let release = &proxy.release;
    let manner = release::Manner::of(job.record.kind());
    // A poll waits for no lower rid any more once the process stops: its node must see its rid.
    let turn = request.turn();
    let _ = release.unless(manner, turn).await;
    let mut state = RetryState {
        home: Some(request.session.node()),
        ..RetryState::default()
    };
    let answer = loop {
        let id = request.session.node();
        let mut step = if !state.writes.may(id, request.owes().is_none()) {
            request.give_up(&job)
        } else if request.proxy.cluster.node(id).serves() {
            request.attempt(id, &job, &mut state).await
        } else {
            Step::Reassign
        };
        if let Step::Doubt = step {
            let doubt = Box::pin(request.doubt(id, &job, &state));
            let Some(next) = release.unless(manner, doubt).await else {
                break request.released(&job);
            };
            step = next;
        }
        match step {
            Step::Done(answer) => break answer,
            Step::Again => {
                job.record.enters(Phase::Queue);
                request.turn_again().await;
            }
            Step::Lost => {
                job.record.enters(Phase::Queue);
                request.session.resend(&request.place);
                state.renew = true;
            }
            Step::Later(pause) => {
                job.record.enters(Phase::Queue);
                request.session.again(&request.place);
                if release.unless(manner, sleep(pause)).await.is_none() {
                    break request.released(&job);
                }
                request.turn_again().await;
            }
            Step::Reassign | Step::Doubt => {
                job.record.enters(Phase::Queue);
                request.session.again(&request.place);
                let moved = Box::pin(request.reassign(id, &job, &mut state));
                match release.unless(manner, moved).await {
                    Some(true) => {}
                    Some(false) => break request.lost(Cause::SessionLost),
                    None => break request.released(&job),
                }
                request.turn_again().await;
            }
            Step::Rejected(cause) => break request.lost(cause),
        }
    };
    job.record.answer(answer)
}

impl SessionRequest {
    /// One try at the session's node.
    async fn attempt(&self, id: NodeId, job: &Job, state: &mut RetryState) -> Step {
        let node = self.proxy.cluster.node(id);
        job.record.goes_to(id);
        let patience = Duration::from_secs(self.session.terms().wait.into()) + OVERDUE_AFTER;
        let idle = if std::mem::take(&mut state.renew) || state.repeated {
            None
        } else {
            self.session.take_idle()
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                if self.session.is_lost() {
                    return Step::Rejected(Cause::SessionLost);
                }
                let give_up = Instant::now() + patience;
                let priority = Priority::of_session(state.home == Some(id));
                job.record.enters(Phase::Connect);
                match Box::pin(self.open(node, priority, give_up)).await {
                    Some(Ok(connection)) => connection,
                    Some(Err(error)) => return self.failed(id, &error.into(), job, state),
                    None => return Step::Rejected(Cause::UnknownBudget),
                }
            }
        };
        self.distance(&job.record).await;
        let asks = job.record.kind() == Kind::Send;
        let mut written = false;
        let sent = || {
            written = true;
            self.session.sent(&self.place, asks, self.proxy.now());
            if job.terminate {
                self.session.leave();
            }
        };
        let stay = job.record.at_node();
        let times = AttemptTimes::new(stay.begun(), patience)
            .released(release::Manner::of(job.record.kind()));
        let lost = Lost::watch(self);
        let ended = self
            .proxy
            .exchange(node, &mut connection, &job.request, sent, lost, &times)
            .await;
        let took = stay.end();
        // A request that its node does not answer hurts no node.
        let was_lost = matches!(ended, AttemptEnd::Lost);
        if !was_lost
            && (written || matches!(&ended, AttemptEnd::Failed(error) if error.request_left()))
        {
            state.writes.add(id);
        }
        match ended {
            AttemptEnd::Answered(answer) => {
                job.record.enters(Phase::Answer);
                self.learn(id, job, answer, connection, state)
            }
            AttemptEnd::NodeDown => {
                // It had a node until now.
                state.homeless_until = None;
                Step::Reassign
            }
            AttemptEnd::Overdue => {
                attempt::overdue(node);
                state.repeated = true;
                if std::mem::replace(&mut state.overdue, true) {
                    self.give_up(job)
                } else {
                    Step::Again
                }
            }
            AttemptEnd::Lost => {
                node.metrics.resent_unanswered.inc();
                Step::Lost
            }
            AttemptEnd::Released => Step::Done(self.released(job)),
            AttemptEnd::Failed(error) => {
                let broken = Broken {
                    error,
                    reused: connection.is_reused(),
                    took,
                };
                self.failed(id, &broken, job, state)
            }
        }
    }

    /// What the answer says of the session.
    fn learn(
        &self,
        id: NodeId,
        job: &Job,
        mut answer: upstream::Response,
        connection: Box<Connection>,
        state: &mut RetryState,
    ) -> Step {
        let sessions = &self.proxy.sessions;
        if let Some(took) = self.session.reacted(|| self.proxy.now()) {
            let metrics = &self.proxy.cluster.node(id).metrics;
            metrics.answer_seconds.observe(took);
        }
        let (terminated, condition, host) = match node_response::read(&answer) {
            NodeResponse::Refused(_) | NodeResponse::Error(_)
                if job.terminate && answer.status < 300 =>
            {
                return self.left(job);
            }
            NodeResponse::Refused(malformed) => {
                node_response::no_wrapper(self.proxy.cluster.node(id), answer.status, malformed);
                return self.give_up(job);
            }
            NodeResponse::Error(malformed) => {
                node_response::no_wrapper(self.proxy.cluster.node(id), answer.status, malformed);
                return self.node_error(id, job, state);
            }
            NodeResponse::LegacyCode(status) => {
                self.terminated(id, job, node_response::condition_of(status).as_str());
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
                let ends = wrapper.terminate || (job.terminate && !wrapper.error);
                (ends, condition.unwrap_or("none"), wrapper.host)
            }
        };
        answer.body = self.proxy.hide_host(answer.body, host.as_ref());
        if terminated {
            if self.owes().is_some() {
                let now = self.proxy.started.elapsed();
                self.proxy
                    .unknown
                    .remember(&self.proxy.clients, self.session.sid(), now);
            }
            self.terminated(id, job, condition);
            if job.terminate && !self.session.terms().legacy {
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
            self.place.answered();
            sessions.prove(&self.session, id, self.late);
            if answer.reusable {
                self.session.keep_idle(connection, id);
            }
        }
        Step::Done(node_response::pass_on(answer, self.session.terms().legacy))
    }

    /// The node has ended the session with this condition. If it has lost all that it had, their
    /// pins go.
    fn terminated(&self, id: NodeId, job: &Job, condition: &str) {
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
        let (client, held) = (client_key(job.client), node.held.get());
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
    fn legacy_code(&self, status: u16, answer: &upstream::Response) -> Answer {
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

    /// Moves the session off the node `from`. With no node to go to it waits for one, as long as
    /// the session itself may. False when that has passed.
    async fn reassign(&self, from: NodeId, job: &Job, state: &mut RetryState) -> bool {
        state.repeated = false;
        state.unreachable_since = None;
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
        if !state.tried.contains(&from) {
            state.tried.push(from);
        }
        // A node that the session moved to may fail before it answers. Then the node that knew the
        // session is the better choice, if it is back.
        let owner = self.session.owner().filter(|owner| *owner != from);
        let owner = owner.filter(|owner| cluster.node(*owner).serves());
        if let Some(to) = owner.or_else(|| cluster.place(job.client, &state.tried)) {
            if self.proxy.sessions.reassign(&self.session, from, to)
                && let Some(addresses) = &self.proxy.addresses
            {
                addresses.tie(job.client, to, self.proxy.now());
            }
            return true;
        }
        state.tried.clear();
        let mut patience = Duration::from_secs(self.session.terms().inactivity.max(10).into());
        if self.session.is_provisional() {
            // Its terms are long because they are not known.
            patience = patience.min(PROVISIONAL_PATIENCE);
        }
        let until = state
            .homeless_until
            .get_or_insert_with(|| Instant::now() + patience);
        self.proxy.await_node(*until).await
    }

    /// The process stops: the client is to ask the next one.
    fn released(&self, job: &Job) -> Answer {
        self.proxy.release.count();
        job.record.enters(Phase::Stead);
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
