//! The start of the balancer: everything or nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::gate::{AdminSocket, Gate};
use super::listeners::{Listeners, bind};
use super::takeover::{Host, Parts, Phase, TakeoverSocket};
use super::workers::Workers;
use super::{Server, StartError, lock};
use crate::admin::sessions::SessionTable;
use crate::admin::{self, AccessControl, AdminState, Scope};
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::digest;
use crate::downstream::{self, Downstream, Drain};
use crate::handover::{PassedSocket, Role, Sockets};
use crate::health;
use crate::limits::Files;
use crate::observe::log;
use crate::observe::metrics::Metrics;
use crate::proxy::Proxy;
use crate::snapshot::{Moment, Store};
use crate::tls::Certificates;
use crate::upstream;

/// How often expired sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many requests for a reload may wait.
const RELOADS_WAITING: usize = 8;

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
    pub fn start_with(settings: &Settings, passed: Sockets) -> Result<Self, StartError> {
        let mut server = Self::start_closed(settings, passed)?;
        let proxy = &server.proxy;
        if let Some(store) = &server.snapshot {
            store.restore(proxy.now(), SystemTime::now());
        }
        server.configure_states();
        server.open().map_err(StartError::Worker)?;
        Ok(server)
    }

    /// The same, and serves no client yet: without pins, and with a closed gate.
    pub(super) fn start_closed(
        settings: &Settings,
        mut passed: Sockets,
    ) -> Result<Self, StartError> {
        upstream::check_tls(&settings.nodes).map_err(StartError::NodeTls)?;
        let certificates = Certificates::load(&settings.listen).map_err(StartError::Tls)?;
        let admin = settings.admin.as_ref().map(|admin| admin.address);
        let addresses = settings.listen.iter().map(|listen| listen.address.clone());
        let probes = settings.admin.as_ref().and_then(|admin| admin.probes);
        let addresses = addresses.chain(admin.map(Into::into));
        let addresses: Vec<_> = addresses.chain(probes.map(Into::into)).collect();
        (passed.check(&addresses)).map_err(StartError::Unclaimed)?;
        let is_activated = passed.outlive();
        let mut listeners = Listeners::default();
        let prepared = listeners.prepare(&settings.listen, settings.threads, &mut passed);
        let prepared = prepared.map_err(StartError::Bind)?;
        let mut open = |role, scope, configured: SocketAddr| {
            let taken = passed.take(role, &configured.into());
            let socket = match taken.map(|taken| taken.socket) {
                Some(PassedSocket::Tcp(socket)) => Ok(socket),
                // An address of IP is never that of a Unix socket.
                Some(PassedSocket::Unix(_)) | None => bind(configured),
            };
            let socket = socket.map_err(StartError::Bind)?;
            Ok(AdminSocket {
                scope,
                configured,
                socket,
            })
        };
        let admin_socket = admin.map(|at| open(Role::Admin, Scope::Admin, at));
        let admin_socket = admin_socket.transpose()?;
        let probes_socket = probes.map(|at| open(Role::Probes, Scope::Probes, at));
        let probes_socket = probes_socket.transpose()?;
        let takeover = match &settings.takeover {
            Some(path) if is_activated => {
                warn!(path = %path.display(), "no takeover: the service manager holds the sockets, so restart instead");
                None
            }
            Some(path) => Some(TakeoverSocket::open(path, &mut passed).map_err(StartError::Bind)?),
            None => None,
        };
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
            Arc::new(store)
        });
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
        let admin_address = admin_socket.as_ref().and_then(AdminSocket::address);
        let probes_address = probes_socket.as_ref().and_then(AdminSocket::address);
        if admin_address.is_some() {
            background.push(tokio::spawn(admin::watch(Arc::clone(&admin))));
        }
        let sockets = admin_socket.into_iter().chain(probes_socket).collect();
        let gate = Gate::closed(
            Arc::clone(&drain),
            snapshot.clone(),
            Arc::clone(&admin),
            sockets,
        );
        let workers = Workers::start(settings.threads, &cut, &drain)?;
        let probes = health::start(&cluster, settings, &proxy.metrics);
        let prepared = prepared.with_tls(certificates.acceptors());
        listeners.apply(prepared, (&downstream.load_full(), false), &workers);
        Ok(Self {
            listeners: Arc::new(Mutex::new(listeners)),
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
            gate: Arc::new(gate),
            takeover,
            host: None,
            replaced: None,
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            probes,
            snapshot,
            settings: Mutex::new(configured),
            reloads: Some(asked),
        })
    }

    /// What the file says of nodes' states wins over what the operator of an earlier process said.
    pub(super) fn configure_states(&self) {
        let cluster = &self.proxy.cluster;
        cluster.configure_states(&[], &lock(&self.settings).nodes, SystemTime::now());
    }

    /// Serves clients, and lets another process take over.
    pub(super) fn open(&mut self) -> std::io::Result<()> {
        self.gate.open()?;
        {
            let settings = lock(&self.settings);
            let (nodes, threads) = (settings.nodes.len(), settings.threads);
            info!(nodes, threads, "serving clients");
        }
        if let Some(address) = self.admin_address {
            info!(%address, "admin listening");
        }
        if let Some(address) = self.probes_address {
            info!(%address, "listening for /live, /ready and /metrics");
        }
        if let Some(socket) = self.takeover.take() {
            let parts = Parts {
                gate: Arc::clone(&self.gate),
                listeners: Arc::clone(&self.listeners),
                proxy: Arc::clone(&self.proxy),
                phase: Arc::clone(&self.phase),
            };
            self.host = Some(tokio::spawn(Host::new(socket, parts)?.run()));
        }
        Ok(())
    }
}

/// Raises the limit of open files as far as it may be, and lowers `limits.connections` to what fits.
fn fit_files(settings: &Settings) -> (Settings, Files) {
    let files = Files::raise(
        settings.nodes.len(),
        settings.threads,
        settings.listen.len(),
    );
    log_connections(settings, files);
    (fit(settings, files), files)
}

/// Lowers `limits.connections` to what fits.
pub(super) fn fit(settings: &Settings, files: Files) -> Settings {
    let mut settings = settings.clone();
    let most = &mut settings.limits.connections;
    *most = (*most).min(files.connections());
    settings
}

/// Logs how many connections there may be.
pub(super) fn log_connections(settings: &Settings, files: Files) {
    let wanted = settings.limits.connections;
    let fit = files.connections();
    if fit < wanted {
        warn!(
            open_files = files.limit(),
            wanted_files = files.wanted(wanted),
            "limits.connections is lowered from {wanted} to {fit}: each may take two open files, and \
             the limit of open files (ulimit -n, LimitNOFILE=) allows no more"
        );
    } else {
        info!(open_files = files.limit(), connections = wanted, "limits");
    }
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
