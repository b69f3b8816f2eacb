//! The whole balancer in one handle: binds the listeners, starts the workers, the probes, the
//! sweeper and the admin listener, and ends them in order.
//!
//! Client traffic runs on worker threads, each with a runtime of its own: a connection stays where
//! it was accepted. Probes, sweeping and the admin listener run on the caller's runtime.

mod error;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::admin::{self, AccessControl, AdminState, ReloadRequest};
use crate::cluster::{Cluster, TooManyNodes};
use crate::config::{Release, Reload, Settings};
use crate::digest;
use crate::downstream::{self, Downstream, Drain, Listener};
use crate::health::{self, Probes};
use crate::limits::Files;
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::proxy::Proxy;
use crate::snapshot::{Moment, Store};
use crate::tls::Certificates;

pub use error::StartError;

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 4096;

/// How often expired sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many requests for a reload may wait.
const RELOADS_WAITING: usize = 8;

/// How long connections that are cut may take to end.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// What is heard of a worker.
#[derive(Debug)]
struct Worker {
    /// It serves nobody any more.
    drained: oneshot::Receiver<()>,
    /// Its thread has nothing left.
    gone: oneshot::Receiver<()>,
}

/// A running balancer. Dropping it cuts everything at once; [`Server::drain`] ends it in order.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    proxy: Arc<Proxy>,
    drain: Arc<Drain>,
    admin: Arc<AdminState>,
    cut: Arc<Notify>,
    certificates: Certificates,
    workers: Vec<Worker>,
    background: Vec<JoinHandle<()>>,
    probes: Probes,
    snapshot: Option<Arc<Store>>,
    /// The settings in force.
    settings: Mutex<Settings>,
    reloads: Option<mpsc::Receiver<ReloadRequest>>,
    notice: Duration,
    deadline: Duration,
    release: Release,
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
        let certificates = Certificates::load(&settings.listen).map_err(StartError::Tls)?;
        let mut listeners = Vec::new();
        for listen in &settings.listen {
            listeners.push(bind(listen.address)?);
        }
        let admin_listener = settings
            .admin
            .as_ref()
            .map(|admin| bind(admin.address))
            .transpose()?;
        let addresses = addresses_of(&listeners)?;
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
        let drain = Arc::new(Drain::default());
        let downstream = Downstream::new(
            Arc::clone(&proxy),
            settings.clone(),
            Arc::clone(&drain),
            *files,
        );
        let downstream = Arc::new(downstream);
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
            background.push(serve_admin(listener, Arc::clone(&admin))?);
        }
        let listeners: Vec<_> = (settings.listen.iter().cloned())
            .zip(certificates.acceptors())
            .map(|(listen, acceptor)| {
                let listener = Listener::new(Arc::clone(&downstream), listen);
                Arc::new(listener.with_tls(acceptor))
            })
            .zip(listeners)
            .collect();
        let workers = start_workers(settings.threads, &listeners, &cut)?;
        let probes = health::start(&cluster, settings, &proxy.metrics);
        for address in &addresses {
            info!(%address, nodes = settings.nodes.len(), threads = settings.threads, "listening");
        }
        if let Some(address) = admin_address {
            info!(%address, "admin listening");
        }
        Ok(Self {
            addresses,
            admin_address,
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
            notice: settings.timeouts.drain_notice,
            deadline: settings.timeouts.drain,
            release: settings.upstream.release,
        })
    }

    /// Where clients are served, with the ports that port 0 became.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin listener is, if there is one.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
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
    /// [`TooManyNodes`]; then nothing has changed.
    pub fn reload(&self, new: &Settings) -> Result<Reload, TooManyNodes> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let step = Reload::new(&settings, new);
        let proxy = &self.proxy;
        let old = std::mem::replace(&mut *settings, step.settings.clone());
        if let Err(error) = proxy.cluster.replace(&step.settings, &proxy.metrics) {
            *settings = old;
            return Err(error);
        }
        proxy.configure(&step.settings);
        if old.health != step.settings.health {
            self.probes.configure(&step.settings);
        }
        Ok(step)
    }

    /// The admin listener's requests for a reload, to be answered by what called [`Server::start`]. Without
    /// a receiver they are refused. None the second time.
    pub fn reload_requests(&mut self) -> Option<mpsc::Receiver<ReloadRequest>> {
        self.reloads.take()
    }

    /// Shows how a reload ended: in the metrics, in `/health`, in the events and in the log.
    pub fn reloaded(&self, outcome: &Result<Reload, String>) {
        self.admin.reloaded(outcome);
    }

    /// Returns when a worker or a probe has ended without being told to, which only a defect can
    /// bring about: half a balancer is worse than none.
    pub async fn broken(&mut self) {
        let Self {
            workers, probes, ..
        } = self;
        let worker = async {
            for worker in workers {
                if (&mut worker.drained).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = worker => {}
            () = probes.broken() => {}
        }
    }

    /// Ends the balancer in order. `/ready` says no. After the notice idle connections close, and
    /// answers close their connections. With [`Release::HalfClose`] listeners close at the same time,
    /// and nodes give up the polls that they hold; with [`Release::Keep`] both go on until the polls
    /// have ended. Everything else is answered. Says how many client connections were cut at the
    /// deadline.
    pub async fn drain(mut self) -> i64 {
        self.admin.begin_drain();
        info!(notice = ?self.notice, deadline = ?self.deadline, "draining");
        sleep(self.notice).await;
        self.drain.begin();
        if self.release == Release::HalfClose {
            self.proxy.release();
        }
        let workers = std::mem::take(&mut self.workers).into_iter();
        let (drained, gone): (Vec<_>, Vec<_>) =
            workers.map(|worker| (worker.drained, worker.gone)).unzip();
        let in_time = timeout(self.deadline, all(drained)).await.is_ok();
        let cut = self.proxy.metrics.connections.get();
        if in_time {
            info!(released = self.proxy.released(), "drained");
        } else {
            warn!(connections = cut, "drain deadline: connections are cut");
            self.cut();
            // Each request that is cut gets its line in the log.
            let _ = timeout(CUT_WITHIN, all(gone)).await;
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

/// Waits for all of these. An error is a worker that died; it holds nothing any more either.
async fn all(signs: Vec<oneshot::Receiver<()>>) {
    for sign in signs {
        let _ = sign.await;
    }
}

/// Raises the limit of open files as far as it may be, and lowers `limits.connections` to what fits.
fn fit_files(settings: &Settings) -> (Settings, Files) {
    let files = Files::raise(
        settings.nodes.len(),
        settings.threads,
        settings.listen.len(),
    );
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
    (settings, files)
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for the old process's connections to be forgotten.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    bound().map_err(|source| StartError::Bind { address, source })
}

fn addresses_of(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, StartError> {
    listeners
        .iter()
        .map(|one| one.local_addr().map_err(StartError::Worker))
        .collect()
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
    state: Arc<AdminState>,
) -> Result<JoinHandle<()>, StartError> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Worker)?;
    Ok(tokio::spawn(admin::serve(
        listener,
        state,
        std::future::pending(),
    )))
}

/// Starts the worker threads. Each accepts from every listener; the kernel wakes whoever is free.
fn start_workers(
    threads: usize,
    listeners: &[(Arc<Listener>, TcpListener)],
    cut: &Arc<Notify>,
) -> Result<Vec<Worker>, StartError> {
    let mut workers = Vec::new();
    for number in 0..threads {
        let own = listeners
            .iter()
            .map(|(listener, socket)| Ok((Arc::clone(listener), socket.try_clone()?)))
            .collect::<io::Result<Vec<_>>>();
        let own = own.map_err(StartError::Worker)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Worker)?;
        let (drained, on_drained) = oneshot::channel();
        let (gone, on_gone) = oneshot::channel();
        let cut = Arc::clone(cut);
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                runtime.block_on(work(own, &cut, drained));
                drop(runtime);
                // Nobody may be waiting any more.
                let _ = gone.send(());
            })
            .map_err(StartError::Worker)?;
        workers.push(Worker {
            drained: on_drained,
            gone: on_gone,
        });
    }
    Ok(workers)
}

/// Serves clients until the drain is complete, and stays until everything is cut: a session's
/// connections to its node belong to the runtime that opened them, whichever uses them.
async fn work(
    listeners: Vec<(Arc<Listener>, TcpListener)>,
    cut: &Notify,
    drained: oneshot::Sender<()>,
) {
    let mut cut = std::pin::pin!(cut.notified());
    let mut accepting = tokio::task::JoinSet::new();
    for (listener, socket) in listeners {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => drop(accepting.spawn(downstream::accept(listener, socket))),
            Err(error) => warn!(%error, "a worker cannot watch its listener"),
        }
    }
    let accepted = async { while accepting.join_next().await.is_some() {} };
    tokio::select! {
        () = cut.as_mut() => return,
        () = accepted => {}
    }
    // Nobody may be waiting any more.
    let _ = drained.send(());
    cut.await;
}
