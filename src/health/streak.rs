//! From single probes to a verdict, and to the haste of the next probe. No I/O, no clock.

use std::time::Duration;

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
}

impl Streak {
    /// A streak with no verdict.
    pub(super) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            up: None,
            run: 0,
            failed: 0,
        }
    }

    /// Takes one probe's result; says the verdict when it is the first one or a new one.
    ///
    /// The first probe decides alone: a balancer that has just started knows nothing better, and
    /// would keep clients waiting for `rise` probes otherwise. So does the first pass when
    /// `none_up`, with no node up: a doubtful node is then better than none.
    pub(super) fn observe(&mut self, passed: bool, none_up: bool) -> Option<bool> {
        if passed {
            self.failed = 0;
        }
        if self.up == Some(passed) {
            self.run = 0;
            self.failed += u32::from(!passed);
            return None;
        }
        self.run += 1;
        let needed = match self.up {
            None => 1,
            Some(true) => self.rules.fall,
            Some(false) if none_up => 1,
            Some(false) => self.rules.rise,
        };
        if self.run < needed {
            return None;
        }
        self.up = Some(passed);
        self.run = 0;
        Some(passed)
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
    /// often, down to the regular interval.
    pub(super) fn pause(&self, none_up: bool) -> Duration {
        let Rules { interval, fast, .. } = self.rules;
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

    fn streak(rise: u32, fall: u32) -> Streak {
        Streak::new(Rules {
            rise,
            fall,
            interval: INTERVAL,
            fast: FAST,
        })
    }

    fn verdicts(streak: &mut Streak, probes: &[bool]) -> Vec<Option<bool>> {
        probes
            .iter()
            .map(|&passed| streak.observe(passed, false))
            .collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(streak(5, 5).observe(true, false), Some(true));
        assert_eq!(streak(5, 5).observe(false, false), Some(false));
    }

    #[test]
    fn a_node_goes_down_after_fall_failures_in_a_row() {
        let mut streak = streak(2, 3);
        streak.observe(true, false);
        let seen = verdicts(
            &mut streak,
            &[false, false, true, false, false, false, false],
        );
        assert_eq!(seen, [None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn a_node_comes_up_after_rise_passes_in_a_row() {
        let mut streak = streak(2, 3);
        streak.observe(false, false);
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
        streak.observe(false, true);
        assert_eq!(streak.observe(true, true), Some(true));
        assert_eq!(streak.observe(false, false), None);
    }

    #[test]
    fn probes_hurry_until_the_verdict_is_settled() {
        let mut streak = streak(2, 3);
        streak.observe(true, true);
        assert_eq!(streak.pause(false), INTERVAL);
        streak.observe(false, false);
        assert_eq!(streak.pause(false), FAST);
        streak.observe(true, false);
        assert_eq!(streak.pause(false), INTERVAL);
        verdicts(&mut streak, &[false, false, false]);
        assert_eq!(streak.pause(false), FAST, "it may be back at once");
        streak.observe(true, false);
        assert_eq!(streak.pause(false), FAST, "one of two passes");
        streak.observe(true, false);
        assert_eq!(streak.pause(false), INTERVAL);
    }

    #[test]
    fn a_node_that_stays_down_is_asked_less_often_unless_none_is_up() {
        let mut streak = streak(2, 1);
        verdicts(&mut streak, &[true, false]);
        let mut pauses = vec![];
        for _ in 0..6 {
            pauses.push(streak.pause(false).as_millis());
            assert_eq!(streak.pause(true), FAST);
            streak.observe(false, false);
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000]);
        verdicts(&mut streak, &[false; 100]);
        assert_eq!(streak.pause(false), INTERVAL);
        verdicts(&mut streak, &[true, false]);
        assert_eq!(streak.pause(false), 2 * FAST, "it gave a sign of life");
    }

    #[test]
    fn probes_overlap_to_call_a_node_down_and_when_none_is_up() {
        let mut streak = streak(2, 3);
        let most = |streak: &Streak, none_up| (0..10).find(|&n| !streak.wants_more(n, none_up));
        assert_eq!(most(&streak, true), Some(0), "the first one decides alone");
        streak.observe(true, false);
        assert_eq!(most(&streak, false), Some(3));
        streak.observe(false, false);
        assert_eq!(most(&streak, false), Some(2));
        verdicts(&mut streak, &[false, false]);
        assert_eq!(most(&streak, false), Some(0), "it is down");
        assert_eq!(most(&streak, true), Some(5), "and so are all");
    }
}
