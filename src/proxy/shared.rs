//! What all requests share: the nodes, the sessions, the limits, the settings, and the counters.
//!
//! Holds no request. The steps of a request are methods of [`Proxy`] in the files of those steps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::access_log::AccessLogger;
use super::landing::LandingQueue;
use super::release::Release;
use crate::cluster::{Cluster, Epoch, NodeId};
use crate::config::{self, Affinity, CorsOwner, CreationFrom, HostAttribute, Placement, Settings};
use crate::http1::WantedFields;
use crate::limits::{Clients, Files, Rates, UnknownSids};
use crate::observe::metrics::Metrics;
use crate::observe::traces::Traces;
use crate::sessions::{Addresses, Clock, Sessions, Time};

/// How long a room stays tied to its node after its last request. Its members ask again when `wait` has
/// passed, which nodes bound to less.
const ROOM_TTL: Duration = Duration::from_secs(5 * 60);

/// Does work that takes longer than a thread that serves requests has.
pub type Background = fn(Box<dyn FnOnce() + Send>);

/// Everything that requests share.
#[derive(Debug)]
pub struct Proxy {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The nodes of addresses, with `affinity: client-ip`; those of rooms, with `placement: query:NAME`.
    pub addresses: Option<Addresses>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Which requests are logged.
    pub access: AccessLogger,
    /// Where traces go.
    pub traces: Traces,
    /// File numbers from which on a connection to a node is given back.
    pub(super) ceiling: i32,
    /// Open files are short: sessions give up their idle connections.
    pub(super) no_files: AtomicBool,
    pub(super) release: Release,
    pub(super) landing: Arc<LandingQueue>,
    pub(super) background: Background,
    /// The budgets count from here.
    pub(super) started: Instant,
    pub(super) clock: Clock,
    live: ArcSwap<LiveSettings>,
    limits: ArcSwap<ClientLimits>,
    /// Of the live settings, what each response is read with: a look at those takes 70 instructions.
    max_answer: AtomicUsize,
    wants_fields: AtomicBool,
}

/// What clients may ask for, and what they have asked for lately.
#[derive(Debug)]
pub(super) struct ClientLimits {
    pub(super) clients: Clients,
    pub(super) creations: Option<Rates>,
    pub(super) unknown: UnknownSids,
}

impl ClientLimits {
    fn new(settings: &Settings) -> Self {
        let limits = &settings.limits;
        Self {
            clients: Clients::new(settings),
            creations: Rates::new(limits.creations_per_client, limits.creations_burst),
            unknown: UnknownSids::new(limits),
        }
    }
}

/// What a reload may change. A request reads each setting when it needs it.
#[derive(Debug)]
pub(super) struct LiveSettings {
    /// The fields of a node's answer that its client gets.
    pub(super) wanted: WantedFields,
    pub(super) creation_from: CreationFrom,
    pub(super) host_attribute: HostAttribute,
    /// How long a connect to a node may take.
    pub(super) connect: Duration,
    pub(super) placement_wait: Duration,
    /// Nodes keep held polls when their clients go away (`upstream.release: keep`).
    pub(super) keeps_held: bool,
    /// How long a request waits for one with the rid below whose client went away.
    pub(super) retry: Duration,
}

impl LiveSettings {
    fn new(settings: &Settings) -> Self {
        Self {
            wanted: WantedFields {
                names: settings.bosh.answer_headers.clone(),
                cors: settings.cors.owner == CorsOwner::Pass,
            },
            creation_from: settings.bosh.creation_from,
            host_attribute: settings.host_attribute.clone(),
            connect: settings.timeouts.connect,
            placement_wait: settings.placement_wait,
            keeps_held: settings.upstream.release == config::Release::Keep,
            retry: settings.timeouts.retry,
        }
    }
}

fn connections_limit(settings: &Settings) -> i64 {
    i64::try_from(settings.limits.connections).unwrap_or(i64::MAX)
}

impl Proxy {
    /// The proxy for `settings`, with no session yet.
    ///
    /// # Errors
    /// If there can be no traces where they are wanted.
    pub fn new(
        settings: &Settings,
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let limit = settings.limits.sessions;
        metrics.connections_limit.set(connections_limit(settings));
        let addresses = match (settings.affinity, &settings.placement) {
            (Affinity::ClientIp, _) => Some(Addresses::new(settings.affinity_ttl, limit)),
            (Affinity::Sid, Placement::Query(_)) => {
                Some(Addresses::new(ROOM_TTL, limit).for_rooms())
            }
            (Affinity::Sid, _) => None,
        };
        let sessions = Sessions::new(limit, Arc::clone(&cluster), Arc::clone(&metrics))
            .keeping_answers(settings.limits.answer_memory);
        let started = Instant::now();
        let landing = LandingQueue::new(
            settings.limits.landing,
            started,
            Arc::clone(&cluster),
            metrics.landing.clone(),
        );
        Ok(Self {
            cluster,
            sessions: Arc::new(sessions),
            addresses,
            metrics,
            access: AccessLogger::new(&settings.log),
            traces: Traces::start(settings.traces.as_ref())?,
            ceiling: i32::MAX,
            no_files: AtomicBool::new(false),
            release: Release::default(),
            landing: Arc::new(landing),
            background: |work| drop(tokio::task::spawn_blocking(work)),
            started,
            clock: Clock::anchored(started, SystemTime::now()),
            max_answer: AtomicUsize::new(settings.bosh.max_answer),
            wants_fields: AtomicBool::new(!LiveSettings::new(settings).wanted.is_empty()),
            live: ArcSwap::from_pointee(LiveSettings::new(settings)),
            limits: ArcSwap::from_pointee(ClientLimits::new(settings)),
        })
    }

    /// The same, with this limit of open files.
    #[must_use]
    pub fn with_files(self, files: Files) -> Self {
        Self {
            ceiling: files.ceiling(),
            ..self
        }
    }

    /// The same, with another place for long work than tokio's blocking threads.
    #[must_use]
    pub fn with_background(self, background: Background) -> Self {
        Self { background, ..self }
    }

    /// The same, as if the wall clock had shown `wall` at the start.
    #[must_use]
    pub fn with_wall_clock(self, wall: SystemTime) -> Self {
        Self {
            clock: Clock::anchored(self.started, wall),
            ..self
        }
    }

    /// Takes what `settings` say of requests, for those that come and those under way.
    pub fn configure(&self, settings: &Settings) {
        let live = LiveSettings::new(settings);
        let is_wanted = !live.wanted.is_empty();
        self.live.store(Arc::new(live));
        self.max_answer
            .store(settings.bosh.max_answer, Ordering::Relaxed);
        self.wants_fields.store(is_wanted, Ordering::Release);
        self.access.configure(&settings.log);
    }

    /// Takes the limits of `settings`. Rates begin anew: what clients have used of them is forgotten.
    pub fn limit(&self, settings: &Settings) {
        self.limits.store(Arc::new(ClientLimits::new(settings)));
        self.landing.set_mode(settings.limits.landing);
        self.metrics
            .connections_limit
            .set(connections_limit(settings));
        self.sessions.set_limit(settings.limits.sessions);
        if let Some(addresses) = &self.addresses {
            addresses.set_limit(settings.limits.sessions);
        }
    }

    /// The limits of this moment.
    pub(super) fn limits(&self) -> arc_swap::Guard<Arc<ClientLimits>> {
        self.limits.load()
    }

    /// The most bytes that a response may have.
    pub(super) fn max_answer(&self) -> usize {
        self.max_answer.load(Ordering::Relaxed)
    }

    /// Whether clients get fields of nodes' responses.
    pub(super) fn wants_fields(&self) -> bool {
        self.wants_fields.load(Ordering::Acquire)
    }

    /// The settings of this moment.
    pub(super) fn live(&self) -> arc_swap::Guard<Arc<LiveSettings>> {
        self.live.load()
    }

    /// Notes that open files are short: within a second sessions give up the connections to their
    /// nodes that they do not use.
    pub fn short_of_files(&self) {
        self.no_files.store(true, Ordering::Relaxed);
    }

    /// Releases the requests that nodes hold, from now on: their clients are to ask the next process.
    pub fn release(&self) {
        self.release.begin();
        self.cluster.wake_held();
    }

    /// How many of `wanted` sessions the operator may end now, when asked about once a second, so that the
    /// other nodes log their clients in without delay (`limits.landing`). They count as ended.
    pub fn may_end(&self, wanted: usize) -> usize {
        self.landing.end(wanted)
    }

    /// How many requests were released without an answer of their nodes.
    pub fn released(&self) -> u64 {
        self.release.ended()
    }

    /// How long requests wait for others whose clients went away; none if they do not.
    pub(super) fn retry(&self) -> Option<Duration> {
        let retry = self.live().retry;
        (self.sessions.keeps_answers() && !retry.is_zero()).then_some(retry)
    }

    /// The time as sessions count it.
    pub fn now(&self) -> Time {
        self.time_of(Instant::now())
    }

    /// `instant` as sessions count it.
    pub(super) fn time_of(&self, instant: Instant) -> Time {
        self.clock.time_of(instant)
    }

    /// Copies the counts of the nodes and the sizes of the tables into the metrics.
    pub fn measure(&self) {
        self.cluster.measure();
        self.metrics.set_table(self.sessions.size());
        self.sessions.measure_kept();
        if let Some(addresses) = &self.addresses {
            self.metrics.set_table(addresses.size());
        }
    }

    /// Forgets what has expired.
    pub fn sweep(&self) {
        if self.no_files.swap(false, Ordering::Relaxed) {
            self.sessions.drop_idle();
        }
        self.sessions.sweep(self.now());
        self.cluster.retire(&self.metrics);
        if let Some(addresses) = &self.addresses {
            addresses.sweep(self.now());
        }
    }

    /// Drops the pins that the node `id` made before `epoch`, and tells those who wait for it.
    pub(super) fn lose_sessions(&self, id: NodeId, epoch: Epoch) {
        let pins = self.sessions.lose(id, epoch, self.now());
        self.cluster
            .node(id)
            .restart_detector
            .forgot
            .notify_waiters();
        self.cluster.lost_sessions(id, pins, SystemTime::now());
    }
}
