//! A request without a sid: a new session is asked for.
//!
//! Nothing ties it to a node yet, so any node that fails is left for the next one in placement
//! order. An orphan that this may leave at a node expires there by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use super::attempt::{self, Ended, OVERDUE_AFTER};
use super::deadline::Times;
use super::learn::{self, Learned};
use super::resend::{self, Circumstances, Next};
use super::{Answer, Cause, Job, Phase, Proxy, refuse};
use crate::cluster::{NodeId, Placed};
use crate::sessions::{Insert, Terms};
use crate::upstream::{self, Connection, Priority};

/// Nodes whose answer to one creation may be unusable before the client is told so; a creation
/// that every node chokes on must not go round.
const MOST_GARBAGE: usize = 3;

/// After so much of a creation's wait a probe looks after the node: creations are answered at once.
const NUDGE_AFTER: Duration = Duration::from_secs(3);

/// When every node that is up has refused the creation, the next round begins after this.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What a try at one node came to.
enum Try {
    Done(Answer),
    NextNode,
    Garbage,
}

/// Runs a creation to its answer.
pub(super) async fn run(proxy: Arc<Proxy>, job: Job) -> Answer {
    let mut give_up = None;
    let mut tried = Vec::new();
    let mut garbage = 0;
    let mut unanswered = 0;
    loop {
        let Some(placed) = proxy.place(&job, &tried) else {
            if tried.is_empty() && proxy.cluster.is_full() {
                return refuse(Cause::NodesFull, job.legacy, job.note);
            }
            tried.clear();
            job.note.enters(Phase::Queue);
            let until = *give_up.get_or_insert_with(|| Instant::now() + proxy.placement_wait);
            if Box::pin(proxy.await_node(until)).await {
                continue;
            }
            return refuse(Cause::NoNode, job.legacy, job.note);
        };
        let node = placed.id();
        match proxy.try_creation(node, &job, &mut unanswered).await {
            Try::Done(answer) => {
                job.note.finish(&answer);
                return answer;
            }
            Try::NextNode | Try::Garbage if unanswered >= resend::MOST_SENT => {
                return refuse(Cause::CreationFailed, job.legacy, job.note);
            }
            Try::NextNode => tried.push(node),
            Try::Garbage => {
                tried.push(node);
                garbage += 1;
                if garbage == MOST_GARBAGE || garbage == proxy.cluster.nodes().len() {
                    return refuse(Cause::CreationFailed, job.legacy, job.note);
                }
            }
        }
    }
}

impl Proxy {
    /// The node for a creation: the one that its client's address is tied to, or by placement.
    /// It counts as the node's load until dropped.
    fn place(&self, job: &Job, tried: &[NodeId]) -> Option<Placed<'_>> {
        let tied = self
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.find(job.client, self.now()));
        self.cluster.place_new(job.client, tied, tried)
    }

    /// Waits until a node may be tried (again). False when it is too late.
    pub(super) async fn await_node(&self, give_up: Instant) -> bool {
        let pause = Instant::now() + ROUND_PAUSE;
        if self.cluster.any_up() {
            sleep_until(pause.min(give_up)).await;
        }
        Instant::now() < give_up && timeout_at(give_up, self.cluster.until_up()).await.is_ok()
    }

    /// Asks one node. Adds to `unanswered` how often it let go of the request without an answer.
    async fn try_creation(self: &Arc<Self>, id: NodeId, job: &Job, unanswered: &mut u8) -> Try {
        let node = self.cluster.node(id);
        let mut repeated = false;
        loop {
            let patience = Duration::from_secs(job.wait.into()) + OVERDUE_AFTER;
            let give_up = Instant::now() + patience;
            job.note.goes_to(id);
            job.note.enters(Phase::Connect);
            let mut connection =
                match Box::pin(self.open(node, None, Priority::Creation, give_up)).await {
                    Ok(connection) => connection,
                    Err(error) if error.is_local() => {
                        return Try::Done(Answer::reject(Cause::Overloaded, job.legacy));
                    }
                    Err(_) => return Try::NextNode,
                };
            let stay = job.note.at_node();
            let now = stay.begun();
            let times = Times::new(job.note.begun(), now, patience).of_creation(now + NUDGE_AFTER);
            let ended = self
                .exchange(node, &mut connection, &job.request, || (), &times)
                .await;
            let took = stay.end();
            match ended {
                Ended::Answered(answer) => {
                    node.metrics.answer_seconds.observe(took);
                    job.note.enters(Phase::Answer);
                    return self.learn_creation(id, job, answer, connection);
                }
                Ended::NodeDown | Ended::Released => return Try::NextNode,
                Ended::Overdue => {
                    attempt::overdue(node);
                    return Try::Garbage;
                }
                Ended::Failed(error) => {
                    attempt::exchange_failed(node, &error);
                    *unanswered += u8::from(error.request_left());
                    let now = Circumstances {
                        reused: false,
                        repeated,
                        terminate: false,
                        company: false,
                    };
                    match resend::after(&error, now) {
                        Next::Again => repeated = true,
                        Next::Garbage => {
                            job.note.enters(Phase::Answer);
                            return Try::Garbage;
                        }
                        Next::Reassign | Next::Terminated | Next::Overloaded => {
                            return Try::NextNode;
                        }
                    }
                }
            }
        }
    }

    /// Takes the pin from a creation's answer, before the answer leaves.
    fn learn_creation(
        &self,
        id: NodeId,
        job: &Job,
        answer: upstream::Answer,
        connection: Box<Connection>,
    ) -> Try {
        let node = self.cluster.node(id);
        let Learned::Wrapper(wrapper) = learn::read(&answer, node) else {
            return Try::Garbage;
        };
        if let Some(sid) = wrapper.sid.as_deref()
            && !wrapper.terminate
        {
            job.note.of_session(sid);
            let terms = Terms {
                wait: super::seconds(wrapper.wait.unwrap_or(job.wait.into())),
                inactivity: super::seconds(wrapper.inactivity.unwrap_or(60)),
                maxpause: super::seconds(wrapper.maxpause.unwrap_or(0)),
                legacy: job.legacy,
            };
            match self.sessions.insert(sid, id, terms, job.rid, self.now()) {
                Insert::Made(session) if answer.reusable => session.keep_idle(connection, id),
                Insert::Made(_) => {}
                Insert::Taken(owner) => {
                    let owner = &self.cluster.node(owner).name;
                    warn!(node = %node.name, %owner, "a node made a session with another session's sid");
                    return Try::Done(Answer::reject(Cause::SidConflict, job.legacy));
                }
                Insert::Full => return Try::Done(Answer::reject(Cause::Full, job.legacy)),
            }
            if let Some(addresses) = &self.addresses {
                addresses.tie(job.client, id, self.now());
            }
        }
        let (host, accept) = (wrapper.host, wrapper.accept);
        let body = self.without_invitations(answer.body, host.as_ref(), accept.as_ref());
        Try::Done(learn::pass_on(
            upstream::Answer { body, ..answer },
            job.legacy,
        ))
    }
}
