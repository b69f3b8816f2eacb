//! The admin listener: health, metrics, events and the state of nodes over HTTP, and the operator's
//! changes of that state.
//!
//! Owns its own small server, apart from the clients' one, so that it answers while they are
//! turned away. It reads what others write, and decides nothing but who may ask.

mod access;
mod body;
mod change;
mod discovery;
mod history;
mod page;
mod reload;
pub mod report;
mod response;
pub mod sessions;
mod stream;
mod time;
mod traffic;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

pub use access::{AccessControl, MARK, TokenError, read_token};
pub use reload::ReloadRequest;
pub use time::{rfc3339, seconds_of};

use crate::cluster::Cluster;
use crate::observe::events::{Event, EventKind};
use crate::observe::metrics::{Metrics, Process};
use crate::tls::Certificates;
use history::History;
use sessions::SessionTable;

/// Connections served at the same time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a request head may take, from the end of the request before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may live: one that takes no byte of its answer ends, too.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long a connection that is to end may take to finish its answer.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after an error of accept, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Writes down the sizes of tables, before somebody reads them.
type Measure = Box<dyn Fn() + Send + Sync>;

/// What the admin endpoints tell.
pub struct AdminState {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    access: AccessControl,
    measure: Measure,
    draining: AtomicBool,
    started: SystemTime,
    history: History,
    snapshot: Mutex<Option<stream::Snapshot>>,
    listeners: Arc<Semaphore>,
    reloads: mpsc::Sender<ReloadRequest>,
    refused_reload: Mutex<Option<String>>,
    discovery_failure: Mutex<Option<String>>,
    certificates: Certificates,
    sessions: Option<SessionTable>,
    /// The right to walk through all sessions.
    listing: Arc<Semaphore>,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState")
            .field("access", &self.access)
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}

impl AdminState {
    /// The state of a balancer that has just started. Requests for a reload go to `reloads`. `measure` is called before the sizes of
    /// tables are told, and writes them into `metrics`.
    pub fn new(
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
        access: AccessControl,
        reloads: mpsc::Sender<ReloadRequest>,
        measure: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let started = SystemTime::now();
        let text = format!("Bowline {} started", env!("CARGO_PKG_VERSION"));
        metrics.reload_ok.set(1);
        metrics.discovery_ok.set(1);
        cluster
            .events
            .add(Event::new(EventKind::Start, started, text));
        Self {
            history: History::new(&cluster, &metrics, Instant::now()),
            cluster,
            metrics,
            access,
            measure: Box::new(measure),
            draining: AtomicBool::new(false),
            started,
            snapshot: Mutex::default(),
            listeners: Arc::new(Semaphore::new(stream::MOST_LISTENERS)),
            reloads,
            refused_reload: Mutex::default(),
            discovery_failure: Mutex::default(),
            certificates: Certificates::default(),
            sessions: None,
            listing: Arc::new(Semaphore::new(1)),
        }
    }

    /// The same with the certificates of the client listeners.
    #[must_use]
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// The same with the table of sessions.
    #[must_use]
    pub fn with_sessions(self, sessions: SessionTable) -> Self {
        Self {
            sessions: Some(sessions),
            ..self
        }
    }

    /// From now on `/ready` says no.
    pub fn begin_drain(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            let event = Event::new(EventKind::Stop, SystemTime::now(), "Bowline is stopping");
            self.cluster.events.add(event);
        }
    }

    /// Whether the balancer is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What tells this process from the one before it, in the numbers of `/stream`: when it
    /// started, in milliseconds since 1970.
    fn mark(&self) -> u128 {
        let since = self.started.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis())
    }

    /// Asks tables and the operating system for what nobody counts, on a thread that may wait.
    async fn measure(&self) {
        (self.measure)();
        if let Ok(Ok(process)) = tokio::task::spawn_blocking(Process::read).await {
            self.metrics.set_process(&process);
        }
    }

    fn snapshot(&self) -> MutexGuard<'_, Option<stream::Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything, to who may ask.
    Admin,
    /// `/live`, `/ready` and `/metrics`, to everyone.
    Probes,
}

/// One connection, as its requests see it.
#[derive(Debug)]
struct Link {
    scope: Scope,
    peer: SocketAddr,
    /// Whether its last request was for `/stream`: then it may live for ever.
    streams: AtomicBool,
    /// Told when its listener does not take what is sent.
    cut: Arc<Notify>,
}

impl Link {
    fn begin_stream(&self) -> Arc<Notify> {
        self.streams.store(true, Ordering::Relaxed);
        Arc::clone(&self.cut)
    }

    /// Returns when the connection is too old.
    async fn aged(&self) {
        loop {
            sleep(MAX_AGE).await;
            if !self.streams.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Looks from time to time at what is to be told; never returns.
pub async fn watch(state: Arc<AdminState>) {
    watch::run(state).await;
}

/// Serves the admin endpoints of `scope` until `stop`, then closes the listener and gives the answers under
/// way a second to leave.
pub async fn serve(
    listener: TcpListener,
    scope: Scope,
    state: Arc<AdminState>,
    stop: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (closing, _) = channel::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        let link = Link {
            scope,
            peer,
            streams: AtomicBool::new(false),
            cut: Arc::new(Notify::new()),
        };
        connections.spawn(connection(stream, link, slot, state, closing.subscribe()));
    }
    drop(listener);
    closing.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, all_ended).await.is_err() {
        debug!("admin connections cut");
    }
}

/// The next connection, once there is a free slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(error) => {
                warn!(%error, "accept failed on the admin listener");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, to its end or its age's, and holds its slot as long.
async fn connection(
    stream: TcpStream,
    link: Link,
    _slot: OwnedSemaphorePermit,
    state: Arc<AdminState>,
    mut closing: channel::Receiver<bool>,
) {
    let peer = link.peer;
    let service = service_fn(|request| async {
        link.streams.store(false, Ordering::Relaxed);
        Ok::<_, Infallible>(response::to(&state, request, &link).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // An error means that the server is gone, which is a reason to end, too.
        _ = closing.wait_for(|&closing| closing) => None,
        () = link.aged() => None,
        () = link.cut.notified() => {
            debug!(%peer, "a listener is too slow");
            return;
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "admin connection failed");
    }
}

#[cfg(test)]
mod tests;
