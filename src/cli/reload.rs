//! Reloads: `bowline reload` asks a running balancer for one; the balancer reads its file and applies it.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::ask::{AskError, Whom, ask};
use super::discover::Discovering;
use super::logging::Logging;
use super::{complain, exit};
use crate::admin::ReloadRequest;
use crate::config::{self, Reload, Settings, one_line};
use crate::server::Server;

/// From one look at the file to the next, with `reload_on_change`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads the configuration, from the text of `request` or else from the file, and applies it. The log, `/health` and an
/// event say how that ended.
///
/// # Errors
/// What is wrong with the configuration; then nothing has changed.
pub(super) fn apply(
    server: &Server,
    followers: (&Logging, &mut Discovering),
    file: &Path,
    request: Option<&ReloadRequest>,
) -> Result<Reload, String> {
    let settings = match request.and_then(|request| request.text.as_deref()) {
        Some(text) => config::parse(text, "the request"),
        None => config::load(file),
    };
    let outcome = settings
        .map_err(|errors| errors.to_string())
        .and_then(|settings| apply_settings(server, followers, &settings));
    let by = request.and_then(|request| request.by.as_deref());
    server.reloaded(&outcome, by);
    outcome
}

fn apply_settings(
    server: &Server,
    (logging, discovering): (&Logging, &mut Discovering),
    settings: &Settings,
) -> Result<Reload, String> {
    let prepared = discovering.prepare(settings.discovery.as_ref());
    let prepared = prepared.map_err(|error| error.to_string())?;
    let before = server.log_settings();
    // First, since the lines on requests depend on it.
    logging
        .reload(&settings.log)
        .map_err(|error| error.to_string())?;
    let step = server.reload(settings).map_err(|error| {
        // It was in force a moment ago.
        let _ = logging.reload(&before);
        error.to_string()
    })?;
    discovering.exchange(prepared, server);
    Ok(step)
}

/// Notices when the content of the file changes. Follows symbolic links, and so notices when Kubernetes
/// swaps one.
pub(super) struct FileWatch {
    file: PathBuf,
    /// None: the file is not watched.
    ticks: Option<tokio::time::Interval>,
    seen: Option<Vec<u8>>,
}

impl FileWatch {
    pub(super) fn new(file: &Path, on: bool) -> Self {
        let ticks = on.then(|| {
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            file: file.to_owned(),
            seen: on.then(|| read(file)).flatten(),
            ticks,
        }
    }

    /// Returns when the content is another. A file that cannot be read for a moment is the same.
    pub(super) async fn changed(&mut self) {
        let Some(ticks) = &mut self.ticks else {
            return std::future::pending().await;
        };
        loop {
            ticks.tick().await;
            let now = read(&self.file);
            if now.is_some() && now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

fn read(file: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file).ok()?;
    let most = config::MAX_FILE as u64 + 1;
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The answer to a reload.
#[derive(Debug, Deserialize)]
struct Reloaded {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed.as_slice() {
            [] => f.write_str("nothing changed")?,
            changed => write!(f, "changed: {}", changed.join(", "))?,
        }
        match self.needs_restart.as_slice() {
            [] => Ok(()),
            keys => write!(f, "\nneeds a restart: {}", keys.join(", ")),
        }
    }
}

/// `bowline reload`.
#[must_use]
pub fn reload(whom: &Whom) -> ExitCode {
    super::block_on(async {
        match ask_for(whom).await {
            Ok(code) => code,
            Err(failure) => {
                complain(&failure);
                failure.code()
            }
        }
    })
}

async fn ask_for(whom: &Whom) -> Result<ExitCode, AskError> {
    let reply = ask(whom, "/config", Some(String::new())).await?;
    match reply.status {
        200 => {
            let reloaded: Reloaded = reply.json()?;
            let mut out = io::stdout();
            for line in reloaded.to_string().lines() {
                if writeln!(out, "{}", one_line(line)).is_err() {
                    return Ok(exit::IO.into());
                }
            }
            Ok(exit::OK)
        }
        422 => {
            let why = reply.error();
            let why = why.ok_or_else(|| AskError::Foreign(reply.url, "no reason given".into()))?;
            for line in why.lines() {
                complain(&line);
            }
            Ok(exit::CONFIG.into())
        }
        status => {
            let why = reply.error().unwrap_or_else(|| format!("status {status}"));
            Err(AskError::Unavailable(reply.url, why))
        }
    }
}
