//! Shrinks the plan of a broken run: fewer events, clients and nodes, fewer habits and settings, a
//! shorter time, as long as the same invariant breaks.
//!
//! A shrunk plan is the seed and what is kept of its plan (`Kept`). That is short enough for a command.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::plan::{Habits, Plan};

/// What is kept of the plan of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Places in the list of events.
    pub(super) events: Vec<usize>,
    /// Numbers of clients.
    pub(super) clients: Vec<usize>,
    /// Habits and settings by name.
    pub(super) options: Vec<String>,
    pub(super) nodes: usize,
    /// Milliseconds.
    pub(super) end: u64,
}

impl Kept {
    /// Everything.
    pub(super) fn all(plan: &Plan) -> Self {
        let mut options: Vec<String> = Vec::new();
        let mut habits = plan.habits;
        let habits = habits.all().into_iter();
        let habits = habits.filter(|(_, share)| **share > 0);
        options.extend(habits.map(|(name, _)| name.to_owned()));
        let settings = [
            ("client-ip", plan.by_address),
            ("penalties", plan.penalised),
            ("sessions", plan.sessions.is_some()),
            ("busy", plan.clients.iter().any(|client| client.busy)),
        ];
        let settings = settings.into_iter().filter(|(_, on)| *on);
        options.extend(settings.map(|(name, _)| name.to_owned()));
        Self {
            events: (0..plan.events.len()).collect(),
            clients: plan.clients.iter().map(|client| client.number).collect(),
            options,
            nodes: plan.nodes,
            end: millis(plan.end),
        }
    }

    /// What is left of a plan.
    pub(super) fn of(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        let keeps = |option: &str| self.options.iter().any(|kept| kept == option);
        plan.nodes = plan.nodes.min(self.nodes);
        plan.end = plan.end.min(Duration::from_millis(self.end));
        let events = plan.events.iter().enumerate();
        let events = events.filter(|(place, event)| {
            self.events.contains(place) && event.node < plan.nodes && event.at < plan.end
        });
        plan.events = events.map(|(_, event)| *event).collect();
        plan.clients
            .retain(|client| self.clients.contains(&client.number));
        for client in &mut plan.clients {
            client.busy &= keeps("busy");
        }
        let mut habits: Habits = plan.habits;
        for (name, share) in habits.all() {
            *share = if keeps(name) { *share } else { 0 };
        }
        plan.habits = habits;
        plan.by_address &= keeps("client-ip");
        plan.penalised &= keeps("penalties");
        plan.sessions = plan.sessions.filter(|_| keeps("sessions"));
        plan
    }

    /// Reads what `Display` writes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut kept = Self {
            events: Vec::new(),
            clients: Vec::new(),
            options: Vec::new(),
            nodes: 0,
            end: 0,
        };
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=')?;
            let items = value.split(',').filter(|item| !item.is_empty());
            let numbers =
                || -> Option<Vec<usize>> { items.clone().map(|item| item.parse().ok()).collect() };
            match name {
                "events" => kept.events = numbers()?,
                "clients" => kept.clients = numbers()?,
                "options" => kept.options = items.map(ToOwned::to_owned).collect(),
                "nodes" => kept.nodes = value.parse().ok()?,
                "end" => kept.end = value.parse().ok()?,
                _ => return None,
            }
        }
        (kept.nodes > 0).then_some(kept)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: ToString>(items: &[T]) -> String {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            items.join(",")
        }
        let mut text = String::new();
        write!(text, "nodes={} end={}", self.nodes, self.end)?;
        write!(text, " clients={}", list(&self.clients))?;
        write!(text, " events={}", list(&self.events))?;
        write!(text, " options={}", list(&self.options))?;
        f.write_str(&text)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Shrinks a plan that breaks. `breaks` runs a smaller plan, and is asked at most `runs` times.
pub(super) fn shrink(plan: &Plan, runs: usize, mut breaks: impl FnMut(&Plan) -> bool) -> Kept {
    let mut left = runs;
    let mut smaller = |kept: &Kept| {
        left = left.saturating_sub(1);
        left > 0 && breaks(&kept.of(plan))
    };
    let mut kept = Kept::all(plan);
    loop {
        let before = kept.clone();
        drop_items(&mut kept, |kept| &mut kept.events, &mut smaller);
        drop_items(&mut kept, |kept| &mut kept.clients, &mut smaller);
        drop_items(&mut kept, |kept| &mut kept.options, &mut smaller);
        while kept.nodes > 1 {
            let nodes = kept.nodes - 1;
            let fewer = Kept {
                nodes,
                ..kept.clone()
            };
            if !smaller(&fewer) {
                break;
            }
            kept = fewer;
        }
        // Last: what is left may need more time when something else goes.
        shorten(&mut kept, &mut smaller);
        if kept == before {
            break;
        }
    }
    // Events of nodes that are gone, and after the end, are not in the plan either.
    let inside = |place: &usize| {
        let event = plan.events[*place];
        event.node < kept.nodes && event.at < Duration::from_millis(kept.end)
    };
    kept.events.retain(inside);
    kept
}

/// Ends earlier, as early as half the time again and again breaks.
fn shorten(kept: &mut Kept, smaller: &mut impl FnMut(&Kept) -> bool) {
    let (mut works, mut fails) = (kept.end, 0);
    while works - fails > 500 {
        let end = fails.midpoint(works);
        let shorter = Kept {
            end,
            ..kept.clone()
        };
        if smaller(&shorter) {
            works = end;
        } else {
            fails = end;
        }
    }
    kept.end = works;
}

/// Leaves items out: half of them, then quarters, down to one at a time.
fn drop_items<T: Clone>(
    kept: &mut Kept,
    list: fn(&mut Kept) -> &mut Vec<T>,
    smaller: &mut impl FnMut(&Kept) -> bool,
) {
    let mut size = list(kept).len();
    while size > 0 {
        let mut from = 0;
        while from < list(kept).len() {
            let mut fewer = kept.clone();
            let items = list(&mut fewer);
            items.drain(from..(from + size).min(items.len()));
            if smaller(&fewer) {
                *kept = fewer;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_is_written() {
        for seed in 0..50 {
            let kept = Kept::all(&Plan::draw(seed));
            assert_eq!(Kept::read(&kept.to_string()), Some(kept));
        }
        for text in ["nodes=x", "nodes=2 hops=3", "nodes", "end=4"] {
            assert_eq!(Kept::read(text), None, "{text}");
        }
    }

    #[test]
    fn everything_that_is_kept_is_the_whole_plan() {
        for seed in 0..50 {
            let plan = Plan::draw(seed);
            assert_eq!(Kept::all(&plan).of(&plan), plan);
        }
    }

    /// A plan breaks with client 2 and the events 3 and 7 alone.
    #[test]
    fn only_the_cause_is_kept() {
        let mut seeds = (0..1000).map(Plan::draw);
        let usable = |plan: &Plan| plan.events.len() > 10 && plan.clients.len() > 4;
        let plan = seeds.find(usable).expect("a seed with many events");
        let cause = [plan.events[3], plan.events[7]];
        let kept = shrink(&plan, 10_000, |plan| {
            let client = plan.clients.iter().any(|client| client.number == 2);
            client && cause.iter().all(|event| plan.events.contains(event))
        });
        assert_eq!((kept.events, kept.clients), (vec![3, 7], vec![2]));
        assert_eq!(kept.options, Vec::<String>::new());
        assert_eq!(kept.nodes, cause[0].node.max(cause[1].node) + 1);
        let latest = millis(cause[1].at);
        assert!(kept.end > latest && kept.end < latest + 1000);
    }

    #[test]
    fn the_runs_are_bounded() {
        let mut runs = 0;
        shrink(&Plan::draw(1), 40, |_| {
            runs += 1;
            true
        });
        assert!(runs < 40);
    }
}
