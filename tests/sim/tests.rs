//! Which seeds run, and how a broken one is reported.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::history::Outcome;
use super::invariants::Invariant;
use super::plan::{Defect, Plan};
use super::shrink::{Kept, shrink};
use super::trace::HEADING;
use super::world::{hold, run};

/// `cargo test` runs these.
const SEEDS: Range<u64> = 0..100;

/// How often a broken plan is run to shrink it.
const RUNS: usize = 400;

/// After this many seeds a long run says how far it is.
const PROGRESS: u64 = 20_000;

/// Broken seeds that are shrunk and printed.
const SHOWN: usize = 5;

/// `SIMULATION_SEEDS`: `5` or `A..B`.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else {
        return SEEDS;
    };
    let number = |text: &str| text.parse().expect("SIMULATION_SEEDS is N or A..B");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    }
}

/// The plan of a seed, or the part of it that `SIMULATION_KEEP` says.
fn plan(seed: u64) -> Plan {
    let plan = Plan::draw(seed);
    let Ok(text) = std::env::var("SIMULATION_KEEP") else {
        return plan;
    };
    let kept = Kept::read(&text).expect("SIMULATION_KEEP is what a broken seed printed");
    kept.of(&plan)
}

/// What a broken run says: its findings, the smallest plan with the first of them, and a command.
fn report(plan: &Plan, outcome: &Outcome) -> String {
    let mut text = format!("seed {}: {} broken\n", plan.seed, outcome.broken.len());
    findings(&mut text, outcome);
    let Some(first) = outcome.broken.first() else {
        return text;
    };
    let kept = shrink(plan, RUNS, |plan| breaks(plan, first.invariant));
    let small = kept.of(plan);
    let outcome = run(&small, false);
    let (invariant, seed) = (first.invariant, plan.seed);
    let _ = write!(
        text,
        "  The smallest plan that breaks {invariant:?}:\n{small}"
    );
    findings(&mut text, &outcome);
    let _ = write!(
        text,
        "  again: tests/sim/run --seed {seed} --keep '{kept}' --trace"
    );
    text
}

fn findings(text: &mut String, outcome: &Outcome) {
    for broken in outcome.broken.iter().take(8) {
        let (invariant, what) = (broken.invariant, &broken.text);
        let at = broken.at.as_secs_f64();
        let _ = writeln!(text, "  BROKEN at {at:.3} s: {invariant:?}: {what}");
    }
}

fn breaks(plan: &Plan, invariant: Invariant) -> bool {
    let outcome = run(plan, false);
    let mut broken = outcome.broken.iter();
    broken.any(|broken| broken.invariant == invariant)
}

#[test]
fn seeds_hold() {
    let seeds = seeds();
    if std::env::var_os("SIMULATION_TRACE").is_some() {
        print_trace(seeds.start);
    }
    let count = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let totals = Mutex::new((Vec::new(), [0_usize; 4]));
    let begun = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(&plan(seed), false);
            let done = seed - seeds.start + 1;
            if done.is_multiple_of(PROGRESS) {
                println!("{done} of {count} seeds after {:.0?}", begun.elapsed());
            }
            let mut totals = totals.lock().expect("no panic");
            let counts = [
                outcome.sessions,
                outcome.requests,
                outcome.answers,
                outcome.stanzas,
            ];
            for (total, count) in totals.1.iter_mut().zip(counts) {
                *total += count;
            }
            if !outcome.broken.is_empty() {
                totals.0.push((seed, outcome));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (mut broken, counts) = totals.into_inner().expect("no panic");
    let [sessions, requests, answers, stanzas] = counts;
    let how = if broken.is_empty() { "held" } else { "ran" };
    println!(
        "{count} seeds {how} in {:.1?}: {sessions} sessions, {requests} requests at nodes, {answers} \
         answers, {stanzas} stanzas",
        begun.elapsed()
    );
    broken.sort_by_key(|(seed, _)| *seed);
    let all: Vec<String> = broken.iter().map(|(seed, _)| seed.to_string()).collect();
    let reports = broken.iter().take(SHOWN);
    let reports: Vec<String> = reports
        .map(|(seed, outcome)| report(&plan(*seed), outcome))
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {count} seeds: {}\n{}",
        broken.len(),
        all.join(" "),
        reports.join("\n")
    );
    assert!(requests > 0 && answers > 0 && stanzas > 0);
}

/// Prints every event of a seed.
fn print_trace(seed: u64) {
    let plan = plan(seed);
    let outcome = run(&plan, true);
    println!("{plan}{HEADING}");
    for line in &outcome.lines {
        println!("{line}");
    }
    let mut text = String::new();
    findings(&mut text, &outcome);
    println!("{text}");
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..3 {
        let plan = Plan::draw(seed);
        assert_eq!(run(&plan, true), run(&plan, true), "seed {seed}");
    }
}

/// A trace says what happened, and does not change it.
#[test]
fn a_trace_changes_nothing() {
    let plan = Plan::draw(1);
    let mut traced = run(&plan, true);
    assert!(!traced.lines.is_empty());
    traced.lines.clear();
    assert_eq!(traced, run(&plan, false));
}

/// Each mistake with stanzas that is planted into a run is found, and shrunk to one fault and few clients.
#[test]
fn a_planted_defect_is_found_and_shrunk() {
    for (defect, invariant) in [
        (Defect::Lost, Invariant::StanzaLost),
        (Defect::Doubled, Invariant::StanzaDoubled),
        (Defect::Swapped, Invariant::StanzaSwapped),
    ] {
        let planted = |seed| Plan {
            defect: Some(defect),
            ..Plan::draw(seed)
        };
        let big = |plan: &Plan| plan.events.len() > 2 && (3..8).contains(&plan.clients.len());
        let mut plans = (0..200).map(planted).filter(big);
        let plan = plans.find(|plan| breaks(plan, invariant));
        let plan = plan.expect("the defect shows in one of 200 seeds");
        let kept = shrink(&plan, RUNS, |plan| breaks(plan, invariant));
        let small = kept.of(&plan);
        assert!(breaks(&small, invariant), "{defect:?}: {kept}");
        assert_eq!(small.events.len(), 1, "{defect:?}: {kept}");
        assert_eq!(small.clients.len(), 1, "{defect:?}: {kept}");
        assert!(small.end < plan.end, "{defect:?}: {kept}");
        // The command repeats it.
        let again = Kept::read(&kept.to_string()).expect("what was written");
        assert_eq!(again.of(&plan), small);
    }
}

#[test]
fn many_sessions_are_held_in_one_process() {
    let count =
        std::env::var("SIMULATION_SESSIONS").map_or(2000, |text| text.parse().expect("a number"));
    let (outcome, memory) = hold(count);
    println!("{count} sessions held, {memory} bytes each with its client and its node");
    assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
}
