//! Which seeds are run, and how a broken one is told.

use std::ops::Range;

use super::trace::Outcome;
use super::world::{hold, run};

/// Run by every `cargo test`.
const SEEDS: Range<u64> = 0..100;

/// `SIMULATION_SEEDS`, as `5`, `A..B`.
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

fn told(seed: u64, outcome: &Outcome) -> String {
    let lines = outcome
        .broken
        .iter()
        .take(8)
        .map(|line| format!("\n  {line}"));
    let lines: String = lines.collect();
    let faults = &outcome.faults;
    format!(
        "seed {seed}: {} broken{lines}\n  faults:{faults}\n  again: SIMULATION_SEEDS={seed} SIMULATION_TRACE=1 \
         cargo test --lib simulation::tests::seeds_hold -- --nocapture",
        outcome.broken.len()
    )
}

#[test]
fn seeds_hold() {
    let (mut broken, mut sessions, mut requests, mut answers) = (Vec::new(), 0, 0, 0);
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = run(seed);
        sessions += outcome.sessions;
        requests += outcome.requests;
        answers += outcome.answers;
        if !outcome.broken.is_empty() {
            broken.push(told(seed, &outcome));
        }
    }
    println!("{count} seeds: {sessions} sessions, {requests} requests at nodes, {answers} answers");
    assert!(
        broken.is_empty(),
        "{} of {count} seeds\n{}",
        broken.len(),
        broken.join("\n")
    );
    assert!(requests > 0 && answers > 0);
}

/// Two requests were sent again at the same moment, the higher rid first, and reached the next node
/// together: their slots were apart, and their timers were not.
#[test]
fn requests_sent_again_together_keep_their_order_and_their_distance() {
    let outcome = run(93);
    assert!(outcome.broken.is_empty(), "{}", told(93, &outcome));
}

/// A session moved to a node that then gave its sid to a second client.
#[test]
fn a_node_that_has_taken_a_session_over_gives_its_sid_to_nobody_else() {
    let outcome = run(7501);
    assert!(outcome.broken.is_empty(), "{}", told(7501, &outcome));
}

/// A connection of an old session broke at a node that had restarted and made new ones: they are not lost.
#[test]
fn a_session_made_after_a_restart_outlives_what_is_said_of_older_ones() {
    let outcome = run(233);
    assert!(outcome.broken.is_empty(), "{}", told(233, &outcome));
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
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
