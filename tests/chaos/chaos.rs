//! The chaos suite and the failover benchmark: real processes, real faults, one program.
//!
//! It starts the release `bowline`, one process for each simulated node (itself again, with `node`),
//! plays clients, kills, freezes and cuts off nodes, and judges what the clients saw.
//! `tests/chaos/run` and `tests/bench/failover` build and call it.

mod clients;
#[path = "../bench/failover.rs"]
mod failover;
mod fault_log;
mod invariants;
mod leaks;
mod plan;
mod programs;
mod run;
mod world;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// What fails here is the harness itself; what the balancer does wrong is a finding.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Everything holds.
const FINE: u8 = 0;
/// An invariant is broken.
const BROKEN: u8 = 1;
/// The harness could not do its work.
const FAILED: u8 = 2;

#[derive(Parser)]
#[command(about = "The chaos suite and the failover benchmark of Bowline")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kills, freezes, restarts and cuts off nodes at random, and checks the invariants.
    Run(run::Options),
    /// Measures what clients notice when a node fails.
    Failover(failover::Options),
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
        Command::Run(options) => in_runtime(run::run(options)),
        Command::Failover(options) => in_runtime(failover::run(options)),
    };
    match outcome {
        Ok(true) => ExitCode::from(FINE),
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("chaos: {error}");
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
