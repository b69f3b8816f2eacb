//! Whether the nodes are at fault or the balancer's own network: when most of them fall silent at
//! about the same time, it is the latter (Envoy calls this the panic threshold). No I/O; time comes
//! in as an argument.
//!
//! While the network is suspected, no silent node is called down. When the suspicion ends, each
//! node that is still silent has its whole `health.silence` from then on, so that the first node
//! that answers does not take the sessions of the others. A suspicion is bounded: most nodes of a
//! cluster can also fail for good.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{NodeId, Verdict};

/// A suspicion lasts for this many times `health.silence` at most.
const LONGEST: u32 = 6;

/// What the probes of all nodes say of the network.
#[derive(Debug)]
pub(super) struct Network {
    /// Nodes that fall silent within this time do so together: two probes of two nodes may be an
    /// interval apart, and take a timeout each.
    together: Duration,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is known of each node that is probed.
    nodes: BTreeMap<NodeId, Seen>,
    suspected: Suspected,
    /// When the last suspicion ended because nodes answered.
    ended: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    verdict: Verdict,
    silent_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspected {
    No,
    Since(Instant),
    /// It took too long: these nodes are silent for good.
    GivenUp,
}

impl Network {
    /// The network in front of no nodes.
    pub(super) fn new(together: Duration, silence: Duration) -> Self {
        Self {
            together,
            longest: silence * LONGEST,
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                suspected: Suspected::No,
                ended: None,
            }),
        }
    }

    /// Counts a node whose probes begin.
    pub(super) fn add(&self, id: NodeId) {
        let unknown = Seen {
            verdict: Verdict::Unknown,
            silent_since: None,
        };
        self.state().nodes.insert(id, unknown);
    }

    /// Counts a node no more, whose probes have ended.
    pub(super) fn remove(&self, id: NodeId) {
        self.state().nodes.remove(&id);
    }

    /// Takes what is known of the node `id`: its verdict, and since when it has said nothing, if it
    /// has not. Says whether the network is suspected now.
    pub(super) fn observe(
        &self,
        id: NodeId,
        verdict: Verdict,
        silent_since: Option<Instant>,
        now: Instant,
    ) -> bool {
        let mut state = self.state();
        if let Some(seen) = state.nodes.get_mut(&id) {
            *seen = Seen {
                verdict,
                silent_since,
            };
        }
        let most_silent = self.most_silent(&state.nodes);
        state.suspected = match state.suspected {
            Suspected::No if most_silent => Suspected::Since(now),
            Suspected::Since(since) if most_silent && now >= since + self.longest => {
                Suspected::GivenUp
            }
            Suspected::Since(_) if !most_silent => {
                state.ended = Some(now);
                Suspected::No
            }
            Suspected::GivenUp if !most_silent => Suspected::No,
            unchanged => unchanged,
        };
        matches!(state.suspected, Suspected::Since(_))
    }

    /// When the last suspicion ended because nodes answered again: silence counts from then at the
    /// earliest.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.state().ended
    }

    /// Whether more than half of the nodes that are not down are silent, two at least, and have
    /// been so from about the same time on.
    fn most_silent(&self, nodes: &BTreeMap<NodeId, Seen>) -> bool {
        let there = nodes.values().filter(|seen| seen.verdict != Verdict::Down);
        let there = there.count();
        let silent: Vec<_> = nodes
            .values()
            .filter_map(|seen| seen.silent_since)
            .collect();
        let beside = |first: &Instant| {
            let last = *first + self.together;
            let within = |since: &&Instant| (*first..=last).contains(since);
            silent.iter().filter(within).count()
        };
        let most = silent.iter().map(beside).max().unwrap_or(0);
        most >= 2 && most * 2 > there
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SILENCE: Duration = Duration::from_secs(5);

    fn network(nodes: u16, now: Instant) -> Network {
        let network = Network::new(2 * SECOND, SILENCE);
        for index in 0..nodes {
            network.add(NodeId(index));
            network.observe(NodeId(index), Verdict::Up, None, now);
        }
        network
    }

    /// The node falls silent now.
    fn silent(network: &Network, index: u16, now: Instant) -> bool {
        network.observe(NodeId(index), Verdict::Silent, Some(now), now)
    }

    #[test]
    fn one_silent_node_is_at_fault_itself() {
        let now = Instant::now();
        for nodes in 1..5 {
            assert!(!silent(&network(nodes, now), 0, now), "{nodes} nodes");
        }
    }

    #[test]
    fn more_than_half_silent_at_once_are_the_networks_fault() {
        let now = Instant::now();
        for (nodes, enough) in [(2, 2), (3, 2), (4, 3), (5, 3), (10, 6)] {
            let network = network(nodes, now);
            let suspected = (0..nodes).map(|index| silent(&network, index, now));
            let first = suspected.collect::<Vec<_>>().iter().position(|is| *is);
            assert_eq!(first, Some(enough - 1), "{nodes} nodes");
        }
    }

    #[test]
    fn nodes_that_fall_silent_one_after_the_other_are_at_fault_themselves() {
        let now = Instant::now();
        let network = network(3, now);
        for index in 0..3 {
            let later = now + 3 * SECOND * u32::from(index);
            assert!(!silent(&network, index, later));
        }
    }

    #[test]
    fn nodes_that_are_down_do_not_count() {
        let now = Instant::now();
        let network = network(4, now);
        for index in [0, 1] {
            network.observe(NodeId(index), Verdict::Down, None, now);
        }
        assert!(!silent(&network, 2, now));
        assert!(silent(&network, 3, now));
    }

    #[test]
    fn it_ends_when_enough_nodes_answer_and_the_others_have_their_time_from_then() {
        let now = Instant::now();
        let network = network(3, now);
        for index in 0..3 {
            silent(&network, index, now);
        }
        assert_eq!(network.ended(), None);
        let later = now + 9 * SECOND;
        assert!(network.observe(NodeId(0), Verdict::Up, None, later));
        assert!(!network.observe(NodeId(1), Verdict::Up, None, later));
        assert_eq!(network.ended(), Some(later));
    }

    #[test]
    fn a_suspicion_does_not_last_for_ever() {
        let now = Instant::now();
        let network = network(3, now);
        silent(&network, 0, now);
        assert!(silent(&network, 1, now));
        let again = |later| network.observe(NodeId(1), Verdict::Silent, Some(now), later);
        assert!(again(now + 29 * SECOND));
        assert!(!again(now + 30 * SECOND));
        assert!(!again(now + 31 * SECOND), "and does not begin anew");
        assert_eq!(network.ended(), None, "their time is up");
    }
}
