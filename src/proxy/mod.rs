//! One request: read, route, wait for its turn, send, learn from the answer, pass it on.
//!
//! Owns the decisions of a request's life and nothing of HTTP towards the client: `edge` hands in
//! a body and a few checked facts ([`Ask`]), and gets either an [`Answer`] at once or an
//! [`Exchange`] to be waited for. An exchange is a boxed future that holds only what the answer
//! will need, since a held poll is the normal state of a client: whoever polls it may drop
//! everything else meanwhile, and dropping it ends the request at its node.

mod answer;
mod attempt;
mod creation;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod known;
mod learn;
mod note;
mod reject;
mod resend;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use answer::Answer;
pub use note::Note;
pub use reject::{Cause, Row};

use crate::bosh;
use crate::cluster::{Cluster, NodeId};
use crate::config::{Affinity, Settings};
use crate::metrics::{Kind, Metrics};
use crate::sessions::{Addresses, Refusal, Session, Sessions, Time};
use crate::upstream::{self, Authority, Path, Proto, RequestHead};

/// What `edge` knows of a request, all of it checked.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// One of the configured BOSH paths.
    pub path: Path<'a>,
    /// The `Host` of the request.
    pub host: Authority<'a>,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client's side is encrypted.
    pub secure: bool,
    /// The whole body.
    pub body: Bytes,
}

/// An answer that is under way.
pub type Exchange = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What becomes of a request.
pub enum Begun {
    /// It is answered.
    Answered(Answer),
    /// It is at a node, or waits for one.
    Exchange(Exchange),
}

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
    started: Instant,
    max_answer: usize,
    connect: Duration,
    placement_wait: Duration,
}

/// What one request needs until it is answered.
#[derive(Debug)]
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
    note: Note,
}

impl Proxy {
    /// The proxy for `settings`, with no session yet.
    pub fn new(settings: &Settings, cluster: Arc<Cluster>, metrics: Arc<Metrics>) -> Self {
        let limit = settings.limits.sessions;
        let connections = i64::try_from(settings.limits.connections).unwrap_or(i64::MAX);
        metrics.connections_limit.set(connections);
        let addresses = match settings.affinity {
            Affinity::Sid => None,
            Affinity::ClientIp => Some(Addresses::new(settings.affinity_ttl, limit)),
        };
        let sessions = Sessions::new(limit, Arc::clone(&cluster), Arc::clone(&metrics));
        Self {
            cluster,
            sessions: Arc::new(sessions),
            addresses,
            metrics,
            started: Instant::now(),
            max_answer: settings.bosh.max_answer,
            connect: settings.timeouts.connect,
            placement_wait: settings.placement_wait,
        }
    }

    /// The time as sessions count it.
    pub fn now(&self) -> Time {
        Time::after(self.started.elapsed())
    }

    /// Writes down how large the tables are, for the metrics.
    pub fn measure_tables(&self) {
        self.metrics.set_table(self.sessions.size());
        if let Some(addresses) = &self.addresses {
            self.metrics.set_table(addresses.size());
        }
    }

    /// Forgets what has expired.
    pub fn sweep(&self) {
        self.sessions.sweep(self.now());
        if let Some(addresses) = &self.addresses {
            addresses.sweep(self.now());
        }
    }

    /// Begins one request.
    pub fn begin(self: &Arc<Self>, ask: &Ask<'_>) -> Begun {
        #[cfg(any(test, fuzzing))]
        if let Some(recorded) = fuzzing::take(ask) {
            return Begun::Answered(recorded);
        }
        let length = u64::try_from(ask.body.len()).unwrap_or(0);
        self.metrics.client_received_bytes.inc_by(length);
        match bosh::read_request(&ask.body) {
            Ok(wrapper) => self.route(ask, &wrapper),
            Err(malformed) => {
                tracing::debug!(client = %ask.client, %malformed, "malformed wrapper");
                let note = Note::new(Arc::clone(&self.metrics), Kind::Other, ask.client);
                Begun::Answered(refuse(Cause::Malformed, false, note))
            }
        }
    }

    fn route(self: &Arc<Self>, ask: &Ask<'_>, wrapper: &bosh::Request<'_>) -> Begun {
        let job = self.job(ask, wrapper);
        let Some(sid) = &wrapper.sid else {
            if self.sessions.is_full() {
                return Begun::Answered(refuse(Cause::Full, job.legacy, job.note));
            }
            return Begun::Exchange(Box::pin(creation::run(Arc::clone(self), job)));
        };
        if let Some(addresses) = &self.addresses {
            addresses.renew(ask.client, self.now());
        }
        match self.begin_known(sid, ask.client) {
            Ok((session, late)) => {
                let under_way =
                    known::UnderWay::new(Arc::clone(self), session, (job.rid, job.pause), late);
                Begun::Exchange(Box::pin(known::run(under_way, job)))
            }
            Err((cause, legacy)) => Begun::Answered(refuse(cause, legacy, job.note)),
        }
    }

    fn job(&self, ask: &Ask<'_>, wrapper: &bosh::Request<'_>) -> Job {
        let kind = kind_of(wrapper);
        Job {
            request: upstream::write_request(&request_head(ask), &ask.body[wrapper.start..]),
            client: ask.client,
            rid: wrapper.rid,
            pause: wrapper.pause,
            wait: seconds(wrapper.wait.unwrap_or(60)),
            // With `stream` it ends one stream of several (XEP-0124 §16), not the session.
            terminate: wrapper.terminate && wrapper.stream.is_none(),
            legacy: wrapper.sid.is_none() && !wrapper.ver,
            note: Note::new(Arc::clone(&self.metrics), kind, ask.client),
        }
    }

    /// The session `sid` with one more request under way. A sid without a pin becomes an unproven
    /// session at the rendezvous node of its client's address, which every balancer agrees on.
    fn begin_known(
        &self,
        sid: &str,
        client: IpAddr,
    ) -> Result<(Arc<Session>, bool), (Cause, bool)> {
        // A session can be forgotten between the look-up and its beginning; then it is unknown.
        for _ in 0..3 {
            let session = match self.sessions.find(sid) {
                Some(session) => session,
                None => self.unproven(sid, client).ok_or((Cause::Full, false))?,
            };
            match session.begin() {
                Ok(late) => return Ok((session, late)),
                Err(Refusal::TooMany) => return Err((Cause::TooMany, session.terms().legacy)),
                Err(Refusal::Gone) => {}
            }
        }
        Err((Cause::SessionLost, false))
    }

    fn unproven(&self, sid: &str, client: IpAddr) -> Option<Arc<Session>> {
        self.metrics.unknown_sids.inc();
        let now = self.now();
        let tied = self
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.find(client, now));
        let node = tied
            .or_else(|| self.cluster.home(client, &[]))
            .unwrap_or(NodeId(0));
        self.sessions.find_or_unproven(sid, node, now)
    }
}

/// The head of a request for a node.
const fn request_head<'a>(ask: &Ask<'a>) -> RequestHead<'a> {
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
fn refuse(cause: Cause, legacy: bool, note: Note) -> Answer {
    let answer = Answer::reject(cause, legacy);
    note.finish(&answer, None);
    answer
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
