//! The balancer's process: `bowline`, or HAProxy for comparison. What it says of itself, and what
//! the kernel says of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline::demo::client::Client;

use super::process::{Process, tethered};
use super::{World, accepts, now};
use crate::Result;
use crate::programs::free_address;

/// A line of the log, and when it came.
pub(crate) type Line = (u64, String);

/// A running balancer.
pub(crate) struct Balancer {
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    lines: Arc<Mutex<Vec<Line>>>,
    nodes: Vec<SocketAddr>,
}

impl Balancer {
    /// Starts `bowline`; `further` are lines of its configuration.
    pub(crate) async fn bowline(binary: &Path, world: &World, further: &str) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let file = world.folder.join("bowline.yaml");
        fs::write(&file, bowline_configuration(address, admin, world, further))?;
        let mut command = tethered(&binary.to_string_lossy());
        command.args(["run", "--config"]).arg(&file);
        let balancer = Self::start(command, address, admin, world, "bowline.log")?;
        accepts(address).await?;
        Ok(balancer)
    }

    /// Starts HAProxy, pinned by sid.
    pub(crate) async fn haproxy(world: &World) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let file = world.folder.join("haproxy.cfg");
        fs::write(&file, haproxy_configuration(address, world))?;
        let mut command = tethered("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        let balancer = Self::start(command, address, admin, world, "haproxy.log")?;
        accepts(address).await?;
        Ok(balancer)
    }

    fn start(
        mut command: std::process::Command,
        address: SocketAddr,
        admin: SocketAddr,
        world: &World,
        log: &str,
    ) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stderr = process.child.stderr.take().ok_or("no stderr")?;
        let mut file = File::create(world.folder.join(log))?;
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
                // The lines are in memory too.
                let _ = writeln!(file, "{line}");
                lock(&kept).push((now(), line));
            }
        });
        Ok(Self {
            process,
            address,
            admin,
            lines,
            nodes: world.nodes.iter().map(|node| node.spec.address).collect(),
        })
    }

    /// Its log so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// The sum of the series of this name.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let client = Client::to(self.admin).deadline(Duration::from_secs(5));
        let reply = client.post_raw(request).await?;
        let series = reply.text().lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        Ok(series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }

    /// How many connections to nodes it has, those that are being opened included.
    pub(crate) fn upstream_connections(&self) -> Result<usize> {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.process.id()))?;
        let far: Vec<String> = self.nodes.iter().map(hexadecimal).collect();
        let open = table.lines().filter(|line| {
            let mut words = line.split_whitespace().skip(2);
            let (remote, state) = (words.next(), words.next());
            // Established, being opened, left half open by this side.
            let open = matches!(state, Some("01" | "02" | "08"));
            open && remote.is_some_and(|remote| far.iter().any(|far| far == remote))
        });
        Ok(open.count())
    }
}

fn lock(lines: &Mutex<Vec<Line>>) -> std::sync::MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address as the kernel's table has it: the IP's bytes in reverse.
fn hexadecimal(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", v4.port())
        }
        SocketAddr::V6(_) => String::new(),
    }
}

fn bowline_configuration(
    address: SocketAddr,
    admin: SocketAddr,
    world: &World,
    further: &str,
) -> String {
    let nodes = world.nodes.iter().map(|node| {
        let (name, at) = (&node.spec.name, node.spec.address);
        format!("  - {{ name: {name}, address: '{at}' }}\n")
    });
    let nodes: String = nodes.collect();
    format!(
        "listen:\n  - address: {address}\nplacement: round-robin\n\
         trusted_proxies: [127.0.0.0/8]  # clients say which address they have\n\
         threads: 2\nadmin: {{ address: '{admin}' }}\nlog: {{ format: json }}\n\
         nodes:\n{nodes}{further}\n"
    )
}

/// The sid is read with a regular expression and kept in a table; no connection to a node is shared
/// between sessions; the sessions of a node that is called down are shut.
fn haproxy_configuration(address: SocketAddr, world: &World) -> String {
    let servers = world.nodes.iter().map(|node| {
        let (name, at) = (&node.spec.name, node.spec.address);
        format!("  server {name} {at} check inter 1s on-marked-down shutdown-sessions\n")
    });
    let servers: String = servers.collect();
    let sid = r"regsub('^[^>]* sid=.([-0-9a-f]+).*','\1')";
    let has = "-m reg \"^[^>]* sid=\"";
    format!(
        "global\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 2s\n  \
         timeout client 90s\n  timeout server 90s\nfrontend clients\n  bind {address}\n  \
         http-request wait-for-body time 5s\n  default_backend nodes\nbackend nodes\n  \
         balance roundrobin\n  http-reuse never\n  retries 2\n  option redispatch 1\n  \
         option httpchk GET /http-bind\n  \
         stick-table type string len 64 size 100k expire 5m\n  \
         stick match \"req.body,{sid}\" if {{ req.body {has} }}\n  \
         http-response wait-for-body time 5s\n  \
         stick store-response \"res.body,{sid}\" if {{ res.body {has} }}\n{servers}"
    )
}
