//! Verdicts, probe by probe.

use super::*;
use Outcome::{Faulty, Gone, Passed, Silent};

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(2);
const FAST: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_secs(5);
const PENALTY: Duration = Duration::from_secs(5);

fn judge(rise: u32, fall: u32) -> Judge {
    let rules = Rules {
        rise,
        fall,
        interval: INTERVAL,
        fast: FAST,
        silence: SILENCE,
    };
    Judge::new(rules, FlapDamping::new(PENALTY, 60 * PENALTY))
}

/// Takes a probe's outcome at a time that does not matter.
fn observe(judge: &mut Judge, outcome: Outcome, none_up: bool) -> Option<Verdict> {
    let now = Instant::now();
    judge.observe(outcome, now, none_up, now)
}

fn pause(judge: &Judge, none_up: bool) -> Duration {
    judge.pause(none_up, Instant::now())
}

/// The verdicts that follow from these outcomes, those that do not change left out.
fn verdicts(judge: &mut Judge, probes: &[Outcome]) -> Vec<(usize, Verdict)> {
    let turned = probes.iter().enumerate();
    turned
        .filter_map(|(at, outcome)| Some((at, observe(judge, *outcome, false)?)))
        .collect()
}

#[test]
fn the_first_probe_decides_alone() {
    for (outcome, verdict) in [
        (Passed, Verdict::Up),
        (Silent, Verdict::Silent),
        (Gone, Verdict::Down),
        (Faulty, Verdict::Down),
    ] {
        assert_eq!(observe(&mut judge(5, 5), outcome, false), Some(verdict));
    }
}

#[test]
fn a_node_goes_down_after_fall_failures_in_a_row() {
    for outcome in [Gone, Faulty] {
        let mut judge = judge(2, 3);
        observe(&mut judge, Passed, false);
        let failed = [outcome; 4];
        let probes = [&failed[..2], &[Passed], &failed[..]].concat();
        assert_eq!(verdicts(&mut judge, &probes), [(5, Verdict::Down)]);
    }
}

#[test]
fn the_last_of_the_failures_tells_silence_from_the_end() {
    for (probes, verdict) in [
        ([Silent, Silent, Silent], Verdict::Silent),
        ([Gone, Faulty, Silent], Verdict::Silent),
        ([Silent, Silent, Gone], Verdict::Down),
    ] {
        let mut judge = judge(2, 3);
        observe(&mut judge, Passed, false);
        assert_eq!(verdicts(&mut judge, &probes), [(2, verdict)], "{probes:?}");
    }
}

#[test]
fn a_node_comes_up_after_rise_passes_in_a_row() {
    for outcome in [Gone, Silent] {
        let mut judge = judge(2, 3);
        observe(&mut judge, outcome, false);
        let seen = verdicts(&mut judge, &[Passed, outcome, Passed, Passed, Passed]);
        assert_eq!(seen, [(3, Verdict::Up)]);
    }
}

#[test]
fn one_is_enough_if_so_configured() {
    let seen = verdicts(&mut judge(1, 1), &[Passed, Gone, Passed]);
    assert_eq!(
        seen,
        [(0, Verdict::Up), (1, Verdict::Down), (2, Verdict::Up)]
    );
}

#[test]
fn one_pass_is_enough_while_no_node_is_up_and_one_failure_never() {
    let mut judge = judge(2, 3);
    observe(&mut judge, Gone, true);
    assert_eq!(observe(&mut judge, Passed, true), Some(Verdict::Up));
    assert_eq!(observe(&mut judge, Gone, false), None);
}

/// Up, and then silent since `now`.
fn silent(now: Instant) -> Judge {
    let mut judge = judge(2, 3);
    judge.observe(Passed, now, false, now);
    for place in 0..3 {
        let (asked, now) = (now + FAST * place, now + SECOND);
        judge.observe(Silent, asked, false, now);
    }
    judge
}

#[test]
fn silence_counts_from_the_first_probe_without_an_answer() {
    let now = Instant::now();
    let mut judge = silent(now);
    assert_eq!(judge.silent_since(), Some(now));
    assert_eq!(judge.silence_ends(None), Some(now + SILENCE));
    let end = now + SILENCE;
    assert_eq!(judge.expire(None, end - FAST), None);
    assert_eq!(judge.expire(None, end), Some(Verdict::Down));
    assert_eq!(judge.expire(None, end), None, "once");
    assert_eq!(judge.falls(end), 1);
}

#[test]
fn a_byte_from_the_node_begins_its_silence_anew() {
    let now = Instant::now();
    let mut judge = silent(now);
    judge.hear(now + 4 * SECOND);
    assert_eq!(judge.expire(None, now + 8 * SECOND), None);
    // The answer to a probe that was sent before comes never.
    judge.observe(Silent, now + 3 * SECOND, false, now + 8 * SECOND);
    assert_eq!(judge.silent_since(), Some(now + 4 * SECOND));
    let end = now + 4 * SECOND + SILENCE;
    assert_eq!(judge.expire(None, end), Some(Verdict::Down));
}

#[test]
fn silence_counts_from_a_later_time_if_there_is_one() {
    let now = Instant::now();
    let mut judge = silent(now);
    let later = Some(now + 3 * SECOND);
    assert_eq!(judge.expire(later, now + 7 * SECOND), None);
    assert_eq!(judge.expire(later, now + 8 * SECOND), Some(Verdict::Down));
}

/// Found in the log: the suspicion of the network ended, began and ended within a tenth of a second.
#[test]
fn a_silent_node_that_answers_is_unheard_no_longer() {
    let now = Instant::now();
    let mut judge = silent(now);
    assert_eq!(judge.unheard_since(), Some(now));
    observe(&mut judge, Passed, false);
    assert_eq!(judge.verdict, Verdict::Silent, "one pass of two");
    assert_eq!(judge.unheard_since(), None);
}

#[test]
fn a_pause_is_no_fall() {
    let now = Instant::now();
    let mut judge = silent(now);
    assert_eq!(verdicts(&mut judge, &[Passed, Passed]), [(1, Verdict::Up)]);
    assert_eq!(judge.falls(now), 0);
    assert_eq!(judge.silent_since(), None);
}

#[test]
fn a_silent_node_that_refuses_is_down_after_fall_refusals() {
    let mut judge = silent(Instant::now());
    let probes = [Gone, Silent, Gone, Gone, Gone];
    assert_eq!(verdicts(&mut judge, &probes), [(4, Verdict::Down)]);
}

#[test]
fn probes_hurry_until_the_verdict_is_settled() {
    let mut judge = judge(2, 3);
    observe(&mut judge, Passed, true);
    assert_eq!(pause(&judge, false), INTERVAL);
    observe(&mut judge, Gone, false);
    assert_eq!(pause(&judge, false), FAST);
    observe(&mut judge, Passed, false);
    assert_eq!(pause(&judge, false), INTERVAL);
    verdicts(&mut judge, &[Gone; 3]);
    assert_eq!(pause(&judge, false), FAST, "it may be back at once");
    observe(&mut judge, Passed, false);
    assert_eq!(pause(&judge, false), FAST, "one of two passes");
    observe(&mut judge, Passed, false);
    assert_eq!(pause(&judge, false), INTERVAL);
    verdicts(&mut judge, &[Silent; 3]);
    assert_eq!(pause(&judge, false), FAST, "silent");
    verdicts(&mut judge, &[Silent; 30]);
    assert_eq!(pause(&judge, false), FAST, "still silent");
}

#[test]
fn a_node_that_stays_down_is_asked_less_often_unless_none_is_up() {
    let mut judge = judge(2, 1);
    verdicts(&mut judge, &[Passed, Gone]);
    let mut pauses = vec![];
    for _ in 0..6 {
        pauses.push(pause(&judge, false).as_millis());
        assert_eq!(pause(&judge, true), FAST);
        observe(&mut judge, Gone, false);
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000]);
    verdicts(&mut judge, &[Gone; 100]);
    assert_eq!(pause(&judge, false), INTERVAL);
    verdicts(&mut judge, &[Passed, Gone]);
    assert_eq!(pause(&judge, false), 2 * FAST, "it gave a sign of life");
}

#[test]
fn probes_overlap_to_find_a_node_silent_and_to_see_its_return() {
    let mut judge = judge(2, 3);
    let most = |judge: &Judge, none_up| (0..10).find(|&n| !judge.wants_more(n, none_up));
    assert_eq!(most(&judge, true), Some(0), "the first one decides alone");
    observe(&mut judge, Passed, false);
    assert_eq!(most(&judge, false), Some(3));
    observe(&mut judge, Silent, false);
    assert_eq!(most(&judge, false), Some(2));
    verdicts(&mut judge, &[Silent, Silent]);
    assert_eq!(most(&judge, false), Some(5), "it is silent");
    verdicts(&mut judge, &[Gone, Gone, Gone]);
    assert_eq!(most(&judge, false), Some(0), "it is down");
    assert_eq!(most(&judge, true), Some(5), "and so are all");
}

/// Down, and passes that follow one second apart; says after how many it was up.
fn passes_until_up(judge: &mut Judge, now: &mut Instant, none_up: bool) -> Option<u32> {
    for _ in 0..3 {
        judge.observe(Gone, *now, none_up, *now);
    }
    (1..100).find(|_| {
        *now += SECOND;
        judge.observe(Passed, *now, none_up, *now) == Some(Verdict::Up)
    })
}

#[test]
fn a_node_that_flaps_is_held_back_for_longer_and_longer() {
    let mut judge = judge(2, 3);
    let mut now = Instant::now();
    judge.observe(Passed, now, false, now);
    assert_eq!(passes_until_up(&mut judge, &mut now, false), Some(2));
    assert_eq!(passes_until_up(&mut judge, &mut now, false), Some(2 + 5));
    assert_eq!(passes_until_up(&mut judge, &mut now, false), Some(2 + 10));
    assert_eq!(judge.falls(now), 3);
    assert_eq!(judge.penalty(), Duration::ZERO, "it is up");
    assert_eq!(passes_until_up(&mut judge, &mut now, true), Some(1));
    assert_eq!(passes_until_up(&mut judge, &mut now, false), Some(2 + 40));
}

/// Down for the second time, and held back since `now`.
fn held_back(now: Instant) -> Judge {
    let mut judge = judge(1, 1);
    for outcome in [Passed, Gone, Passed, Gone, Passed] {
        judge.observe(outcome, now, false, now);
    }
    assert_eq!(judge.verdict, Verdict::HeldBack);
    assert_eq!(judge.penalty(), PENALTY);
    judge
}

#[test]
fn a_node_that_fails_while_it_is_held_back_begins_again() {
    let mut now = Instant::now();
    let mut judge = held_back(now);
    judge.rules.fall = 2;
    let pass = |judge: &mut Judge, now| judge.observe(Passed, now, false, now);
    now += 4 * SECOND;
    assert_eq!(pass(&mut judge, now), None);
    // One failure does not end its sessions.
    assert_eq!(judge.observe(Gone, now, false, now), None);
    for _ in 0..5 {
        assert_eq!(pass(&mut judge, now), None);
        now += SECOND;
    }
    assert_eq!(pass(&mut judge, now), Some(Verdict::Up));
}

#[test]
fn a_node_that_fails_for_good_while_it_is_held_back_has_not_fallen_again() {
    let now = Instant::now();
    let mut judge = held_back(now);
    assert_eq!(judge.observe(Gone, now, false, now), Some(Verdict::Down));
    assert_eq!(judge.falls(now), 2);
}

#[test]
fn a_held_back_node_is_asked_at_the_end_of_its_penalty() {
    let now = Instant::now();
    let judge = held_back(now);
    assert_eq!(judge.pause(false, now), INTERVAL);
    assert_eq!(judge.pause(true, now), FAST);
    assert_eq!(judge.pause(false, now + 4 * SECOND), SECOND);
    assert_eq!(judge.pause(false, now + 5 * SECOND), FAST);
}
