//! One run: the balancer, its nodes and its clients, from a seed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bowline::cluster::{Cluster, NodeId, OperatorState};
use bowline::config::{Affinity, NodeSettings, Placement, Settings};
use bowline::downstream::{Downstream, Drain, Listener};
use bowline::health;
use bowline::limits::Files;
use bowline::metrics::Metrics;
use bowline::proxy::Proxy;
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::{Client, Shared};
use super::node::{INACTIVITY, MAXPAUSE, Node};
use super::trace::{Fault, Outcome, Trace};

/// How long a fault shows behind its end: a held request's deadline, probes until the node is up.
const CALM: Duration = Duration::from_secs(3);

/// The same where a node that falls again and again is kept away, five minutes at most.
const PENALISED: Duration = Duration::from_secs(300);

/// What the wall clock shows at the start, since 1970. Expiry rounds to whole seconds of it, so a fixed
/// time keeps a run repeatable.
const WALL: Duration = Duration::from_secs(1_800_000_000);

/// What a seed has besides its nodes and clients.
#[derive(Debug, Clone)]
struct Plan {
    nodes: usize,
    placement: Placement,
    /// One node offers sids of others.
    hostile: bool,
    /// Sessions follow their clients' addresses.
    by_address: bool,
    /// Nodes that fall again and again are kept away.
    penalised: bool,
    /// Clients send two requests at once all the time, and nodes are killed every second.
    busy: bool,
    /// An operator drains nodes and takes them out of service.
    operated: bool,
    /// Nodes pause, and the network goes away, for less than `health.silence`.
    pauses: bool,
}

/// The balancer, running.
struct World {
    trace: Arc<Trace>,
    nodes: Vec<Arc<Node>>,
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    _probes: health::Probes,
    _sweeper: JoinSet<()>,
}

impl World {
    async fn start(rng: &mut Rng, plan: &Plan) -> Self {
        let calm = if plan.penalised { PENALISED } else { CALM };
        let trace = Arc::new(Trace::new(calm));
        let alive = Arc::new(Mutex::new(Vec::new()));
        let node = |index| {
            let stolen = (plan.hostile && index == 0).then(|| Arc::clone(&alive));
            Node::new(index, rng.u64(..), Arc::clone(&trace), stolen)
        };
        let nodes: Vec<_> = (0..plan.nodes).map(node).collect();
        nodes.iter().for_each(Node::start);
        let named = nodes
            .iter()
            .map(|node| NodeSettings::new(format!("t{}", node.index), node.address().to_string()));
        let mut settings = Settings::for_nodes(named.collect());
        settings.placement = plan.placement;
        if plan.by_address {
            settings.affinity = Affinity::ClientIp;
        }
        if !plan.penalised {
            settings.health.penalty = Duration::ZERO;
        }
        settings.upstream.connects_per_second = 0;
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(&settings, &metrics));
        let proxy = Proxy::new(&settings, Arc::clone(&cluster), metrics);
        // A simulation has one thread, and one order of events.
        let proxy = proxy
            .expect("no traces are sent")
            .with_background(|work| work())
            .with_wall_clock(SystemTime::UNIX_EPOCH + WALL);
        let proxy = Arc::new(proxy);
        let downstream = Downstream::new(
            Arc::clone(&proxy),
            settings.clone(),
            Arc::new(Drain::default()),
            Files::raise(plan.nodes, 1, 1),
        );
        let probes = health::start(&cluster, &settings, &proxy.metrics);
        let mut sweeper = JoinSet::new();
        let swept = Arc::clone(&proxy);
        sweeper.spawn(async move {
            loop {
                sleep(Duration::from_secs(1)).await;
                swept.sweep();
            }
        });
        cluster.until_up().await;
        let shared = Arc::new(Shared {
            listener: Arc::new(Listener::new(
                Arc::new(downstream),
                settings.listen[0].clone(),
            )),
            proxy,
            trace: Arc::clone(&trace),
            nodes: plan.nodes,
            alive,
            busy: plan.busy,
        });
        Self {
            trace,
            nodes,
            cluster,
            shared,
            _probes: probes,
            _sweeper: sweeper,
        }
    }

    /// Holds that no node is called down that is well, for as long as it is polled.
    async fn watch(&self) {
        sleep(CALM).await;
        let mut down = vec![false; self.nodes.len()];
        loop {
            let now = self.trace.now();
            for (index, was_down) in down.iter_mut().enumerate() {
                let is_down = !self.cluster.nodes()[index].is_up();
                if is_down && !*was_down && !self.trace.ailed(index, now, now) {
                    let why = self.cluster.nodes()[index].last_failure();
                    self.trace.broken(&format!(
                        "node {index} is called down, and is well: {why:?}"
                    ));
                }
                *was_down = is_down;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Holds that nothing is left once everybody is gone and every time has passed.
    async fn settle(&self, plan: &Plan) {
        sleep(Duration::from_secs(INACTIVITY + MAXPAUSE + 20)).await;
        if plan.penalised {
            sleep(PENALISED).await;
        }
        let proxy = &self.shared.proxy;
        let sessions = proxy.sessions.len();
        if sessions > 0 {
            self.trace.broken(&format!("{sessions} sessions are left"));
        }
        for (node, simulated) in self.cluster.nodes().iter().zip(&self.nodes) {
            let metrics = &node.metrics;
            // A probe may be under way.
            let connections = simulated.connections().saturating_sub(1);
            let left = [
                ("requests held", node.held.balance()),
                ("sessions counted", node.sessions.balance()),
                ("connects waiting", metrics.connects_waiting.get()),
                ("placements", i64::try_from(node.load()).unwrap_or(i64::MAX)),
                (
                    "connections",
                    i64::try_from(connections).unwrap_or(i64::MAX),
                ),
            ];
            for (what, count) in left.iter().filter(|(_, count)| *count != 0) {
                let name = &node.name;
                self.trace
                    .broken(&format!("{count} {what} are left at {name}"));
            }
            if !node.is_up() {
                self.trace.broken(&format!("{} is not up again", node.name));
            }
        }
    }
}

/// Lets nodes fail until `end`, and then heals them all.
async fn trouble(
    nodes: Vec<Arc<Node>>,
    mut rng: Rng,
    end: Duration,
    trace: Arc<Trace>,
    plan: Plan,
) {
    let busy = plan.busy;
    let mut ill: Vec<Option<Fault>> = vec![None; nodes.len()];
    while trace.now() < end {
        let longest = if busy { 1500 } else { 9000 };
        sleep(Duration::from_millis(rng.u64(200..longest))).await;
        if plan.pauses && rng.u8(0..3) > 0 {
            pause(&nodes, &ill, &mut rng).await;
            continue;
        }
        let all = rng.u8(0..12) == 0;
        let chosen = rng.usize(..nodes.len());
        let hit: Vec<usize> = if all {
            (0..nodes.len()).collect()
        } else {
            vec![chosen]
        };
        for index in hit {
            match ill[index].take() {
                Some(fault) => nodes[index].heal(fault),
                None => {
                    // As a rule one node at least is well.
                    let others = ill
                        .iter()
                        .enumerate()
                        .filter(|(other, ill)| *other != index && ill.is_none());
                    if !all && others.count() == 0 {
                        continue;
                    }
                    let fault = [Fault::Kill, Fault::Freeze, Fault::Cut][rng.usize(..3)];
                    let fault = if busy { Fault::Kill } else { fault };
                    nodes[index].fail(fault);
                    ill[index] = Some(fault);
                }
            }
        }
    }
    for (node, fault) in nodes.iter().zip(ill) {
        if let Some(fault) = fault {
            node.heal(fault);
        }
    }
}

/// Has one node pause that is well, or takes the network away from all of them, for less than
/// `health.silence`.
async fn pause(nodes: &[Arc<Node>], ill: &[Option<Fault>], rng: &mut Rng) {
    let fault = [Fault::Pause, Fault::Blip][rng.usize(..2)];
    let all = rng.u8(0..3) == 0;
    let chosen = rng.usize(..nodes.len());
    let hit = |index: &usize| ill[*index].is_none() && (all || *index == chosen);
    let hit: Vec<usize> = (0..nodes.len()).filter(hit).collect();
    hit.iter().for_each(|index| nodes[*index].fail(fault));
    sleep(Duration::from_millis(rng.u64(100..4500))).await;
    for index in hit {
        nodes[index].heal(fault);
    }
}

/// Sets nodes to other states until `end`; then all are ready.
async fn operate(cluster: Arc<Cluster>, mut rng: Rng, end: Duration, trace: Arc<Trace>) {
    let set = |id: NodeId, state| {
        let done = cluster.set_state(id, state, false, SystemTime::now());
        // Refused where nobody could log in any more.
        if done.is_ok_and(|before| before != state) {
            trace.set(id.index(), state);
        }
    };
    let ids: Vec<_> = cluster.nodes().iter().map(|node| node.id).collect();
    while trace.now() < end {
        sleep(Duration::from_millis(rng.u64(200..6000))).await;
        set(
            ids[rng.usize(..ids.len())],
            OperatorState::ALL[rng.usize(..3)],
        );
    }
    for id in ids {
        set(id, OperatorState::Ready);
    }
}

/// A runtime on virtual time, on this thread.
fn virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime without sockets").block_on(future)
}

/// Runs one seed, on a thread of its own: what a thread keeps would go on into the next.
pub(super) fn run(seed: u64) -> Outcome {
    let simulated = std::thread::spawn(move || {
        fastrand::seed(seed);
        virtual_time(simulate(seed))
    });
    simulated
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn simulate(seed: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let count = rng.usize(2..5);
    let placement = [
        Placement::ClientIp,
        Placement::LeastSessions,
        Placement::RoundRobin,
        Placement::Random,
    ][rng.usize(..4)];
    let plan = Plan {
        nodes: count,
        placement,
        hostile: rng.u8(0..4) == 0,
        by_address: seed % 7 == 5,
        penalised: seed % 5 == 3,
        busy: seed % 4 == 1,
        operated: seed % 3 == 2,
        pauses: seed.is_multiple_of(2),
    };
    let faults = rng.u8(0..5) > 0;
    let world = World::start(&mut rng, &plan).await;
    let end = Duration::from_secs(rng.u64(20..60));
    let mut clients = JoinSet::new();
    for number in 0..rng.usize(2..12) {
        let client = Client::new(Arc::clone(&world.shared), number, rng.u64(..));
        clients.spawn(client.run(end));
    }
    let (nodes, trace) = (world.nodes.clone(), Arc::clone(&world.trace));
    let trouble = trouble(
        nodes,
        rng.fork(),
        if faults { end } else { Duration::ZERO },
        trace,
        plan.clone(),
    );
    let cluster = Arc::clone(&world.cluster);
    let until = if plan.operated { end } else { Duration::ZERO };
    let operated = operate(cluster, rng.fork(), until, Arc::clone(&world.trace));
    let living = async {
        let all = async { while clients.join_next().await.is_some() {} };
        tokio::join!(all, trouble, operated);
        world.settle(&plan).await;
    };
    tokio::select! {
        biased;
        () = living => {}
        () = world.watch() => {}
    }
    world.trace.judge();
    world.trace.close()
}

/// Holds `count` sessions at once, each with a poll at its node; then all of them go. What came of it,
/// and how much memory a session took, in bytes, clients, nodes and pipes included.
pub(super) fn hold(count: usize) -> (Outcome, usize) {
    let simulated = std::thread::spawn(move || virtual_time(hold_many(count)));
    simulated
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn hold_many(count: usize) -> (Outcome, usize) {
    let mut rng = Rng::with_seed(1);
    let plan = Plan {
        nodes: 3,
        placement: Placement::LeastSessions,
        hostile: false,
        by_address: false,
        penalised: false,
        busy: false,
        operated: false,
        pauses: false,
    };
    let world = World::start(&mut rng, &plan).await;
    let before = resident();
    let mut clients = JoinSet::new();
    for number in 0..count {
        let client = Client::new(Arc::clone(&world.shared), number, rng.u64(..));
        clients.spawn(client.hold());
        if number % 100 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let held = || -> u64 {
        world
            .cluster
            .nodes()
            .iter()
            .map(|node| node.held.get())
            .sum()
    };
    let wanted = u64::try_from(count).unwrap_or(u64::MAX);
    let mut most = 0;
    let mut memory = 0;
    for _ in 0..400 {
        sleep(Duration::from_millis(100)).await;
        if held() > most {
            most = held();
            memory = resident().saturating_sub(before) / count;
        }
        if most == wanted {
            break;
        }
    }
    if world.shared.proxy.sessions.len() != count {
        let there = world.shared.proxy.sessions.len();
        world.trace.broken(&format!("{there} sessions of {count}"));
    }
    // Answers come and go; nearly all polls are at their nodes at any time.
    if most < wanted * 99 / 100 {
        world
            .trace
            .broken(&format!("{most} polls of {count} are held at most"));
    }
    clients.shutdown().await;
    world.settle(&plan).await;
    world.trace.judge();
    (world.trace.close(), memory)
}

/// The memory of this process, in bytes; 0 where that cannot be told.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
