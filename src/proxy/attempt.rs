//! One try to get one response from one node. The wait ends with the response, with the connection's
//! end, at the deadline, with the verdict that the node is down, or with the stop of the process.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::deadline::{AttemptTimes, Deadline, Due, Stays};
use super::exchange;
use super::release::Manner;
use super::request::PendingRequest;
use super::shared::Proxy;
use crate::cluster::{Epoch, Node};
use crate::http1::WantedFields;
use crate::observe::metrics::NodeMetrics;
use crate::upstream::{Connection, Error, Receiving, Response, Sending};

/// Added to a session's `wait` before a node's answer counts as overdue.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// How long a node may take to take a request.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take from its first byte to its last.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// How a try ended.
#[derive(Debug)]
pub(super) enum AttemptEnd {
    /// With an answer.
    Answered(Response),
    /// With a failed exchange.
    Failed(Error),
    /// At its deadline.
    Overdue,
    /// With the verdict that the node is down.
    NodeDown,
    /// With the stop of the process, and no answer.
    Released,
    /// Without a byte of an answer, since its node has lost the request.
    Lost,
}

/// One try at one node.
pub(super) struct Attempt<'a> {
    pub(super) node: &'a Node,
    pub(super) connection: &'a mut Connection,
    pub(super) request: &'a PendingRequest,
    pub(super) times: AttemptTimes,
}

/// What a try looks after, beside its answer.
pub(super) trait Watch: Future<Output = ()> + Unpin {
    /// Its client is gone. Says how long the request stays at its node; none if it ends.
    fn stays(&self) -> Option<Stays>;
}

/// Nothing.
impl Watch for std::future::Pending<()> {
    fn stays(&self) -> Option<Stays> {
        None
    }
}

/// A request counted as held at its node, until dropped.
struct HeldCount<'a> {
    node: &'a Node,
    /// The node's epoch in which it began.
    began: Epoch,
}

impl<'a> HeldCount<'a> {
    fn at(node: &'a Node) -> Self {
        node.held.inc();
        let began = node.restart_detector.epoch();
        if began.is_suspect() {
            node.restart_detector.enter(began, Instant::now());
        }
        Self { node, began }
    }

    /// It ended without an answer.
    fn broke(&self) {
        self.node.restart_detector.broke(self.began, Instant::now());
    }
}

impl Drop for HeldCount<'_> {
    fn drop(&mut self) {
        if self.began.is_suspect() {
            self.node.restart_detector.leave(self.began);
        }
        self.node.held.dec();
    }
}

impl Proxy {
    /// Sends the request and waits for its response. `sent` is called when the request has left. When
    /// `lost` is ready and no byte has come, the node has lost the request. When the times ask for it, a
    /// probe looks after the node, and the wait goes on. The wait ends when the node goes down. That of a
    /// creation, which has no session to lose, ends also when the node falls silent.
    ///
    /// A struct in place of an `async fn`, which would keep room for its parts twice: a held poll is the
    /// normal state of a client.
    pub(super) fn exchange<'a>(
        &'a self,
        attempt: Attempt<'a>,
        sent: impl FnOnce() + Send + Unpin + 'a,
        lost: impl Watch + Send + 'a,
    ) -> impl Future<Output = AttemptEnd> + Send + 'a {
        let mut exchange = AttemptFuture {
            proxy: self,
            held: HeldCount::at(attempt.node),
            sent: Some(sent),
            lost,
            phase: ExchangePhase::Begin,
            length: 0,
            deadline: Deadline::new(),
            changes: None,
            attempt,
        };
        poll_fn(move |context| exchange.poll(context))
    }
}

/// A try that is under way.
struct AttemptFuture<'a, S, L> {
    proxy: &'a Proxy,
    attempt: Attempt<'a>,
    held: HeldCount<'a>,
    sent: Option<S>,
    lost: L,
    phase: ExchangePhase,
    /// The length of the request as it was sent, in bytes.
    length: usize,
    deadline: Deadline,
    /// Once the request is held: changes of its node, and the beginning of the stop.
    changes: Option<Pin<Box<Notified<'a>>>>,
}

/// Where a try is.
enum ExchangePhase {
    Begin,
    Sending(Sending),
    Receiving(Receiving),
}

impl<'a, S: FnOnce(), L: Watch> AttemptFuture<'a, S, L> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<AttemptEnd> {
        if exchange::is_client_gone() {
            self.outlive();
        }
        loop {
            if let Poll::Ready(ended) = self.poll_connection(context) {
                return Poll::Ready(ended);
            }
            if self.poll_node(context).is_ready() {
                self.held.broke();
                self.attempt.node.metrics.exchange_failures.inc();
                return Poll::Ready(AttemptEnd::NodeDown);
            }
            let times = &self.attempt.times;
            let release = &self.proxy.release;
            match ready!(self.deadline.poll(times, release, context)) {
                Due::Held => {
                    self.attempt.connection.watch();
                    self.changes = Some(Box::pin(self.node_changes().notified()));
                }
                Due::Nudge => {
                    let node = self.attempt.node;
                    node.suspect("an answer is late", SystemTime::now());
                }
                Due::Overdue => return Poll::Ready(AttemptEnd::Overdue),
                Due::Release => {
                    if let ExchangePhase::Receiving(receiving) = &mut self.phase {
                        receiving.half_close();
                    }
                }
                // Otherwise its answer has begun, or it has stanzas that the node may not have read.
                Due::Released
                    if self.is_silent()
                        && (times.gives_up() || times.release == Some(Manner::Poll)) =>
                {
                    return Poll::Ready(AttemptEnd::Released);
                }
                Due::Released => {}
            }
        }
    }

    /// The client is gone. A request that its node has taken may go on for a moment: its answer may be on
    /// its way.
    fn outlive(&mut self) {
        let Attempt { request, times, .. } = &mut self.attempt;
        let is_at_node = matches!(self.phase, ExchangePhase::Receiving(_));
        if is_at_node
            && times.release.is_some()
            && let Some(stays) = self.lost.stays()
            && exchange::go_on()
        {
            request.record.client_left();
            times.client_gone(stays);
        }
    }

    /// Sends and receives.
    fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<AttemptEnd> {
        let Attempt {
            node,
            connection,
            request,
            times,
        } = &mut self.attempt;
        loop {
            match &mut self.phase {
                ExchangePhase::Begin => {
                    if !stays(node, times) {
                        return Poll::Ready(AttemptEnd::NodeDown);
                    }
                    self.phase = ExchangePhase::Sending(connection.begin_send());
                }
                ExchangePhase::Sending(sending) => {
                    let sent = request.with_bytes(|bytes| {
                        self.length = bytes.len();
                        connection.poll_send(context, sending, bytes, SEND_LIMIT)
                    });
                    if let Err(error) = ready!(sent) {
                        self.held.broke();
                        return Poll::Ready(AttemptEnd::Failed(error));
                    }
                    if let Some(sent) = self.sent.take() {
                        sent();
                    }
                    self.phase = ExchangePhase::Receiving(connection.begin_receive());
                }
                ExchangePhase::Receiving(receiving) => {
                    let live = self.proxy.wants_fields().then(|| self.proxy.live());
                    let wanted = live
                        .as_ref()
                        .map_or(WantedFields::NONE, |live| &live.wanted);
                    let form = (self.proxy.max_answer(), wanted);
                    let received = connection.poll_receive(context, receiving, form, FINISH_LIMIT);
                    let Poll::Ready(response) = received else {
                        let waits = connection.awaits_first_byte() && !receiving.is_half_closed();
                        if waits && Pin::new(&mut self.lost).poll(context).is_ready() {
                            return Poll::Ready(AttemptEnd::Lost);
                        }
                        return Poll::Pending;
                    };
                    return Poll::Ready(match response {
                        Ok(response) => {
                            count(&node.metrics, self.length, &response);
                            AttemptEnd::Answered(response)
                        }
                        Err(error) if receiving.is_silent() && gave_way(&error, times) => {
                            AttemptEnd::Released
                        }
                        Err(error) => {
                            self.held.broke();
                            AttemptEnd::Failed(error)
                        }
                    });
                }
            }
        }
    }

    /// Ready when the node is not to be waited for any more.
    fn poll_node(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let notify = self.node_changes();
        let Some(changes) = &mut self.changes else {
            return Poll::Pending;
        };
        // Registered before the look: a change in between still wakes us.
        while changes.as_mut().poll(context).is_ready() {
            if !self.proxy.release.has_begun() {
                // The node was down. It may be up again, but has most likely lost the request.
                return Poll::Ready(());
            }
            changes.set(notify.notified());
        }
        if stays(self.attempt.node, &self.attempt.times) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// What wakes it when the node changes so that it may not be waited for.
    fn node_changes(&self) -> &'a Notify {
        let node = self.attempt.node;
        if self.attempt.times.creation {
            &node.left_up
        } else {
            &node.end_held
        }
    }

    /// Whether the connection was half-closed, and no byte of the response has come.
    fn is_silent(&self) -> bool {
        matches!(&self.phase, ExchangePhase::Receiving(receiving) if receiving.is_silent())
    }
}

/// Whether a try at the node is to go on.
fn stays(node: &Node, times: &AttemptTimes) -> bool {
    if times.creation {
        node.takes_newcomers()
    } else {
        node.serves()
    }
}

/// Whether a node that was half-closed ended the connection as it should.
fn gave_way(error: &Error, times: &AttemptTimes) -> bool {
    match times.release {
        Some(Manner::Poll) => matches!(error, Error::Closed(_)),
        // A reset does not say that the node has read the stanzas.
        Some(Manner::Send) => matches!(error, Error::Closed(None)),
        None => false,
    }
}

/// Counts an answer, and the bytes that went both ways for it.
fn count(metrics: &NodeMetrics, sent: usize, answer: &Response) {
    let bytes = |length: usize| u64::try_from(length).unwrap_or(0);
    metrics.answers.inc();
    metrics.sent_bytes.inc_by(bytes(sent));
    metrics.received_bytes.inc_by(bytes(answer.body.len()));
}

/// Notes what went wrong at `node`, and asks for a probe at once.
pub(super) fn suspect(node: &Node, error: &Error) {
    node.suspect(error.to_string(), SystemTime::now());
}

/// The same for an answer that did not come in its time.
pub(super) fn overdue(node: &Node) {
    node.metrics.exchange_failures.inc();
    node.suspect("an answer is overdue", SystemTime::now());
}

/// The same for an exchange that failed when the connection was open.
pub(super) fn exchange_failed(node: &Node, error: &Error) {
    node.metrics.exchange_failures.inc();
    suspect(node, error);
}
