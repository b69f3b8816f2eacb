//! The plan of one run: everything that a seed draws, as data that can be printed and cut down.
//!
//! Each seed draws its own subset of faults, node habits and settings (swarm testing). A test in
//! which everything can happen hides defects that need one thing to happen often and another never.

use std::fmt;
use std::time::Duration;

use bowline::cluster::OperatorState;
use bowline::config::Placement;
use fastrand::Rng;

/// A fault of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node loses its sessions and connections. It refuses connections until the fault ends.
    Kill,
    /// The node accepts connections and does nothing.
    Freeze,
    /// No byte reaches the node, and connects get no answer.
    Cut,
    /// As `Freeze`, for less than `health.silence`. The node and the balancer keep its sessions.
    Pause,
    /// As `Cut`, for less than `health.silence`.
    Blip,
}

/// What an event does to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A fault, and how long it lasts.
    Fail(Fault, Duration),
    /// The operator sets the state of the node.
    Set(OperatorState),
}

/// One event of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) node: usize,
    pub(super) action: Action,
}

/// The terms that the nodes set for each session, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) wait: u64,
    pub(super) inactivity: u64,
    pub(super) maxpause: u64,
    /// Requests that a node holds. `requests` is one more.
    pub(super) hold: usize,
}

/// What nodes do now and then, each as a share of 256 requests. Each happens at most once to a
/// rid, since the design (§5) promises the client an answer after one such mishap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Habits {
    /// Closes the connection after an answer.
    pub(super) close: u8,
    /// Closes the connection in place of an answer.
    pub(super) drop: u8,
    /// Forgets the older of two requests, as Tigase does. Only with `hold` 1.
    pub(super) lose: u8,
    /// Answers 503 without a wrapper.
    pub(super) error: u8,
    /// Writes more bytes after an answer.
    pub(super) extra: u8,
    /// Closes the connection in the middle of an answer.
    pub(super) cut: u8,
    /// Offers the sid of another node's session for a new session.
    pub(super) steal: u8,
}

/// What clients do, each as a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) poll: u8,
    pub(super) send: u8,
    /// A poll, and a second request within 2.5 s.
    pub(super) both: u8,
    /// Two requests, the later rid first.
    pub(super) crossed: u8,
    /// No request for nearly `inactivity`.
    pub(super) rest: u8,
    pub(super) pause: u8,
    /// Gives a poll up and sends it again.
    pub(super) give_up: u8,
    /// Ends the session, or goes without a word.
    pub(super) leave: u8,
}

/// A client of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientPlan {
    pub(super) number: usize,
    pub(super) seed: u64,
    /// It sends two requests at a time, without a rest.
    pub(super) busy: bool,
}

/// A defect of the simulation itself, which the checker and the shrinker have to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// After the first fault, clients miss each fifth stanza.
    Lost,
    /// After the first fault, clients read each fifth stanza twice.
    Doubled,
    /// After the first fault, nodes take stanzas of a request in reverse order.
    Swapped,
}

/// Everything that a seed draws.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    /// Clients end their sessions and come no more after this time.
    pub(super) end: Duration,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) events: Vec<Event>,
    pub(super) terms: Terms,
    pub(super) habits: Habits,
    pub(super) weights: Weights,
    pub(super) placement: Placement,
    /// `affinity: client-ip`.
    pub(super) by_address: bool,
    /// `health.penalty` is on.
    pub(super) penalised: bool,
    /// `limits.sessions`, if it is low.
    pub(super) sessions: Option<usize>,
    /// From one sweep of the table to the next.
    pub(super) sweep: Duration,
    pub(super) defect: Option<Defect>,
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// True in `share` of 16 draws.
fn chance(rng: &mut Rng, share: u8) -> bool {
    rng.u8(0..16) < share
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let nodes = rng.usize(1..6);
        let end = millis(rng, 5_000..50_000);
        let busy = chance(rng, 4);
        let count = if chance(rng, 12) {
            rng.usize(1..6)
        } else {
            rng.usize(6..13)
        };
        let clients = (0..count).map(|number| ClientPlan {
            number,
            seed: rng.u64(..),
            busy: busy && chance(rng, 8),
        });
        let clients = clients.collect();
        let mut plan = Self {
            seed,
            nodes,
            end,
            clients,
            events: Vec::new(),
            terms: Terms {
                wait: [5, 30, 60][rng.usize(..3)],
                inactivity: rng.u64(3..20),
                maxpause: rng.u64(5..30),
                hold: if chance(rng, 13) { 1 } else { 2 },
            },
            habits: Habits::draw(rng),
            weights: Weights::draw(rng),
            placement: [
                Placement::ClientIp,
                Placement::LeastSessions,
                Placement::RoundRobin,
                Placement::Random,
            ][rng.usize(..4)]
            .clone(),
            by_address: chance(rng, 2),
            penalised: chance(rng, 2),
            sessions: chance(rng, 2).then(|| rng.usize(1..count + 2)),
            sweep: Duration::from_secs([1, 5, 10][rng.usize(..3)]),
            defect: None,
        };
        plan.draw_faults(rng);
        plan.draw_operator(rng);
        plan.events.sort_by_key(|event| event.at);
        plan
    }

    /// A plan without clients and events.
    pub(super) fn quiet(nodes: usize) -> Self {
        Self {
            nodes,
            end: Duration::ZERO,
            clients: Vec::new(),
            events: Vec::new(),
            terms: Terms {
                wait: 30,
                inactivity: 10,
                maxpause: 20,
                hold: 1,
            },
            habits: Habits::default(),
            by_address: false,
            penalised: false,
            sessions: None,
            sweep: Duration::from_secs(1),
            ..Self::draw(0)
        }
    }

    /// Faults of the kinds that this seed knows. As a rule one node is well.
    fn draw_faults(&mut self, rng: &mut Rng) {
        const KINDS: [Fault; 5] = [
            Fault::Kill,
            Fault::Freeze,
            Fault::Cut,
            Fault::Pause,
            Fault::Blip,
        ];
        let kinds: Vec<Fault> = KINDS.into_iter().filter(|_| rng.bool()).collect();
        if kinds.is_empty() {
            return;
        }
        let gap = [1_500, 4_000, 9_000, 20_000][rng.usize(..4)];
        let longest = [400, 2_000, 9_000, 25_000][rng.usize(..4)];
        let all_at_once = if chance(rng, 8) { 2 } else { 0 };
        let mut ill_until = vec![Duration::ZERO; self.nodes];
        let mut at = millis(rng, 200..gap);
        while at < self.end {
            let all = chance(rng, all_at_once);
            let chosen = rng.usize(..self.nodes);
            let fault = kinds[rng.usize(..kinds.len())];
            let longest = match fault {
                Fault::Pause | Fault::Blip => longest.min(4_500),
                Fault::Kill | Fault::Freeze | Fault::Cut => longest,
            };
            let lasts = millis(rng, 100..longest).min(self.end - at);
            for node in 0..self.nodes {
                let well = |other: &usize| *other != node && ill_until[*other] <= at;
                let alone = (0..self.nodes).filter(well).count() == 0;
                let hit = ill_until[node] <= at && (all || (node == chosen && !alone));
                if hit {
                    self.events.push(Event {
                        at,
                        node,
                        action: Action::Fail(fault, lasts),
                    });
                }
            }
            for event in self.events.iter().filter(|event| event.at == at) {
                ill_until[event.node] = at + lasts;
            }
            at += millis(rng, 200..gap);
        }
    }

    /// An operator who drains nodes and takes them out of service, in one of four runs.
    fn draw_operator(&mut self, rng: &mut Rng) {
        if !chance(rng, 4) {
            return;
        }
        let mut at = millis(rng, 200..6_000);
        while at < self.end {
            let node = rng.usize(..self.nodes);
            let action = Action::Set(OperatorState::ALL[rng.usize(..3)]);
            self.events.push(Event { at, node, action });
            at += millis(rng, 200..6_000);
        }
    }
}

impl Habits {
    fn draw(rng: &mut Rng) -> Self {
        let mut habits = Self::default();
        for habit in habits.all() {
            if chance(rng, 3) {
                *habit.1 = [2, 8, 32][rng.usize(..3)];
            }
        }
        habits
    }

    /// Every habit with its name.
    pub(super) fn all(&mut self) -> [(&'static str, &mut u8); 7] {
        [
            ("close", &mut self.close),
            ("drop", &mut self.drop),
            ("lose", &mut self.lose),
            ("error", &mut self.error),
            ("extra", &mut self.extra),
            ("cut", &mut self.cut),
            ("steal", &mut self.steal),
        ]
    }
}

impl Weights {
    fn draw(rng: &mut Rng) -> Self {
        let mut weight = |usual: u8| if chance(rng, 12) { usual } else { 0 };
        Self {
            poll: 2,
            send: weight(3),
            both: weight(9),
            crossed: weight(3),
            rest: weight(1),
            pause: weight(1),
            give_up: weight(1),
            leave: weight(1),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms {
            wait,
            inactivity,
            maxpause,
            hold,
        } = self.terms;
        writeln!(
            f,
            "seed {}: {} nodes, {} clients, {:.1} s, placement {:?}{}{}{}",
            self.seed,
            self.nodes,
            self.clients.len(),
            self.end.as_secs_f64(),
            self.placement,
            if self.by_address {
                ", affinity client-ip"
            } else {
                ""
            },
            if self.penalised { ", penalties" } else { "" },
            self.sessions
                .map_or_else(String::new, |count| format!(", {count} sessions at most")),
        )?;
        writeln!(
            f,
            "  terms: wait {wait} s, inactivity {inactivity} s, maxpause {maxpause} s, hold {hold}"
        )?;
        let mut habits = self.habits;
        let habits = habits.all();
        let habits = habits.iter().filter(|(_, share)| **share > 0);
        let habits: Vec<String> = habits
            .map(|(name, share)| format!("{name} {share}/256"))
            .collect();
        if !habits.is_empty() {
            writeln!(f, "  habits of nodes: {}", habits.join(", "))?;
        }
        let busy = self.clients.iter().filter(|client| client.busy);
        let busy: Vec<String> = busy.map(|client| client.number.to_string()).collect();
        if !busy.is_empty() {
            writeln!(f, "  busy clients: {}", busy.join(", "))?;
        }
        for Event { at, node, action } in &self.events {
            let at = at.as_secs_f64();
            match action {
                Action::Fail(fault, lasts) => {
                    let lasts = lasts.as_secs_f64();
                    writeln!(f, "  {at:10.3} s  t{node}  {fault:?} for {lasts:.3} s")?;
                }
                Action::Set(state) => {
                    writeln!(f, "  {at:10.3} s  t{node}  set to {}", state.word())?;
                }
            }
        }
        Ok(())
    }
}
