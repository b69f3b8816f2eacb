//! The nodes of a flood, and the balancer in front of them with what the kernel says of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;

use bowline::demo::node::{Node, Profile};
use tokio::net::{TcpSocket, TcpStream};

use crate::Result;
use crate::support::process::{Process, Start, full, places};
use crate::support::{admin, metrics};

/// As the unit and the image in deploy/ have it.
const ENVIRONMENT: &[(&str, &str)] = &[("MIMALLOC_PURGE_DELAY", "10")];

/// Runs `work` on a thread of its own, and everything that it spawns; all of it ends with it.
pub(super) fn apart(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work);
    });
}

/// Simulated Tigase nodes on a thread of their own, until dropped.
pub(super) struct Nodes {
    places: Vec<(String, SocketAddr)>,
    _until: tokio::sync::oneshot::Sender<()>,
}

impl Nodes {
    pub(super) fn start(count: usize) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let (_until, dropped) = tokio::sync::oneshot::channel::<()>();
        apart(async move {
            let mut nodes = Vec::new();
            for number in 1..=count {
                let profile = Profile::tigase(format!("t{number}")).without_record();
                nodes.push(Node::start(profile).await.expect("a free port"));
            }
            // The one that asked may have gone.
            let _ = tell.send(places(&nodes));
            // The sender is dropped, never used.
            let _ = dropped.await;
        });
        Ok(Self {
            places: told.recv()?,
            _until,
        })
    }
}

/// What is special about a start of the balancer.
#[derive(Default)]
pub(super) struct Launch<'a> {
    /// Further lines of its configuration.
    pub(super) config: &'a str,
    /// `ulimit -n`.
    pub(super) files: Option<u32>,
    /// The memory that its cgroup allows, in bytes.
    pub(super) memory: Option<u64>,
    /// Its log goes where nothing can be written.
    pub(super) full_log: bool,
}

/// The balancer's process.
pub(super) struct Bowline {
    process: Process,
    pub(super) address: SocketAddr,
}

impl Bowline {
    pub(super) async fn start(binary: &Path, nodes: &Nodes, launch: &Launch<'_>) -> Result<Self> {
        let more = format!(
            "placement: round-robin\nthreads: 2\ntrusted_proxies: [127.0.0.1]\n{}",
            launch.config
        );
        let start = Start {
            more: &more,
            files: launch.files,
            memory: launch.memory,
            binary: Some(binary),
            environment: ENVIRONMENT,
            ..Start::default()
        };
        let stderr = launch.full_log.then(|| Stdio::from(full()));
        let process = Process::launch(&nodes.places, &start, stderr).await?;
        process.until_ready().await?;
        Ok(Self {
            address: process.address,
            process,
        })
    }

    async fn page(&self) -> Result<String> {
        let reply = admin::get(self.process.admin, "/metrics").await?;
        Ok(reply.text().to_owned())
    }

    /// Whether the admin listener calls it ready.
    pub(super) async fn is_ready(&self) -> bool {
        let reply = admin::get(self.process.admin, "/ready").await;
        reply.is_ok_and(|reply| reply.status == 200)
    }

    /// The sum of the series that begin so.
    pub(super) async fn metric(&self, series: &str) -> Result<f64> {
        Ok(metrics::sum(&self.page().await?, series))
    }

    /// How many requests it has added at most so much time to, in seconds, since its start.
    pub(super) async fn overhead(&self) -> Result<Vec<(f64, f64)>> {
        let bucket = |line: &str| {
            let rest = line.strip_prefix("bowline_overhead_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        Ok(self.page().await?.lines().filter_map(bucket).collect())
    }

    pub(super) fn runs(&mut self) -> bool {
        self.process.program.runs()
    }

    /// Memory in use, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        self.process.program.usage().resident()
    }

    /// The most memory that was in use since the start, in bytes.
    pub(super) fn peak(&self) -> Result<u64> {
        self.process.program.usage().peak()
    }

    /// Processor time so far, in seconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        Ok(self.process.program.usage().cpu()?.as_secs_f64())
    }

    /// How often its cgroup was at its limit.
    pub(super) fn at_memory_limit(&self) -> Option<String> {
        self.process.at_memory_limit()
    }
}

/// A client's connection, with little room for what comes back.
pub(super) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}
