//! The whole balancer in one handle: binds the listeners, starts the workers, the probes, the
//! sweeper and the admin listener, and ends them in order.
//!
//! Client traffic runs on worker threads, each with a runtime of its own: a connection stays where
//! it was accepted. Probes, sweeping and the admin listener run on the caller's runtime.

mod error;
mod listeners;
mod workers;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::admin::sessions::SessionTable;
use crate::admin::{self, AccessControl, AdminState, ReloadRequest, Scope};
use crate::cluster::{Cluster, TooManyNodes};
use crate::config::{Log, NodeSettings, Release, Reload, Settings};
use crate::digest;
use crate::downstream::{self, Downstream, Drain};
use crate::handover::{PassedSocket, Sockets};
use crate::health::{self, Probes};
use crate::limits::Files;
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::proxy::Proxy;
use crate::snapshot::{Moment, Store};
use crate::tls::Certificates;
use crate::upstream;

pub use error::{BindError, ReloadError, StartError};
pub use workers::Pulse;

use listeners::{Listeners, bind};
use workers::Workers;

/// How often expired sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many requests for a reload may wait.
const RELOADS_WAITING: usize = 8;

/// How long connections that are cut may take to end.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// A running balancer. Dropping it cuts everything at once; [`Server::drain`] ends it in order.
#[derive(Debug)]
pub struct Server {
    listeners: Mutex<Listeners>,
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
    probes: Probes,
    snapshot: Option<Arc<Store>>,
    /// The settings in force.
    settings: Mutex<Settings>,
    reloads: Option<mpsc::Receiver<ReloadRequest>>,
}

impl Server {
    /// Starts everything, or nothing: all addresses are bound before anything runs.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        Self::start_with(settings, Sockets::default())
    }

    /// The same by sockets that were passed to this process. Addresses without one are bound.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start_with(settings: &Settings, mut passed: Sockets) -> Result<Self, StartError> {
        upstream::check_tls(&settings.nodes).map_err(StartError::NodeTls)?;
        let certificates = Certificates::load(&settings.listen).map_err(StartError::Tls)?;
        let admin = settings.admin.as_ref().map(|admin| admin.address);
        let addresses = settings.listen.iter().map(|listen| listen.address.clone());
        let probes = settings.admin.as_ref().and_then(|admin| admin.probes);
        let addresses = addresses.chain(admin.map(Into::into));
        let addresses: Vec<_> = addresses.chain(probes.map(Into::into)).collect();
        (passed.check(&addresses)).map_err(StartError::Unclaimed)?;
        let mut listeners = Listeners::default();
        let prepared = listeners.prepare(&settings.listen, settings.threads, &mut passed);
        let prepared = prepared.map_err(StartError::Bind)?;
        let mut open = |address: SocketAddr| match passed.take(&address.into()) {
            Some(PassedSocket::Tcp(socket)) => Ok(socket),
            // An address of IP is never that of a Unix socket.
            Some(PassedSocket::Unix(_)) | None => bind(address),
        };
        let admin_listener = admin.map(&mut open).transpose();
        let admin_listener = admin_listener.map_err(StartError::Bind)?;
        let probes_listener = probes.map(open).transpose();
        let probes_listener = probes_listener.map_err(StartError::Bind)?;
        let access = settings.admin.as_ref().map(AccessControl::load).transpose();
        let access = access.map_err(StartError::Token)?.unwrap_or_default();

        // A reload is compared with what the file says, not with what fits.
        let configured = settings.clone();
        let (settings, files) = &fit_files(settings);
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(settings, &metrics));
        let proxy = Proxy::new(settings, Arc::clone(&cluster), Arc::clone(&metrics));
        let proxy = proxy.map_err(StartError::Traces)?;
        let proxy = Arc::new(proxy.with_files(*files));
        let snapshot = settings.snapshot.as_ref().map(|snapshot| {
            let (sessions, metrics) = (Arc::clone(&proxy.sessions), Arc::clone(&metrics));
            let store = Store::new(snapshot, Arc::clone(&cluster), sessions, metrics);
            store.restore(proxy.now(), SystemTime::now());
            Arc::new(store)
        });
        // What the file says wins over what the operator of an earlier process said.
        cluster.configure_states(&[], &settings.nodes, SystemTime::now());
        let drain = Arc::new(Drain::default());
        let downstream = Downstream::new(
            Arc::clone(&proxy),
            settings.clone(),
            Arc::clone(&drain),
            *files,
        );
        let downstream = Arc::new(ArcSwap::from_pointee(downstream));
        let cut = Arc::new(Notify::new());
        let tables = Arc::clone(&proxy);
        let measure = move || {
            tables.measure();
            let metrics = &tables.metrics;
            metrics.set_log_dropped_lines(log::dropped_lines());
        };
        let reports = digest::run(Arc::clone(&cluster), Arc::clone(&metrics));
        let (ask, asked) = mpsc::channel(RELOADS_WAITING);
        certificates.show(&metrics);
        for reason in certificates.reasons(SystemTime::now()) {
            warn!("{reason}");
        }
        let watched = {
            let cluster = Arc::clone(&cluster);
            let add = move |event| cluster.events.add(event);
            certificates.clone().watch(Arc::clone(&metrics), add)
        };
        let admin = AdminState::new(Arc::clone(&cluster), metrics, access, ask, measure);
        let admin = admin.with_sessions(SessionTable::of(&proxy));
        let admin = Arc::new(admin.with_certificates(certificates.clone()));
        let mut background = vec![
            tokio::spawn(sweep(Arc::clone(&proxy))),
            tokio::spawn(downstream::relieve(Arc::clone(&downstream))),
            tokio::spawn(reports),
            tokio::spawn(watched),
        ];
        if let Some(store) = &snapshot {
            background.push(tokio::spawn(save(Arc::clone(store), Arc::clone(&proxy))));
        }
        let mut admin_address = None;
        if let Some(listener) = admin_listener {
            admin_address = listener.local_addr().ok();
            background.push(tokio::spawn(admin::watch(Arc::clone(&admin))));
            background.push(serve_admin(listener, Scope::Admin, Arc::clone(&admin))?);
        }
        let mut probes_address = None;
        if let Some(listener) = probes_listener {
            probes_address = listener.local_addr().ok();
            background.push(serve_admin(listener, Scope::Probes, Arc::clone(&admin))?);
        }
        let workers = Workers::start(settings.threads, &cut, &drain)?;
        let probes = health::start(&cluster, settings, &proxy.metrics);
        let prepared = prepared.with_tls(certificates.acceptors());
        listeners.apply(prepared, (&downstream.load_full(), false), &workers);
        info!(
            nodes = settings.nodes.len(),
            threads = settings.threads,
            "serving clients"
        );
        if let Some(address) = admin_address {
            info!(%address, "admin listening");
        }
        if let Some(address) = probes_address {
            info!(%address, "listening for /live, /ready and /metrics");
        }
        Ok(Self {
            listeners: Mutex::new(listeners),
            downstream,
            files: *files,
            admin_address,
            probes_address,
            proxy,
            drain,
            admin,
            cut,
            certificates,
            workers,
            background,
            probes,
            snapshot,
            settings: Mutex::new(configured),
            reloads: Some(asked),
        })
    }

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
        let fitted = fit(&step.settings, self.files);
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

    /// Ends the balancer in order. `/ready` says no. After the notice idle connections close, and
    /// answers close their connections. With [`Release::HalfClose`] listeners close at the same time,
    /// and nodes give up the polls that they hold; with [`Release::Keep`] both go on until the polls
    /// have ended. Everything else is answered. Says how many client connections were cut at the
    /// deadline.
    pub async fn drain(mut self) -> i64 {
        let (times, release) = {
            let settings = lock(&self.settings);
            (settings.timeouts.clone(), settings.upstream.release)
        };
        self.admin.begin_drain();
        info!(notice = ?times.drain_notice, deadline = ?times.drain, "draining");
        sleep(times.drain_notice).await;
        self.drain.begin();
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
        if let Some(store) = self.snapshot.take() {
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
        for task in &self.background {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the limit of open files as far as it may be, and lowers `limits.connections` to what fits.
fn fit_files(settings: &Settings) -> (Settings, Files) {
    let files = Files::raise(
        settings.nodes.len(),
        settings.threads,
        settings.listen.len(),
    );
    (fit(settings, files), files)
}

/// Lowers `limits.connections` to what fits.
fn fit(settings: &Settings, files: Files) -> Settings {
    let mut settings = settings.clone();
    let wanted = settings.limits.connections;
    let fit = files.connections();
    if fit < wanted {
        settings.limits.connections = fit;
        warn!(
            open_files = files.limit(),
            wanted_files = files.wanted(wanted),
            "limits.connections is lowered from {wanted} to {fit}: each may take two open files, and \
             the limit of open files (ulimit -n, LimitNOFILE=) allows no more"
        );
    } else {
        info!(open_files = files.limit(), connections = wanted, "limits");
    }
    settings
}

/// Writes the snapshot again and again. Never returns.
async fn save(store: Arc<Store>, proxy: Arc<Proxy>) {
    loop {
        sleep(store.interval).await;
        let (store, proxy) = (Arc::clone(&store), Arc::clone(&proxy));
        let save = move || store.save(Moment::Running, proxy.now(), SystemTime::now());
        let _ = tokio::task::spawn_blocking(save).await;
    }
}

async fn sweep(proxy: Arc<Proxy>) {
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        proxy.sweep();
    }
}

fn serve_admin(
    listener: TcpListener,
    scope: Scope,
    state: Arc<AdminState>,
) -> Result<JoinHandle<()>, StartError> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Worker)?;
    Ok(tokio::spawn(admin::serve(
        listener,
        scope,
        state,
        std::future::pending(),
    )))
}
