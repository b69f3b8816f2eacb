//! One simulated node in a process of its own, and the log of requests that it writes.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use bowline::demo::node::{Kind, Node, Profile, Reaction, Seen};

use super::net::Link;
use crate::Result;
use crate::support::log::now;
use crate::support::program::{Program, tethered};

/// What a node is started with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Spec {
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// Where its requests are noted.
    #[arg(long)]
    pub(crate) log: PathBuf,
    /// Speaks as Prosody does, rather than as Tigase.
    #[arg(long)]
    pub(crate) prosody: bool,
    /// In seconds.
    #[arg(long)]
    pub(crate) inactivity: u32,
}

impl Spec {
    /// What all nodes of a world have in common.
    pub(crate) fn model(prosody: bool, inactivity: u32) -> Self {
        Self {
            name: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: PathBuf::new(),
            prosody,
            inactivity,
        }
    }

    fn profile(&self) -> Profile {
        let profile = if self.prosody {
            Profile::prosody(&self.name)
        } else {
            Profile::tigase(&self.name)
        };
        profile
            .at(self.address)
            .inactivity(self.inactivity)
            .without_record()
    }
}

/// One request as a node noted it.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    /// See [`now`].
    pub(crate) at: u64,
    pub(crate) creation: bool,
    pub(crate) sid: String,
    pub(crate) rid: u64,
}

/// The program of a node: serves until stdin ends.
pub(crate) fn serve(spec: &Spec) -> Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)?;
    let profile = spec.profile().with_script(move |seen: &Seen| {
        let (sid, rid) = (seen.sid.as_deref().unwrap_or("-"), seen.rid.unwrap_or(0));
        let creation = seen.kind == Kind::Create;
        // One write a line, before the answer: a kill loses none. A full disk shows in the judging.
        let _ = (&log).write_all(format!("{} {creation} {sid} {rid}\n", now()).as_bytes());
        Reaction::Serve
    });
    std::thread::spawn(|| {
        // Whatever ends it, the parent is gone.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let _node = Node::start(profile).await?;
        std::future::pending().await
    })
}

/// The process of a node, and what can be done to it.
pub(crate) struct NodeProcess {
    pub(crate) spec: Spec,
    link: Option<Link>,
    process: Option<Program>,
}

impl NodeProcess {
    pub(crate) fn new(spec: Spec, link: Option<Link>) -> Self {
        Self {
            spec,
            link,
            process: None,
        }
    }

    /// Starts it, at its address.
    pub(crate) fn start(&mut self) -> Result<()> {
        let own = env::current_exe()?;
        let mut command = match &self.link {
            Some(link) => {
                let mut command = link.command();
                command.arg(own);
                command
            }
            None => tethered(own),
        };
        arguments(&mut command, &self.spec);
        // It ends with its stdin, and so with this process.
        command.stdin(Stdio::piped());
        self.process = Some(Program::start(&mut command)?);
        Ok(())
    }

    /// SIGKILL; returns when it is dead.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Loses every packet to and from it; nothing where it has no network of its own.
    pub(crate) fn cut(&self) -> Result<()> {
        self.link.as_ref().map_or(Ok(()), Link::cut)
    }

    pub(crate) fn mend(&self) -> Result<()> {
        self.link.as_ref().map_or(Ok(()), Link::mend)
    }

    /// What it noted so far.
    pub(crate) fn notes(&self) -> Result<Vec<Noted>> {
        let text = fs::read_to_string(&self.spec.log)?;
        Ok(text.lines().filter_map(read_note).collect())
    }

    fn signal(&self, name: &str) -> Result<()> {
        self.process
            .as_ref()
            .map_or(Ok(()), |process| process.signal(name))
    }
}

fn arguments(command: &mut Command, spec: &Spec) {
    command
        .arg("node")
        .args(["--name", &spec.name])
        .args(["--address", &spec.address.to_string()])
        .args(["--inactivity", &spec.inactivity.to_string()])
        .arg("--log")
        .arg(&spec.log);
    if spec.prosody {
        command.arg("--prosody");
    }
}

fn read_note(line: &str) -> Option<Noted> {
    let mut words = line.split(' ');
    Some(Noted {
        at: words.next()?.parse().ok()?,
        creation: words.next()? == "true",
        sid: words.next()?.to_owned(),
        rid: words.next()?.parse().ok()?,
    })
}

/// How long a node's clock may disagree with the driver's about the order of two events.
pub(crate) const SLACK: Duration = Duration::from_millis(50);
