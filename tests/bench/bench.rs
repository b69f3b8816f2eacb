//! The benchmark: a BOSH load generator, stub nodes, and what runs them around a balancer.
//!
//! `tests/bench/run` builds this program and starts it; docs/benchmarks.md has the figures.
//! It is an example target, so that a build of the product leaves it out and the lints see it.

mod balancer;
mod client;
mod columns;
mod figures;
mod growth;
mod instructions;
mod load;
mod machine;
mod memory;
mod metrics;
mod nodes;
mod options;
mod pins;
mod plot;
mod report;
mod stub;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, Options};
use support::Result;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Command::Nodes { count } => on_one_thread(stub::serve(*count)),
        Command::Metrics { nodes, sessions } => metrics::measure(*nodes, *sessions),
        Command::Pins { count } => pins::measure(*count),
        Command::Columns(run) => on_one_thread(columns::run(run)),
        Command::Growth(run) => on_one_thread(growth::run(run)),
        Command::Instructions(check) => on_one_thread(instructions::run(check)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_one_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
