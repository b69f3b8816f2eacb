//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Benchmark of Bowline; started by `tests/bench/run`.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The columns of the table, for each balancer.
    Columns(Run),
    /// Growth: held sessions, pins, threads.
    Growth(Run),
    /// Instructions per request, against a committed figure.
    Instructions(Check),
    /// What counting costs a request, and what a scrape costs, in this process.
    Metrics {
        /// Nodes of the cluster that is scraped.
        #[arg(long, default_value_t = 100)]
        nodes: u16,
        /// Its sessions.
        #[arg(long, default_value_t = 100_000)]
        sessions: usize,
    },
    /// Stub nodes, until stdin ends.
    Nodes {
        /// How many.
        #[arg(long, default_value_t = 2)]
        count: usize,
    },
    /// Memory and times of a table of pins, in this process.
    Pins {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        count: usize,
    },
}

/// How to run the columns.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The bowline binary.
    #[arg(long)]
    pub(crate) bowline: PathBuf,
    /// The folder with the balancers' configurations.
    #[arg(long)]
    pub(crate) configurations: PathBuf,
    /// The balancers, in their order within a round; all by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) balancers: Vec<String>,
    /// The columns; all by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// How often every balancer's turn comes.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// How long one measurement under load takes.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Client connections under load.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Client connections of the columns with many sessions: `wide` and `rate`.
    #[arg(long, default_value_t = 512)]
    pub(crate) sessions: usize,
    /// Requests per second of the open loop.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) rate: u64,
    /// Sessions, or connections, of the memory columns.
    #[arg(long, default_value_t = 3_000)]
    pub(crate) held: usize,
    /// One short round of little load: does everything still work?
    #[arg(long)]
    pub(crate) quick: bool,
    /// The core of the balancer.
    #[arg(long, default_value_t = 0)]
    pub(crate) balancer_core: usize,
    /// The cores of the machine.
    #[arg(long, default_value_t = 1)]
    pub(crate) cores: usize,
    /// Nothing is pinned to a core.
    #[arg(long)]
    pub(crate) unpinned: bool,
    /// How many seconds a measurement waits until nobody else is at work on the machine.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) patience: f64,
    /// Where the figures go, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where the plot goes, as SVG.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
}

impl Run {
    /// All cores, as `taskset` has them.
    pub(crate) fn all_cores(&self) -> String {
        format!("0-{}", self.cores.max(1) - 1)
    }

    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.3 } else { self.seconds })
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.0 } else { self.patience })
    }

    pub(crate) const fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    pub(crate) const fn held(&self) -> usize {
        if self.quick { 300 } else { self.held }
    }

    pub(crate) const fn rate(&self) -> u64 {
        if self.quick { 4_000 } else { self.rate }
    }
}

/// How to count instructions.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The bowline binary.
    #[arg(long)]
    pub(crate) bowline: PathBuf,
    /// The folder with the configuration.
    #[arg(long)]
    pub(crate) configurations: PathBuf,
    /// The file with the committed figures.
    #[arg(long)]
    pub(crate) figures: PathBuf,
    /// Write what was counted into the file.
    #[arg(long)]
    pub(crate) accept: bool,
}
