//! One node: its name, its address, its state. A fact has one writer: the node's probe task
//! writes the verdict and the resolved addresses, the operator the state. The task that meets a failure
//! writes the last failure.

mod reach;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::addresses::Addresses;
use super::count::Count;
use super::node_id::{NodeId, Share};
use super::operator::OperatorState;
use super::restart_detector::RestartDetector;
use super::verdict::Verdict;
use super::websocket::Tunnels;
use crate::config::{NodeSettings, unix_path};
use crate::observe::metrics::NodeMetrics;
use crate::upstream::{ConnectLimiter, Heard, Opening};

/// Requests of sids without a pin that may wait for a connection to one node, or open one, at the
/// same time.
const UNKNOWN_SIDS: usize = 64;

/// The rank of a backup node, that of a node in another zone is 1; and the highest rank.
const BACKUP: u8 = 2;
pub(super) const LAST_RANK: u8 = BACKUP + 1;

/// The last thing that went wrong at a node.
#[derive(Debug, Clone)]
pub struct LastFailure {
    /// What happened, in words.
    pub what: String,
    /// When.
    pub when: SystemTime,
}

/// A probe that a node has passed.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// When it was sent.
    pub asked: Instant,
    /// When its answer was there.
    pub answered: Instant,
}

/// What keeps a node away that went down more than once lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Penalty {
    /// How often it went down, as far as that is not forgotten.
    pub falls: u32,
    /// How long it must be well before it is up again; zero while it is up.
    pub length: Duration,
}

/// One node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its configured name.
    pub name: String,
    /// Sessions pinned to it.
    pub sessions: Count,
    /// Requests under way at it.
    pub held: Count,
    /// Sessions that were moved off it because it failed, since the start.
    pub reassigned: Count,
    /// Sessions that were moved off it because the operator wanted it, since the start.
    pub moved_off: Count,
    /// Its WebSocket tunnels.
    pub tunnels: Tunnels,
    /// Its counters for the metrics. No decision reads them.
    pub metrics: NodeMetrics,
    /// How fast connections to it are opened.
    pub connect_limiter: ConnectLimiter,
    /// The right to open a connection to it for a sid without a pin.
    pub unknown_sid_permits: Semaphore,
    /// Wakes the node's probe task before its time.
    pub probe_now: Notify,
    /// Wakes everything that waits at the node when it goes down, or into `maint`.
    pub went_down: Notify,
    /// The same for requests that it holds. The stop of the process wakes them as well, so that each has one
    /// registration for both.
    pub end_held: Notify,
    /// Wakes the creations that wait at the node when it takes no new sessions any more.
    pub left_up: Notify,
    /// Whether it still knows its sessions.
    pub restart_detector: RestartDetector,
    /// Raised by every byte that comes from it; the probe task lowers it.
    pub heard: Heard,
    /// Whether the last probe was refused, or closed without an answer.
    probed: watch::Sender<bool>,
    verdict: AtomicU8,
    /// Its last failed probe was refused, or closed without an answer.
    gone: AtomicBool,
    state: AtomicU8,
    share: AtomicU16,
    pub(super) placing: AtomicU32,
    weight: AtomicU32,
    max_sessions: AtomicU32,
    rank: AtomicU8,
    /// It is configured; otherwise it gets no new sessions.
    member: AtomicBool,
    /// How far it is ahead of its turn in smooth weighted round robin (placement only).
    pub(super) credit: AtomicI64,
    told: Mutex<Told>,
}

/// What is told about a node, off the request path.
#[derive(Debug)]
struct Told {
    /// The configured `host:port`.
    address: Arc<str>,
    public_url: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    addresses: Addresses,
    opening: Opening,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    state_since: Option<SystemTime>,
    penalty: Penalty,
    last_failure: Option<LastFailure>,
    passed: Option<Passed>,
}

impl Node {
    /// A node of which nothing is known yet: not up until its first probe passes.
    pub fn new(
        id: NodeId,
        settings: &NodeSettings,
        connect_limiter: ConnectLimiter,
        metrics: NodeMetrics,
    ) -> Self {
        Self {
            id,
            name: settings.name.clone(),
            sessions: Count::default(),
            held: Count::default(),
            reassigned: Count::default(),
            moved_off: Count::default(),
            tunnels: Tunnels::new(settings),
            metrics,
            connect_limiter,
            unknown_sid_permits: Semaphore::new(UNKNOWN_SIDS),
            probe_now: Notify::new(),
            went_down: Notify::new(),
            end_held: Notify::new(),
            left_up: Notify::new(),
            restart_detector: RestartDetector::default(),
            probed: watch::Sender::new(false),
            verdict: AtomicU8::new(Verdict::Unknown as u8),
            gone: AtomicBool::new(false),
            heard: Heard::default(),
            state: AtomicU8::new(OperatorState::Ready as u8),
            share: AtomicU16::new(Share::WHOLE.0),
            placing: AtomicU32::new(0),
            weight: AtomicU32::new(settings.weight),
            max_sessions: AtomicU32::new(settings.max_sessions),
            rank: AtomicU8::new(0),
            member: AtomicBool::new(false),
            credit: AtomicI64::new(0),
            told: Mutex::new(Told {
                address: settings.address.as_str().into(),
                public_url: settings.public_url.as_deref().map(Into::into),
                zone: None,
                addresses: Addresses::new(literal(&settings.address)),
                opening: Opening::default().renewed(settings),
                since: None,
                until: None,
                state_since: None,
                penalty: Penalty::default(),
                last_failure: None,
                passed: None,
            }),
        }
    }

    /// Takes its weight, its limit, its rank for a balancer in `zone`, its public URL, its address and its TLS from `settings` (through
    /// [`super::Cluster::replace`] only). Under a new host name the old addresses are used until
    /// the name is resolved.
    pub(super) fn configure(&self, settings: &NodeSettings, zone: Option<&str>) {
        let is_elsewhere = zone.is_some() && settings.zone.as_deref() != zone;
        let backup = if settings.backup { BACKUP } else { 0 };
        let rank = backup | u8::from(is_elsewhere);
        self.rank.store(rank, Ordering::Relaxed);
        self.weight.store(settings.weight, Ordering::Relaxed);
        self.max_sessions
            .store(settings.max_sessions, Ordering::Relaxed);
        self.tunnels.configure(settings);
        // It reads a file, which may take its time.
        let opening = self.opening().renewed(settings);
        let mut told = self.told();
        told.opening = opening;
        told.zone = settings.zone.as_deref().map(Into::into);
        told.public_url = settings.public_url.as_deref().map(Into::into);
        if *told.address != *settings.address {
            told.address = settings.address.as_str().into();
            let literal = literal(&settings.address);
            if !literal.is_empty() {
                told.addresses.set(literal);
            }
        }
    }

    /// Its rank in placement: nodes of a lower one get new sessions first.
    pub(super) fn rank(&self) -> u8 {
        self.rank.load(Ordering::Relaxed)
    }

    /// Whether it gets new sessions only when no ordinary node takes them.
    pub fn is_backup(&self) -> bool {
        self.rank() & BACKUP != 0
    }

    /// Its configured `host:port`.
    pub fn address(&self) -> Arc<str> {
        Arc::clone(&self.told().address)
    }

    /// Where clients reach it without a balancer, if that is configured.
    pub fn public_url(&self) -> Option<Arc<str>> {
        self.told().public_url.clone()
    }

    /// Its zone.
    pub fn zone(&self) -> Option<Arc<str>> {
        self.told().zone.clone()
    }

    /// Its configured share of new sessions, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Whether it is configured. A node that is not keeps its sessions and gets no new ones.
    pub fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }

    /// Writes whether it is configured (through [`super::Cluster::replace`] only).
    pub(super) fn set_member(&self, member: bool) {
        self.member.store(member, Ordering::Relaxed);
    }

    /// Whether nothing of it is in use: no session, no placement, no request.
    pub(super) fn is_unused(&self) -> bool {
        self.load() == 0 && self.held.get() == 0
    }

    /// Forgets its state, as if it had just been made (through [`super::Cluster::forget`] only).
    /// Its counts stay.
    pub(super) fn forget(&self) {
        {
            let mut told = self.told();
            told.since = None;
            told.until = None;
            told.state_since = None;
            told.penalty = Penalty::default();
            told.last_failure = None;
            told.passed = None;
        }
        let (unknown, ready) = (Verdict::Unknown, OperatorState::Ready);
        self.metrics.set_verdict(unknown as usize, false);
        self.metrics.set_state(ready as usize);
        self.verdict.store(unknown as u8, Ordering::Release);
        self.state.store(ready as u8, Ordering::Release);
        self.gone.store(false, Ordering::Relaxed);
        self.set_share(Share::WHOLE);
    }

    /// What the probes say of it.
    pub fn verdict(&self) -> Verdict {
        Verdict::of_number(self.verdict.load(Ordering::Acquire))
    }

    /// Whether the probes call it up.
    pub fn is_up(&self) -> bool {
        self.verdict() == Verdict::Up
    }

    /// Whether it is down because it refuses or closes connections, and not because it is silent.
    pub fn is_gone(&self) -> bool {
        self.verdict() == Verdict::Down && self.gone.load(Ordering::Relaxed)
    }

    /// Notes whether its last failed probe was refused or closed (the probe task only). Wakes the
    /// requests that wait for it when there is no hope any more.
    pub fn set_gone(&self, gone: bool) {
        if self.gone.swap(gone, Ordering::Relaxed) != gone && gone {
            self.tell_down();
        }
    }

    /// What the operator decided about it.
    pub fn state(&self) -> OperatorState {
        OperatorState::of_number(self.state.load(Ordering::Acquire))
    }

    /// Whether requests of its sessions go to it: it is not down, and the operator has not taken
    /// its sessions off it.
    pub fn serves(&self) -> bool {
        let keeps = matches!(
            self.verdict(),
            Verdict::Up | Verdict::Silent | Verdict::HeldBack
        );
        keeps && self.state() != OperatorState::Maint
    }

    /// Whether it is up and configured, and the operator lets it have new sessions.
    pub fn takes_new(&self) -> bool {
        self.is_up() && self.state() == OperatorState::Ready && self.is_member()
    }

    /// Whether newcomers of a room that it has may still go to it: it is up and configured, and drained
    /// at most.
    pub fn takes_newcomers(&self) -> bool {
        self.is_up() && self.state() != OperatorState::Maint && self.is_member()
    }

    /// How much of its weight it has.
    pub fn share(&self) -> Share {
        Share(self.share.load(Ordering::Relaxed))
    }

    /// Sets how much of its weight it has (the probe task only).
    pub fn set_share(&self, share: Share) {
        self.share.store(share.0, Ordering::Relaxed);
        self.metrics.share.set(share.as_part());
    }

    /// Sets what keeps it away (the probe task only).
    pub fn set_penalty(&self, penalty: Penalty) {
        self.told().penalty = penalty;
    }

    /// What keeps it away.
    pub fn penalty(&self) -> Penalty {
        self.told().penalty
    }

    /// Copies its counts into its metrics.
    pub(super) fn measure(&self) {
        let metrics = &self.metrics;
        metrics.sessions.set(self.sessions.balance());
        metrics.held.set(self.held.balance());
        metrics.tunnels.set(self.tunnels.open.balance());
        metrics.set_moved(self.reassigned.get(), self.moved_off.get());
        let penalty = self.penalty();
        metrics.falls.set(penalty.falls.into());
        metrics.penalty_seconds.set(penalty.length.as_secs_f64());
    }

    /// Its sessions, and the placements here that have not become one yet.
    pub fn load(&self) -> u64 {
        self.sessions.get() + u64::from(self.placing.load(Ordering::Relaxed))
    }

    /// Whether it has as many sessions as it may, placements included, and `more` besides.
    pub(super) fn is_beyond(&self, more: u64) -> bool {
        let most = self.max_sessions.load(Ordering::Relaxed);
        most > 0 && self.load() + more > u64::from(most)
    }

    /// Whether it has as many sessions as it may.
    pub fn is_full(&self) -> bool {
        self.is_beyond(1)
    }

    /// Its weight among the others at the moment, in parts of [`Share::WHOLE`]; at least 1.
    pub fn effective_weight(&self) -> u32 {
        (self.weight() * u32::from(self.share().0)).max(1)
    }

    /// When the verdict last changed; none before the first one.
    pub fn since(&self) -> Option<SystemTime> {
        self.told().since
    }

    /// When its verdict changes if nothing else does: a silent node is down then, and one that is
    /// held back is up. None for other verdicts, and while the network is suspected.
    pub fn until(&self) -> Option<SystemTime> {
        self.told().until
    }

    /// Sets when its verdict changes if nothing else does (the probe task only).
    pub fn set_until(&self, until: Option<SystemTime>) {
        self.told().until = until;
    }

    /// When the operator last changed its state; none if never.
    pub fn state_since(&self) -> Option<SystemTime> {
        self.told().state_since
    }

    /// The last failure, if there was one.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.told().last_failure.clone()
    }

    /// Notes a failure met on the request path and asks for a probe at once. The verdict stays
    /// the probe's, so that one client cannot make a node go down.
    pub fn suspect(&self, what: impl Into<String>, now: SystemTime) {
        self.note_failure(what.into(), now);
        self.probe_now.notify_one();
    }

    /// Notes a failure that says nothing about the verdict, as when its name is not resolved.
    pub fn note_failure(&self, what: String, now: SystemTime) {
        self.told().last_failure = Some(LastFailure { what, when: now });
    }

    /// Notes a probe that the node has passed (the probe task only).
    pub fn set_passed(&self, passed: Passed) {
        self.told().passed = Some(passed);
    }

    /// The last probe that the node has passed.
    pub fn passed(&self) -> Option<Passed> {
        self.told().passed
    }

    /// Notes that a probe ended, and whether it found the node gone: refused, or closed without an
    /// answer (the probe task only).
    pub fn probe_ended(&self, gone: bool) {
        self.probed.send_replace(gone);
    }

    /// Asks for a probe, and waits until one has ended; says whether it found the node gone.
    pub async fn ask_whether_gone(&self) -> bool {
        let mut probed = self.probed.subscribe();
        self.probe_now.notify_one();
        // The sender lives in this node.
        probed.changed().await.is_ok() && *probed.borrow_and_update()
    }

    /// Notes why a probe failed, in words and as a label (the probe task only).
    pub fn probe_failed(&self, what: String, reason: &'static str, now: SystemTime) {
        self.metrics.probe_failures.inc(reason);
        self.note_failure(what, now);
    }

    /// Writes the verdict (the probe task only, through [`super::Cluster::set_verdict`]).
    pub(super) fn set_verdict(&self, verdict: Verdict, now: SystemTime) {
        {
            let mut told = self.told();
            if told.since.is_some() {
                self.metrics.changes.inc();
            }
            told.since = Some(now);
        }
        let up = verdict == Verdict::Up;
        self.metrics.set_verdict(verdict as usize, up);
        self.verdict.store(verdict as u8, Ordering::Release);
        if !up {
            self.left_up.notify_waiters();
        }
        if verdict == Verdict::Down {
            self.tell_down();
        }
    }

    /// Writes the operator's state (through [`super::Cluster::set_state`] only).
    pub(super) fn set_state(&self, state: OperatorState, now: SystemTime) {
        self.told().state_since = Some(now);
        self.state.store(state as u8, Ordering::Release);
        self.metrics.set_state(state as usize);
        if state == OperatorState::Maint {
            self.left_up.notify_waiters();
            self.tell_down();
        }
    }

    /// Wakes those who wait for it: there is no hope any more.
    fn tell_down(&self) {
        self.went_down.notify_waiters();
        self.end_held.notify_waiters();
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for a Unix socket, which has no address of IP.
const UNIX: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The address that `host:port` is, if it is one; no address for a name.
fn literal(address: &str) -> Arc<[SocketAddr]> {
    if unix_path(address).is_some() {
        return [UNIX].into();
    }
    address.parse().into_iter().collect()
}
