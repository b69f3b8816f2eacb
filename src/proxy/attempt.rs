//! One try to get one answer from one node, with the three ways in which waiting ends: the answer
//! (or the connection's end), the deadline, and the verdict that the node is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use super::Proxy;
use super::deadline::{AttemptTimes, Deadline, DeadlineStep};
use super::release;
use crate::cluster::{Epoch, Node};
use crate::metrics::NodeMetrics;
use crate::sessions::Session;
use crate::upstream::{ConnectPermit, Connection, Error, Priority, Response, WaitControl};

/// Added to a session's `wait` before a node's answer counts as overdue.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// How long a node may take to take a request.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take from its first byte to its last.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// How often a connection is tried again that this machine itself could not make.
const LOCAL_RETRY: Duration = Duration::from_millis(100);

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

/// A connection that waits for its turn, counted until dropped.
struct WaitingCount<'a>(&'a NodeMetrics);

impl<'a> WaitingCount<'a> {
    fn at(node: &'a Node) -> Self {
        node.metrics.connects_waiting.inc();
        Self(&node.metrics)
    }
}

impl Drop for WaitingCount<'_> {
    fn drop(&mut self) {
        self.0.connects_waiting.dec();
    }
}

impl Proxy {
    /// Opens a connection to `node` when its turn has come, timed and counted; a failure asks for
    /// a probe at once. The wait for a turn ends at `give_up` with [`Error::Queue`], which is not
    /// the node's failure. It ends with a failure of the node when the node goes down, or has lost
    /// the session that the connection is `of`.
    pub(super) async fn open(
        self: &Arc<Self>,
        node: &Node,
        of: Option<&Session>,
        priority: Priority,
        give_up: Instant,
    ) -> Result<Box<Connection>, Error> {
        let mut local_since = None;
        let (opened, begun) = loop {
            let permit = match node.connect_limiter.try_permit(Instant::now()) {
                Some(permit) => permit,
                None => Box::pin(await_permit(node, of, priority, give_up)).await?,
            };
            let (begun, epoch) = (Instant::now(), node.restart_detector.epoch());
            let record = |address, opened| node.connected(address, opened, Instant::now());
            let opened = Connection::open_any(&node.candidates(begun), self.connect, record).await;
            let opened = opened.and_then(|connection| self.below_ceiling(connection));
            match &opened {
                Err(Error::Refused(_)) => {
                    permit.forgive();
                    node.restart_detector.broke(epoch, Instant::now());
                }
                _ => drop(permit),
            }
            // Out of descriptors or ports here: the node is not to be blamed, and a moment helps.
            let local = matches!(&opened, Err(error) if error.is_local());
            if local {
                self.short_of_files();
            }
            if !local || local_since.get_or_insert(begun).elapsed() > self.connect {
                break (opened, begun);
            }
            sleep(LOCAL_RETRY).await;
        };
        let mut opened = opened;
        match &mut opened {
            Ok(connection) => {
                connection.report_to(&node.heard);
                node.metrics.connects.inc();
                node.metrics
                    .connect_seconds
                    .observe(begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                node.metrics.connect_failures.inc();
                if !error.is_local() {
                    suspect(node, error);
                }
            }
        }
        opened.map(Box::new)
    }

    /// The connection, unless its file is one of those that are kept for probes and the operator.
    fn below_ceiling(&self, connection: Connection) -> Result<Connection, Error> {
        if connection.file() < self.ceiling {
            return Ok(connection);
        }
        let source = std::io::Error::other("the last open files are kept back");
        Err(Error::Local(source))
    }

    /// Sends `request` and waits for its answer. `sent` is called when the request has left; when `lost`
    /// is ready and no byte has come, the node has lost it. At `nudge` without an answer a probe goes out, and the waiting goes on. It ends when the
    /// node goes down; a creation, which has no session to lose, also when the node falls silent.
    pub(super) async fn exchange(
        &self,
        node: &Node,
        connection: &mut Connection,
        request: &[u8],
        sent: impl FnOnce(),
        lost: impl Future<Output = ()> + Send,
        times: &AttemptTimes,
    ) -> AttemptEnd {
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
                answer = talk.as_mut() => return match answer {
                    Ok(answer) => {
                        count(&node.metrics, request, &answer);
                        AttemptEnd::Answered(answer)
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
                    DeadlineStep::End(ended) => return ended,
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

/// Waits for a turn to open a connection to `node`, until `give_up`, and only while the node is up
/// and has the session that the connection is `of`.
async fn await_permit<'a>(
    node: &'a Node,
    of: Option<&Session>,
    priority: Priority,
    give_up: Instant,
) -> Result<ConnectPermit<'a>, Error> {
    let _waiting = WaitingCount::at(node);
    let mut down = std::pin::pin!(node.went_down.notified());
    down.as_mut().enable();
    if !node.serves() {
        return Err(Error::ConnectTimeout);
    }
    let mut permit = std::pin::pin!(node.connect_limiter.permit(priority));
    loop {
        let mut forgot = std::pin::pin!(node.restart_detector.forgot.notified());
        forgot.as_mut().enable();
        if of.is_some_and(Session::is_lost) {
            return Err(Error::ConnectTimeout);
        }
        tokio::select! {
            biased;
            permit = permit.as_mut() => return permit.ok_or(Error::Queue),
            () = down.as_mut() => return Err(Error::ConnectTimeout),
            () = forgot.as_mut() => {}
            () = sleep_until(give_up) => return Err(Error::Queue),
        }
    }
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
