//! A balancer as a process of its own: its configuration in a file, its log in our hands.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use bowline::demo::client::{Client, Reply};
use bowline::demo::node::Node;
use serde_json::Value;

use super::folder::Folder;
use super::log::{Line, Log};
use super::program::{Program, bowline, free_address, tethered};
use super::waiting::{PATIENCE, eventually, until};
use super::{Result, admin, metrics};

/// Port 0 of loopback: the kernel chooses.
const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A balancer in a process.
pub(crate) struct Process {
    pub(crate) program: Program,
    pub(crate) log: Log,
    folder: Folder,
    cgroup: Option<Cgroup>,
    pub(crate) address: SocketAddr,
    /// Port 0 if there is no admin listener.
    pub(crate) admin: SocketAddr,
}

/// How a balancer is started.
pub(crate) struct Start<'a> {
    /// Its configuration beside nodes and listeners, the section `log` included.
    pub(crate) more: &'a str,
    /// Keys of its listener besides the address, each behind a comma.
    pub(crate) listen: &'a str,
    /// Keys of each node besides name and address, likewise.
    pub(crate) node: &'a str,
    /// `RUST_LOG`.
    pub(crate) filter: Option<&'a str>,
    /// `ulimit -n`.
    pub(crate) files: Option<u32>,
    /// The memory that its cgroup allows, in bytes.
    pub(crate) memory: Option<u64>,
    /// Whether it has an admin listener.
    pub(crate) admin: bool,
    /// The program; `cargo test` knows where it is.
    pub(crate) binary: Option<&'a Path>,
    /// Variables of its environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// A file for a copy of its log.
    pub(crate) copy: Option<&'a Path>,
    /// Whether the kernel kills it when the thread that starts it ends.
    pub(crate) tethered: bool,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            more: "log: { access: on }",
            listen: "",
            node: "",
            filter: None,
            files: None,
            memory: None,
            admin: true,
            binary: None,
            environment: &[],
            copy: None,
            tethered: false,
        }
    }
}

/// The names and addresses of nodes.
pub(crate) fn places(nodes: &[Node]) -> Vec<(String, SocketAddr)> {
    let nodes = nodes.iter();
    nodes
        .map(|node| (node.name().to_owned(), node.address()))
        .collect()
}

/// The text of a configuration for nodes with these names and addresses; one thread, unless `more`
/// has another number.
pub(crate) fn configuration(
    nodes: &[(String, SocketAddr)],
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    start: &Start<'_>,
) -> String {
    let Start {
        more,
        listen: keys,
        node,
        ..
    } = start;
    let admin = admin.map_or("off".to_owned(), |at| format!("{{ address: '{at}' }}"));
    let mut text = format!("listen: [{{ address: '{listen}'{keys} }}]\nadmin: {admin}\n");
    // `more` may say where they are to be found.
    if !more.contains("nodes:") {
        text += "nodes:\n";
    }
    for (name, address) in nodes {
        text += &format!("  - {{ name: {name}, address: '{address}'{node} }}\n");
    }
    if !more.contains("threads:") {
        text += "threads: 1\n";
    }
    text + more + "\n"
}

impl Process {
    /// Starts a balancer in front of these nodes, and waits until it takes sessions.
    ///
    /// # Panics
    /// It does not start.
    pub(crate) async fn start(nodes: &[Node], start: &Start<'_>) -> Self {
        let process = Self::launch(&places(nodes), start, None).await.unwrap();
        for node in nodes.iter().filter(|node| node.is_listening()) {
            let name = node.name();
            let up = |line: &Line| line.says("node is up") && line.text.contains(name);
            process.log.find("a verdict", up).await.unwrap();
        }
        process
    }

    /// Starts a balancer whose log goes to `stderr` and cannot be read, and waits until it serves.
    ///
    /// # Panics
    /// It does not start.
    pub(crate) async fn mute(nodes: &[Node], start: &Start<'_>, stderr: impl Into<Stdio>) -> Self {
        let process = Self::launch(&places(nodes), start, Some(stderr.into())).await;
        process.unwrap()
    }

    /// Starts a balancer in front of `nodes`. Its log is collected, or goes to `stderr`; then the
    /// addresses are chosen here, and this waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or has not served in time.
    pub(crate) async fn launch(
        nodes: &[(String, SocketAddr)],
        start: &Start<'_>,
        stderr: Option<Stdio>,
    ) -> Result<Self> {
        let folder = Folder::new("process")?;
        let (address, admin) = match stderr {
            None => (ANY.into(), ANY.into()),
            Some(_) => (free_address()?, free_address()?),
        };
        let text = configuration(nodes, address, start.admin.then_some(admin), start);
        let config = folder.write("bowline.yaml", &text)?;
        let cgroup = start.memory.map(Cgroup::new).transpose()?;
        let mut command = Self::command(start, cgroup.as_ref(), &config)?;
        let is_mute = stderr.is_some();
        command.stderr(stderr.unwrap_or_else(Stdio::piped));
        let mut process = Self {
            program: Program::start(&mut command)?,
            log: Log::default(),
            folder,
            cgroup,
            address,
            admin,
        };
        if is_mute {
            process.until_ready().await?;
            return Ok(process);
        }
        let stderr = process.program.child.stderr.take().ok_or("no stderr")?;
        let copy = start.copy.map(File::create).transpose()?;
        process.log.read(stderr, copy);
        process.address = process.log.address("listening").await?;
        if start.admin {
            process.admin = process.log.address("admin listening").await?;
        }
        Ok(process)
    }

    /// The program, to serve with this file.
    fn command(start: &Start<'_>, cgroup: Option<&Cgroup>, config: &Path) -> Result<Command> {
        let mut script = String::new();
        if let Some(cgroup) = cgroup {
            script += &format!("echo $$ > {}/cgroup.procs && ", cgroup.0.display());
        }
        if let Some(files) = start.files {
            script += &format!("ulimit -n {files} && ");
        }
        script += "exec \"$0\" run --config \"$1\"";
        let mut command = if start.tethered {
            tethered("sh")
        } else {
            Command::new("sh")
        };
        command
            .args(["-c", &script])
            .arg(bowline(start.binary)?)
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("NO_COLOR", "1")
            .envs(start.environment.iter().copied())
            .env_remove("RUST_LOG");
        if let Some(filter) = start.filter {
            command.env("RUST_LOG", filter);
        }
        Ok(command)
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("bowline.yaml")
    }

    /// Waits until it takes sessions.
    pub(crate) async fn until_ready(&self) -> Result<()> {
        let ready = async || {
            let answer = admin::get(self.admin, "/ready").await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        if until(PATIENCE, ready).await {
            return Ok(());
        }
        Err("bowline is not ready".into())
    }

    /// The first line of the log that `wanted` picks, once it is there.
    ///
    /// # Panics
    /// It does not come.
    pub(crate) async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let wanted = |line: &Line| wanted(&fields(line));
        let found = self.log.find(what, wanted).await;
        fields(&found.unwrap_or_else(|error| panic!("{error}")))
    }

    /// All lines of the log so far.
    ///
    /// # Panics
    /// It wrote something that is not a line of the log.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log.lines().iter().map(fields).collect()
    }

    /// The lines about requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(is_request);
        lines
    }

    /// The first line about a request with this end state.
    pub(crate) async fn ended(&self, state: &str) -> Value {
        self.line(state, |line| is_request(line) && line["end"] == state)
            .await
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::to(self.address).deadline(PATIENCE)
    }

    /// The answer of the admin listener.
    ///
    /// # Panics
    /// There is none.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        admin::get(self.admin, path).await.unwrap()
    }

    /// The sum of the series that begin with `series`.
    ///
    /// # Panics
    /// The admin listener does not answer.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        metrics::sum(self.admin("/metrics").await.text(), series)
    }

    /// Sends the signal that ends it in order.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It runs no more.
    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name).unwrap();
    }

    /// Waits for its end, and for the end of its log.
    ///
    /// # Panics
    /// It does not end, or wrote something that is not a line of the log.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let status = self.program.wait().await.unwrap();
        eventually("the log is read", || self.log.is_complete()).await;
        drop(self.lines());
        status
    }

    /// How often its cgroup was at its limit; none without a cgroup.
    pub(crate) fn at_memory_limit(&self) -> Option<String> {
        let file = self.cgroup.as_ref()?.0.join("memory.failcnt");
        Some(fs::read_to_string(file).ok()?.trim().to_owned())
    }
}

/// A file that is always full, for a log.
pub(crate) fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn fields(line: &Line) -> Value {
    line.fields().unwrap_or_else(|error| panic!("{error}"))
}

fn is_request(line: &Value) -> bool {
    line["target"] == "bowline::access"
}

/// A cgroup of the memory controller, of either version; removed when it is dropped, after its
/// process.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Result<Self> {
        let old = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = if old.is_dir() {
            (old, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let name = format!("bowline-{}-{}", std::process::id(), fastrand::u32(..));
        let cgroup = Self(parent.join(name));
        fs::create_dir(&cgroup.0).map_err(|error| format!("no memory cgroup: {error}"))?;
        fs::write(cgroup.0.join(limit), bytes.to_string())?;
        Ok(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // An empty one does no harm.
        let _ = fs::remove_dir(&self.0);
    }
}
