//! Checks one direction of one session: every stanza arrives exactly once and in order.
//!
//! A pure function over what the two sides wrote down. It knows nothing of rids, nodes or faults:
//! `invariants.rs` decides which losses a fault excuses.

use std::collections::BTreeSet;

/// What both sides wrote down of one direction of a session. A stanza is a number that its sender
/// gives only once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// The stanzas in the order in which the sender numbered them.
    pub(super) offered: Vec<u64>,
    /// Those that must have arrived, since the other side answered the request that carried them.
    pub(super) confirmed: BTreeSet<u64>,
    /// The stanzas in the order in which the receiver read them.
    pub(super) taken: Vec<u64>,
}

/// What is wrong with a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    /// It is confirmed and was not taken.
    Lost(u64),
    /// It was taken more than once.
    Doubled(u64),
    /// It was taken after this later one.
    Swapped(u64, u64),
    /// It was taken and never offered.
    Invented(u64),
}

/// Everything that is wrong with a flow.
pub(super) fn check(flow: &Flow) -> Vec<Finding> {
    let offered: BTreeSet<u64> = flow.offered.iter().copied().collect();
    let mut taken = BTreeSet::new();
    let mut findings = Vec::new();
    for &stanza in &flow.taken {
        if !offered.contains(&stanza) {
            findings.push(Finding::Invented(stanza));
        } else if taken.contains(&stanza) {
            findings.push(Finding::Doubled(stanza));
        } else if let Some(&later) = taken.last().filter(|last| **last > stanza) {
            findings.push(Finding::Swapped(stanza, later));
        }
        taken.insert(stanza);
    }
    let lost = flow.confirmed.difference(&taken);
    findings.extend(lost.map(|stanza| Finding::Lost(*stanza)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(taken: &[u64]) -> Flow {
        Flow {
            offered: (1..=6).collect(),
            confirmed: (1..=5).collect(),
            taken: taken.to_vec(),
        }
    }

    #[test]
    fn a_good_flow_has_no_finding() {
        // The sixth is not confirmed: it may arrive or not.
        assert_eq!(check(&flow(&[1, 2, 3, 4, 5])), []);
        assert_eq!(check(&flow(&[1, 2, 3, 4, 5, 6])), []);
    }

    #[test]
    fn each_planted_mistake_is_found_alone() {
        let cases: [(&[u64], Finding); 4] = [
            (&[1, 2, 4, 5], Finding::Lost(3)),
            (&[1, 2, 3, 3, 4, 5], Finding::Doubled(3)),
            (&[1, 2, 4, 3, 5], Finding::Swapped(3, 4)),
            (&[1, 2, 3, 4, 5, 7], Finding::Invented(7)),
        ];
        for (taken, finding) in cases {
            assert_eq!(check(&flow(taken)), [finding], "{taken:?}");
        }
    }

    /// Each single loss, double and swap of neighbours in a flow is found.
    #[test]
    fn every_single_mistake_is_found() {
        let good = [1, 2, 3, 4, 5];
        for at in 0..good.len() {
            let mut lost = good.to_vec();
            lost.remove(at);
            assert_eq!(check(&flow(&lost)), [Finding::Lost(good[at])]);
            for again in at..=good.len() {
                let mut doubled = good.to_vec();
                doubled.insert(again, good[at]);
                assert_eq!(check(&flow(&doubled)), [Finding::Doubled(good[at])]);
            }
            let mut swapped = good.to_vec();
            if at > 0 {
                swapped.swap(at - 1, at);
                let finding = Finding::Swapped(good[at - 1], good[at]);
                assert_eq!(check(&flow(&swapped)), [finding]);
            }
        }
    }
}
