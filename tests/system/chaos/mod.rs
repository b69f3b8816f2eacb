//! One run of the chaos suite: start, play the plan, heal, send the clients away, judge.

mod clients;
mod fault_log;
mod invariants;
mod leaks;
mod plan;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Result;
use crate::support::log::now;
use crate::support::process::Process;
use crate::support::program::bowline;
use crate::support::waiting::until;
use crate::world::balancer::{self, metric};
use crate::world::node::Spec;
use crate::world::{World, net};
pub(crate) use clients::creation;
use clients::{Crowd, End, Notebook, WAIT};
use fault_log::FaultLog;
use invariants::judge;
use plan::{Fault, Plan};

/// How long the nodes keep an unused session, in seconds.
pub(crate) const INACTIVITY: u32 = 5;
/// How long healed nodes may take to be called up, all of them.
const HEALING: Duration = Duration::from_secs(30);
/// With all nodes up, how long until every client has a session.
const SETTLING: Duration = Duration::from_secs(WAIT as u64 + 4);
/// Verdicts quick enough for a short run, and no penalty that keeps a node out of a long one.
const HEALTH: &str = "health: { interval: 500ms, timeout: 500ms, penalty: 500ms, penalty_max: 3s }";

/// What a run is started with.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long faults come.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed gives the same faults; a random one otherwise.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
    #[arg(long, default_value_t = 60)]
    clients: usize,
    /// The program to test; the release build otherwise.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// A line of its configuration.
    #[arg(long, default_value = HEALTH)]
    config: String,
    /// Leaves the logs behind in any case.
    #[arg(long)]
    keep: bool,
}

/// Runs it; whether every invariant held.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let cuts = net::enter();
    if !cuts {
        println!("SKIPPED: network cuts; they need network namespaces (root, and iproute2)");
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut rng = Rng::with_seed(seed);
    let lasts = Duration::from_secs(options.seconds);
    let nodes = usize::from(options.nodes);
    let prosody = rng.u8(..3) == 0;
    let plan = Plan::draw(&mut rng, nodes, cuts, lasts);
    introduce(&options, seed, prosody, &plan);

    let model = Spec::model(prosody, INACTIVITY);
    let mut world = World::start(options.nodes, cuts, &model, &format!("chaos-{seed}")).await?;
    let binary = bowline(options.binary.as_deref())?;
    let mut balancer = balancer::bowline(&binary, &world, &options.config).await?;
    let mut broken = Vec::new();
    broken.extend(all_up(&balancer, nodes).await?);
    let descriptors = balancer.program.usage().descriptors()?;
    let mut crowd = Crowd::start(options.clients, balancer.address, &mut rng);
    let mut fault_log = play(&plan, &mut world).await?;
    broken.extend(all_up(&balancer, nodes).await?);
    broken.extend(settle(&crowd, options.clients).await);
    crowd.leave().await;
    if balancer.program.runs() {
        broken.extend(leaks::check(&balancer, &world, descriptors).await?);
    } else {
        broken.push("the balancer has ended by itself".to_owned());
    }
    let lines = balancer.log.lines();
    fault_log.read_verdicts(&lines);
    let lost = lines
        .iter()
        .filter(|line| line.text.contains("lost its sessions"));
    println!(
        "{} times a node was found to have lost its sessions",
        lost.count()
    );
    let panics = lines.into_iter().map(|line| line.text);
    broken.extend(panics.filter(|text| text.contains("panicked")));
    broken.extend(judge(&crowd.book(), &world, &fault_log)?);
    report(&crowd.book(), &fault_log, &broken);
    conclude(world, seed, &broken, options.keep);
    Ok(broken.is_empty())
}

fn introduce(options: &Options, seed: u64, prosody: bool, plan: &Plan) {
    let software = if prosody { "Prosody" } else { "Tigase" };
    println!(
        "seed {seed}: {} s, {} {software} nodes, {} clients; {} kills, {} freezes, {} cuts, {} \
         times all nodes down",
        options.seconds,
        options.nodes,
        options.clients,
        plan.count(Fault::Killed),
        plan.count(Fault::Frozen),
        plan.count(Fault::CutOff),
        plan.count_all_down(),
    );
}

/// Makes the faults happen.
async fn play(plan: &Plan, world: &mut World) -> Result<FaultLog> {
    let mut fault_log = FaultLog::new(world.nodes.len());
    let mut log = File::create(world.folder.path().join("faults.log"))?;
    let started = Instant::now();
    for event in plan.events() {
        sleep_until(started + event.at).await;
        let node = &mut world.nodes[event.node];
        let (what, begins) = (event.fault, event.begins);
        writeln!(log, "{} {} {what:?} {begins}", now(), node.spec.name)?;
        if event.begins {
            fault_log.begins(event.node, event.fault);
        }
        match (event.fault, event.begins) {
            (Fault::Killed, true) => node.kill(),
            (Fault::Killed, false) => node.start()?,
            (Fault::Frozen, true) => node.freeze()?,
            (Fault::Frozen, false) => node.thaw()?,
            (Fault::CutOff, true) => node.cut()?,
            (Fault::CutOff, false) => node.mend()?,
        }
        if !event.begins {
            fault_log.ends(event.node);
        }
    }
    Ok(fault_log)
}

/// Waits until every node is called up.
async fn all_up(balancer: &Process, nodes: usize) -> Result<Option<String>> {
    let mut up = 0.0;
    let all = async || {
        up = metric(balancer, "bowline_node_up").await.unwrap_or(0.0);
        up >= nodes as f64
    };
    if until(HEALING, all).await {
        return Ok(None);
    }
    let seconds = HEALING.as_secs();
    let text = format!("only {up} nodes are called up, {seconds} s after the last fault");
    Ok(Some(text))
}

/// Waits a while without faults; then every client has a session.
async fn settle(crowd: &Crowd, clients: usize) -> Option<String> {
    sleep(SETTLING).await;
    // A client may be between two sessions just now.
    let soon = Duration::from_secs(1);
    if until(soon, async || crowd.alive() == clients).await {
        return None;
    }
    let (alive, seconds) = (crowd.alive(), SETTLING.as_secs());
    Some(format!(
        "only {alive} of {clients} clients have a session, {seconds} s after all nodes were up"
    ))
}

fn report(book: &Notebook, fault_log: &FaultLog, broken: &[String]) {
    let ended = |wanted: fn(&End) -> bool| {
        let ends = book.stories.iter().filter_map(|story| story.end.as_ref());
        ends.filter(|(_, end)| wanted(end)).count()
    };
    println!(
        "{} sessions: {} ended by their clients, {} by a clean terminate, {} broken; {} answers, the \
         slowest after {:.1} s",
        book.stories.len(),
        ended(|end| *end == End::Own),
        ended(|end| matches!(end, End::Told(_))),
        ended(|end| *end == End::Broken),
        book.answers,
        Duration::from_micros(book.slowest).as_secs_f64(),
    );
    for fault in [Fault::Killed, Fault::Frozen, Fault::CutOff] {
        let delays = fault_log.verdict_delays(fault);
        if let Some(longest) = delays.iter().max() {
            let longest = Duration::from_micros(*longest).as_secs_f64();
            println!(
                "{fault:?}: known {} times, after {longest:.2} s at most",
                delays.len()
            );
        }
    }
    for line in broken {
        println!("BROKEN: {line}");
    }
}

fn conclude(mut world: World, seed: u64, broken: &[String], keep: bool) {
    if broken.is_empty() {
        println!("every invariant held (seed {seed})");
    } else {
        println!("{} broken invariants (seed {seed})", broken.len());
    }
    if keep || !broken.is_empty() {
        println!("logs: {}", world.folder.path().display());
        world.folder.keep();
    }
}
