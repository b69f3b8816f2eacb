//! One try to get one response from one node. The wait ends with the response, with the connection's
//! end, at the deadline, with the verdict that the node is down, or with the stop of the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::deadline::{AttemptTimes, Deadline, DeadlineStep};
use super::release;
use super::shared::Proxy;
use crate::cluster::{Epoch, Node};
use crate::metrics::NodeMetrics;
use crate::upstream::{Connection, Error, Response, WaitControl};

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
    /// The bytes for the node, head and body.
    pub(super) request: &'a [u8],
    pub(super) times: &'a AttemptTimes,
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
    pub(super) async fn exchange(
        &self,
        attempt: Attempt<'_>,
        sent: impl FnOnce(),
        lost: impl Future<Output = ()> + Send,
    ) -> AttemptEnd {
        let Attempt {
            node,
            connection,
            request,
            times,
        } = attempt;
        let held = HeldCount::at(node);
        let (leaves, stays): (_, fn(&Node) -> bool) = if times.creation {
            (&node.left_up, Node::takes_new)
        } else {
            (&node.went_down, Node::serves)
        };
        let mut leaves = std::pin::pin!(leaves.notified());
        leaves.as_mut().enable();
        if !stays(node) {
            return AttemptEnd::NodeDown;
        }
        let control = WaitControl::default();
        let is_lost = AtomicBool::new(false);
        let mut talk = std::pin::pin!(async {
            connection.send(request, SEND_LIMIT).await?;
            sent();
            let mut lost = std::pin::pin!(lost);
            let give_up = |context: &mut Context<'_>| {
                let lost = lost.as_mut().poll(context);
                is_lost.store(lost.is_ready(), Ordering::Relaxed);
                lost
            };
            connection
                .receive_controlled(self.max_answer, FINISH_LIMIT, &control, give_up)
                .await
        });
        let mut timer = Deadline::of(times, &self.release);
        loop {
            tokio::select! {
                biased;
                response = talk.as_mut() => return match response {
                    Ok(response) => {
                        count(&node.metrics, request, &response);
                        AttemptEnd::Answered(response)
                    }
                    Err(_) if is_lost.load(Ordering::Relaxed) => AttemptEnd::Lost,
                    Err(error) if control.is_silent() && gave_way(&error, times) => {
                        AttemptEnd::Released
                    }
                    Err(error) => {
                        held.broke();
                        AttemptEnd::Failed(error)
                    }
                },
                () = leaves.as_mut() => {
                    held.broke();
                    node.metrics.exchange_failures.inc();
                    return AttemptEnd::NodeDown;
                }
                due = &mut timer => match timer.next(due, times, &control) {
                    DeadlineStep::Wait => {}
                    DeadlineStep::Nudge => node.suspect("an answer is late", SystemTime::now()),
                    DeadlineStep::Overdue => return AttemptEnd::Overdue,
                    DeadlineStep::Released => return AttemptEnd::Released,
                }
            }
        }
    }
}

/// Whether a node that was half-closed ended the connection as it should.
fn gave_way(error: &Error, times: &AttemptTimes) -> bool {
    match times.release {
        Some(release::Manner::Poll) => matches!(error, Error::Closed(_)),
        // A reset does not say that the node has read the stanzas.
        Some(release::Manner::Send) => matches!(error, Error::Closed(None)),
        None => false,
    }
}

/// Counts an answer, and the bytes that went both ways for it.
fn count(metrics: &NodeMetrics, request: &[u8], answer: &Response) {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(0);
    metrics.answers.inc();
    metrics.sent_bytes.inc_by(length(request));
    metrics.received_bytes.inc_by(length(&answer.body));
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
