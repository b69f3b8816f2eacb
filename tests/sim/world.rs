//! One run: the balancer, its nodes and its clients, by a plan.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bowline::cluster::Cluster;
use bowline::config::{Affinity, NodeSettings, Placement, Settings};
use bowline::downstream::{Downstream, Drain, Listener};
use bowline::health;
use bowline::limits::Files;
use bowline::observe::metrics::Metrics;
use bowline::proxy::Proxy;
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::{Client, Shared};
use super::history::{History, Outcome};
use super::invariants::{Invariant, judge};
use super::node::Node;
use super::plan::{Action, ClientPlan, Event, Plan};
use super::trace::Who;

/// How long a fault shows after its end: the deadline of a held request, and the probes until the
/// node is up.
const CALM: Duration = Duration::from_secs(3);

/// The same for nodes with penalties, which are at most this long.
const PENALISED: Duration = Duration::from_secs(300);

/// What the wall clock shows at the start, since 1970. Expiry rounds to whole seconds of it, so a fixed
/// time keeps a run repeatable.
const WALL: Duration = Duration::from_secs(1_800_000_000);

/// The balancer, running.
pub(super) struct Balancer {
    pub(super) cluster: Arc<Cluster>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) listener: Arc<Listener>,
    _probes: health::Probes,
    _sweeper: JoinSet<()>,
}

impl Balancer {
    /// Starts it, with this time between sweeps, and waits until a node is up.
    pub(super) async fn start(settings: &Settings, sweep: Duration) -> Self {
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(settings, &metrics));
        let proxy = Proxy::new(settings, Arc::clone(&cluster), metrics);
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
            Files::raise(settings.nodes.len(), 1, 1),
        );
        let probes = health::start(&cluster, settings, &proxy.metrics);
        let mut sweeper = JoinSet::new();
        let swept = Arc::clone(&proxy);
        sweeper.spawn(async move {
            loop {
                sleep(sweep).await;
                swept.sweep();
            }
        });
        cluster.until_up().await;
        let listener = Listener::new(Arc::new(downstream), settings.listen[0].clone());
        Self {
            cluster,
            proxy,
            listener: Arc::new(listener),
            _probes: probes,
            _sweeper: sweeper,
        }
    }
}

/// A balancer with its nodes, and what happened.
struct World {
    history: Arc<History>,
    nodes: Vec<Arc<Node>>,
    balancer: Balancer,
    shared: Arc<Shared>,
}

fn settings(plan: &Plan, nodes: &[Arc<Node>]) -> Settings {
    let named = nodes
        .iter()
        .map(|node| NodeSettings::new(format!("t{}", node.index), node.address().to_string()));
    let mut settings = Settings::for_nodes(named.collect());
    settings.placement = plan.placement.clone();
    if plan.by_address {
        settings.affinity = Affinity::ClientIp;
    }
    if !plan.penalised {
        settings.health.penalty = Duration::ZERO;
    }
    if let Some(sessions) = plan.sessions {
        settings.limits.sessions = sessions;
    }
    settings.upstream.connects_per_second = 0;
    settings
}

impl World {
    async fn start(plan: &Plan, traced: bool) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let calm = if plan.penalised { PENALISED } else { CALM };
        let history = Arc::new(History::new(calm, traced));
        let alive = Arc::new(Mutex::new(Vec::new()));
        let node = |index| {
            let (history, alive) = (Arc::clone(&history), Arc::clone(&alive));
            Node::new(index, rng.u64(..), plan, history, alive)
        };
        let nodes: Vec<_> = (0..plan.nodes).map(node).collect();
        nodes.iter().for_each(Node::start);
        let settings = settings(plan, &nodes);
        let balancer = Balancer::start(&settings, plan.sweep).await;
        let shared = Arc::new(Shared {
            listener: Arc::clone(&balancer.listener),
            proxy: Arc::clone(&balancer.proxy),
            history: Arc::clone(&history),
            nodes: plan.nodes,
            terms: plan.terms,
            weights: plan.weights,
            crowded: plan.sessions.is_some(),
            defect: plan.defect,
            alive,
        });
        Self {
            history,
            nodes,
            balancer,
            shared,
        }
    }

    fn client(&self, plan: &ClientPlan) -> Client {
        Client::new(Arc::clone(&self.shared), plan)
    }

    /// Checks that no node is called down that is well, for as long as it is polled.
    async fn watch(&self) {
        let mut down = vec![false; self.nodes.len()];
        loop {
            // A node that goes down stays so for two probes, 0.4 s at least.
            sleep(Duration::from_millis(150)).await;
            let now = self.history.now();
            for (index, was_down) in down.iter_mut().enumerate() {
                let node = &self.balancer.cluster.nodes()[index];
                let is_down = !node.is_up();
                if is_down == *was_down {
                    continue;
                }
                *was_down = is_down;
                let verdict = || if is_down { "down" } else { "up" }.to_owned();
                let what = if is_down { "calls down" } else { "calls up" };
                let request = ("", 0);
                let name = || format!("t{index}");
                self.history.note(Who::Balancer, what, request, name);
                if is_down && now > CALM && !self.history.failed(index, now, now) {
                    let (why, verdict) = (node.last_failure(), verdict());
                    let text = format!("t{index} is called {verdict}, and is well: {why:?}");
                    self.history.broken(Invariant::Verdict, &text);
                }
            }
        }
    }

    /// Checks that nothing is left when all clients are gone and every time has passed.
    async fn settle(&self, plan: &Plan) {
        let after = plan.terms.inactivity + plan.terms.maxpause + 20;
        sleep(Duration::from_secs(after)).await;
        if plan.penalised && !plan.events.is_empty() {
            sleep(PENALISED).await;
        }
        let proxy = &self.shared.proxy;
        let mut left = vec![("sessions", proxy.sessions.len(), "in the table".to_owned())];
        for (node, simulated) in self.balancer.cluster.nodes().iter().zip(&self.nodes) {
            let count =
                |balance: i64| usize::try_from(balance.unsigned_abs()).unwrap_or(usize::MAX);
            let waiting = node.metrics.connects_waiting.get();
            let counts = [
                ("requests held", count(node.held.balance())),
                ("sessions counted", count(node.sessions.balance())),
                ("connects waiting", count(waiting)),
                (
                    "placements",
                    usize::try_from(node.load()).unwrap_or(usize::MAX),
                ),
                // A probe may be under way.
                ("connections", simulated.connections().saturating_sub(1)),
                ("verdicts down", usize::from(!node.is_up())),
            ];
            let at = format!("at {}", node.name);
            left.extend(counts.map(|(what, count)| (what, count, at.clone())));
        }
        for (what, count, place) in left.iter().filter(|(_, count, _)| *count != 0) {
            let text = format!("{count} {what} are left {place}");
            self.history.broken(Invariant::NothingLeft, &text);
        }
    }

    /// Lets an event of the plan happen.
    async fn happen(&self, event: Event) {
        sleep(event.at.saturating_sub(self.history.now())).await;
        match event.action {
            Action::Fail(fault, lasts) => {
                let node = &self.nodes[event.node];
                node.fail(fault);
                sleep(lasts).await;
                node.heal(fault);
            }
            Action::Set(state) => {
                let id = self.balancer.cluster.nodes()[event.node].id;
                let done = self
                    .balancer
                    .cluster
                    .set_state(id, state, false, SystemTime::now());
                // It is refused if no node would take sessions any more.
                if done.is_ok_and(|before| before != state) {
                    self.history.set(event.node, state);
                }
            }
        }
    }

    /// Lets every event happen at its time, and at the end makes every node ready.
    async fn events(&self, plan: &Plan) {
        let events = plan.events.iter().map(|event| self.happen(*event));
        let mut events: Vec<_> = events.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            events.retain_mut(|event| event.as_mut().poll(context).is_pending());
            if events.is_empty() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
        for node in 0..plan.nodes {
            let action = Action::Set(bowline::cluster::OperatorState::Ready);
            let at = plan.end;
            self.happen(Event { at, node, action }).await;
        }
    }
}

/// A runtime on virtual time, on this thread.
pub(super) fn virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime without sockets").block_on(future)
}

/// Runs a plan on its own thread, since a thread keeps some state from one run to the next. `traced`
/// keeps a line for each event.
pub(super) fn run(plan: &Plan, traced: bool) -> Outcome {
    let simulated = || {
        fastrand::seed(plan.seed);
        virtual_time(simulate(plan, traced))
    };
    let ended = std::thread::scope(|scope| scope.spawn(simulated).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn simulate(plan: &Plan, traced: bool) -> Outcome {
    let world = World::start(plan, traced).await;
    let mut clients = JoinSet::new();
    for client in &plan.clients {
        clients.spawn(world.client(client).run(plan.end));
    }
    let living = async {
        let all = async { while clients.join_next().await.is_some() {} };
        tokio::join!(all, world.events(plan));
        world.settle(plan).await;
    };
    tokio::select! {
        biased;
        () = living => {}
        () = world.watch() => {}
    }
    judge(&world.history);
    world.history.close()
}

/// Holds `count` sessions at once, each with a poll at its node; then all of them go. Returns the
/// outcome, and the bytes of memory of one session with its client, its node and its pipes.
pub(super) fn hold(count: usize) -> (Outcome, usize) {
    let simulated = std::thread::spawn(move || virtual_time(hold_many(count)));
    simulated
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn hold_many(count: usize) -> (Outcome, usize) {
    let mut plan = Plan::quiet(3);
    plan.placement = Placement::LeastSessions;
    let world = World::start(&plan, false).await;
    let before = resident();
    let mut clients = JoinSet::new();
    for number in 0..count {
        let seed = u64::try_from(number).unwrap_or(0);
        let client = ClientPlan {
            number,
            seed,
            busy: false,
        };
        clients.spawn(world.client(&client).hold());
        if number % 100 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let held = || -> u64 {
        let nodes = world.balancer.cluster.nodes();
        nodes.iter().map(|node| node.held.get()).sum()
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
    let there = world.shared.proxy.sessions.len();
    if there != count {
        let text = format!("{there} sessions of {count}");
        world.history.broken(Invariant::NothingLeft, &text);
    }
    // Answers come and go. Nearly all polls are at their nodes at any time.
    if most < wanted * 99 / 100 {
        let text = format!("{most} polls of {count} are held at most");
        world.history.broken(Invariant::NothingLeft, &text);
    }
    clients.shutdown().await;
    world.settle(&plan).await;
    judge(&world.history);
    (world.history.close(), memory)
}

/// The memory of this process, in bytes; 0 where the system does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
