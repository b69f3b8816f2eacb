//! The real binary with few open files: it says what fits, keeps the last ones for the operator, and
//! serves on when a flood is over.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::demo::client::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::balancer::{PATIENCE, assert_goes_on, tigase_nodes};
use crate::routing::creation;

/// A file with this configuration.
fn written(config: &str) -> PathBuf {
    let name = format!("bowline-{}-{}.yaml", std::process::id(), fastrand::u32(..));
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, config).unwrap();
    file
}

/// The process, ended by its id.
struct Process {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts `bowline run` with so many open files.
    fn start(files: u32, config: &str) -> Self {
        let config_file = written(config);
        let binary = env!("CARGO_BIN_EXE_bowline");
        let script = format!("ulimit -n {files}; exec \"$0\" run --config \"$1\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, binary])
            .arg(config_file)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let seen = Vec::new();
        Self { child, log, seen }
    }

    /// The first line that says this.
    async fn line(&mut self, says: &str) -> String {
        while !self.seen.iter().any(|line| line.contains(says)) {
            let line = timeout(PATIENCE, self.log.recv()).await.ok().flatten();
            self.seen
                .push(line.unwrap_or_else(|| panic!("no line {says:?} in {:?}", self.seen)));
        }
        let mut seen = self.seen.iter();
        seen.find(|line| line.contains(says)).unwrap().clone()
    }

    async fn address(&mut self, says: &str) -> SocketAddr {
        let line = self.line(says).await;
        let (_, rest) = line.split_once("address=").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Processor time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        fields.iter().sum::<f64>() / 100.0
    }
}

#[tokio::test]
async fn a_flood_of_connections_with_few_open_files_leaves_the_operator_some_and_does_not_spin() {
    let nodes = tigase_nodes(1).await;
    let config = format!(
        "listen:\n  - address: 127.0.0.1:0\nadmin: {{ address: '127.0.0.1:0' }}\nthreads: 2\n\
         nodes:\n  - {{ name: t1, address: '{}' }}\n",
        nodes[0].address()
    );
    let mut process = Process::start(256, &config);
    let lowered = process
        .line("limits.connections is lowered from 100000 to ")
        .await;
    assert!(lowered.contains("open_files=256"), "{lowered}");
    let admin = process.address("admin listening").await;
    let address = process.address(" listening").await;
    process.line("node is up").await;

    // Twice as many as there are files, with half a head each: not idle, so they stay for a while.
    let mut flood = Vec::new();
    for _ in 0..512 {
        let stream = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut &stream, b"POST /http-bind HTTP/1.1\r\n").unwrap();
        flood.push(stream);
    }
    let (begun, before) = (Instant::now(), process.cpu());
    for _ in 0..20 {
        let ready = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let asked = Client::to(admin)
            .deadline(Duration::from_secs(5))
            .post_raw(ready)
            .await
            .unwrap();
        assert_eq!(
            asked.status, 200,
            "the operator and probes have files of their own"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let part = (process.cpu() - before) / begun.elapsed().as_secs_f64();
    assert!(part < 0.5, "it spins: {part} of a core");

    drop(flood);
    let begun = Instant::now();
    let mut client = Client::to(address).deadline(PATIENCE);
    client.create().await.unwrap();
    assert_goes_on(&client.ping("p").await.unwrap());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    // The same with connections that say nothing: they are given up for who asks.
    let _hoard: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let answer = Client::to(address)
        .deadline(PATIENCE)
        .post(&creation())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_full_log_disk_ends_nothing() {
    let nodes = tigase_nodes(1).await;
    // Nobody can be asked where it listens: nothing of its log is ever seen.
    let port = fastrand::u16(20_000..30_000);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let config = format!(
        "listen:\n  - address: {address}\nadmin: off\nlog: {{ filter: debug }}\n\
         nodes:\n  - {{ name: t1, address: '{}' }}\n",
        nodes[0].address()
    );
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(["run", "--config"])
        .arg(written(&config))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    let (_, log) = mpsc::unbounded_channel();
    let seen = Vec::new();
    let mut process = Process { child, log, seen };
    let mut client = Client::to(address).deadline(PATIENCE);
    while client.create().await.is_err() {
        let ended = process.child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..20 {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert!(process.child.try_wait().unwrap().is_none());
}
