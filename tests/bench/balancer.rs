//! The balancers: how each is configured, started and stopped.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;
use crate::client::{Client, Target};
use crate::nodes::Nodes;
use crate::options::Run;
use crate::support::folder::Folder;
use crate::support::program::{Program, Usage, free_address};
use crate::tls;

/// How long a balancer may take to serve its first session.
const START: Duration = Duration::from_secs(15);

/// One of the balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Balancer {
    Bowline,
    HaproxyRight,
    HaproxyWrong,
    NginxRight,
    NginxWrong,
    /// None: straight to a node.
    Direct,
}

impl Balancer {
    /// All of them, in their order within a round.
    pub(crate) const ALL: [Self; 6] = [
        Self::Bowline,
        Self::HaproxyRight,
        Self::HaproxyWrong,
        Self::NginxRight,
        Self::NginxWrong,
        Self::Direct,
    ];

    /// Its name, which is also that of its configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bowline => "bowline",
            Self::HaproxyRight => "haproxy-right",
            Self::HaproxyWrong => "haproxy-wrong",
            Self::NginxRight => "nginx-right",
            Self::NginxWrong => "nginx-wrong",
            Self::Direct => "direct",
        }
    }

    /// The program, its arguments before the configuration file, and the template of that file.
    fn program(self, run: &Run) -> (PathBuf, &'static [&'static str], &'static str) {
        const HAPROXY: &[&str] = &["-db", "-f"];
        const NGINX: &[&str] = &["-e", "stderr", "-p"];
        match self {
            Self::Bowline | Self::Direct => {
                (run.bowline.clone(), &["run", "--config"], "bowline.yaml")
            }
            Self::HaproxyRight => ("haproxy".into(), HAPROXY, "haproxy-right.cfg"),
            Self::HaproxyWrong => ("haproxy".into(), HAPROXY, "haproxy-wrong.cfg"),
            Self::NginxRight => ("nginx".into(), NGINX, "nginx-right.conf"),
            Self::NginxWrong => ("nginx".into(), NGINX, "nginx-wrong.conf"),
        }
    }

    /// How it is started with `threads` threads on `cores`.
    pub(crate) fn launch(self, run: &Run, threads: usize, cores: &str) -> Launch {
        let (program, arguments, template) = self.program(run);
        let prefix = if run.unpinned {
            Vec::new()
        } else {
            ["taskset", "-c", cores].map(str::to_owned).to_vec()
        };
        Launch {
            prefix,
            program,
            arguments,
            template: run.configurations.join(template),
            threads,
            encrypted: false,
            more: "",
        }
    }

    /// Whether it can be run here.
    pub(crate) fn is_installed(self, run: &Run) -> bool {
        let (program, _, _) = self.program(run);
        let places = std::env::var_os("PATH").unwrap_or_default();
        // Debian puts both into sbin, which a user's PATH may lack.
        let more = [Path::new("/usr/sbin").to_owned()];
        self == Self::Direct
            || program.is_file()
            || std::env::split_paths(&places)
                .chain(more)
                .any(|place| place.join(&program).is_file())
    }

    /// What it says of its version.
    pub(crate) fn version(self, run: &Run) -> Option<String> {
        let (program, _, _) = self.program(run);
        let flag = if self == Self::Bowline { "-V" } else { "-v" };
        let said = Command::new(program).arg(flag).output().ok()?;
        let said = [said.stdout, said.stderr].concat();
        let line = String::from_utf8_lossy(&said).lines().next()?.to_owned();
        (self != Self::Direct).then_some(line)
    }
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a balancer is started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What starts the program: `taskset`, or `valgrind`, with its arguments.
    pub(crate) prefix: Vec<String>,
    pub(crate) program: PathBuf,
    /// What comes before the configuration file.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) template: PathBuf,
    pub(crate) threads: usize,
    /// Whether it serves TLS.
    pub(crate) encrypted: bool,
    /// What is added to the configuration.
    pub(crate) more: &'static str,
}

/// A configuration whose listener serves TLS.
fn with_tls(text: &str, template: &Path, directory: &Path) -> String {
    let file = |name| directory.join(name).display().to_string();
    let is_haproxy = template.extension().is_some_and(|end| end == "cfg");
    let tls = if is_haproxy {
        format!(" ssl crt {} alpn http/1.1", file("both.pem"))
    } else {
        let (certificate, key) = (file("tls.pem"), file("tls.key"));
        let files = format!("{{ certificate: '{certificate}', key: '{key}' }}");
        format!("\n    tls: {{ certificates: [{files}] }}")
    };
    text.replace("@TLS@", &tls)
}

/// A running balancer; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    program: Option<Program>,
    folder: Option<Folder>,
    /// Where it serves.
    pub(crate) target: Target,
}

impl Running {
    /// Starts what `launch` says in front of `nodes` and waits until it serves a session.
    pub(crate) async fn start(launch: &Launch, nodes: &Nodes) -> Result<Self> {
        let target = Target {
            address: free_address()?,
            encrypted: launch.encrypted,
        };
        let folder = Folder::new("bench")?;
        let directory = folder.path().to_owned();
        let mut running = Self {
            program: None,
            folder: Some(folder),
            target,
        };
        let text = fs::read_to_string(&launch.template)?;
        let text = running.fill(&text, nodes, launch.threads, &directory);
        let text = if launch.encrypted {
            tls::write(&directory)?;
            with_tls(&text, &launch.template, &directory)
        } else {
            text.replace("@TLS@", "")
        };
        let file = directory.join("configuration");
        fs::write(&file, text + launch.more)?;
        let mut words = launch.prefix.iter().map(OsStr::new).collect::<Vec<_>>();
        words.push(launch.program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(launch.arguments);
        if launch.arguments.contains(&"-p") {
            command.arg(&directory).arg("-c");
        }
        command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(File::create(directory.join("log"))?);
        running.program = Some(Program::start(&mut command)?);
        running.serves().await?;
        Ok(running)
    }

    /// No balancer: straight to the first node.
    pub(crate) fn direct(nodes: &Nodes) -> Self {
        Self {
            program: None,
            folder: None,
            target: Target {
                address: nodes.addresses[0],
                encrypted: false,
            },
        }
    }

    /// A template with what it leaves open.
    fn fill(&self, template: &str, nodes: &Nodes, threads: usize, directory: &Path) -> String {
        template
            .replace("@LISTEN@", &self.target.address.to_string())
            .replace("@NODE1@", &nodes.addresses[0].to_string())
            .replace("@NODE2@", &nodes.addresses[1].to_string())
            .replace("@THREADS@", &threads.to_string())
            .replace("@DIRECTORY@", &directory.display().to_string())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) -> Result<()> {
        let program = self.program.as_mut().ok_or("nothing runs")?;
        program.signal("TERM")?;
        let status = program.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("it did not end well: {status}\n{}", self.log()).into())
    }

    /// What it has written.
    fn log(&self) -> String {
        let file = self.folder.as_ref().map(|folder| folder.path().join("log"));
        let text = file.and_then(|file| fs::read_to_string(file).ok());
        text.unwrap_or_default()
    }

    /// Its process; none for [`Balancer::Direct`].
    pub(crate) fn process(&self) -> Option<Usage> {
        self.program.as_ref().map(Program::usage)
    }

    /// Waits until a session can be made through it.
    async fn serves(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let tried = match Client::with_session(self.target, 0, 0).await {
                Ok(mut client) => client.terminate().await,
                Err(failure) => Err(failure),
            };
            let Err(failure) = tried else {
                return Ok(());
            };
            let runs = self.program.as_mut().is_none_or(Program::runs);
            if begun.elapsed() > START || !runs {
                let log = self.log();
                return Err(format!("a balancer does not serve: {failure}\n{log}").into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The lines of its log that tell of something wrong. Only Bowline logs while it is measured.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.log();
        log.lines()
            // Benchmarks may be run so.
            .filter(|line| !line.contains("running as root"))
            .filter(|line| {
                [" WARN ", " ERROR ", "panicked"]
                    .iter()
                    .any(|bad| line.contains(bad))
            })
            .map(str::to_owned)
            .collect()
    }
}
