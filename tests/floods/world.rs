//! The nodes, and the process of the balancer with what the kernel says of it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bowline::demo::client::Client;
use bowline::demo::node::{Node, Profile};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::programs::free_address;

/// How long something may take to start.
const START: Duration = Duration::from_secs(10);

/// Runs `work` on a thread of its own, and everything that it spawns; all of it ends with it.
pub(crate) fn apart(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work);
    });
}

/// Simulated Tigase nodes on a thread of their own, until dropped.
pub(crate) struct Nodes {
    pub(crate) addresses: Vec<SocketAddr>,
    _until: tokio::sync::oneshot::Sender<()>,
}

impl Nodes {
    pub(crate) fn start(count: usize) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let (_until, dropped) = tokio::sync::oneshot::channel::<()>();
        apart(async move {
            let mut nodes = Vec::new();
            for number in 1..=count {
                let profile = Profile::tigase(format!("t{number}")).without_record();
                nodes.push(Node::start(profile).await.expect("a free port"));
            }
            // Whoever asked may have gone.
            let _ = tell.send(nodes.iter().map(Node::address).collect());
            // The sender is dropped, never used.
            let _ = dropped.await;
        });
        Ok(Self {
            addresses: told.recv()?,
            _until,
        })
    }
}

/// What is special about a start of the balancer.
#[derive(Default)]
pub(crate) struct Launch<'a> {
    /// Further lines of its configuration.
    pub(crate) config: &'a str,
    /// `ulimit -n`.
    pub(crate) files: Option<u32>,
    /// The memory that its cgroup allows, in bytes.
    pub(crate) memory: Option<u64>,
    /// Its log goes where nothing can be written.
    pub(crate) full_log: bool,
}

/// The balancer's process, ended by its id.
pub(crate) struct Bowline {
    child: Child,
    folder: PathBuf,
    cgroup: Option<PathBuf>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Drop for Bowline {
    fn drop(&mut self) {
        // It may have ended by itself; what is left behind does no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

impl Bowline {
    pub(crate) async fn start(binary: &Path, nodes: &Nodes, launch: &Launch<'_>) -> Result<Self> {
        let name = format!(
            "bowline-floods-{}-{}",
            std::process::id(),
            fastrand::u32(..)
        );
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder)?;
        let (address, admin) = (free_address()?, free_address()?);
        let config = folder.join("bowline.yaml");
        fs::write(&config, configuration(address, admin, nodes, launch.config))?;
        let cgroup = launch
            .memory
            .map(|bytes| memory_cgroup(&name, bytes))
            .transpose()?;
        let stderr = if launch.full_log {
            File::options().write(true).open("/dev/full")?
        } else {
            File::create(folder.join("log"))?
        };
        let mut script = String::new();
        if let Some(cgroup) = &cgroup {
            script += &format!("echo $$ > {}/cgroup.procs && ", cgroup.display());
        }
        if let Some(files) = launch.files {
            script += &format!("ulimit -n {files} && ");
        }
        script += "exec \"$0\" run --config \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(binary).arg(&config);
        command.env_remove("RUST_LOG");
        // As the unit and the image in deploy/ have it.
        command.env("MIMALLOC_PURGE_DELAY", "10");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let bowline = Self {
            child: command.spawn()?,
            folder,
            cgroup,
            address,
            admin,
        };
        bowline.until_ready().await?;
        Ok(bowline)
    }

    async fn until_ready(&self) -> Result<()> {
        let give_up = Instant::now() + START;
        while self.get("/ready").await.map_or(0, |(status, _)| status) != 200 {
            if Instant::now() > give_up {
                return Err("bowline is not ready".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Asks the admin listener.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let client = Client::to(self.admin).deadline(Duration::from_secs(5));
        let reply = client.post_raw(request.as_bytes()).await?;
        Ok((reply.status, reply.text().to_owned()))
    }

    /// The sum of the series that begin so.
    pub(crate) async fn metric(&self, series: &str) -> Result<f64> {
        let (_, text) = self.get("/metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(series));
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// How many requests it has added at most so much time to, in seconds, since its start.
    pub(crate) async fn overhead(&self) -> Result<Vec<(f64, f64)>> {
        let (_, text) = self.get("/metrics").await?;
        let bucket = |line: &str| {
            let rest = line.strip_prefix("bowline_overhead_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        Ok(text.lines().filter_map(bucket).collect())
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Memory in use, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that was in use since the start, in bytes.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.ok_or("no such field")?.parse::<u64>()? * 1024)
    }

    /// Processor time so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        Ok(ticks
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0)
    }

    /// How often its cgroup was at its limit.
    pub(crate) fn at_memory_limit(&self) -> Option<String> {
        let file = self.cgroup.as_ref()?.join("memory.failcnt");
        Some(fs::read_to_string(file).ok()?.trim().to_owned())
    }
}

fn configuration(address: SocketAddr, admin: SocketAddr, nodes: &Nodes, further: &str) -> String {
    let nodes = nodes.addresses.iter().enumerate();
    let nodes: String = nodes
        .map(|(at, address)| format!("  - {{ name: t{}, address: '{address}' }}\n", at + 1))
        .collect();
    format!(
        "listen:\n  - address: {address}\nplacement: round-robin\nthreads: 2\n\
         trusted_proxies: [127.0.0.1]\nadmin: {{ address: '{admin}' }}\nnodes:\n{nodes}{further}\n"
    )
}

/// A cgroup of the memory controller, of either version.
fn memory_cgroup(name: &str, bytes: u64) -> Result<PathBuf> {
    let old = Path::new("/sys/fs/cgroup/memory");
    let (parent, limit) = if old.is_dir() {
        (old, "memory.limit_in_bytes")
    } else {
        (Path::new("/sys/fs/cgroup"), "memory.max")
    };
    let cgroup = parent.join(name);
    fs::create_dir(&cgroup).map_err(|error| format!("no memory cgroup: {error}"))?;
    fs::write(cgroup.join(limit), bytes.to_string())?;
    Ok(cgroup)
}

/// A client's connection, with little room for what comes back.
pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}
