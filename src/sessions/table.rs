//! The table of sessions, and the counts that go with it.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::kept::KeptAnswers;
use super::passing::{Change, Follower};
use super::session::{Session, Stage};
use super::{Asked, KeptAnswer, Pin, PinState, Place, Refusal, Start, Terms, Time};
use crate::cluster::{Cluster, Epoch, NodeId, OperatorState, QueryGroup};
use crate::observe::metrics::{Metrics, TableSize};

/// Many and small shards, so that a sweep holds each for microseconds: 73 µs at a million pins.
const SHARDS: usize = 1024;

/// The usual length of a sid, in bytes: a UUID (Tigase, Prosody), or 40 digits (ejabberd).
const USUAL_SID: usize = 40;

/// A session under its own sid: the key is inside the value, and nothing is stored twice.
#[derive(Debug)]
struct BySid(Arc<Session>);

impl Borrow<str> for BySid {
    fn borrow(&self) -> &str {
        self.0.sid()
    }
}

impl Hash for BySid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.sid().hash(state);
    }
}

impl PartialEq for BySid {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid() == other.0.sid()
    }
}

impl Eq for BySid {}

/// What became of a new session.
#[derive(Debug)]
pub enum Insert {
    /// It is in the table.
    Made(Arc<Session>),
    /// Its sid is another session's, which is at this node. The first one wins: a node that offers
    /// a sid twice, or another node's, is broken or hostile, and two clients would share a session.
    Taken(NodeId),
    /// The table is full.
    Full,
}

/// All sessions of the balancer.
#[derive(Debug)]
pub struct Sessions {
    table: DashMap<BySid, (), ahash::RandomState>,
    /// Entries in the table; kept beside it, since to ask every shard is slow.
    count: AtomicUsize,
    limit: AtomicUsize,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    pub(super) kept: KeptAnswers,
    /// What hears of changes, while another process takes over.
    pub(super) follower: Follower,
}

impl Sessions {
    /// An empty table for at most `limit` sessions.
    pub fn new(limit: usize, cluster: Arc<Cluster>, metrics: Arc<Metrics>) -> Self {
        let hasher = ahash::RandomState::new();
        let table = DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS);
        Self {
            table,
            count: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            cluster,
            kept: KeptAnswers::new(0, metrics.kept.clone()),
            metrics,
            follower: Follower::default(),
        }
    }

    /// The same, with `budget` bytes for the last answers of sessions; with 0 none are kept.
    #[must_use]
    pub fn keeping_answers(self, budget: usize) -> Self {
        let kept = KeptAnswers::new(budget, self.metrics.kept.clone());
        Self { kept, ..self }
    }

    /// Whether the last answers of sessions are kept.
    pub const fn keeps_answers(&self) -> bool {
        self.kept.is_on()
    }

    /// Whether an answer with a body of this many bytes is kept.
    pub const fn may_keep(&self, bytes: usize) -> bool {
        self.kept.may_keep(bytes)
    }

    /// Keeps the answer to the request of `session` with this rid and hash.
    pub fn keep(&self, session: &Arc<Session>, asked: (u64, u64), answer: KeptAnswer) {
        let owner = address(session);
        self.follower.hear(|| {
            let body = answer.plain().cloned().unwrap_or_default();
            Change::Kept(Arc::clone(session), asked, body)
        });
        session.with_kept(|slot| self.kept.keep(owner, slot, asked, answer));
    }

    /// Begins a request of `session`, as [`Session::begin`] does, if no answer to it is kept and it is not
    /// under way. Answers that a client with this request must have are dropped. `connected` is when the
    /// connection opened of a request that may wait for one with the rid below whose client went away.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn begin(
        &self,
        session: &Arc<Session>,
        asked: Asked,
        (pause, connected, has_waited): (Option<u32>, Option<Time>, bool),
    ) -> Result<Start<KeptAnswer>, Refusal> {
        // XEP-0124 §7.2: two requests, or one more than the node holds.
        let requests = u64::from(session.terms().hold).max(1) + 1;
        let replay = |slot: &mut u32, last: Option<u64>| {
            // The answer to a new request with stanzas takes the place of an older one in any case.
            let is_new = last.is_some_and(|last| asked.rid > last);
            if is_new && connected.is_some() && asked.ack == 0 {
                return None;
            }
            let arrived = asked.arrived(requests, last);
            self.kept.ask(address(session), slot, (asked, arrived))
        };
        let request = (asked.rid, asked.hash);
        let kind = (pause, connected, (asked.is_poll, has_waited));
        Ok(match session.begin_or_replay(request, kind, replay)? {
            Start::Replayed(kept) => {
                self.metrics.kept.replayed.inc();
                Start::Replayed(kept)
            }
            Start::Overtaken => Start::Replayed(KeptAnswer::empty()),
            start => start,
        })
    }

    /// The hash of a request's body, as kept answers are found by it.
    pub fn hash(&self, body: &[u8]) -> u64 {
        self.kept.hash(body)
    }

    /// The session `sid`.
    pub fn find(&self, sid: &str) -> Option<Arc<Session>> {
        self.table.get(sid).map(|entry| Arc::clone(&entry.key().0))
    }

    /// How many sessions there are, tombstones and provisional ones included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How much the table holds, and may hold. The memory is reckoned from the sizes of its
    /// parts, with sids of the usual length; idle connections and kernel buffers are not in it.
    pub fn size(&self) -> TableSize {
        let entry = size_of::<Session>() + 2 * size_of::<usize>() + USUAL_SID;
        let slot = size_of::<BySid>() + 1;
        let entries = self.len();
        TableSize {
            table: "sessions",
            entries,
            limit: self.limit(),
            bytes: entries * entry + self.table.capacity() * slot,
        }
    }

    /// Copies the counts of kept answers into the metrics.
    pub fn measure_kept(&self) {
        self.kept.measure();
    }

    /// How many sessions it may hold.
    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets how many sessions it may hold. Those beyond a lower limit stay to their end.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further session is taken.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit()
    }

    /// Pins a session that `node` has just made in answer to the request `rid`, which was placed by
    /// `group` if that is one.
    pub fn insert(
        &self,
        sid: &str,
        node: NodeId,
        terms: Terms,
        (rid, group): (u64, Option<QueryGroup>),
        now: Time,
    ) -> Insert {
        if self.is_full() {
            return Insert::Full;
        }
        let epoch = self.cluster.node(node).restart_detector.epoch();
        let pin = Pin::made(sid, node, terms, (rid, group), now);
        let session = Arc::new(Session::from_pin(pin, Some(epoch)));
        match self.table.entry(BySid(Arc::clone(&session))) {
            Entry::Occupied(there) => Insert::Taken(there.key().0.node()),
            Entry::Vacant(place) => {
                place.insert(());
                self.count.fetch_add(1, Ordering::Relaxed);
                let node = self.cluster.node(node);
                node.metrics.created.inc();
                node.sessions.inc();
                self.follower.hear(|| Change::Made(Arc::clone(&session)));
                Insert::Made(session)
            }
        }
    }

    /// Takes in a pin that an earlier process saved. False if it has expired, the sid is there already, or
    /// the table is full.
    pub fn restore(&self, pin: Pin, now: Time) -> bool {
        if pin.expires <= now.seconds() || self.is_full() {
            return false;
        }
        let live = pin.state == PinState::Live;
        let node = self.cluster.node(pin.node);
        let session = Arc::new(Session::from_pin(pin, None));
        let Entry::Vacant(place) = self.table.entry(BySid(session)) else {
            return false;
        };
        place.insert(());
        self.count.fetch_add(1, Ordering::Relaxed);
        if live {
            node.sessions.inc();
        }
        true
    }

    /// Passes a copy of each pin to `take`, shard by shard. A pin that is made meanwhile may be left out.
    pub fn each_pin(&self, now: Time, take: impl FnMut(Pin)) {
        let pins = self.table.iter().filter_map(|entry| entry.key().0.pin(now));
        pins.for_each(take);
    }

    /// The session `sid`, or a provisional one at `node` in its place: no pin until the node has
    /// shown that it knows the sid, but a place where its requests find their order. None when
    /// the table is full.
    pub fn find_or_provisional(&self, sid: &str, node: NodeId, now: Time) -> Option<Arc<Session>> {
        let session = Arc::new(Session::provisional(sid, node, now));
        match self.table.entry(BySid(session)) {
            Entry::Occupied(there) => Some(Arc::clone(&there.key().0)),
            Entry::Vacant(_) if self.is_full() => None,
            Entry::Vacant(place) => {
                let session = Arc::clone(&place.key().0);
                place.insert(());
                self.count.fetch_add(1, Ordering::Relaxed);
                Some(session)
            }
        }
    }

    /// The node `at` has answered a request of the session with something else than its end. `late`
    /// says that the request began after the session's end: then the node knows better.
    pub fn prove(&self, session: &Session, at: NodeId, late: bool) {
        if let Some(node) = session.prove(at, late) {
            let node = self.cluster.node(node);
            node.sessions.inc();
            if !late {
                node.metrics.rediscovered.inc();
            }
        }
    }

    /// The session is over, with one of [`crate::observe::metrics::CONDITIONS`]. A pin stays as a tombstone;
    /// a provisional session leaves no trace once its last request has ended. Says whether it was a
    /// pin.
    pub fn terminate(&self, session: &Session, condition: &str, now: Time) -> bool {
        let Some(node) = session.terminate(now) else {
            return false;
        };
        self.cluster.node(node).sessions.dec();
        self.metrics.sessions_terminated.inc(condition);
        true
    }

    /// The operator ends the session. Says whether it was a pin.
    pub fn close(&self, session: &Session, now: Time) -> bool {
        let Some(node) = session.close(now) else {
            return false;
        };
        self.cluster.node(node).sessions.dec();
        self.metrics.sessions_terminated.inc("item-not-found");
        true
    }

    /// Passes every session to `take`, shard by shard. One that is made meanwhile may be left out.
    pub fn each(&self, mut take: impl FnMut(&Arc<Session>)) {
        self.table.iter().for_each(|entry| take(&entry.key().0));
    }

    /// Drops the pins that `node` made before `epoch`: it has lost its sessions. Says how many
    /// they were. Looks at every session, shard by shard.
    pub fn lose(&self, node: NodeId, epoch: Epoch, now: Time) -> u64 {
        let entries = self.table.iter();
        let lost = entries.filter(|entry| entry.key().0.lose(node, epoch, now));
        let lost = u64::try_from(lost.count()).unwrap_or(u64::MAX);
        let node = self.cluster.node(node);
        node.sessions.sub(lost);
        node.metrics.dropped.inc_by(lost);
        lost
    }

    /// Moves a session off the node `from`, which failed or was set to `maint`. Says whether this call did it.
    pub fn reassign(&self, session: &Session, from: NodeId, to: NodeId) -> bool {
        let moved = session.move_to(from, to);
        if moved == Some(true) {
            let (old, new) = (self.cluster.node(from), self.cluster.node(to));
            old.sessions.dec();
            if old.state() == OperatorState::Maint {
                old.moved_off.inc();
            } else {
                old.reassigned.inc();
            }
            new.sessions.inc();
        }
        moved.is_some()
    }

    /// Ends a request of `session`.
    pub fn end(&self, session: &Session, place: &Place, now: Time) {
        session.end(place, now);
        if session.is_provisional() {
            let gone = |entry: &BySid, (): &()| self.forgotten(&entry.0, false, now);
            self.table.remove_if(session.sid(), gone);
        }
    }

    /// Closes the connections that sessions keep for their next request.
    pub fn drop_idle(&self) {
        self.table
            .iter()
            .for_each(|entry| entry.key().0.drop_idle());
    }

    /// Forgets the sessions whose time has passed, and closes what their nodes have closed. When
    /// nine tenths of the table are in use, sessions that were made and never used go early.
    pub fn sweep(&self, now: Time) {
        let limit = self.limit();
        let crowded = self.len() >= limit - limit / 10;
        self.table.retain(|entry, ()| {
            entry.0.drop_closed();
            !self.forgotten(&entry.0, crowded, now)
        });
    }

    fn forgotten(&self, session: &Session, crowded: bool, now: Time) -> bool {
        let Some(stage) = session.forget(crowded, now) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        let owner = std::ptr::from_ref(session).addr();
        session.with_kept(|slot| self.kept.release(owner, slot));
        if stage == Stage::Pinned {
            self.cluster.node(session.node()).sessions.dec();
            self.metrics.sessions_expired.inc();
        }
        true
    }
}

/// What tells a session from all others while it is in the table.
pub(super) fn address(session: &Arc<Session>) -> usize {
    std::ptr::from_ref::<Session>(session).addr()
}

#[cfg(test)]
mod tests;
