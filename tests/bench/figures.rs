//! What was measured: one value for each figure, balancer and round, and what follows from them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::balancer::Balancer;
use crate::client::Failure;

/// One figure of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Its name in the JSON.
    pub(crate) key: &'static str,
    /// What it is, for people.
    pub(crate) title: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// Whether it is a cost, so that a ratio below 1 is good.
    pub(crate) cost: bool,
}

const fn cost(key: &'static str, title: &'static str, digits: usize) -> Figure {
    Figure {
        key,
        title,
        digits,
        cost: true,
    }
}

/// All figures, in the order of the table.
pub(crate) const FIGURES: [Figure; 20] = [
    cost("steady_cpu", "steady: CPU µs a request", 1),
    cost("wide_cpu", "many sessions: CPU µs a request", 1),
    cost("fresh_cpu", "new sessions: CPU µs a request", 1),
    cost("payload_cpu", "2 kB payload: CPU µs a request", 1),
    cost("held_kib", "KiB a held session", 2),
    cost("idle_kib", "KiB an idle connection", 2),
    cost("tunnel_kib", "KiB an idle WebSocket", 2),
    cost("tls_cpu", "TLS: CPU µs a request", 1),
    cost("tls_wide_cpu", "TLS, many sessions: CPU µs a request", 1),
    cost("tls_fresh_cpu", "TLS, new sessions: CPU µs a request", 1),
    cost("tls_held_kib", "TLS: KiB a held session", 2),
    cost("tls_idle_kib", "TLS: KiB an idle connection", 2),
    cost("tls_tunnel_kib", "TLS: KiB an idle WebSocket", 2),
    cost("rate_p50", "fixed rate: p50 µs", 0),
    cost("rate_p99", "fixed rate: p99 µs", 0),
    cost("rate_p999", "fixed rate: p99.9 µs", 0),
    cost("rate_cpu", "fixed rate: CPU µs a request", 1),
    Figure {
        cost: false,
        ..cost("steady_rate", "steady: requests/s", 0)
    },
    Figure {
        cost: false,
        ..cost("wide_rate", "many sessions: requests/s", 0)
    },
    Figure {
        cost: false,
        ..cost("fresh_rate", "new sessions: requests/s", 0)
    },
];

/// A median with what it is the median of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of the values that are numbers; none if there is no such value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// What went wrong in a column of a balancer.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// Failed requests.
    pub(crate) failures: u64,
    /// Requests that a node got for another node's session.
    pub(crate) misrouted: u64,
    /// Requests on a connection that had served another session before.
    pub(crate) shared: u64,
    /// What the first failure was.
    pub(crate) first: Option<Failure>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Table {
    values: BTreeMap<(&'static str, Balancer), Vec<f64>>,
    /// The shares of the balancer's core that went to others.
    others: BTreeMap<Balancer, Vec<f64>>,
    /// By column and balancer.
    pub(crate) faults: BTreeMap<(&'static str, Balancer), Fault>,
}

impl Table {
    /// Notes the value of a round. Rounds come in order.
    pub(crate) fn note(&mut self, round: usize, key: &'static str, balancer: Balancer, value: f64) {
        let values = self.values.entry((key, balancer)).or_default();
        // A round that could not be measured leaves a gap.
        values.resize(round, f64::NAN);
        values.push(value);
    }

    /// Notes the share of the balancer's core that went to others.
    pub(crate) fn note_others(&mut self, balancer: Balancer, share: f64) {
        self.others.entry(balancer).or_default().push(share);
    }

    /// The shares of the balancer's core that went to others, over all columns under load.
    pub(crate) fn others(&self, balancer: Balancer) -> Option<Spread> {
        Spread::of(self.others.get(&balancer)?.iter().copied())
    }

    /// Notes what went wrong.
    pub(crate) fn fault(&mut self, column: &'static str, balancer: Balancer, more: Fault) {
        let fault = self.faults.entry((column, balancer)).or_default();
        fault.failures += more.failures;
        fault.misrouted += more.misrouted;
        fault.shared += more.shared;
        if fault.first.is_none() {
            fault.first = more.first;
        }
    }

    /// A figure of a balancer.
    pub(crate) fn spread(&self, key: &'static str, balancer: Balancer) -> Option<Spread> {
        Spread::of(self.values.get(&(key, balancer))?.iter().copied())
    }

    /// Bowline's figure divided by a peer's, each round by itself.
    pub(crate) fn ratio(&self, key: &'static str, peer: Balancer) -> Option<Spread> {
        let ours = self.values.get(&(key, Balancer::Bowline))?;
        let theirs = self.values.get(&(key, peer))?;
        Spread::of(ours.iter().zip(theirs).map(|(our, their)| our / their))
    }

    /// The balancers that were measured.
    pub(crate) fn balancers(&self) -> Vec<Balancer> {
        let measured = |balancer: &Balancer| self.values.keys().any(|(_, one)| one == balancer);
        Balancer::ALL.into_iter().filter(measured).collect()
    }

    /// Everything, for a program.
    pub(crate) fn to_json(&self) -> Value {
        let others = self.others.iter();
        let others: BTreeMap<_, _> = others.map(|(one, shares)| (one.name(), shares)).collect();
        let mut figures = serde_json::Map::new();
        for figure in FIGURES {
            let mut by_balancer = serde_json::Map::new();
            for balancer in self.balancers() {
                let Some(spread) = self.spread(figure.key, balancer) else {
                    continue;
                };
                let values = &self.values[&(figure.key, balancer)];
                let mut entry = json!({
                    "median": spread.median, "min": spread.least, "max": spread.most,
                    "rounds": values,
                });
                if balancer != Balancer::Bowline
                    && let Some(ratio) = self.ratio(figure.key, balancer)
                {
                    entry["bowline_ratio"] = json!({
                        "median": ratio.median, "min": ratio.least, "max": ratio.most,
                    });
                }
                by_balancer.insert(balancer.name().into(), entry);
            }
            figures.insert(figure.key.into(), by_balancer.into());
        }
        json!({ "figures": figures, "faults": self.faults_to_json(), "others": others })
    }

    fn faults_to_json(&self) -> Vec<Value> {
        let all = self.faults.iter();
        all.map(|((column, balancer), fault)| {
            json!({
                "column": column, "balancer": balancer.name(),
                "failed": fault.failures, "misrouted": fault.misrouted,
                "shared": fault.shared, "first": fault.first,
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let mut table = Table::default();
        let rounds = [(1.0, 2.0), (4.0, 4.0), (3.0, 2.0)];
        for (round, (ours, theirs)) in rounds.into_iter().enumerate() {
            table.note(round, "held_kib", Balancer::Bowline, ours);
            table.note(round, "held_kib", Balancer::NginxRight, theirs);
        }
        let ratio = table.ratio("held_kib", Balancer::NginxRight).expect("both");
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.5, 1.0, 1.5));
    }

    #[test]
    fn a_round_that_is_missing_moves_no_other() {
        let mut table = Table::default();
        table.note(1, "held_kib", Balancer::Bowline, 8.0);
        for round in 0..2 {
            table.note(round, "held_kib", Balancer::NginxRight, 4.0);
        }
        let ratio = table.ratio("held_kib", Balancer::NginxRight).expect("one");
        assert_eq!((ratio.least, ratio.most), (2.0, 2.0));
    }
}
