//! The release build in a process of its own, simulated nodes, honest clients, and one flood after
//! the other, each with a balancer that is its alone. Each case prints what it measured and what must
//! hold.

mod attack;
mod balancer;
mod bodies;
mod cases;
mod honest;
mod report;
mod slow;
mod tools;

use std::path::PathBuf;

use clap::ValueEnum;
use report::Report;

use crate::Result;
use crate::support::program::bowline;

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

/// What the floods are started with.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
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

/// Runs them; whether all held.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let binary = bowline(options.binary.as_deref())?;
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
