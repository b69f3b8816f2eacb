//! A program that a suite started, known by the id of its process: signalled, watched, ended.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use super::Result;
use super::waiting::{PATIENCE, until};

/// Ports for loopback: below those that the kernel gives to outgoing connections, so that a
/// connection to a dead program cannot meet itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// An address of loopback that is free, for a program that cannot say which port it took.
pub(crate) fn free_address() -> Result<SocketAddr> {
    (0..100)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".into())
}

/// The `bowline` to test: the given one, that of `cargo test`, or the one built beside this program.
pub(crate) fn bowline(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(built) = option_env!("CARGO_BIN_EXE_bowline") {
        return Ok(built.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().and_then(Path::parent);
    let found = beside.map(|folder| folder.join("bowline"));
    found
        .filter(|path| path.exists())
        .ok_or_else(|| "no bowline binary: give --binary".into())
}

/// Runs a command to its end, which has to be a success.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()).into())
}

/// A command that the kernel kills when this thread ends, where `setpriv` is installed.
pub(crate) fn tethered(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if must(Command::new("setpriv").args(["--pdeathsig", "KILL", "true"])).is_ok() {
        command.arg(program);
        return command;
    }
    Command::new(program)
}

/// A running program; killed by its id when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) child: Child,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let started = command.spawn();
        let child = started.map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, `STOP` for example.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        must(Command::new("kill").args(["-s", name, &self.id().to_string()]))
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after [`PATIENCE`].
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        until(PATIENCE, async || !self.runs()).await;
        let status = self.child.try_wait()?;
        status.ok_or_else(|| "it does not end".into())
    }

    /// What the kernel says of it.
    pub(crate) fn usage(&self) -> Usage {
        Usage(self.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the kernel says of the process with this id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage(pub(crate) u32);

impl Usage {
    /// What its threads have used of the cores. A thread that has ended is not counted; a balancer
    /// ends none while it serves.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let on_core = text.split(' ').next().unwrap_or_default();
            nanos += on_core.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Memory in use now, in bytes. `smaps_rollup` counts pages; the counters in `status` are behind
    /// by what each core has not reported yet.
    pub(crate) fn resident(self) -> Result<u64> {
        self.kibibytes("smaps_rollup", "Rss:")
    }

    /// Memory in use, in bytes, once that has stayed the same for half a second; after ten seconds
    /// in any case.
    pub(crate) async fn settled(self) -> Result<u64> {
        const SAME: u32 = 10;
        const MOST: u32 = 200;
        let mut last = self.resident()?;
        let mut same = 0;
        for _ in 0..MOST {
            sleep(Duration::from_millis(50)).await;
            let now = self.resident()?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if same == SAME {
                break;
            }
        }
        Ok(last)
    }

    /// The most memory that was in use since the start, in bytes.
    pub(crate) fn peak(self) -> Result<u64> {
        self.kibibytes("status", "VmHWM:")
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    fn kibibytes(self, file: &str, field: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let figure = line.and_then(|line| line.split_whitespace().next());
        Ok(figure.ok_or("no such field")?.parse::<u64>()? * 1024)
    }
}
