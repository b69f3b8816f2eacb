//! The order and the distance of one session's requests, as they wait for them, and the look at those
//! that a node leaves unanswered. What is decided here is decided in `sessions`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::super::attempt::Watch;
use super::super::deadline::Stays;
use super::super::release;
use super::super::request::PendingRequest;
use super::super::request_record::RequestRecord;
use super::super::termination_state::Phase;
use super::SessionRequest;
use crate::observe::metrics::Kind;
use crate::sessions::{Look, Proof, Turn};
use crate::timers;

/// How long a request waits for one with a lower rid that has not been seen.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// A connection is new for this long. A request with stanzas on a new one may be the first behind a lost
/// network, in which the lower rid was lost.
const NEW: Duration = Duration::from_secs(1);

/// How long a request waits before it is sent again, so that other requests of its session can report the same
/// failure: their connections end at the same moment, but their tasks wake one after the other.
const REGROUP: Duration = Duration::from_millis(2);

impl SessionRequest {
    /// Waits until the request may go to the node as far as rid order is concerned.
    pub(super) async fn turn(&self, pending: &PendingRequest) {
        let ask = |patience| self.session.turn(&self.place, patience);
        match ask(true) {
            Turn::Now => {}
            turn => Box::pin(self.await_turn(turn, self.turn_patience(pending), ask)).await,
        }
    }

    /// How long it waits for a lower rid that has not been seen.
    fn turn_patience(&self, pending: &PendingRequest) -> Duration {
        let is_new = self.proxy.now() < pending.connected + NEW;
        let retry = self
            .proxy
            .retry()
            .filter(|_| is_new && pending.record.kind() == Kind::Send);
        retry.unwrap_or_default().max(TURN_PATIENCE)
    }

    /// The same before the request is sent once more: what made it fail has most likely met others
    /// of its session, and they all come back at the same moment. So it first gives those with lower
    /// rids the time to say so.
    pub(super) async fn turn_again(&self, pending: &PendingRequest) {
        self.session.again(&self.place);
        if self.session.under_way() > 1 {
            timers::exactly(Instant::now() + REGROUP).await;
        }
        self.turn(pending).await;
    }

    /// Waits for what `turn` says, and asks again, until the request may go. What is asked with is
    /// whether there is patience left for lower rids that have not come.
    async fn await_turn(&self, mut turn: Turn, most: Duration, ask: impl Fn(bool) -> Turn) {
        let give_up = Instant::now() + most;
        let mut patience = true;
        loop {
            match turn {
                Turn::Now => return,
                Turn::At(at) => timers::exactly(self.proxy.clock.instant_of(at)).await,
                // The lower one has deadlines of its own.
                Turn::Behind(lower) => drop(lower.await),
                Turn::Missing(lower) => patience = timeout_at(give_up, lower).await.is_ok(),
                Turn::Away(lower, until) => {
                    let until = self.proxy.clock.instant_of(until);
                    patience = timeout_at(until, lower).await.is_ok();
                }
            }
            turn = ask(patience);
        }
    }

    /// Waits until the request may be written to the connection that it has: at a distance from the
    /// session's others (design §5), and behind a lower rid that came while the connection was opened.
    /// A poll waits for no lower rid any more once the process stops. Says when it may.
    pub(super) async fn distance(&self, record: &RequestRecord) -> Instant {
        let now = Instant::now();
        let turn = match self.session.go(&self.place, self.proxy.time_of(now)) {
            Turn::Now => return now,
            turn => turn,
        };
        let go = |_| self.session.go(&self.place, self.proxy.now());
        record.enters(Phase::Queue);
        let manner = release::Manner::of(record.kind());
        let ordered = Box::pin(self.await_turn(turn, TURN_PATIENCE, go));
        if self.proxy.release.unless(manner, ordered).await.is_none() {
            let go = |_| self.session.go_regardless(self.proxy.now());
            Box::pin(self.await_turn(go(true), TURN_PATIENCE, go)).await;
        }
        Instant::now()
    }
}

/// Ready when the node of a request has lost it. It looks at nothing the first time, since most answers
/// come at once. A later poll is sure to come: the deadline of its try wakes the task when the request is
/// held.
pub(super) struct Lost<'a> {
    request: &'a SessionRequest,
    fresh: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> Lost<'a> {
    /// For a request that is about to be sent.
    pub(super) const fn watch(request: &'a SessionRequest) -> Self {
        Self {
            request,
            fresh: true,
            timer: None,
        }
    }
}

impl Watch for Lost<'_> {
    fn stays(&self) -> Option<Stays> {
        let request = self.request;
        let SessionRequest { proxy, session, .. } = request;
        if !proxy.sessions.keeps_answers() || !session.is_pinned() {
            return None;
        }
        // A copy of it is the client that came back.
        if !session.has_copy(request.place.rid()) {
            request.went_away();
        }
        Some(if proxy.live().keeps_held {
            Stays::For(Duration::from_secs(session.terms().inactivity.into()))
        } else {
            Stays::UntilReleased
        })
    }
}

impl Future for Lost<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.fresh, false) {
            return Poll::Pending;
        }
        let SessionRequest {
            proxy,
            session,
            place,
            ..
        } = self.request;
        loop {
            let node = proxy.cluster.node(session.node());
            let alive = || {
                let passed = node.passed()?;
                Some(Proof {
                    asked: proxy.time_of(passed.asked),
                    answered: proxy.time_of(passed.answered),
                })
            };
            let at = match session.look(place, proxy.now(), alive, context.waker()) {
                Look::Fine => {
                    self.timer = None;
                    return Poll::Pending;
                }
                Look::Lost => return Poll::Ready(()),
                Look::Until(at) => proxy.clock.instant_of(at),
                Look::Probe(at) => {
                    node.probe_now.notify_one();
                    proxy.clock.instant_of(at)
                }
            };
            match &mut self.timer {
                Some(timer) if timer.deadline() == at => {}
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(sleep_until(at))),
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(context));
            }
        }
    }
}
