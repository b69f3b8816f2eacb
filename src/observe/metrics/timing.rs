//! A histogram of times that can be read as well as shown.
//!
//! The library's own histogram takes a lock for each observation and gives its buckets to nobody
//! but the exposition; the admin endpoints want quantiles. So the buckets are kept here, as atomic
//! counters, and the library writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The most buckets of any histogram, the last one without a bound included.
const MOST: usize = 20;

/// Upper bounds of what a node takes for its answer, also to a probe, in microseconds.
pub(super) const ANSWERS: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Upper bounds of what the balancer adds, in microseconds.
pub(super) const OVERHEAD: &[u64] = &[
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 5_000_000,
];

/// A histogram of times; a clone counts into the same one.
#[derive(Debug, Clone)]
pub struct Timing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// In microseconds.
    bounds: &'static [u64],
    buckets: [AtomicU64; MOST],
    /// In microseconds: half a million years fit.
    sum: AtomicU64,
}

/// What a [`Timing`] had counted at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    bounds: &'static [u64],
    buckets: [u64; MOST],
}

impl Timing {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() < MOST);
        Self(Arc::new(Inner {
            bounds,
            buckets: [const { AtomicU64::new(0) }; MOST],
            sum: AtomicU64::new(0),
        }))
    }

    /// Counts one time.
    pub fn observe(&self, took: Duration) {
        let Inner {
            bounds,
            buckets,
            sum,
        } = &*self.0;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = bounds.partition_point(|bound| *bound < micros);
        buckets[place].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// What has been counted so far.
    pub fn times(&self) -> Times {
        Times {
            bounds: self.0.bounds,
            buckets: std::array::from_fn(|at| self.0.buckets[at].load(Ordering::Relaxed)),
        }
    }
}

impl Times {
    /// What was counted after `before`, an earlier moment of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bounds: self.bounds,
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(before.buckets[at])),
        }
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time under which the part `q` of them is, 0 to 1, as near as the buckets tell; none if
    /// there are none. What is beyond the last bound counts as that bound.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = (q * as_f64(count)).max(f64::MIN_POSITIVE);
        let (mut below, mut lower) = (0, 0);
        for (bound, here) in self.bounds.iter().zip(self.buckets) {
            if as_f64(below + here) >= wanted {
                let part = (wanted - as_f64(below)) / as_f64(here);
                let micros = as_f64(lower) + part * as_f64(bound - lower);
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
            below += here;
            lower = *bound;
        }
        Some(Duration::from_micros(lower))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^53 may lose its last digit"
)]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

impl EncodeMetric for Timing {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let times = self.times();
        let bounds = self.0.bounds.iter().map(|bound| as_f64(*bound) / 1e6);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(times.buckets).collect();
        let sum = as_f64(self.0.sum.load(Ordering::Relaxed)) / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, times.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let timing = Timing::new(ANSWERS);
        assert_eq!(timing.times().quantile(0.5), None);
        for _ in 0..98 {
            timing.observe(ms(2));
        }
        let before = timing.times();
        timing.observe(ms(70));
        timing.observe(ms(90));
        let all = timing.times();
        assert_eq!(all.count(), 100);
        let median = all.quantile(0.5).unwrap();
        assert!(
            median > ms(1) && median <= Duration::from_micros(2_500),
            "{median:?}"
        );
        let high = all.quantile(0.99).unwrap();
        assert!(high > ms(50) && high <= ms(100), "{high:?}");
        let late = all.since(&before);
        assert_eq!(late.count(), 2);
        assert!(late.quantile(0.5).unwrap() > ms(50));
    }

    #[test]
    fn what_is_beyond_all_bounds_is_the_last_bound() {
        let timing = Timing::new(ANSWERS);
        timing.observe(Duration::from_secs(3600));
        timing.observe(Duration::MAX);
        assert_eq!(timing.times().quantile(0.1), Some(Duration::from_secs(30)));
    }
}
