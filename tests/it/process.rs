//! A balancer as a process of its own, with its configuration in a file and its log in our hands.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bowline::demo::client::{Client, Reply};
use bowline::demo::node::Node;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::balancer::{PATIENCE, eventually};

/// A balancer in a process, with one thread and a log in JSON.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    file: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// How a balancer is started.
pub(crate) struct Start<'a> {
    /// What stands in its file beside nodes, listeners and threads; the section `log` is to be
    /// there, in JSON.
    pub(crate) more: &'a str,
    /// `RUST_LOG`.
    pub(crate) filter: Option<&'a str>,
    /// How many files it may have open.
    pub(crate) files: Option<u32>,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            more: "log: { format: json, access: on }",
            filter: None,
            files: None,
        }
    }
}

/// The text of a configuration for these nodes.
pub(crate) fn configuration(
    nodes: &[Node],
    (listen, admin): (SocketAddr, SocketAddr),
    more: &str,
) -> String {
    let nodes = nodes.iter().map(|node| {
        let (name, address) = (node.name(), node.address());
        format!("  - {{ name: {name}, address: \"{address}\" }}\n")
    });
    let nodes: String = nodes.collect();
    format!(
        "listen: [{{ address: \"{listen}\" }}]\nadmin: {{ address: \"{admin}\" }}\nthreads: 1\n\
         nodes:\n{nodes}{more}\n"
    )
}

/// A file with this text, for one balancer.
pub(crate) fn file(text: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("bowline-it-{}-{number}.yaml", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The program, to serve with this file; its log goes to `stderr`.
pub(crate) fn command(file: &PathBuf, start: &Start<'_>, stderr: impl Into<Stdio>) -> Command {
    let limit = start
        .files
        .map_or("unlimited".to_owned(), |n| n.to_string());
    let mut command = Command::new("sh");
    let script = if start.files.is_some() {
        "ulimit -n \"$1\" && shift && exec \"$@\""
    } else {
        "shift && exec \"$@\""
    };
    command
        .args(["-c", script, "sh", &limit])
        .arg(env!("CARGO_BIN_EXE_bowline"))
        .args(["run", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .env_remove("RUST_LOG")
        .kill_on_drop(true);
    if let Some(filter) = start.filter {
        command.env("RUST_LOG", filter);
    }
    command
}

impl Process {
    /// Starts a balancer before these nodes, and waits until it takes sessions.
    pub(crate) async fn start(nodes: &[Node], start: &Start<'_>) -> Self {
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let file = file(&configuration(nodes, (free, free), start.more));
        let mut child = command(&file, start, Stdio::piped()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let into = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let value = serde_json::from_str(&line);
                let value = value.unwrap_or_else(|error| panic!("{line}: {error}"));
                into.lock().unwrap().push(value);
            }
        });
        let mut process = Self {
            child,
            lines,
            file,
            address: free,
            admin: free,
        };
        for (message, address) in [
            ("listening", &mut process.address),
            ("admin listening", &mut process.admin),
        ] {
            let told = |line: &Value| line["message"] == message;
            let line = find(&process.lines, message, told).await;
            *address = line["address"].as_str().unwrap().parse().unwrap();
        }
        for node in nodes {
            let name = node.name();
            if node.is_listening() {
                process
                    .line("a verdict", |line| {
                        line["message"] == "node is up" && line["node"] == name
                    })
                    .await;
            }
        }
        process
    }

    /// The first line that `wanted` picks, once it is there.
    pub(crate) async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        find(&self.lines, what, wanted).await
    }

    /// The lines about requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let requests = lines.iter().filter(|line| is_request(line));
        requests.cloned().collect()
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line about a request with this end state.
    pub(crate) async fn ended(&self, state: &str) -> Value {
        self.line(state, |line| is_request(line) && line["end"] == state)
            .await
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address).deadline(PATIENCE)
    }

    /// The answer of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        ask(self.admin, path).await
    }

    /// Sends the signal that ends it in order.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let kill = std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end, and for the end of its log.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends").unwrap();
        // Only the reading task holds the lines beside us, until the pipe's end.
        eventually("the log is read", || Arc::strong_count(&self.lines) == 1).await;
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done if it is gone already.
        let _ = fs::remove_file(&self.file);
    }
}

/// Asks an admin listener.
pub(crate) async fn ask(admin: SocketAddr, path: &str) -> Reply {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let client = Client::to(admin).deadline(PATIENCE);
    client.post_raw(request.as_bytes()).await.unwrap()
}

/// The sum of the series of a page that begin with `series`.
pub(crate) fn metric(page: &str, series: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// A way for a log that is always full.
pub(crate) fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn is_request(line: &Value) -> bool {
    line["target"] == "bowline::access"
}

async fn find(
    lines: &Arc<Mutex<Vec<Value>>>,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let found = || {
        lines
            .lock()
            .unwrap()
            .iter()
            .find(|line| wanted(line))
            .cloned()
    };
    let give_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(line) = found() {
            return line;
        }
        let all = || lines.lock().unwrap().clone();
        assert!(
            tokio::time::Instant::now() < give_up,
            "no line: {what}: {:?}",
            all()
        );
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
