//! One child process, known by its id: started, signalled, ended.

use std::process::{Child, Command, Stdio};

use crate::Result;

/// A running child; killed by its id when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    /// Starts it, with a stdin that ends when this process does.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let started = command.stdin(Stdio::piped()).spawn();
        let child = started.map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, `STOP` say.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        must(Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, which has to be a good one.
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

/// A command that the kernel kills when this process dies, where `setpriv` is there to ask for it.
pub(crate) fn tethered(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if must(Command::new("setpriv").args(["--pdeathsig", "KILL", "true"])).is_ok() {
        command.arg(program);
        return command;
    }
    Command::new(program)
}
