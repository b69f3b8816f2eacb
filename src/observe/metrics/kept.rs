//! The metrics of kept answers.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of answers that are kept for clients whose connection broke.
#[derive(Debug, Clone, Default)]
pub struct KeptMetrics {
    /// Requests that were answered with a kept answer.
    pub replayed: Counter,
    /// Answers that were dropped because the memory for them was full.
    pub evicted: Counter,
    answers: Gauge,
    bytes: Gauge,
    limit: Gauge,
}

impl KeptMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let what = "Requests answered with a kept answer";
        registry.register("answers_replayed", what, metrics.replayed.clone());
        let what = "Kept answers dropped because limits.answer_memory was full";
        registry.register("answers_evicted", what, metrics.evicted.clone());
        let what = "Answers kept now";
        registry.register("kept_answers", what, metrics.answers.clone());
        let (what, bytes) = ("Memory of kept answers", metrics.bytes.clone());
        registry.register_with_unit("kept_answers", what, Unit::Bytes, bytes);
        let (what, limit) = ("Memory that kept answers may take", metrics.limit.clone());
        registry.register_with_unit("kept_answers_limit", what, Unit::Bytes, limit);
        metrics
    }

    /// Tells how much memory answers may take.
    pub fn limit(&self, bytes: usize) {
        self.limit.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Tells how many answers there are, and what they take.
    pub fn set(&self, answers: usize, bytes: usize) {
        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.answers.set(signed(answers));
        self.bytes.set(signed(bytes));
    }

    /// How many answers there are, and what they take.
    #[cfg(test)]
    pub(crate) fn now(&self) -> (usize, usize) {
        let count = |gauge: &Gauge| usize::try_from(gauge.get()).unwrap_or(usize::MAX);
        (count(&self.answers), count(&self.bytes))
    }
}
