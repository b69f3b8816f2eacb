//! One request: read, route, wait for its turn, send, learn from the answer, pass it on.
//!
//! Owns the decisions of a request's life and nothing of HTTP towards the client: `downstream` hands in
//! a body and a few checked facts ([`BoshRequest`]), and gets either an [`Answer`] at once or an
//! [`Exchange`] to be waited for. An exchange is a boxed future that holds only what the answer
//! will need, since a held poll is the normal state of a client: whoever polls it may drop
//! everything else meanwhile, and dropping it ends the request at its node.

mod access_log;
mod answer;
mod attempt;
mod create;
mod deadline;
mod failed;
mod node_response;
mod reject;
mod release;
mod request_record;
mod retry;
mod session_request;
mod termination_state;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use access_log::{AccessLogger, TARGET};
pub use answer::{Answer, Reply};
pub use reject::{Cause, Row};
pub use request_record::{Delivered, Delivery, RequestRecord};
use termination_state::Phase;

use crate::bosh;
use crate::cluster::{Cluster, Epoch, NodeId};
use crate::config::{Affinity, CreationFrom, HostAttribute, Settings};
use crate::limits::{Clients, Files, Rates, Unasked, UnknownSids};
use crate::metrics::{Kind, Metrics};
use crate::sessions::{self, Addresses, Refusal, Session, Sessions, Time};
use crate::traces::{Parent, Traces};
use crate::upstream::{self, Authority, Path, Proto, RequestHead};

/// What `downstream` knows of a request, all of it checked. Its body holds a sid, so that `{:?}` leaves it
/// out.
#[derive(Clone)]
pub struct BoshRequest<'a> {
    /// One of the configured BOSH paths.
    pub path: Path<'a>,
    /// The `Host` of the request.
    pub host: Authority<'a>,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client's side is encrypted.
    pub secure: bool,
    /// The span that a trusted proxy says it belongs to.
    pub parent: Parent,
    /// The whole body.
    pub body: &'a [u8],
}

impl fmt::Debug for BoshRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoshRequest")
            .field("path", &self.path)
            .field("host", &self.host)
            .field("client", &self.client)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An answer that is under way.
pub type Exchange = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What becomes of a request.
pub enum Handled {
    /// It is answered.
    Answered(Reply),
    /// It is at a node, or waits for one.
    Exchange(Exchange),
}

/// Does work that takes longer than a thread that serves requests has.
pub type Background = fn(Box<dyn FnOnce() + Send>);

/// Everything that requests share.
#[derive(Debug)]
pub struct Proxy {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The nodes of addresses, with `affinity: client-ip`.
    pub addresses: Option<Addresses>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Which requests are logged.
    pub access: AccessLogger,
    /// Where traces go.
    pub traces: Traces,
    clients: Clients,
    creations: Option<Rates>,
    unknown: UnknownSids,
    /// File numbers from which on a connection to a node is given back.
    ceiling: i32,
    /// Open files are short: sessions give up their idle connections.
    no_files: AtomicBool,
    release: release::Release,
    background: Background,
    started: Instant,
    max_answer: usize,
    creation_from: CreationFrom,
    host_attribute: HostAttribute,
    connect: Duration,
    probe_timeout: Duration,
    placement_wait: Duration,
    /// How long a silent node keeps its sessions.
    silence: Duration,
}

/// What one request needs until it is answered. It holds a sid: never to be shown.
struct Job {
    /// The bytes for the node, head and body; the same for every node.
    request: Box<[u8]>,
    client: IpAddr,
    rid: u64,
    /// The pause that was asked for, in seconds.
    pause: Option<u32>,
    /// The wait that a creation asked for, in seconds.
    wait: u16,
    terminate: bool,
    legacy: bool,
    record: RequestRecord,
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
        let connections = i64::try_from(settings.limits.connections).unwrap_or(i64::MAX);
        metrics.connections_limit.set(connections);
        let addresses = match settings.affinity {
            Affinity::Sid => None,
            Affinity::ClientIp => Some(Addresses::new(settings.affinity_ttl, limit)),
        };
        let sessions = Sessions::new(limit, Arc::clone(&cluster), Arc::clone(&metrics));
        let limits = &settings.limits;
        Ok(Self {
            clients: Clients::new(settings),
            creations: Rates::new(limits.creations_per_client, limits.creations_burst),
            unknown: UnknownSids::new(limits),
            cluster,
            sessions: Arc::new(sessions),
            addresses,
            metrics,
            access: AccessLogger::new(&settings.log),
            traces: Traces::start(settings.traces.as_ref())?,
            ceiling: i32::MAX,
            no_files: AtomicBool::new(false),
            release: release::Release::default(),
            background: |work| drop(tokio::task::spawn_blocking(work)),
            started: Instant::now(),
            max_answer: settings.bosh.max_answer,
            creation_from: settings.bosh.creation_from,
            host_attribute: settings.host_attribute.clone(),
            connect: settings.timeouts.connect,
            probe_timeout: settings.health.timeout,
            placement_wait: settings.placement_wait,
            silence: settings.health.silence,
        })
    }

    /// The same, with so many open files.
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

    /// Notes that open files are short: within a second sessions give up the connections to their
    /// nodes that they do not use.
    pub fn short_of_files(&self) {
        self.no_files.store(true, Ordering::Relaxed);
    }

    /// Releases the requests that nodes hold, from now on: their clients are to ask the next process.
    pub fn release(&self) {
        self.release.begin();
    }

    /// How many requests were released without an answer of their nodes.
    pub fn released(&self) -> u64 {
        self.release.ended()
    }

    /// The time as sessions count it.
    pub fn now(&self) -> Time {
        self.time_of(Instant::now())
    }

    /// `instant` as sessions count it.
    fn time_of(&self, instant: Instant) -> Time {
        Time::after(instant - self.started)
    }

    /// Copies the counts of the nodes and the sizes of the tables into the metrics.
    pub fn measure(&self) {
        self.cluster.measure();
        self.metrics.set_table(self.sessions.size());
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
    fn lose_sessions(&self, id: NodeId, epoch: Epoch) {
        let pins = self.sessions.lose(id, epoch, self.now());
        self.cluster
            .node(id)
            .restart_detector
            .forgot
            .notify_waiters();
        self.cluster.lost_sessions(id, pins, SystemTime::now());
    }

    /// Begins one request.
    pub fn begin(self: &Arc<Self>, ask: &BoshRequest<'_>) -> Handled {
        let length = u64::try_from(ask.body.len()).unwrap_or(0);
        self.metrics.client_received_bytes.inc_by(length);
        match bosh::read_request(ask.body) {
            Ok(wrapper) => self.route(ask, &wrapper),
            Err(malformed) => {
                tracing::debug!(client = %ask.client, %malformed, "malformed wrapper");
                let record =
                    RequestRecord::new(Arc::clone(self), Kind::Other, ask.client, &ask.parent);
                Handled::Answered(refuse(Cause::Malformed, false, record))
            }
        }
    }

    fn route(self: &Arc<Self>, ask: &BoshRequest<'_>, wrapper: &bosh::Request<'_>) -> Handled {
        let job = self.job(ask, wrapper);
        let Some(sid) = &wrapper.sid else {
            if let Err(cause) = self.admit(ask.client) {
                return Handled::Answered(refuse(cause, job.legacy, job.record));
            }
            return Handled::Exchange(Box::pin(create::run(Arc::clone(self), job)));
        };
        job.record.of_session(sid);
        if let Some(addresses) = &self.addresses {
            addresses.renew(ask.client, self.now());
        }
        match self.begin_known(sid, &job) {
            Ok((session, begun)) => {
                let owing = begun.provisional.then(|| self.clients.client(ask.client));
                let request = session_request::SessionRequest::new(
                    Arc::clone(self),
                    session,
                    begun.place,
                    (begun.late, owing),
                );
                Handled::Exchange(Box::pin(session_request::run(request, job)))
            }
            Err((cause, legacy)) => Handled::Answered(refuse(cause, legacy, job.record)),
        }
    }

    fn job(self: &Arc<Self>, ask: &BoshRequest<'_>, wrapper: &bosh::Request<'_>) -> Job {
        let record =
            RequestRecord::new(Arc::clone(self), kind_of(wrapper), ask.client, &ask.parent);
        record.enters(Phase::Queue);
        let body = self.for_node(ask.body, wrapper);
        Job {
            request: request_for_node(ask, &body),
            client: ask.client,
            rid: wrapper.rid,
            pause: wrapper.pause,
            wait: seconds(wrapper.wait.unwrap_or(60)),
            // With `stream` it ends one stream of several (XEP-0124 §16), not the session.
            terminate: wrapper.terminate && wrapper.stream.is_none(),
            legacy: wrapper.sid.is_none() && !wrapper.ver,
            record,
        }
    }

    /// The part of a request's body that goes to a node.
    fn for_node<'a>(&self, body: &'a [u8], wrapper: &bosh::Request<'_>) -> Cow<'a, [u8]> {
        let root = body.get(wrapper.start..).unwrap_or_default();
        let is_kept = wrapper.sid.is_some() || self.creation_from == CreationFrom::Pass;
        let from = wrapper.from.as_ref().filter(|_| !is_kept);
        let parts = from.and_then(|from| {
            let front = body.get(wrapper.start..from.start)?;
            Some([front, body.get(from.end..)?])
        });
        parts.map_or(Cow::Borrowed(root), |parts| Cow::Owned(parts.concat()))
    }

    /// The session `sid` with one more request under way. A sid without a pin becomes a provisional
    /// session at the rendezvous node of its client's address, which every balancer agrees on.
    fn begin_known(
        &self,
        sid: &str,
        job: &Job,
    ) -> Result<(Arc<Session>, sessions::Begun), (Cause, bool)> {
        // A session can be forgotten between the look-up and its beginning; then it is unknown.
        for _ in 0..3 {
            let session = match self.sessions.find(sid) {
                Some(session) => session,
                None => self
                    .provisional(sid, job.client)
                    .map_err(|cause| (cause, false))?,
            };
            match session.begin(job.rid, job.pause) {
                Ok(begun) => return Ok((session, begun)),
                Err(Refusal::TooMany) => return Err((Cause::TooMany, session.terms().legacy)),
                Err(Refusal::Lost) => return Err((Cause::SessionLost, session.terms().legacy)),
                Err(Refusal::Gone) => {}
            }
        }
        Err((Cause::SessionLost, false))
    }

    /// Whether `client` may ask for a new session.
    fn admit(&self, client: IpAddr) -> Result<(), Cause> {
        if self.sessions.is_full() {
            return Err(Cause::Full);
        }
        let Some(creations) = &self.creations else {
            return Ok(());
        };
        let may = creations.take(self.clients.client(client), self.started.elapsed());
        may.then_some(()).ok_or(Cause::CreationRate)
    }

    fn provisional(&self, sid: &str, client: IpAddr) -> Result<Arc<Session>, Cause> {
        self.metrics.unknown_sids.inc();
        let now = self.now();
        let asker = self.clients.client(client);
        self.unknown
            .ask(&self.clients, sid, asker, now.since_start())
            .map_err(|why| match why {
                Unasked::Remembered => Cause::UnknownSid,
                Unasked::Budget => Cause::UnknownBudget,
            })?;
        let tied = self
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.find(client, now));
        let node = tied
            .or_else(|| self.cluster.home(client, &[]))
            .unwrap_or(NodeId(0));
        let session = self.sessions.find_or_provisional(sid, node, now);
        session.ok_or(Cause::Full)
    }
}

/// The bytes of a request for a node, with this body.
pub fn request_for_node(ask: &BoshRequest<'_>, body: &[u8]) -> Box<[u8]> {
    upstream::write_request(&request_head(ask), body)
}

/// The head of a request for a node.
const fn request_head<'a>(ask: &BoshRequest<'a>) -> RequestHead<'a> {
    RequestHead {
        path: ask.path,
        host: ask.host,
        forwarded_for: ask.client,
        forwarded_proto: if ask.secure {
            Proto::Https
        } else {
            Proto::Http
        },
        forwarded_host: Some(ask.host),
    }
}

/// An answer of the balancer's own, counted.
fn refuse(cause: Cause, legacy: bool, record: RequestRecord) -> Reply {
    record.answer(Answer::reject(cause, legacy))
}

fn kind_of(wrapper: &bosh::Request<'_>) -> Kind {
    if wrapper.sid.is_none() {
        Kind::Creation
    } else if wrapper.terminate && wrapper.stream.is_none() {
        Kind::Terminate
    } else if wrapper.restart {
        Kind::Restart
    } else if wrapper.empty {
        Kind::Poll
    } else {
        Kind::Send
    }
}

/// Seconds as a pin keeps them; longer than 18 hours is 18 hours.
fn seconds(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
