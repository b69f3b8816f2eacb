//! From single probes to a verdict: how many in a row it takes. No I/O, no clock.

/// Counts probes that contradict the verdict, and turns it when there are enough in a row.
#[derive(Debug)]
pub(super) struct Streak {
    /// Passed probes in a row that make a node up.
    rise: u32,
    /// Failed probes in a row that make a node down.
    fall: u32,
    /// None before the first probe.
    up: Option<bool>,
    /// Probes in a row that contradict the verdict.
    run: u32,
}

impl Streak {
    /// A streak with no verdict.
    pub(super) const fn new(rise: u32, fall: u32) -> Self {
        Self {
            rise,
            fall,
            up: None,
            run: 0,
        }
    }

    /// Takes one probe's result; says the verdict when it is the first one or a new one.
    ///
    /// The first probe decides alone: a balancer that has just started knows nothing better, and
    /// would keep clients waiting for `rise` probes otherwise.
    pub(super) fn observe(&mut self, passed: bool) -> Option<bool> {
        if self.up == Some(passed) {
            self.run = 0;
            return None;
        }
        self.run += 1;
        let needed = match self.up {
            None => 1,
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        if self.run < needed {
            return None;
        }
        self.up = Some(passed);
        self.run = 0;
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(streak: &mut Streak, probes: &[bool]) -> Vec<Option<bool>> {
        probes
            .iter()
            .map(|&passed| streak.observe(passed))
            .collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(Streak::new(5, 5).observe(true), Some(true));
        assert_eq!(Streak::new(5, 5).observe(false), Some(false));
    }

    #[test]
    fn a_node_goes_down_after_fall_failures_in_a_row() {
        let mut streak = Streak::new(2, 3);
        streak.observe(true);
        let seen = verdicts(
            &mut streak,
            &[false, false, true, false, false, false, false],
        );
        assert_eq!(seen, [None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn a_node_comes_up_after_rise_passes_in_a_row() {
        let mut streak = Streak::new(2, 3);
        streak.observe(false);
        let seen = verdicts(&mut streak, &[true, false, true, true, true]);
        assert_eq!(seen, [None, None, None, Some(true), None]);
    }

    #[test]
    fn one_is_enough_if_so_configured() {
        let mut streak = Streak::new(1, 1);
        let seen = verdicts(&mut streak, &[true, false, true]);
        assert_eq!(seen, [Some(true), Some(false), Some(true)]);
    }
}
