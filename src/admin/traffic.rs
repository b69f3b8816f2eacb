//! Requests and rejects of the whole balancer, lately: what `/health` and `/history` show of them.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::history::{LOOK_BACK, as_f64, push, rounded};
use crate::observe::metrics::Metrics;

/// Counters of the last five minutes, one set for each sample.
#[derive(Debug)]
pub(super) struct Traffic(VecDeque<Totals>);

#[derive(Debug, Clone)]
struct Totals {
    at: Instant,
    requests: u64,
    /// In the order of [`Metrics::rejects`].
    rejects: Vec<u64>,
}

/// What the balancer did lately.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recent {
    /// Over the last five to ten seconds.
    pub(super) requests_per_second: f64,
    /// Rejects of the last five minutes by cause, without causes that did not occur.
    pub(super) rejects: BTreeMap<String, u64>,
}

impl Traffic {
    /// The counters begin now.
    pub(super) fn new(metrics: &Metrics, now: Instant) -> Self {
        Self(VecDeque::from([totals(metrics, now)]))
    }

    /// Takes a sample, and returns the requests per second up to it.
    pub(super) fn sample(&mut self, metrics: &Metrics, now: Instant) -> f64 {
        let rate = self.requests_per_second(metrics, now);
        push(&mut self.0, totals(metrics, now), LOOK_BACK + 1);
        rate
    }

    /// What happened up to now.
    pub(super) fn recent(&self, metrics: &Metrics, now: Instant) -> Recent {
        let begin = self.back(LOOK_BACK - 1);
        let rejects = metrics.rejects().zip(&begin.rejects);
        let rejects =
            rejects.map(|((cause, count), before)| (cause, count.saturating_sub(*before)));
        Recent {
            requests_per_second: self.requests_per_second(metrics, now),
            rejects: rejects
                .filter(|(_, count)| *count > 0)
                .map(|(cause, count)| (cause.to_owned(), count))
                .collect(),
        }
    }

    fn requests_per_second(&self, metrics: &Metrics, now: Instant) -> f64 {
        // The last sample may be a moment old, so the span begins one sample earlier.
        let before = self.back(1);
        let span = now.saturating_duration_since(before.at).as_secs_f64();
        let count = metrics.requests().saturating_sub(before.requests);
        if span > 0.0 {
            rounded(as_f64(count) / span)
        } else {
            0.0
        }
    }

    /// The counters `samples` before the last one, or the oldest.
    fn back(&self, samples: usize) -> &Totals {
        &self.0[self.0.len().saturating_sub(1 + samples)]
    }
}

fn totals(metrics: &Metrics, at: Instant) -> Totals {
    Totals {
        at,
        requests: metrics.requests(),
        rejects: metrics.rejects().map(|(_, count)| count).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::EVERY;
    use super::*;
    use crate::observe::metrics::{Kind, Outcome};

    #[tokio::test]
    async fn requests_and_rejects_are_those_of_the_last_time() {
        let metrics = Metrics::new();
        metrics.count_reject("malformed");
        let begun = Instant::now();
        let mut traffic = Traffic::new(&metrics, begun);
        let at = |count: u32| begun + EVERY * count;
        assert_eq!(traffic.recent(&metrics, begun), Recent::default());

        for _ in 0..20 {
            metrics.count_request(Kind::Poll, Outcome::Ok);
        }
        metrics.count_request(Kind::Send, Outcome::Rejected);
        metrics.count_reject("no_node");
        let recent = traffic.recent(&metrics, at(1));
        assert_eq!(recent.requests_per_second, 4.2);
        assert_eq!(recent.rejects, BTreeMap::from([("no_node".to_owned(), 1)]));

        assert_eq!(traffic.sample(&metrics, at(1)), 4.2);
        for sample in 2..=59 {
            traffic.sample(&metrics, at(sample));
        }
        let recent = traffic.recent(&metrics, at(60));
        assert_eq!(recent.requests_per_second, 0.0);
        assert_eq!(recent.rejects.len(), 1, "less than five minutes ago");
        traffic.sample(&metrics, at(60));
        assert_eq!(traffic.recent(&metrics, at(60)), Recent::default());
    }
}
