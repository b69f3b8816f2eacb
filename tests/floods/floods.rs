//! Floods: the release `bowline` under everything that is meant to wear it out, and honest clients
//! beside it.
//!
//! Nodes and clients are in this process, `bowline` is one of its own, so that its memory, its
//! processor time and its open files are its alone. Each case prints what it measured and what must
//! hold. `tests/floods/run` builds and calls it.

mod attack;
mod bodies;
mod cases;
mod honest;
#[path = "../chaos/programs.rs"]
mod programs;
mod report;
mod slow;
mod tools;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use report::Report;

/// What fails here is the harness itself; what the balancer does wrong is a finding.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Everything holds.
const FINE: u8 = 0;
/// Something does not.
const BROKEN: u8 = 1;
/// The harness could not do its work.
const FAILED: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// The worst request bodies, in processor time.
    Bodies,
    /// Heads, bodies, reading: all slow, and connections that say nothing.
    Slow,
    /// Sids that nobody made.
    Sids,
    /// More creations than the table has room for.
    Creations,
    /// More connections than open files.
    Files,
    /// Slow and large requests in a memory cgroup of 128 MiB.
    Memory,
    /// A log that takes nothing.
    Log,
    /// Debian's slowhttptest, in all its modes.
    Slowhttptest,
}

#[derive(Debug, Parser)]
#[command(about = "Floods against the release build of Bowline")]
struct Options {
    /// Only these cases.
    #[arg(long = "case", value_name = "CASE")]
    cases: Vec<Case>,
    /// A minute in all, without slowhttptest: fewer connections, shorter deadlines, one in 50 sids.
    /// What honest clients wait is not judged.
    #[arg(long)]
    quick: bool,
    /// The `bowline` to try.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(until_signal(run(&options))));
    match outcome {
        Ok(true) => ExitCode::from(FINE),
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("floods: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// A signal drops the work, and with it every process that it started.
async fn until_signal(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = ended.recv() => Err("terminated".into()),
    }
}

async fn run(options: &Options) -> Result<bool> {
    let binary = programs::release_binary(options.binary.as_deref())?;
    let context = cases::Context {
        binary,
        quick: options.quick,
    };
    let mut all_hold = true;
    for case in Case::value_variants() {
        let chosen = if options.cases.is_empty() {
            // Its modes take their time, however short they are.
            !(options.quick && *case == Case::Slowhttptest)
        } else {
            options.cases.contains(case)
        };
        if !chosen {
            continue;
        }
        let name = case.to_possible_value();
        let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
        let mut report = Report::begin(&name);
        match case {
            Case::Bodies => bodies::run(&mut report, options.quick),
            Case::Slow => cases::slow(&context, &mut report).await?,
            Case::Sids => cases::sids(&context, &mut report).await?,
            Case::Creations => cases::creations(&context, &mut report).await?,
            Case::Files => cases::files(&context, &mut report).await?,
            Case::Memory => cases::memory(&context, &mut report).await?,
            Case::Log => cases::log(&context, &mut report).await?,
            Case::Slowhttptest => tools::slowhttptest(&context, &mut report).await?,
        }
        all_hold &= report.end();
    }
    println!("{}", if all_hold { "all holds" } else { "BROKEN" });
    Ok(all_hold)
}
