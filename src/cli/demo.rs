//! `bowline demo`: a cluster of simulated nodes with the balancer in front of it, in one process.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::keys::Keyboard;
use super::{complain, exit, logging};
use crate::config::Log;
use crate::demo::Show;

/// Starts the demo and keeps it running until Ctrl-C or the key `q`, or for `seconds`.
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
    let started = async { Ok((Ending::new()?, Show::start().await?)) };
    let (mut ending, mut show) = match started.await {
        Ok(started) => started,
        Err(error) => {
            let error: Box<dyn std::error::Error> = error;
            complain(&error);
            return exit::OS.into();
        }
    };
    // Before the first line, and dropped behind the last one.
    let keyboard = Keyboard::open();
    let mut out = io::stdout();
    let played = tokio::select! {
        played = async {
            let keys = keyboard.as_ref().map_or(Ok(None), Keyboard::keys)?;
            show.introduce(&mut out, keys.is_some())?;
            show.run(&mut out, keys).await
        } => played,
        () = ending.next(keyboard.as_ref()) => Ok(()),
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

/// The signals that end the demo in order, so that the terminal is left as it was; and the one that
/// says that a shell let it go on.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
    go_on: Signal,
}

impl Ending {
    fn new() -> io::Result<Self> {
        let go_on = rustix::process::Signal::CONT.as_raw();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            go_on: signal(SignalKind::from_raw(go_on))?,
        })
    }

    async fn next(&mut self, keyboard: Option<&Keyboard>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hang_up.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.go_on.recv() => {
                    // Without it a key needs Enter behind it, which is no reason to end.
                    let _ = keyboard.map(Keyboard::take_keys);
                }
            }
        }
    }
}

async fn until(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
