//! One try to get one answer from one node, with the three ways in which waiting ends: the answer
//! (or the connection's end), the deadline, and the verdict that the node is down.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use super::Proxy;
use super::release::{self, Release};
use crate::cluster::{Life, Node};
use crate::metrics::NodeMetrics;
use crate::sessions::Session;
use crate::upstream::{Answer, Connection, Error, HalfClose, PARK_AFTER, Priority, Turn, YOUNG};

/// Added to a session's `wait` before a node's answer counts as overdue.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// How long a node may take to take a request.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take from its first byte to its last.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// How often a connection is tried again that this machine itself could not make.
const LOCAL_RETRY: Duration = Duration::from_millis(100);

/// A try that begins so long after its request has its timer at once: where `edge` polls it again, it
/// would not be as old as [`YOUNG`] yet.
const LATE: Duration = PARK_AFTER.saturating_sub(YOUNG);

/// The times of one try.
#[derive(Debug)]
pub(super) struct Times {
    /// When it begins.
    begun: Instant,
    /// When a probe looks after its node.
    nudge: Option<Instant>,
    /// When it is given up.
    deadline: Instant,
    /// It begins so long after its request that nobody polls it any more without being woken.
    late: bool,
    /// The request asks for a new session.
    creation: bool,
    /// How a stop ends it; none if only its answer can.
    release: Option<release::Manner>,
}

impl Times {
    /// Those of a try that begins at `now`, for a request that began at `begun`.
    pub(super) fn new(begun: Instant, now: Instant, patience: Duration) -> Self {
        Self {
            begun: now,
            nudge: None,
            deadline: now + patience,
            late: now.saturating_duration_since(begun) >= LATE,
            creation: false,
            release: None,
        }
    }

    /// The same for a request that a stop ends in this manner.
    pub(super) fn released(self, release: Option<release::Manner>) -> Self {
        Self { release, ..self }
    }

    /// The same for a creation, with a probe at `nudge`.
    pub(super) fn of_creation(self, nudge: Instant) -> Self {
        Self {
            nudge: Some(nudge),
            creation: true,
            ..self
        }
    }
}

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
    /// With the stop of the process, and no answer.
    Released,
}

/// A deadline that has no timer until the exchange has taken as long as [`YOUNG`]: most answers are
/// there by then. Whoever drives an exchange polls it again once it has taken a while, whether
/// something woke it or not: `edge` does so when it parks the connection, [`PARK_AFTER`] behind the
/// beginning of the request at the earliest. It does so once, so that the timer of a try that begins
/// [`LATE`] runs at once.
struct Deadline<'a> {
    begun: Instant,
    at: Instant,
    /// The release that it looks out for as well, and when the try is old enough for it.
    release: Option<(&'a Release, Instant)>,
    /// It was not polled yet.
    fresh: bool,
    /// It may go without a timer still.
    young: bool,
    timer: Option<Pin<Box<dyn Future<Output = Due> + Send + 'a>>>,
}

/// What a [`Deadline`] rings for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Its time.
    Time,
    /// The release.
    Release,
}

impl<'a> Deadline<'a> {
    /// The first deadline of a try.
    fn of(times: &Times, release: &'a Release) -> Self {
        let manner = times.release;
        Self {
            begun: times.begun,
            at: times.nudge.unwrap_or(times.deadline),
            release: manner.map(|manner| (release, times.begun + manner.patience())),
            fresh: true,
            young: !(times.late || manner.is_some() && release.has_begun()),
            timer: None,
        }
    }

    /// One future for both, so that a held exchange has one timer in memory.
    fn timer(&self) -> Pin<Box<dyn Future<Output = Due> + Send + 'a>> {
        let at = self.at;
        let Some((release, from)) = self.release else {
            return Box::pin(async move {
                sleep_until(at).await;
                Due::Time
            });
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = sleep_until(at) => return Due::Time,
                () = release.begun() => {}
            }
            sleep_until(from).await;
            Due::Release
        })
    }

    /// Puts the deadline off.
    fn reset(&mut self, at: Instant) {
        self.at = at;
        self.timer = None;
    }
}

impl Future for Deadline<'_> {
    type Output = Due;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Due> {
        let fresh = std::mem::replace(&mut self.fresh, false);
        // The clock is left alone the first time.
        self.young = self.young && (fresh || self.begun.elapsed() < YOUNG);
        if self.young {
            return Poll::Pending;
        }
        let mut timer = self.timer.take().unwrap_or_else(|| self.timer());
        let due = timer.as_mut().poll(context);
        self.timer = Some(timer);
        due
    }
}

/// A request counted as held at its node, until dropped.
struct Held<'a> {
    node: &'a Node,
    /// The node's life in which it began.
    began: Life,
}

impl<'a> Held<'a> {
    fn at(node: &'a Node) -> Self {
        node.metrics.held.inc();
        let began = node.memory.life();
        if began.in_doubt() {
            node.memory.enter(began, Instant::now());
        }
        Self { node, began }
    }

    /// It ended without an answer.
    fn broke(&self) {
        self.node.memory.broke(self.began, Instant::now());
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.began.in_doubt() {
            self.node.memory.leave(self.began);
        }
        self.node.metrics.held.dec();
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
            let turn = match node.pace.try_turn(Instant::now()) {
                Some(turn) => turn,
                None => Box::pin(await_turn(node, of, priority, give_up)).await?,
            };
            let (begun, life) = (Instant::now(), node.memory.life());
            let note = |address, opened| node.connected(address, opened, Instant::now());
            let opened = Connection::open_any(&node.candidates(begun), self.connect, note).await;
            let opened = opened.and_then(|connection| self.below_ceiling(connection));
            match &opened {
                Err(Error::Refused(_)) => {
                    turn.forgive();
                    node.memory.broke(life, Instant::now());
                }
                _ => drop(turn),
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

    /// Sends `request` and waits for its answer. `sent` is called when the request has left;
    /// at `nudge` without an answer a probe goes out, and the waiting goes on. It ends when the
    /// node goes down; a creation, which has no session to lose, also when the node falls silent.
    pub(super) async fn exchange(
        &self,
        node: &Node,
        connection: &mut Connection,
        request: &[u8],
        sent: impl FnOnce(),
        times: &Times,
    ) -> Ended {
        let held = Held::at(node);
        let (leaves, stays): (_, fn(&Node) -> bool) = if times.creation {
            (&node.left_up, Node::is_up)
        } else {
            (&node.went_down, Node::serves)
        };
        let mut leaves = std::pin::pin!(leaves.notified());
        leaves.as_mut().enable();
        if !stays(node) {
            return Ended::NodeDown;
        }
        if times.late {
            connection.watch();
        }
        let half_close = HalfClose::default();
        let mut talk = std::pin::pin!(async {
            connection.send(request, SEND_LIMIT).await?;
            sent();
            connection
                .receive_or_release(self.max_answer, FINISH_LIMIT, &half_close)
                .await
        });
        let deadline = times.deadline;
        let mut timer = Deadline::of(times, &self.release);
        let mut releasing = false;
        loop {
            tokio::select! {
                biased;
                answer = talk.as_mut() => return match answer {
                    Ok(answer) => {
                        count(&node.metrics, request, &answer);
                        Ended::Answered(answer)
                    }
                    Err(error) if half_close.is_silent() && gave_way(&error, times) => {
                        Ended::Released
                    }
                    Err(error) => {
                        held.broke();
                        Ended::Failed(error)
                    }
                },
                () = leaves.as_mut() => {
                    held.broke();
                    node.metrics.exchange_failures.inc();
                    return Ended::NodeDown;
                }
                due = &mut timer => {
                    if due == Due::Release {
                        half_close.ask();
                        releasing = true;
                        timer.release = None;
                        timer.reset(Instant::now() + release::WITHIN);
                        continue;
                    }
                    if std::mem::take(&mut releasing) {
                        if half_close.is_silent() && times.release == Some(release::Manner::Poll) {
                            return Ended::Released;
                        }
                        timer.reset(deadline);
                        continue;
                    }
                    if timer.at >= deadline {
                        return Ended::Overdue;
                    }
                    node.suspect("an answer is late", SystemTime::now());
                    timer.reset(deadline);
                }
            }
        }
    }
}

/// Whether a node that was half-closed ended the connection as it should.
fn gave_way(error: &Error, times: &Times) -> bool {
    match times.release {
        Some(release::Manner::Poll) => matches!(error, Error::Closed(_)),
        // A reset does not say that the node has read the stanzas.
        Some(release::Manner::Send) => matches!(error, Error::Closed(None)),
        None => false,
    }
}

/// Counts an answer, and the bytes that went both ways for it.
fn count(metrics: &NodeMetrics, request: &[u8], answer: &Answer) {
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(0);
    metrics.answers.inc();
    metrics.sent_bytes.inc_by(length(request));
    metrics.received_bytes.inc_by(length(&answer.body));
}

/// Waits for a turn to open a connection to `node`, until `give_up`, and only while the node is up
/// and has the session that the connection is `of`.
async fn await_turn<'a>(
    node: &'a Node,
    of: Option<&Session>,
    priority: Priority,
    give_up: Instant,
) -> Result<Turn<'a>, Error> {
    let _waiting = Waiting::at(node);
    let mut down = std::pin::pin!(node.went_down.notified());
    down.as_mut().enable();
    if !node.serves() {
        return Err(Error::ConnectTimeout);
    }
    let mut turn = std::pin::pin!(node.pace.turn(priority));
    loop {
        let mut forgot = std::pin::pin!(node.memory.forgot.notified());
        forgot.as_mut().enable();
        if of.is_some_and(Session::is_lost) {
            return Err(Error::ConnectTimeout);
        }
        tokio::select! {
            biased;
            turn = turn.as_mut() => return turn.ok_or(Error::Queue),
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exchange_has_a_deadline_however_late_it_begins() {
        for late in (0..40_000).step_by(500).map(Duration::from_micros) {
            let request = Instant::now();
            tokio::time::advance(late).await;
            let times = Times::new(request, Instant::now(), Duration::from_secs(1));
            let release = Release::default();
            let mut deadline = Deadline::of(&times, &release);
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut deadline).poll(&mut context).is_pending());
            let parked = request + PARK_AFTER;
            if let Some(left) = parked.checked_duration_since(Instant::now()) {
                tokio::time::advance(left).await;
                assert!(Pin::new(&mut deadline).poll(&mut context).is_pending());
            }
            assert!(deadline.timer.is_some(), "begun after {late:?}");
        }
    }
}
