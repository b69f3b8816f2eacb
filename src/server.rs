//! The whole balancer in one handle: binds the listeners, starts the workers, the probes, the
//! sweeper and the admin listener, and ends them in order.
//!
//! Client traffic runs on worker threads, each with a runtime of its own: a connection stays where
//! it was accepted. Probes, sweeping and the admin listener run on the caller's runtime.

mod error;
mod gate;
mod listeners;
mod passing;
mod start;
mod successor;
mod takeover;
mod workers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::admin::{AdminState, ReloadRequest};
use crate::cluster::TooManyNodes;
use crate::config::{Log, NodeSettings, Release, Reload, Settings};
use crate::downstream::{Downstream, Drain};
use crate::handover::Sockets;
use crate::health::Probes;
use crate::limits::Files;
use crate::proxy::Proxy;
use crate::snapshot::{Moment, Store};
use crate::tls::Certificates;
use crate::upstream;

pub use error::{BindError, ReloadError, StartError, TakeoverError};
pub use workers::Pulse;

use gate::Gate;
use listeners::Listeners;
use takeover::{Phase, TakeoverSocket};
use workers::Workers;

/// How long connections that are cut may take to end.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// A running balancer. Dropping it cuts everything at once; [`Server::drain`] ends it in order.
#[derive(Debug)]
pub struct Server {
    listeners: Arc<Mutex<Listeners>>,
    /// What serves newcomers, and was in force at the last reload.
    downstream: Arc<ArcSwap<Downstream>>,
    files: Files,
    admin_address: Option<SocketAddr>,
    probes_address: Option<SocketAddr>,
    proxy: Arc<Proxy>,
    drain: Arc<Drain>,
    admin: Arc<AdminState>,
    cut: Arc<Notify>,
    certificates: Certificates,
    workers: Workers,
    background: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
    /// The socket for the next takeover, until this process serves.
    takeover: Option<TakeoverSocket>,
    /// Waits for processes that want to take over.
    host: Option<JoinHandle<()>>,
    /// Hears of the process that this one has replaced.
    replaced: Option<JoinHandle<()>>,
    phase: Arc<watch::Sender<Phase>>,
    probes: Probes,
    snapshot: Option<Arc<Store>>,
    /// The settings in force.
    settings: Mutex<Settings>,
    reloads: Option<mpsc::Receiver<ReloadRequest>>,
}

impl Server {
    /// The TCP addresses where clients are served, with the ports that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.listeners).addresses()
    }

    /// Where the admin listener is, if there is one.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Where `/live`, `/ready` and `/metrics` are served to everyone, if anywhere.
    pub const fn probes_address(&self) -> Option<SocketAddr> {
        self.probes_address
    }

    /// The certificates of the listeners.
    pub const fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// What requests share: for tests and the demo, which look at sessions and counters.
    pub const fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Applies a new configuration while clients are served. Says what changed, and what waits for a
    /// restart.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self, new: &Settings) -> Result<Reload, ReloadError> {
        if *self.phase.borrow() != Phase::Serving {
            return Err(ReloadError::Takeover);
        }
        let mut settings = lock(&self.settings);
        let mut listeners = lock(&self.listeners);
        let step = Reload::new(&settings, new);
        let proxy = &self.proxy;
        // All that can fail comes first.
        upstream::check_tls(&step.settings.nodes).map_err(ReloadError::NodeTls)?;
        let acceptors = self.certificates.prepare(&step.settings.listen);
        let acceptors = acceptors.map_err(ReloadError::Tls)?;
        let (listen, threads) = (&step.settings.listen, step.settings.threads);
        let prepared = listeners.prepare(listen, threads, &mut Sockets::default());
        let prepared = prepared.map_err(ReloadError::Bind)?;
        let replaced = proxy.cluster.replace(&step.settings, &proxy.metrics);
        replaced.map_err(ReloadError::Nodes)?;

        let old = std::mem::replace(&mut *settings, step.settings.clone());
        let fitted = start::fit(&step.settings, self.files);
        if old.limits.connections != step.settings.limits.connections {
            start::log_connections(&step.settings, self.files);
        }
        proxy.configure(&fitted);
        if step.limits {
            proxy.limit(&fitted);
        }
        let nodes = &step.settings.nodes;
        (proxy.cluster).configure_states(&old.nodes, nodes, SystemTime::now());
        if step.client_side {
            self.exchange_downstream(fitted);
        }
        self.certificates.replace(acceptors.clone());
        self.certificates.show(&proxy.metrics);
        let downstream = self.downstream.load_full();
        let prepared = prepared.with_tls(acceptors);
        listeners.apply(prepared, (&downstream, step.client_side), &self.workers);
        if old.health != step.settings.health {
            self.probes.configure(&step.settings);
        }
        Ok(step)
    }

    /// Serves newcomers by these settings. Connections of the others end with their next answer.
    fn exchange_downstream(&self, settings: Settings) {
        let old = self.downstream.load_full();
        old.set_limits(&settings.limits);
        self.downstream.store(Arc::new(old.with_settings(settings)));
        old.retire();
    }

    /// Makes these the nodes, as discovery has found them.
    ///
    /// # Errors
    /// [`TooManyNodes`]; then nothing has changed.
    pub fn set_nodes(&self, nodes: Vec<NodeSettings>) -> Result<(), TooManyNodes> {
        let mut settings = lock(&self.settings);
        let new = Settings {
            nodes,
            ..settings.clone()
        };
        self.proxy.cluster.replace(&new, &self.proxy.metrics)?;
        (self.proxy.cluster).configure_states(&settings.nodes, &new.nodes, SystemTime::now());
        let changed = Reload::changed_nodes(&settings, &new);
        *settings = new;
        self.admin.discovered(&changed);
        Ok(())
    }

    /// Shows that discovery fails, for this reason, or does so no longer.
    pub fn discovery_failed(&self, why: Option<&str>) {
        self.admin.discovery_failed(why);
    }

    /// The settings of the log in force.
    pub fn log_settings(&self) -> Log {
        lock(&self.settings).log.clone()
    }

    /// The admin listener's requests for a reload, to be answered by what called [`Server::start`]. Without
    /// a receiver they are refused. None the second time.
    pub fn reload_requests(&mut self) -> Option<mpsc::Receiver<ReloadRequest>> {
        self.reloads.take()
    }

    /// Shows how a reload ended: in the metrics, in `/health`, in the events and in the log.
    pub fn reloaded(&self, outcome: &Result<Reload, String>, by: Option<&str>) {
        self.admin.reloaded(outcome, by);
    }

    /// Shows that each worker answers.
    pub fn pulse(&self) -> Pulse {
        self.workers.pulse()
    }

    /// Returns when a worker or a probe has ended without being told to, which only a defect can
    /// bring about: half a balancer is worse than none.
    pub async fn broken(&mut self) {
        let Self {
            workers, probes, ..
        } = self;
        tokio::select! {
            () = workers.broken() => {}
            () = probes.broken() => {}
        }
    }

    /// Returns when another process has taken over, and the last connection has ended. [`Server::drain`] is
    /// left to do.
    pub fn replaced(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            if phase.wait_for(|phase| *phase == Phase::Over).await.is_err() {
                // It serves to its end.
                std::future::pending().await
            }
        }
    }

    /// Ends the balancer in order. `/ready` says no. After the notice idle connections close, and
    /// answers close their connections. With [`Release::HalfClose`] listeners close at the same time,
    /// and nodes give up the polls that they hold; with [`Release::Keep`] both go on until the polls
    /// have ended. Everything else is answered. Says how many client connections were cut at the
    /// deadline. If another process has taken over, there is no notice, and the snapshot is its own.
    pub async fn drain(mut self) -> i64 {
        let (times, release) = {
            let settings = lock(&self.settings);
            (settings.timeouts.clone(), settings.upstream.release)
        };
        if let Some(host) = self.host.take() {
            host.abort();
        }
        let is_passed = self.phase.borrow().is_passed();
        self.admin.begin_drain();
        let notice = if is_passed {
            Duration::ZERO
        } else {
            times.drain_notice
        };
        info!(?notice, deadline = ?times.drain, "draining");
        sleep(notice).await;
        lock(&self.listeners).stop();
        self.drain.begin();
        if let Some(replaced) = self.replaced.take() {
            // The process before this one hears that it is not to come back.
            let _ = timeout(CUT_WITHIN, replaced).await;
        }
        if release == Release::HalfClose {
            self.proxy.release();
        }
        let in_time = timeout(times.drain, self.workers.drained()).await.is_ok();
        let cut = self.proxy.metrics.connections.get();
        if in_time {
            info!(released = self.proxy.released(), "drained");
        } else {
            warn!(connections = cut, "drain deadline: connections are cut");
            self.cut();
            // Each request that is cut gets its line in the log.
            let _ = timeout(CUT_WITHIN, self.workers.gone()).await;
        }
        if let Some(store) = self.snapshot.take().filter(|_| !is_passed) {
            let proxy = Arc::clone(&self.proxy);
            let last = move || store.save(Moment::Ending, proxy.now(), SystemTime::now());
            // It panics in no case that is known, and a panic is logged.
            let _ = tokio::task::spawn_blocking(last).await;
        }
        self.proxy.traces.flush().await;
        cut
    }

    fn cut(&self) {
        self.proxy.access.begin_cut();
        self.cut.notify_waiters();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.begin();
        self.cut();
        let handovers = self.host.iter().chain(&self.replaced);
        for task in self.background.iter().chain(handovers) {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
