//! The command line: arguments to a subcommand, a subcommand to an exit code.
//!
//! Each subcommand has a file of its own. Results go to stdout, everything else to stderr.

pub mod ask;
pub mod check;
pub mod configuration;
pub mod demo;
mod discover;
pub mod drain;
pub mod exit;
mod keys;
mod line;
pub mod logging;
mod notify;
pub mod operate;
pub mod reload;
pub mod run;
pub mod status;
#[cfg(feature = "top")]
pub mod top;
mod written;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ask::Whom;

use crate::cluster::OperatorState;
use crate::config::{ConfigErrors, one_line};

const EXAMPLES: &str = "\
Examples:
  bowline check config/bowline.yaml         check a configuration file
  bowline run --config config/bowline.yaml  serve until SIGTERM or SIGINT
  RUST_LOG=debug bowline run -c FILE        override log.filter of the file
  bowline run --takeover -c FILE            replace a running process, and lose nothing
  bowline config show config/bowline.yaml   show it with every default
  bowline demo                              a whole cluster in one process
  bowline status                            show a running balancer
  bowline top                               watch it, and drain nodes with a key
  bowline drain t1                          send no new sessions to t1
  bowline reload                            apply the changed configuration file

Exit codes:
  0   done
  1   status: degraded
  2   status: down, no node takes new sessions
  64  wrong arguments, or no such node
  69  no answer from the admin listener, or from a node (check --probe)
  70  a defect of Bowline
  71  refused by the system, such as a port in use
  74  input or output failed
  75  refused: it is the last node (--force overrides this)
  76  the answer is not from Bowline
  77  the token is missing or wrong
  78  wrong configuration or token file";

/// A sticky-session load balancer for BOSH (XMPP over HTTP) clusters.
#[derive(Debug, Parser)]
#[command(name = "bowline", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// Take the sockets and sessions of the process that listens at `takeover` of the file, if there is one.
        #[arg(long)]
        takeover: bool,
    },
    /// Check a configuration file.
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// Also look whether its addresses are free, and ask each node once.
        #[arg(long)]
        probe: bool,
    },
    /// Show a configuration as Bowline understands it, or its schema.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Run a demo: simulated nodes, clients and the balancer in one process.
    Demo {
        /// Stop after this many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Show the state of a running balancer and its nodes.
    Status {
        /// Print `/health` as JSON.
        #[arg(long)]
        json: bool,
        /// Show it again every two seconds, until Ctrl-C.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        whom: Whom,
    },
    /// Watch a running balancer on a terminal, and drain its nodes with a key.
    #[cfg(feature = "top")]
    Top {
        #[command(flatten)]
        whom: Whom,
    },
    /// Have a running balancer read its configuration file again.
    Reload {
        #[command(flatten)]
        whom: Whom,
    },
    /// Send no new sessions to nodes; their sessions stay.
    Drain {
        #[command(flatten)]
        operation: Operation,
        #[command(flatten)]
        waiting: drain::Waiting,
    },
    /// Send no new sessions to nodes, and move their sessions to other nodes.
    Maint(Operation),
    /// Return nodes to normal service.
    Ready(Operation),
    #[command(flatten)]
    Written(Written),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the settings of a file with every default, as YAML that `run` takes.
    ///
    /// Secrets are left out; a comment names them. Files are named, not read.
    Show {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the JSON Schema of a configuration file, for editors.
    Schema,
}

/// What writes the pages and completions that packages install.
#[derive(Debug, Subcommand)]
enum Written {
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder. It must be there.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// The configuration file, with `--config` or without it.
#[derive(Debug, clap::Args)]
#[group(id = "configuration", required = true, multiple = false)]
struct ConfigFile {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// Its path; one of the two is there.
    fn path(&self) -> &Path {
        let path = self.file.as_deref().or(self.config.as_deref());
        path.unwrap_or(Path::new(""))
    }
}

/// A change of the state of nodes, of all that are named or of none.
#[derive(Debug, clap::Args)]
struct Operation {
    /// The names of the nodes.
    #[arg(value_name = "NODE", required_unless_present = "all")]
    nodes: Vec<String>,
    /// All nodes.
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// Do it even if no node is left for new sessions.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    whom: Whom,
}

impl Operation {
    fn set(&self, state: OperatorState) -> ExitCode {
        operate::operate(&self.nodes, state, self.force, &self.whom)
    }
}

/// The definition of the command line. The documentation test parses the documented commands with it.
#[must_use]
pub fn definition() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs what the process's arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    dispatch(std::env::args_os())
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(Arguments { command }) => match command {
            Command::Run { file, takeover } => run::run(file.path(), takeover),
            Command::Check { file, probe } => check::check(file.path(), probe),
            Command::Config { command } => match command {
                ConfigCommand::Show { file } => configuration::show(file.path()),
                ConfigCommand::Schema => configuration::schema(),
            },
            Command::Demo { seconds } => demo::demo(seconds),
            Command::Status { json, watch, whom } => status::status(json, watch, &whom),
            #[cfg(feature = "top")]
            Command::Top { whom } => top::top(&whom),
            Command::Reload { whom } => reload::reload(&whom),
            Command::Drain { operation, waiting } => {
                let Operation {
                    nodes, force, whom, ..
                } = &operation;
                drain::drain(nodes, *force, &waiting, whom)
            }
            Command::Maint(operation) => operation.set(OperatorState::Maint),
            Command::Written(Written::Completions { shell }) => written::completions(shell),
            Command::Written(Written::Man { folder }) => written::man(&folder),
            Command::Ready(operation) => operation.set(OperatorState::Ready),
        },
        Err(message) => answer(&message),
    }
}

/// Runs a command on this thread, where probes, the sweeper and the admin listener live.
fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // Whoever asks a silent name service waits on a thread that nothing can call back. To
            // wait for it here would hold up the end, with signals that nobody hears any more.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            complain(&format_args!("cannot start: {error}"));
            exit::OS.into()
        }
    }
}

/// Says on stderr what is wrong, in one line. Where that cannot be written the exit code is all
/// there is.
fn complain(what: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", one_line(&what.to_string()));
}

/// Says on stderr what is wrong with a configuration, in lines that are plain already.
fn refuse(errors: &ConfigErrors) -> ExitCode {
    let _ = writeln!(io::stderr(), "{errors}");
    exit::CONFIG.into()
}

/// Prints help, the version, or what is wrong with the arguments.
fn answer(message: &clap::Error) -> ExitCode {
    if message.print().is_err() {
        return exit::IO.into();
    }
    if message.use_stderr() {
        exit::USAGE.into()
    } else {
        exit::OK
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        definition().debug_assert();
    }

    #[test]
    fn both_spellings_of_the_file_are_taken() {
        for command in [&["run"][..], &["check"], &["config", "show"]] {
            let command = [&["bowline"], command].concat();
            for file in [&["a.yaml"][..], &["-c", "a.yaml"], &["--config", "a.yaml"]] {
                let arguments = [&command[..], file].concat();
                let parsed = Arguments::try_parse_from(arguments).expect("good arguments");
                let (Command::Run { file, .. }
                | Command::Check { file, .. }
                | Command::Config {
                    command: ConfigCommand::Show { file },
                }) = parsed.command
                else {
                    panic!("{command:?}");
                };
                assert_eq!(file.path(), Path::new("a.yaml"));
            }
            assert!(Arguments::try_parse_from(&command).is_err());
            let twice = [&command[..], &["a.yaml", "-c", "b.yaml"]].concat();
            assert!(Arguments::try_parse_from(twice).is_err());
        }
        assert!(Arguments::try_parse_from(["bowline"]).is_err());
    }

    /// As a look-up at a name service that is silent.
    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let (release, hang) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            let code = block_on(async {
                let (begun, begin) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    begun.send(()).expect("somebody waits");
                    hang.recv()
                });
                begin.await.expect("it begins");
                exit::OK
            });
            ended.send(code)
        });
        let code = end.recv_timeout(Duration::from_secs(10));
        drop(release);
        assert_eq!(code, Ok(exit::OK));
    }
}
