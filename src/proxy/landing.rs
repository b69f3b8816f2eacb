//! The queue of sessions whose node is gone: each waits here until it may go to a survivor.
//!
//! How many may go is decided in `limits::Landing`. The requests of one session wait and go together. A
//! request with stanzas goes first, since a user waits for it. What a request may wait is up to the request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, NodeId};
use crate::config::LandingMode;
use crate::limits::Landing;
use crate::observe::metrics::LandingMetrics;
use crate::sessions::Session;

/// While sessions wait, the time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks at the queue from one look at the requests that survivors have to the next.
const SELDOM: u32 = 10;

/// Entries of the queue whose requests went away, beside as many as wait, before they are cleared.
const STALE: usize = 64;

/// Sessions that wait to be released, and what decides when.
#[derive(Debug)]
pub(super) struct LandingQueue {
    started: Instant,
    cluster: Arc<Cluster>,
    state: Mutex<State>,
    metrics: LandingMetrics,
}

#[derive(Debug)]
struct State {
    control: Landing,
    /// Sessions that wait, by their addresses in memory: they stay there while a request waits.
    waiting: HashMap<usize, Vec<oneshot::Sender<Permit>>>,
    /// The order in which they go. One that is in both goes with the first.
    urgent: VecDeque<usize>,
    others: VecDeque<usize>,
    /// Released requests that survivors have and did not answer yet, by the numbers of their permits: where,
    /// and since when.
    at_nodes: HashMap<u64, (NodeId, Instant)>,
    /// Permits so far.
    permits: u64,
    /// A task looks after the queue.
    is_looked_after: bool,
}

impl State {
    /// The requests of the session that goes next.
    fn next(&mut self) -> Option<Vec<oneshot::Sender<Permit>>> {
        while let Some(session) = self.urgent.pop_front().or_else(|| self.others.pop_front()) {
            let Some(mut requests) = self.waiting.remove(&session) else {
                continue;
            };
            requests.retain(|request| !request.is_closed());
            if !requests.is_empty() {
                return Some(requests);
            }
        }
        None
    }

    fn add(&mut self, session: usize, urgent: bool, request: oneshot::Sender<Permit>) {
        self.clear_stale();
        let requests = self.waiting.entry(session).or_default();
        requests.retain(|other| !other.is_closed());
        let is_first = requests.is_empty();
        requests.push(request);
        if urgent {
            self.urgent.push_back(session);
        } else if is_first {
            self.others.push_back(session);
        }
    }

    /// Forgets requests that went away, when they are more than those that wait.
    fn clear_stale(&mut self) {
        let queued = self.urgent.len() + self.others.len();
        if queued < 2 * self.waiting.len() + STALE {
            return;
        }
        let is_waiting = |requests: &Vec<oneshot::Sender<Permit>>| {
            requests.iter().any(|request| !request.is_closed())
        };
        self.waiting.retain(|_, requests| is_waiting(requests));
        let mut seen = std::collections::HashSet::new();
        let waiting = &self.waiting;
        for queue in [&mut self.urgent, &mut self.others] {
            queue.retain(|session| waiting.contains_key(session) && seen.insert(*session));
        }
    }
}

/// The right of a session to go to a survivor. Dropping it says that the session had no use for it.
#[derive(Debug)]
pub(super) struct Permit {
    /// None if it is settled, or goes with another one.
    queue: Option<Arc<LandingQueue>>,
    number: u64,
    is_at_node: bool,
}

impl Permit {
    /// One that counts for nothing.
    const FREE: Self = Self {
        queue: None,
        number: 0,
        is_at_node: false,
    };

    /// The request is written to the node.
    pub(super) fn at(&mut self, node: NodeId, now: Instant) {
        if let Some(queue) = &self.queue {
            let at_nodes = &mut queue.state().at_nodes;
            // Once settled, it stays so.
            if !self.is_at_node || at_nodes.contains_key(&self.number) {
                at_nodes.insert(self.number, (node, now));
            }
            self.is_at_node = true;
        }
    }

    /// The session has ended: its client logs in again.
    pub(super) fn ended(mut self) {
        self.settle(Landing::ended);
    }

    /// The session goes on at the survivor.
    pub(super) fn went_on(mut self) {
        self.settle(|control, _| control.went_on());
    }

    fn settle(&mut self, how: impl FnOnce(&mut Landing, Duration)) {
        let Some(queue) = self.queue.take() else {
            return;
        };
        let mut state = queue.state();
        let was_at_node = state.at_nodes.remove(&self.number).is_some();
        if was_at_node || !self.is_at_node {
            how(&mut state.control, queue.now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(|control, _| control.dropped());
    }
}

/// A creation, counted as under way until dropped.
#[derive(Debug)]
pub(super) struct Login<'a>(&'a LandingQueue);

impl Login<'_> {
    /// The node took so long to answer it; none if it did not.
    pub(super) fn took(&self, node: NodeId, took: Option<Duration>) {
        let now = self.0.now();
        self.0.state().control.created(node.index(), took, now);
    }
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        self.0.state().control.login_over();
    }
}

impl LandingQueue {
    pub(super) fn new(
        mode: LandingMode,
        started: Instant,
        cluster: Arc<Cluster>,
        metrics: LandingMetrics,
    ) -> Self {
        Self {
            started,
            cluster,
            state: Mutex::new(State {
                control: Landing::new(mode),
                waiting: HashMap::new(),
                urgent: VecDeque::new(),
                others: VecDeque::new(),
                at_nodes: HashMap::new(),
                permits: 0,
                is_looked_after: false,
            }),
            metrics,
        }
    }

    /// Sets how fast sessions go.
    pub(super) fn set_mode(&self, mode: LandingMode) {
        self.state().control.set_mode(mode);
    }

    /// A creation begins.
    pub(super) fn log_in(&self) -> Login<'_> {
        let now = self.now();
        self.state().control.login_began(now);
        Login(self)
    }

    /// How many of `wanted` sessions may be ended now; they are counted as ended.
    pub(super) fn end(&self, wanted: usize) -> usize {
        let now = self.now();
        self.state().control.end(wanted, now)
    }

    /// Waits until the session, one of `crowd` at its node, may go to a survivor. `urgent` ones go first.
    pub(super) async fn permit(
        self: &Arc<Self>,
        session: &Arc<Session>,
        crowd: u64,
        urgent: bool,
    ) -> Permit {
        let granted = {
            let mut state = self.state();
            let is_free = state.urgent.is_empty() && (urgent || state.others.is_empty());
            if is_free && state.control.release(crowd, self.now()) {
                return self.grant(&mut state);
            }
            let (request, granted) = oneshot::channel();
            state.add(Arc::as_ptr(session).addr(), urgent, request);
            if !std::mem::replace(&mut state.is_looked_after, true) {
                drop(tokio::spawn(Lookout(Arc::clone(self)).run()));
            }
            granted
        };
        let _waiting = Waiting::count(&self.metrics);
        // Its sender goes without a permit if the runtime of the task ends: the process stops.
        granted.await.unwrap_or(Permit::FREE)
    }

    /// A permit for a release that was counted.
    fn grant(self: &Arc<Self>, state: &mut State) -> Permit {
        self.metrics.released.inc();
        state.permits += 1;
        Permit {
            queue: Some(Arc::clone(self)),
            number: state.permits,
            is_at_node: false,
        }
    }

    /// Settles requests that a survivor holds: it has answered a probe that came later. A node that does not
    /// know a session says so at once, as it does to a probe.
    fn settle_held(&self) {
        let mut state = self.state();
        let State {
            at_nodes, control, ..
        } = &mut *state;
        at_nodes.retain(|_, (node, since)| {
            let passed = self.cluster.node(*node).passed();
            let is_held = passed.is_some_and(|passed| passed.asked > *since);
            if is_held {
                control.went_on();
            }
            !is_held
        });
    }

    /// Releases as many as may go. Says whether others wait.
    fn release(self: &Arc<Self>) -> bool {
        let mut unused = Vec::new();
        let mut state = self.state();
        while !(state.urgent.is_empty() && state.others.is_empty()) {
            if !state.control.release(u64::MAX, self.now()) {
                return true;
            }
            let Some(requests) = state.next() else {
                state.control.dropped();
                break;
            };
            let mut permit = self.grant(&mut state);
            for request in requests {
                // Those behind the first one go with it.
                permit = match request.send(permit) {
                    Ok(()) => Permit::FREE,
                    Err(unused) => unused,
                };
            }
            unused.push(permit);
        }
        state.is_looked_after = false;
        drop(state);
        drop(unused);
        false
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that looks after the queue while sessions wait.
struct Lookout(Arc<LandingQueue>);

impl Lookout {
    async fn run(self) {
        let mut looks = 0_u32;
        while self.0.release() {
            sleep(LOOK_EVERY).await;
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(SELDOM) {
                self.0.settle_held();
            }
        }
    }
}

impl Drop for Lookout {
    /// If its runtime ends, another task has to take over.
    fn drop(&mut self) {
        self.0.state().is_looked_after = false;
    }
}

/// A request that waits, counted until dropped.
struct Waiting<'a>(&'a LandingMetrics);

impl<'a> Waiting<'a> {
    fn count(metrics: &'a LandingMetrics) -> Self {
        metrics.waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}
