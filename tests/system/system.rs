//! The suites that run real processes: chaos, floods, failover. One program.
//!
//! It starts the release `bowline`, one process for each simulated node (itself again, with `node`),
//! plays clients, makes nodes or the network fail, and judges what the clients saw.
//! `tests/system/run` builds and calls it.

mod chaos;
mod failover;
mod floods;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use support::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Everything holds.
const FINE: u8 = 0;
/// Something does not hold: a finding about the balancer.
const BROKEN: u8 = 1;
/// The suite could not do its work.
const FAILED: u8 = 2;

#[derive(Parser)]
#[command(about = "The suites of Bowline that run real processes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills, freezes, restarts and cuts off nodes at random, and checks the invariants.
    Chaos(chaos::Options),
    /// Measures what clients notice when a node fails.
    Failover(failover::Options),
    /// Floods the balancer in several ways, with honest clients beside it.
    Floods(floods::Options),
    /// Serves as one simulated node, until stdin ends.
    #[command(hide = true)]
    Node(world::node::Spec),
    /// Keeps a network namespace, until stdin ends.
    #[command(hide = true)]
    Hold,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Node(spec) => world::node::serve(&spec).map(|()| true),
        Command::Hold => world::net::hold().map(|()| true),
        Command::Chaos(options) => in_runtime(chaos::run(options)),
        Command::Failover(options) => in_runtime(failover::run(options)),
        Command::Floods(options) => in_runtime(floods::run(options)),
    };
    match outcome {
        Ok(true) => ExitCode::from(FINE),
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("system: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs it on this thread; a signal drops it, and with it every process that it started.
fn in_runtime(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = ended.recv() => Err("terminated".into()),
        }
    })
}
