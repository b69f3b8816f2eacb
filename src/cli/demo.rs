//! `bowline demo`: a cluster of simulated nodes with the balancer before it, in one process.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use super::{complain, exit, logging};
use crate::config::Log;
use crate::demo::Show;

/// Starts the demo and keeps it running until Ctrl-C, or for `seconds`.
#[must_use]
pub fn demo(seconds: Option<u64>) -> ExitCode {
    let log = Log {
        filter: "warn".to_owned(),
        ..Log::default()
    };
    let _flush = match logging::init(&log) {
        Ok(flush) => flush,
        Err(error) => {
            complain(&error);
            return exit::CONFIG.into();
        }
    };
    super::block_on(play(seconds))
}

async fn play(seconds: Option<u64>) -> ExitCode {
    let mut show = match Show::start().await {
        Ok(show) => show,
        Err(error) => {
            complain(&error);
            return exit::OS.into();
        }
    };
    let mut out = io::stdout();
    let played = tokio::select! {
        played = async {
            show.introduce(&mut out)?;
            show.run(&mut out).await
        } => played,
        interrupted = tokio::signal::ctrl_c() => interrupted,
        () = until(seconds) => Ok(()),
    };
    let summary = show.end().await;
    match played.and_then(|()| writeln!(out, "\n{summary}")) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&error);
            exit::IO.into()
        }
    }
}

async fn until(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
