//! `bowline run --config FILE`: serve until a signal ends it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tracing::{error, info, warn};

use super::discover::{self, Discovering};
use super::logging::{self, Logging, LoggingError};
use super::reload::{FileWatch, apply};
use super::{complain, exit, notify, refuse};
use crate::admin::ReloadRequest;
use crate::config::{self, Settings};
use crate::handover::{self, Sockets, activation};
use crate::server::{Server, StartError, TakeoverError};

/// Reads the configuration, starts logging and serves, in place of a running process if `takeover` says so.
#[must_use]
pub fn run(config: &Path, takeover: bool) -> ExitCode {
    // It changes the environment, which only a process with one thread may do.
    let passed = match activation::sockets() {
        Ok(passed) => passed,
        Err(error) => {
            complain(&error);
            return exit::CONFIG.into();
        }
    };
    let settings = match config::load(config) {
        Ok(settings) => settings,
        Err(errors) => return refuse(&errors),
    };
    let takeover = match takeover.then(|| settings.takeover.clone()) {
        None => None,
        Some(_) if !passed.is_empty() => {
            complain(
                &"--takeover and sockets of the service manager exclude each other: restart the service instead",
            );
            return exit::USAGE.into();
        }
        Some(None) => {
            complain(&format_args!(
                "--takeover needs the key `takeover` in {}, such as `takeover: /run/bowline/takeover.sock`",
                config.display()
            ));
            return exit::CONFIG.into();
        }
        Some(path) => path,
    };
    // Until the end: its end writes what still waits.
    let logging = match logging::init(&settings.log) {
        Ok(logging) => logging,
        Err(error) => {
            complain(&error);
            return match error {
                LoggingError::Filter { .. } | LoggingError::NotAscii(_) => exit::CONFIG.into(),
                LoggingError::System(_) => exit::OS.into(),
                LoggingError::Started => exit::SOFTWARE.into(),
            };
        }
    };
    super::block_on(serve(settings, config, &logging, (passed, takeover)))
}

/// The signals that end the process.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Ports below this take a privilege.
const FIRST_FREE_PORT: u16 = 1024;

/// Warns when it runs as root: a balancer faces the internet, and needs that for nothing.
fn warn_of_root(settings: &Settings) {
    // The process's own folder belongs to its effective user.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return;
    }
    let addresses = settings
        .listen
        .iter()
        .filter_map(|listen| listen.address.tcp());
    if addresses
        .into_iter()
        .any(|address| (1..FIRST_FREE_PORT).contains(&address.port()))
    {
        warn!(
            "running as root: for a port below 1024 the capability CAP_NET_BIND_SERVICE is enough \
             (AmbientCapabilities= in systemd)"
        );
    } else {
        warn!("running as root, which Bowline does not need: use another user (User= in systemd)");
    }
}

/// Serves until the first signal, then drains; a second one ends the draining. `SIGHUP` and the admin
/// listener reload the configuration.
async fn serve(
    mut settings: Settings,
    file: &Path,
    logging: &Logging,
    origin: (Sockets, Option<PathBuf>),
) -> ExitCode {
    let signals = Ending::new().and_then(|ending| Ok((ending, signal(SignalKind::hangup())?)));
    let (mut ending, mut hangups) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            error!("{error}");
            return exit::OS.into();
        }
    };
    warn_of_root(&settings);
    let mut discovering = match Discovering::start(&mut settings).await {
        Ok(discovering) => discovering,
        Err(error) => {
            error!("{error}");
            return exit::CONFIG.into();
        }
    };
    let started = tokio::select! {
        started = start(&settings, origin) => started,
        signal = ending.next() => {
            info!(signal, "stopping during the start");
            return exit::OK;
        }
    };
    let mut server = match started {
        Ok(server) => server,
        Err(code) => return code,
    };
    let mut replaced = pin!(server.replaced());
    let mut requests = server.reload_requests();
    let mut watch = FileWatch::new(file, settings.reload_on_change);
    let alive = notify::watchdog().map(|limit| notify::keep_alive(limit, server.pulse()));
    let _alive = alive.map(tokio::spawn);
    notify::ready();
    loop {
        tokio::select! {
            signal = ending.next() => {
                info!(signal, "stopping");
                break;
            }
            () = server.broken() => {
                error!("a worker or a probe died: this is a defect of Bowline, please report it");
                return exit::SOFTWARE.into();
            }
            () = &mut replaced => break,
            _ = hangups.recv() => {
                notify::reloading();
                // The log says how it ended.
                let _ = apply(&server, (logging, &mut discovering), file, None);
                notify::ready();
            }
            () = watch.changed() => {
                let _ = apply(&server, (logging, &mut discovering), file, None);
            }
            finding = discovering.next() => discover::take(&server, finding),
            request = next(&mut requests) => {
                let outcome = apply(&server, (logging, &mut discovering), file, Some(&request));
                // The asker may have gone.
                let _ = request.reply.send(outcome);
            }
        }
    }
    notify::stopping();
    let mut drain = pin!(server.drain());
    loop {
        tokio::select! {
            _ = &mut drain => break,
            signal = ending.next() => {
                warn!(signal, "second signal: not waiting any longer");
                break;
            }
            _ = hangups.recv() => warn!("no reload while the process stops"),
        }
    }
    exit::OK
}

/// Starts the balancer, in place of the process that listens at the path of `origin` if there is one. An error is
/// logged, and comes as an exit code.
async fn start(
    settings: &Settings,
    (passed, takeover): (Sockets, Option<PathBuf>),
) -> Result<Server, ExitCode> {
    let predecessor = match &takeover {
        None => None,
        Some(path) => match handover::connect(path).await {
            Ok(Some(predecessor)) => Some(predecessor),
            Ok(None) => {
                info!(path = %path.display(), "no process to take over from: starting without one");
                None
            }
            Err(error) => {
                error!(path = %path.display(), "no takeover: {error}");
                return Err(exit::OS.into());
            }
        },
    };
    let error = match predecessor {
        None => match Server::start_with(settings, passed) {
            Ok(server) => return Ok(server),
            Err(error) => error,
        },
        Some(predecessor) => match Server::take_over(settings, predecessor).await {
            Ok(server) => return Ok(server),
            Err(TakeoverError::Start(error)) => error,
            Err(error) => {
                error!("{error}");
                return Err(exit::OS.into());
            }
        },
    };
    error!("{error}");
    Err(match error {
        StartError::Token(_)
        | StartError::Tls(_)
        | StartError::NodeTls(_)
        | StartError::Unclaimed(_) => exit::CONFIG.into(),
        StartError::Bind(_) | StartError::Worker(_) | StartError::Traces(_) => exit::OS.into(),
    })
}

/// The next request for a reload; none ever, once there can be none.
async fn next(requests: &mut Option<Receiver<ReloadRequest>>) -> ReloadRequest {
    if let Some(requests) = requests
        && let Some(request) = requests.recv().await
    {
        return request;
    }
    std::future::pending().await
}
