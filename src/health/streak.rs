//! From single probes to a verdict, and to the haste of the next probe. No I/O; time comes in as
//! an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::penalty::Penalty;

/// The most probes that wait at a node that is down.
const MOST_AT_ONCE: u32 = 5;

/// What it takes to turn a verdict, and how long to wait between probes.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Passed probes in a row that make a node up.
    pub(super) rise: u32,
    /// Failed probes in a row that make a node down.
    pub(super) fall: u32,
    /// From one probe to the next while all is well.
    pub(super) interval: Duration,
    /// From one probe to the next while something is amiss; at most `interval`.
    pub(super) fast: Duration,
}

/// Counts probes that contradict the verdict, and turns it when there are enough in a row.
#[derive(Debug)]
pub(super) struct Streak {
    rules: Rules,
    /// None before the first probe.
    up: Option<bool>,
    /// Probes in a row that contradict the verdict.
    run: u32,
    /// Failed probes in a row since the node is down.
    failed: u32,
    penalty: Penalty,
    /// When a node that is down had passed `rise` probes in a row: then its penalty began.
    well_since: Option<Instant>,
}

impl Streak {
    /// A streak with no verdict.
    pub(super) const fn new(rules: Rules, penalty: Penalty) -> Self {
        Self {
            rules,
            up: None,
            run: 0,
            failed: 0,
            penalty,
            well_since: None,
        }
    }

    /// Takes one probe's result; says the verdict when it is the first one or a new one.
    ///
    /// The first probe decides alone: a balancer that has just started knows nothing better, and
    /// would keep clients waiting for `rise` probes otherwise. So does the first pass when
    /// `none_up`, with no node up: a doubtful node is then better than none, penalty or not.
    pub(super) fn observe(&mut self, passed: bool, none_up: bool, now: Instant) -> Option<bool> {
        if passed {
            self.failed = 0;
        }
        if self.up == Some(passed) {
            self.run = 0;
            self.well_since = None;
            self.failed += u32::from(!passed);
            return None;
        }
        self.run += 1;
        let enough = match self.up {
            None => true,
            Some(true) => self.run >= self.rules.fall,
            Some(false) => none_up || self.is_well(now),
        };
        if !enough {
            return None;
        }
        match (self.up, passed) {
            (_, true) => self.penalty.rose(now),
            (Some(_), false) => self.penalty.fell(now),
            (None, false) => {}
        }
        self.up = Some(passed);
        self.run = 0;
        self.well_since = None;
        Some(passed)
    }

    /// Whether a node that is down has passed `rise` probes, and its penalty is over.
    fn is_well(&mut self, now: Instant) -> bool {
        if self.run < self.rules.rise {
            return false;
        }
        let since = *self.well_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.penalty.length()
    }

    /// How long the node must be well before it is up again; nothing while it is up.
    pub(super) fn penalty(&self) -> Duration {
        if self.up == Some(false) {
            self.penalty.length()
        } else {
            Duration::ZERO
        }
    }

    /// How often it went down and nothing of it is forgotten yet.
    pub(super) fn falls(&self, now: Instant) -> u32 {
        self.penalty.falls(now)
    }

    /// Whether no probe contradicts the verdict.
    pub(super) const fn is_settled(&self) -> bool {
        self.run == 0
    }

    /// Whether another probe goes out while `waiting` of them wait for their answers: as many as
    /// it takes to call the node down, if none is answered; and some when no node is up, so that
    /// the end of a network's failure is not missed for a whole timeout.
    pub(super) fn wants_more(&self, waiting: usize, none_up: bool) -> bool {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        match self.up {
            None => false,
            Some(true) => self.run.saturating_add(waiting) < self.rules.fall,
            Some(false) => none_up && waiting < MOST_AT_ONCE,
        }
    }

    /// From the start of one probe to the next. Fast until the verdict is settled, and at a node
    /// that is down while no node is up; otherwise a node that is down is asked less and less
    /// often, down to the regular interval. One that serves its penalty is asked at its end.
    pub(super) fn pause(&self, none_up: bool, now: Instant) -> Duration {
        let Rules { interval, fast, .. } = self.rules;
        if let Some(since) = self.well_since
            && !none_up
        {
            let served = now.saturating_duration_since(since);
            let left = self.penalty.length().saturating_sub(served);
            return left.clamp(fast, interval);
        }
        match self.up {
            _ if !self.is_settled() => fast,
            Some(false) if none_up => fast,
            Some(false) => fast.saturating_mul(1 << self.failed.min(20)).min(interval),
            _ => interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const FAST: Duration = Duration::from_millis(200);

    const PENALTY: Duration = Duration::from_secs(5);

    fn streak(rise: u32, fall: u32) -> Streak {
        let rules = Rules {
            rise,
            fall,
            interval: INTERVAL,
            fast: FAST,
        };
        Streak::new(rules, Penalty::new(PENALTY, 60 * PENALTY))
    }

    /// Takes a probe's result at a time that does not matter.
    fn observe(streak: &mut Streak, passed: bool, none_up: bool) -> Option<bool> {
        streak.observe(passed, none_up, Instant::now())
    }

    fn pause(streak: &Streak, none_up: bool) -> Duration {
        streak.pause(none_up, Instant::now())
    }

    fn verdicts(streak: &mut Streak, probes: &[bool]) -> Vec<Option<bool>> {
        probes
            .iter()
            .map(|&passed| observe(streak, passed, false))
            .collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(observe(&mut streak(5, 5), true, false), Some(true));
        assert_eq!(observe(&mut streak(5, 5), false, false), Some(false));
    }

    #[test]
    fn a_node_goes_down_after_fall_failures_in_a_row() {
        let mut streak = streak(2, 3);
        observe(&mut streak, true, false);
        let seen = verdicts(
            &mut streak,
            &[false, false, true, false, false, false, false],
        );
        assert_eq!(seen, [None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn a_node_comes_up_after_rise_passes_in_a_row() {
        let mut streak = streak(2, 3);
        observe(&mut streak, false, false);
        let seen = verdicts(&mut streak, &[true, false, true, true, true]);
        assert_eq!(seen, [None, None, None, Some(true), None]);
    }

    #[test]
    fn one_is_enough_if_so_configured() {
        let mut streak = streak(1, 1);
        let seen = verdicts(&mut streak, &[true, false, true]);
        assert_eq!(seen, [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn one_pass_is_enough_while_no_node_is_up_and_one_failure_never() {
        let mut streak = streak(2, 3);
        observe(&mut streak, false, true);
        assert_eq!(observe(&mut streak, true, true), Some(true));
        assert_eq!(observe(&mut streak, false, false), None);
    }

    #[test]
    fn probes_hurry_until_the_verdict_is_settled() {
        let mut streak = streak(2, 3);
        observe(&mut streak, true, true);
        assert_eq!(pause(&streak, false), INTERVAL);
        observe(&mut streak, false, false);
        assert_eq!(pause(&streak, false), FAST);
        observe(&mut streak, true, false);
        assert_eq!(pause(&streak, false), INTERVAL);
        verdicts(&mut streak, &[false, false, false]);
        assert_eq!(pause(&streak, false), FAST, "it may be back at once");
        observe(&mut streak, true, false);
        assert_eq!(pause(&streak, false), FAST, "one of two passes");
        observe(&mut streak, true, false);
        assert_eq!(pause(&streak, false), INTERVAL);
    }

    #[test]
    fn a_node_that_stays_down_is_asked_less_often_unless_none_is_up() {
        let mut streak = streak(2, 1);
        verdicts(&mut streak, &[true, false]);
        let mut pauses = vec![];
        for _ in 0..6 {
            pauses.push(pause(&streak, false).as_millis());
            assert_eq!(pause(&streak, true), FAST);
            observe(&mut streak, false, false);
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000]);
        verdicts(&mut streak, &[false; 100]);
        assert_eq!(pause(&streak, false), INTERVAL);
        verdicts(&mut streak, &[true, false]);
        assert_eq!(pause(&streak, false), 2 * FAST, "it gave a sign of life");
    }

    #[test]
    fn probes_overlap_to_call_a_node_down_and_when_none_is_up() {
        let mut streak = streak(2, 3);
        let most = |streak: &Streak, none_up| (0..10).find(|&n| !streak.wants_more(n, none_up));
        assert_eq!(most(&streak, true), Some(0), "the first one decides alone");
        observe(&mut streak, true, false);
        assert_eq!(most(&streak, false), Some(3));
        observe(&mut streak, false, false);
        assert_eq!(most(&streak, false), Some(2));
        verdicts(&mut streak, &[false, false]);
        assert_eq!(most(&streak, false), Some(0), "it is down");
        assert_eq!(most(&streak, true), Some(5), "and so are all");
    }

    /// Down, and `passes` that follow one second apart; says after how many it was up.
    fn passes_until_up(streak: &mut Streak, now: &mut Instant, none_up: bool) -> Option<u32> {
        for _ in 0..3 {
            streak.observe(false, none_up, *now);
        }
        (1..100).find(|_| {
            *now += Duration::from_secs(1);
            streak.observe(true, none_up, *now).is_some()
        })
    }

    #[test]
    fn a_node_that_flaps_must_be_well_for_longer_and_longer() {
        let mut streak = streak(2, 3);
        let mut now = Instant::now();
        streak.observe(true, false, now);
        assert_eq!(passes_until_up(&mut streak, &mut now, false), Some(2));
        assert_eq!(passes_until_up(&mut streak, &mut now, false), Some(2 + 5));
        assert_eq!(passes_until_up(&mut streak, &mut now, false), Some(2 + 10));
        assert_eq!(streak.falls(now), 3);
        assert_eq!(streak.penalty(), Duration::ZERO, "it is up");
        assert_eq!(passes_until_up(&mut streak, &mut now, true), Some(1));
        assert_eq!(passes_until_up(&mut streak, &mut now, false), Some(2 + 40));
    }

    #[test]
    fn a_failure_begins_the_penalty_anew() {
        let mut streak = streak(1, 1);
        let mut now = Instant::now();
        for passed in [true, false, true, false] {
            streak.observe(passed, false, now);
        }
        assert_eq!(streak.penalty(), PENALTY);
        let second = Duration::from_secs(1);
        for _ in 0..5 {
            now += second;
            assert_eq!(streak.observe(true, false, now), None);
        }
        assert_eq!(streak.observe(false, false, now), None);
        for _ in 0..5 {
            now += second;
            assert_eq!(streak.observe(true, false, now), None);
        }
        assert_eq!(streak.observe(true, false, now + second), Some(true));
    }

    #[test]
    fn a_node_is_asked_at_the_end_of_its_penalty() {
        let mut streak = streak(1, 1);
        let now = Instant::now();
        for passed in [true, false, true, false, true] {
            streak.observe(passed, false, now);
        }
        assert_eq!(streak.pause(false, now), INTERVAL);
        assert_eq!(streak.pause(true, now), FAST);
        let second = Duration::from_secs(1);
        assert_eq!(streak.pause(false, now + 4 * second), second);
        assert_eq!(streak.pause(false, now + 5 * second), FAST);
    }
}
