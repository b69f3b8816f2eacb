//! What clients notice when a node fails: many held sessions over three nodes, one fault, and the
//! time until every session of that node is held again. Bowline, and HAProxy beside it.
//!
//! An ideal client: after a reset or a 5xx it sends the same request again one second later, after
//! a terminate it logs in at once.

mod clients;
mod report;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use crate::Result;
use crate::support::log::now;
use crate::support::program::bowline;
use crate::world::balancer;
use crate::world::node::Spec;
use crate::world::{World, net};
use clients::Crowd;
use report::Figures;

/// As many as there are in the measurement that this one is compared with.
const NODES: u8 = 3;
/// The node that fails, by its place.
const VICTIM: usize = 0;
/// After the last session is held, until the fault.
const SETTLING: Duration = Duration::from_secs(2);
/// How long the clients are watched after the fault. No poll ends by itself meanwhile.
const WATCHING: Duration = Duration::from_secs(15);
/// How long the sessions may take to be held at the start.
const START: Duration = Duration::from_secs(10);
/// As long as a garbage collection of a large JVM may take.
const PAUSE: Duration = Duration::from_secs(4);
/// A process that its supervisor starts again at once.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How the node fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it accepts, and never answers.
    Freeze,
    /// SIGSTOP, and SIGCONT 4 s later.
    Pause,
    /// The same of all nodes at once.
    PauseAll,
    /// SIGKILL, and a new start 0.2 s later.
    Restart,
    /// No packet goes through.
    Cut,
}

/// What stands in front of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Bowline,
    Haproxy,
}

/// What the benchmark is started with.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 600)]
    sessions: usize,
    /// Only these cases.
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Only these balancers.
    #[arg(long = "balancer", value_enum)]
    kinds: Vec<Kind>,
    /// The figures as JSON, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The program to measure; the release build otherwise.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// A line of configuration for it, `health: { interval: 1s }` say; its defaults otherwise.
    #[arg(long, default_value = "")]
    config: String,
}

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let separate = net::enter();
    let mut all = Vec::new();
    for case in chosen(
        &options.cases,
        &[
            Case::Kill,
            Case::Freeze,
            Case::Pause,
            Case::PauseAll,
            Case::Restart,
            Case::Cut,
        ],
    ) {
        if case == Case::Cut && !separate {
            println!("SKIPPED: cut; it needs network namespaces (root, and iproute2)");
            continue;
        }
        for kind in chosen(&options.kinds, &[Kind::Bowline, Kind::Haproxy]) {
            if kind == Kind::Haproxy && !is_installed("haproxy") {
                println!("SKIPPED: {case:?} with HAProxy; it is not installed");
                continue;
            }
            let figures = measure(&options, separate, kind, case).await?;
            if all.is_empty() {
                println!("{}", report::HEAD);
            }
            println!("{figures}");
            all.push(figures);
        }
    }
    println!("\n{}", report::LEGEND);
    let json = report::json(&all);
    match &options.json {
        Some(file) => std::fs::write(file, json)?,
        None => println!("\n{json}"),
    }
    Ok(true)
}

fn chosen<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all } else { some }.to_vec()
}

fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("-v").stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// One fault behind one balancer.
async fn measure(options: &Options, separate: bool, kind: Kind, case: Case) -> Result<Figures> {
    // The longest inactivity that no session reaches here.
    let model = Spec::model(false, 60);
    let mut world = World::start(NODES, separate, &model, "failover").await?;
    // Each ends at the end of this function.
    let (mut process, mut program) = (None, None);
    let address = match kind {
        Kind::Bowline => {
            let binary = bowline(options.binary.as_deref())?;
            let started = balancer::bowline(&binary, &world, &options.config).await?;
            process.insert(started).address
        }
        Kind::Haproxy => {
            let (started, address) = balancer::haproxy(&world).await?;
            program = Some(started);
            address
        }
    };
    // Both know their nodes then.
    sleep(SETTLING).await;
    let crowd = Crowd::start(options.sessions, address);
    crowd.all_held(START).await?;
    sleep(SETTLING).await;
    let at = now();
    fail(&mut world, case).await?;
    sleep(WATCHING).await;
    let victims = world.nodes[VICTIM].notes()?;
    let figures = Figures::read(kind, case, at, &crowd.end(), &victims);
    drop((process, program));
    Ok(figures)
}

async fn fail(world: &mut World, case: Case) -> Result<()> {
    if case == Case::PauseAll {
        world.nodes.iter().try_for_each(|node| node.freeze())?;
        sleep(PAUSE).await;
        return world.nodes.iter().try_for_each(|node| node.thaw());
    }
    let node = &mut world.nodes[VICTIM];
    match case {
        Case::Kill => node.kill(),
        Case::Freeze => node.freeze()?,
        Case::Pause => {
            node.freeze()?;
            sleep(PAUSE).await;
            node.thaw()?;
        }
        Case::PauseAll => {}
        Case::Cut => node.cut()?,
        Case::Restart => {
            node.kill();
            sleep(AT_ONCE).await;
            node.start()?;
        }
    }
    Ok(())
}
