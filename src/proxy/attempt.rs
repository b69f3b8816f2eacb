//! One try to get one answer from one node, with the three ways in which waiting ends: the answer
//! (or the connection's end), the deadline, and the verdict that the node is down.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Proxy;
use crate::cluster::Node;
use crate::metrics::NodeMetrics;
use crate::upstream::{Answer, Connection, Error, Turn};

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
pub(super) enum Ended {
    /// With an answer.
    Answered(Answer),
    /// With a failed exchange.
    Failed(Error),
    /// At its deadline.
    Overdue,
    /// With the verdict that the node is down.
    NodeDown,
}

/// A try that begins so long after its request has nobody any more who polls it without being woken.
const LATE: Duration = Duration::from_millis(10);

/// When a try is to be given up, and what happens before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// A probe goes out then.
    nudge: Option<Instant>,
    deadline: Instant,
    /// The timer has to run from the start.
    late: bool,
}

impl Times {
    /// Those of a try that begins at `now`, for a request that began at `begun`.
    pub(super) fn new(begun: Instant, now: Instant, patience: Duration) -> Self {
        Self {
            nudge: None,
            deadline: now + patience,
            late: now.saturating_duration_since(begun) >= LATE,
        }
    }

    /// The same, with a probe at `nudge`.
    pub(super) const fn nudging(self, nudge: Instant) -> Self {
        Self {
            nudge: Some(nudge),
            ..self
        }
    }
}

/// A deadline that costs nothing until the second time it is asked for: most answers are there by
/// then. Whoever drives an exchange polls it again 20 ms after it began, whether something woke it
/// or not (`edge` does so when it parks the connection). It does so once, so that the timer of a try
/// that begins [`LATE`] runs at once.
struct Deadline {
    at: Instant,
    asked: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.asked, true) {
            return Poll::Pending;
        }
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(context)
    }
}

/// A request counted as held at its node, until dropped.
struct Held<'a>(&'a NodeMetrics);

impl<'a> Held<'a> {
    fn at(node: &'a Node) -> Self {
        node.metrics.held.inc();
        Self(&node.metrics)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.dec();
    }
}

/// A connection that waits for its turn, counted until dropped.
struct Waiting<'a>(&'a NodeMetrics);

impl<'a> Waiting<'a> {
    fn at(node: &'a Node) -> Self {
        node.metrics.connects_waiting.inc();
        Self(&node.metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.connects_waiting.dec();
    }
}

impl Proxy {
    /// Opens a connection to `node` when its turn has come, timed and counted; a failure asks for
    /// a probe at once. Who waits for a turn gives up at `give_up`, or when the node is down.
    pub(super) async fn open(
        self: &Arc<Self>,
        node: &Node,
        give_up: Instant,
    ) -> Result<Box<Connection>, Error> {
        let mut local_since = None;
        let (opened, begun) = loop {
            let turn = match node.pace.try_turn(Instant::now()) {
                Some(turn) => turn,
                None => Box::pin(await_turn(node, give_up)).await?,
            };
            let begun = Instant::now();
            let opened = Connection::open(&node.addresses(), self.connect).await;
            match &opened {
                Err(Error::Refused(_)) => turn.forgive(),
                _ => drop(turn),
            }
            // Out of descriptors or ports here: the node is not to be blamed, and a moment helps.
            let local = matches!(&opened, Err(error) if error.is_local());
            if !local || local_since.get_or_insert(begun).elapsed() > self.connect {
                break (opened, begun);
            }
            sleep(LOCAL_RETRY).await;
        };
        match &opened {
            Ok(_) => {
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

    /// Sends `request` and waits for its answer. `sent` is called when the request has left;
    /// after `nudge` without an answer a probe goes out, and the waiting goes on.
    pub(super) async fn exchange(
        &self,
        node: &Node,
        connection: &mut Connection,
        request: &[u8],
        sent: impl FnOnce(),
        times: Times,
    ) -> Ended {
        let _held = Held::at(node);
        let mut down = std::pin::pin!(node.went_down.notified());
        down.as_mut().enable();
        if !node.serves() {
            return Ended::NodeDown;
        }
        let mut talk = std::pin::pin!(async {
            connection.send(request, SEND_LIMIT).await?;
            sent();
            connection.receive(self.max_answer, FINISH_LIMIT).await
        });
        let deadline = times.deadline;
        let mut timer = Deadline {
            at: times.nudge.unwrap_or(deadline),
            asked: times.late,
            timer: None,
        };
        loop {
            tokio::select! {
                biased;
                answer = talk.as_mut() => return match answer {
                    Ok(answer) => {
                        count(&node.metrics, request, &answer);
                        Ended::Answered(answer)
                    }
                    Err(error) => Ended::Failed(error),
                },
                () = down.as_mut() => return Ended::NodeDown,
                () = &mut timer => {
                    if timer.at >= deadline {
                        return Ended::Overdue;
                    }
                    node.suspect("an answer is late", SystemTime::now());
                    timer = Deadline { at: deadline, asked: true, timer: None };
                }
            }
        }
    }
}

/// Counts an answer, and the bytes that went both ways for it.
fn count(metrics: &NodeMetrics, request: &[u8], answer: &Answer) {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(0);
    metrics.answers.inc();
    metrics.sent_bytes.inc_by(length(request));
    metrics.received_bytes.inc_by(length(&answer.body));
}

/// Waits for a turn to open a connection to `node`.
async fn await_turn(node: &Node, give_up: Instant) -> Result<Turn<'_>, Error> {
    let _waiting = Waiting::at(node);
    let mut down = std::pin::pin!(node.went_down.notified());
    down.as_mut().enable();
    if !node.serves() {
        return Err(Error::ConnectTimeout);
    }
    tokio::select! {
        biased;
        turn = node.pace.turn() => turn.ok_or(Error::ConnectTimeout),
        () = down.as_mut() => Err(Error::ConnectTimeout),
        () = sleep_until(give_up) => Err(Error::ConnectTimeout),
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
