//! Counters by the value of one label.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

/// Counters that one label tells apart, all of them there from the beginning: a rate needs the
/// zero before the first count.
#[derive(Debug, Clone)]
pub struct ByName {
    names: &'static [&'static str],
    counters: Arc<[Counter]>,
}

impl ByName {
    pub(super) fn new(
        names: &'static [&'static str],
        counter: impl Fn(&'static str) -> Counter,
    ) -> Self {
        Self {
            names,
            counters: names.iter().map(|name| counter(name)).collect(),
        }
    }

    /// Counts one under `name`; under the last name if there is none such.
    pub fn inc(&self, name: &str) {
        let place = self.names.iter().position(|known| *known == name);
        if let Some(counter) = self.counters.get(place.unwrap_or(self.names.len() - 1)) {
            counter.inc();
        }
    }

    /// Each name with its count, in a fixed order.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counters.iter().map(|counter| counter.get());
        self.names.iter().copied().zip(counts)
    }

    /// Each name with its counter.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&'static str, Counter)> {
        self.names
            .iter()
            .copied()
            .zip(self.counters.iter().cloned())
    }

    /// The sum of all.
    pub fn get(&self) -> u64 {
        self.counters.iter().map(|counter| counter.get()).sum()
    }
}
