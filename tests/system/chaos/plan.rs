//! Which faults come when: drawn from a seed, so that a run can be repeated.
//!
//! One node at least is well at any time, and has been long enough for the balancer to know it,
//! except while all nodes are down on purpose.

use std::time::Duration;

use fastrand::Rng;

/// After a fault, how long until the balancer can be expected to use the node again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(3);
/// Without faults at the start.
const CALM: Duration = Duration::from_secs(1);
/// From one time when all nodes are down to the next, about.
const ALL_DOWN_EVERY: Duration = Duration::from_secs(30);
/// A process that its supervisor starts again at once.
const AT_ONCE: Duration = Duration::from_millis(200);

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a new start after it.
    Killed,
    /// SIGSTOP, and SIGCONT.
    Frozen,
    /// No packet goes through.
    CutOff,
}

/// One fault of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) node: usize,
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// Part of a time when all nodes are down.
    pub(crate) all: bool,
}

/// The beginning or the end of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) node: usize,
    pub(crate) fault: Fault,
    pub(crate) begins: bool,
}

/// The faults of one run.
pub(crate) struct Plan {
    steps: Vec<Step>,
    nodes: usize,
    faults: Vec<Fault>,
    lasts: Duration,
}

impl Plan {
    /// Draws a plan.
    pub(crate) fn draw(rng: &mut Rng, nodes: usize, cuts: bool, lasts: Duration) -> Self {
        let mut faults = vec![Fault::Killed, Fault::Frozen];
        if cuts {
            faults.push(Fault::CutOff);
        }
        let mut plan = Self {
            steps: Vec::new(),
            nodes,
            faults,
            lasts,
        };
        plan.draw_all_down(rng);
        let mut at = CALM;
        while at < lasts {
            plan.draw_one(rng, at);
            at += between(rng, 0.2, 3.0);
        }
        plan
    }

    fn draw_all_down(&mut self, rng: &mut Rng) {
        let mut at = CALM + ALL_DOWN_EVERY.mul_f64(rng.f64());
        while at + Duration::from_secs(8) < self.lasts {
            let ends = at + between(rng, 0.5, 7.0);
            for node in 0..self.nodes {
                self.steps.push(Step {
                    node,
                    fault: *self.pick(rng),
                    from: at + between(rng, 0.0, 0.5),
                    until: ends + between(rng, 0.0, 2.0),
                    all: true,
                });
            }
            at = ends + ALL_DOWN_EVERY.mul_f64(0.5 + rng.f64());
        }
    }

    fn draw_one(&mut self, rng: &mut Rng, at: Duration) {
        let node = rng.usize(..self.nodes);
        let fault = *self.pick(rng);
        let restarts_at_once = fault == Fault::Killed && rng.u8(..3) == 0;
        let lasts = if restarts_at_once {
            AT_ONCE
        } else {
            between(rng, 0.3, 7.0)
        };
        // A node that flaps does so a few times.
        let times = if restarts_at_once { rng.u32(1..4) } else { 1 };
        let mut from = at;
        for _ in 0..times {
            let step = Step {
                node,
                fault,
                from,
                until: from + lasts,
                all: false,
            };
            if self.allows(&step) {
                self.steps.push(step);
            }
            from = step.until + between(rng, 0.3, 1.0);
        }
    }

    fn pick<'a>(&'a self, rng: &mut Rng) -> &'a Fault {
        rng.choice(&self.faults).unwrap_or(&Fault::Killed)
    }

    /// Whether the node is well then, and another one stays so.
    fn allows(&self, step: &Step) -> bool {
        let (from, until) = (step.from, step.until + RECOVERY);
        let busy = |node: usize| {
            let mut steps = self.steps.iter();
            steps.any(|other| {
                other.node == node && other.from < until && from < other.until + RECOVERY
            })
        };
        let own = self.steps.iter().any(|other| {
            other.node == step.node && other.from <= step.until && from <= other.until
        });
        let all = self
            .steps
            .iter()
            .any(|other| other.all && other.from < until && from < other.until + RECOVERY);
        !own && !all
            && step.until < self.lasts
            && (0..self.nodes).any(|node| node != step.node && !busy(node))
    }

    /// Beginnings and ends, in order.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        for step in &self.steps {
            for (at, begins) in [(step.from, true), (step.until, false)] {
                let (node, fault) = (step.node, step.fault);
                events.push(Event {
                    at,
                    node,
                    fault,
                    begins,
                });
            }
        }
        events.sort_by_key(|event| event.at);
        events
    }

    /// How many faults of this kind there are.
    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.steps.iter().filter(|step| step.fault == fault).count()
    }

    /// How many times all nodes are down.
    pub(crate) fn count_all_down(&self) -> usize {
        self.steps.iter().filter(|step| step.all).count() / self.nodes
    }
}

fn between(rng: &mut Rng, least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(least + (most - least) * rng.f64())
}
