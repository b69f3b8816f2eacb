//! The choice of a node for a new session: one pass over the nodes, no allocation.
//!
//! Weights are effective ones: what the configuration says, times the share of a node that has come
//! back a moment ago ([`Node::share`]). A growing weight only moves clients to the node that grows.
//!
//! The caller says which nodes may be chosen; the policy says which of them is. What a policy
//! remembers from one choice to the next lives here and nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::rendezvous::Cost;
use super::{Node, NodeId, PlacementKey, Share};
use crate::config::Placement;

/// A placement policy with what it remembers.
#[derive(Debug)]
pub(super) enum Chooser {
    ClientIp,
    /// By a query parameter; by the client's address where a request has none.
    Query,
    LeastSessions {
        /// Where the search for the least loaded node starts next.
        start: AtomicUsize,
    },
    RoundRobin {
        /// Held for one pass over the nodes, whose credits change, and only when a session is
        /// created (smooth weighted round robin).
        pass: Mutex<()>,
    },
    Random,
}

impl Chooser {
    /// The policy `placement`.
    pub(super) fn new(placement: &Placement) -> Self {
        match placement {
            Placement::ClientIp => Self::ClientIp,
            Placement::Query(_) => Self::Query,
            Placement::LeastSessions => Self::LeastSessions {
                start: AtomicUsize::new(0),
            },
            Placement::RoundRobin => Self::RoundRobin {
                pass: Mutex::default(),
            },
            Placement::Random => Self::Random,
        }
    }

    /// The node for a new session with this `key`, of those that `usable` allows.
    pub(super) fn choose(
        &self,
        nodes: &[Arc<Node>],
        key: PlacementKey,
        usable: impl Fn(&Node) -> bool,
    ) -> Option<NodeId> {
        match self {
            // A weight that grows would split a room: its later members would go to the node that grows.
            Self::Query if matches!(key, PlacementKey::Query(_)) => {
                by_hash(nodes, key, Node::weight, usable)
            }
            Self::ClientIp | Self::Query => by_hash(nodes, key, Node::effective_weight, usable),
            Self::LeastSessions { start } => {
                let from = start.load(Ordering::Relaxed);
                // A node that came back is empty, and by its load alone it would get everything:
                // it takes part in as many choices as its share says.
                let takes_part = |node: &Node| {
                    usable(node)
                        && (node.share() == Share::WHOLE
                            || fastrand::u16(..Share::WHOLE.0) < node.share().0)
                };
                let found = least_sessions(nodes, from, takes_part)
                    .or_else(|| least_sessions(nodes, from, usable));
                // A search without a result must not change whose turn it is.
                found.inspect(|_| _ = start.fetch_add(1, Ordering::Relaxed))
            }
            Self::RoundRobin { pass } => {
                let _pass = pass.lock().unwrap_or_else(PoisonError::into_inner);
                next_in_turn(nodes, usable)
            }
            Self::Random => at_random(nodes, |total| fastrand::u64(..total), usable),
        }
    }
}

/// The node that the key belongs to ([`super::rendezvous`]), with these weights.
pub(super) fn by_hash(
    nodes: &[Arc<Node>],
    key: PlacementKey,
    weight: impl Fn(&Node) -> u32,
    usable: impl Fn(&Node) -> bool,
) -> Option<NodeId> {
    let mut best: Option<(Cost<'_>, NodeId)> = None;
    for node in nodes.iter().filter(|node| usable(node)) {
        let cost = Cost::of(&node.name, weight(node), key);
        if best.is_none_or(|(lowest, _)| cost.beats(&lowest)) {
            best = Some((cost, node.id));
        }
    }
    best.map(|(_, id)| id)
}

/// The node that has the fewest sessions for its weight once it has this one too; the search
/// starts at another node each time, so that equals take turns. Creations that wait for their
/// answer count as well ([`super::Placed`]), or all of a burst would go to the same node.
fn least_sessions(
    nodes: &[Arc<Node>],
    start: usize,
    usable: impl Fn(&Node) -> bool,
) -> Option<NodeId> {
    let (before, after) = nodes.split_at(start % nodes.len().max(1));
    let mut best: Option<(u128, &Node)> = None;
    for node in after.iter().chain(before).filter(|node| usable(node)) {
        let load = u128::from(node.load()) + 1;
        // load / weight < lowest / its weight, without the division
        let lower = best.is_none_or(|(lowest, other)| {
            load * u128::from(other.weight()) < lowest * u128::from(node.weight())
        });
        if lower {
            best = Some((load, node));
        }
    }
    best.map(|(_, node)| node.id)
}

/// Smooth weighted round robin: every usable node gains its weight, the richest is chosen and
/// pays what all gained. Nodes interleave (a a b a, not a a a b), and one that is down neither
/// gains nor pays.
fn next_in_turn(nodes: &[Arc<Node>], usable: impl Fn(&Node) -> bool) -> Option<NodeId> {
    let mut gained = 0;
    let mut best: Option<(i64, &Node)> = None;
    for node in nodes.iter().filter(|node| usable(node)) {
        let weight = i64::from(node.effective_weight());
        let credit = node.credit.fetch_add(weight, Ordering::Relaxed) + weight;
        gained += weight;
        if best.is_none_or(|(richest, _)| credit > richest) {
            best = Some((credit, node));
        }
    }
    let (_, node) = best?;
    node.credit.fetch_sub(gained, Ordering::Relaxed);
    Some(node.id)
}

/// A node at random, by weight: each usable node takes the choice over from those before it with
/// the chance that its weight has among theirs. `below` gives a number under its argument.
fn at_random(
    nodes: &[Arc<Node>],
    mut below: impl FnMut(u64) -> u64,
    usable: impl Fn(&Node) -> bool,
) -> Option<NodeId> {
    let mut total = 0;
    let mut chosen = None;
    for node in nodes.iter().filter(|node| usable(node)) {
        let weight = u64::from(node.effective_weight());
        total += weight;
        if below(total) < weight {
            chosen = Some(node.id);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::QueryGroup;
    use super::*;
    use crate::config::NodeSettings;
    use crate::observe::metrics::Metrics;
    use crate::upstream::ConnectLimiter;

    fn nodes(weights: &[u32]) -> Vec<Arc<Node>> {
        let metrics = Metrics::new();
        let node = |(id, &weight)| {
            let settings = NodeSettings {
                name: format!("t{}", id + 1),
                address: format!("192.0.2.{}:5280", id + 1),
                weight,
                max_sessions: 0,
                ..NodeSettings::new(String::new(), String::new())
            };
            let metrics = metrics.node(&settings.name);
            Arc::new(Node::new(
                NodeId(id),
                &settings,
                ConnectLimiter::new(1, 0),
                metrics,
            ))
        };
        (0..).zip(weights).map(node).collect()
    }

    fn client(number: u32) -> PlacementKey {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)).into()
    }

    fn room(number: u32) -> PlacementKey {
        let query = format!("room=room{number}");
        PlacementKey::Query(QueryGroup::of(&query, "room").unwrap())
    }

    fn by_room() -> Chooser {
        Chooser::new(&Placement::Query("room".into()))
    }

    fn counts(nodes: &[Arc<Node>], picks: impl IntoIterator<Item = NodeId>) -> Vec<u32> {
        let mut counts = vec![0; nodes.len()];
        for pick in picks {
            counts[pick.index()] += 1;
        }
        counts
    }

    fn all(_: &Node) -> bool {
        true
    }

    fn hashed(nodes: &[Arc<Node>], number: u32, usable: impl Fn(&Node) -> bool) -> NodeId {
        by_hash(nodes, client(number), Node::effective_weight, usable).expect("a node is usable")
    }

    /// Values that must never change: balancers of other versions rely on them.
    #[test]
    fn an_address_belongs_to_the_same_node_everywhere() {
        let nodes = nodes(&[1, 2, 3, 1, 1]);
        let place = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            by_hash(&nodes, ip.into(), Node::effective_weight, all)
                .unwrap()
                .0
        };
        let addresses = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "198.51.100.77",
            "203.0.113.9",
            "10.1.2.3",
            "::1",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "2001:db8:ffff::1",
        ];
        assert_eq!(addresses.map(place), [3, 1, 1, 4, 2, 2, 1, 0, 1, 3]);
    }

    #[test]
    fn addresses_spread_by_weight() {
        let weights = [1, 2, 5, 64, 256];
        let nodes = nodes(&weights);
        let picked = counts(&nodes, (0..200_000).map(|n| hashed(&nodes, n, all)));
        let total = f64::from(weights.iter().sum::<u32>());
        for (count, weight) in picked.iter().zip(weights) {
            let expected = 200_000.0 * f64::from(weight) / total;
            let off = (f64::from(*count) - expected).abs();
            // four standard deviations, about
            assert!(off < 4.0 * expected.sqrt(), "{count}, expected {expected}");
        }
    }

    #[test]
    fn a_node_that_leaves_moves_its_own_clients_only_and_gets_them_back() {
        let nodes = nodes(&[1, 1, 3, 1]);
        let gone = NodeId(2);
        let mut moved = vec![];
        for number in 0..20_000 {
            let before = hashed(&nodes, number, all);
            let after = hashed(&nodes, number, |node| node.id != gone);
            assert_ne!(after, gone);
            if before == gone {
                moved.push(after);
            } else {
                assert_eq!(before, after, "client {number} moved without need");
            }
        }
        // half of all clients move, a third of them to each survivor
        for (id, count) in counts(&nodes, moved).iter().enumerate() {
            assert!(id == 2 || (3_100..3_600).contains(count), "{count}");
        }
    }

    #[test]
    fn a_node_that_gets_heavier_only_gains() {
        let (light, heavy) = (nodes(&[2, 2, 2]), nodes(&[2, 5, 2]));
        for number in 0..20_000 {
            let (before, after) = (hashed(&light, number, all), hashed(&heavy, number, all));
            assert!(before == after || after == NodeId(1));
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_to_the_hash() {
        let nodes = nodes(&[1, 2, 3]);
        let mut turned = self::nodes(&[1, 2, 3]);
        turned.reverse();
        for number in 0..2_000 {
            let id = by_hash(&turned, client(number), Node::effective_weight, all);
            assert_eq!(
                id,
                by_hash(&nodes, client(number), Node::effective_weight, all)
            );
        }
    }

    #[test]
    fn the_least_loaded_node_for_its_weight_is_chosen() {
        let nodes = nodes(&[1, 4, 1]);
        for (node, sessions) in nodes.iter().zip([10, 30, 9]) {
            node.sessions.add(sessions);
        }
        assert_eq!(least_sessions(&nodes, 0, all), Some(NodeId(1)));
        assert_eq!(
            least_sessions(&nodes, 0, |node| node.id.0 != 1),
            Some(NodeId(2))
        );
    }

    #[test]
    fn equally_loaded_nodes_take_turns() {
        let nodes = nodes(&[1, 1, 1]);
        let chooser = Chooser::new(&Placement::LeastSessions);
        let picks = (0..30).map(|n| chooser.choose(&nodes, client(n), all).unwrap());
        assert_eq!(counts(&nodes, picks), [10, 10, 10]);
    }

    #[test]
    fn sessions_end_up_in_proportion_to_the_weights() {
        let nodes = nodes(&[1, 2, 5]);
        let chooser = Chooser::new(&Placement::LeastSessions);
        for number in 0..800 {
            let id = chooser.choose(&nodes, client(number), all).unwrap();
            nodes[id.index()].sessions.inc();
        }
        let sessions: Vec<u64> = nodes.iter().map(|n| n.sessions.get()).collect();
        assert_eq!(sessions, [100, 200, 500]);
    }

    #[test]
    fn a_round_is_interleaved_by_weight() {
        let nodes = nodes(&[5, 1, 1]);
        let chooser = Chooser::new(&Placement::RoundRobin);
        let round = || (0..7).map(|n| chooser.choose(&nodes, client(n), all).unwrap().0);
        assert_eq!(round().collect::<Vec<_>>(), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round().collect::<Vec<_>>(), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_round_goes_on_without_a_node_that_is_down() {
        let nodes = nodes(&[1, 2, 1]);
        let chooser = Chooser::new(&Placement::RoundRobin);
        let picks = |usable: fn(&Node) -> bool, count: u32| {
            let picks = (0..count).map(|n| chooser.choose(&nodes, client(n), usable).unwrap());
            counts(&nodes, picks)
        };
        picks(all, 3);
        assert_eq!(picks(|node| node.id.0 != 1, 20), [10, 0, 10]);
        let after = picks(all, 400);
        for (count, expected) in after.iter().zip([100_u32, 200, 100]) {
            assert!(count.abs_diff(expected) <= 2, "{after:?}");
        }
    }

    #[test]
    fn chance_goes_by_weight() {
        let nodes = nodes(&[1, 3, 6]);
        let mut random = fastrand::Rng::with_seed(3);
        let picks = (0..100_000).map(|_| at_random(&nodes, |n| random.u64(..n), all).unwrap());
        for (count, expected) in counts(&nodes, picks)
            .iter()
            .zip([10_000_u32, 30_000, 60_000])
        {
            assert!(
                count.abs_diff(expected) < 600,
                "{count}, expected {expected}"
            );
        }
    }

    /// Which part of new sessions a node gets that has this share, beside two whole ones.
    fn part_of(share: u16, placement: &Placement) -> f64 {
        let nodes = nodes(&[1, 1, 1]);
        for node in &nodes[1..] {
            node.sessions.add(100_000);
        }
        nodes[0].set_share(Share(share));
        let chooser = Chooser::new(placement);
        let picks = (0..10_000).map(|n| chooser.choose(&nodes, client(n), all).unwrap());
        f64::from(counts(&nodes, picks)[0]) / 10_000.0
    }

    #[test]
    fn a_node_that_came_back_gets_as_much_as_its_share_says() {
        for placement in [
            Placement::ClientIp,
            Placement::RoundRobin,
            Placement::Random,
        ] {
            for share in [100, 300, 500, 1000] {
                let part = part_of(share, &placement);
                let expected = f64::from(share) / (2000.0 + f64::from(share));
                assert!(
                    (part - expected).abs() < 0.02,
                    "{placement:?} {share} {part}"
                );
            }
        }
        for share in [100, 300, 500, 1000] {
            let part = part_of(share, &Placement::LeastSessions);
            let expected = f64::from(share) / 1000.0;
            assert!((part - expected).abs() < 0.03, "{share}: {part}");
        }
    }

    #[test]
    fn a_share_that_grows_takes_clients_and_gives_none_away() {
        let nodes = nodes(&[1, 2, 3]);
        nodes[1].set_share(Share(100));
        let mut before: Vec<NodeId> = (0..5_000).map(|n| hashed(&nodes, n, all)).collect();
        for share in (200..=1000).step_by(100) {
            nodes[1].set_share(Share(share));
            let after: Vec<NodeId> = (0..5_000).map(|n| hashed(&nodes, n, all)).collect();
            for (before, after) in before.iter().zip(&after) {
                assert!(before == after || *after == NodeId(1));
            }
            before = after;
        }
    }

    #[test]
    fn a_small_share_is_chosen_when_there_is_nothing_else() {
        let nodes = nodes(&[1, 1]);
        nodes[0].set_share(Share(1));
        for placement in [
            Placement::ClientIp,
            Placement::LeastSessions,
            Placement::RoundRobin,
            Placement::Random,
        ] {
            let chooser = Chooser::new(&placement);
            for number in 0..20 {
                let only = |node: &Node| node.id.0 == 0;
                let chosen = chooser.choose(&nodes, client(number), only);
                assert_eq!(chosen, Some(NodeId(0)));
            }
        }
    }

    #[test]
    fn rooms_spread_by_weight_and_stay_while_a_share_grows() {
        let nodes = nodes(&[1, 2, 1]);
        let chooser = by_room();
        let place = |n| chooser.choose(&nodes, room(n), all).unwrap();
        let before: Vec<NodeId> = (0..20_000).map(place).collect();
        for (count, expected) in counts(&nodes, before.clone())
            .iter()
            .zip([5_000, 10_000, 5_000_u32])
        {
            assert!(
                count.abs_diff(expected) < 400,
                "{count}, expected {expected}"
            );
        }
        nodes[1].set_share(Share(100));
        let after: Vec<NodeId> = (0..20_000).map(place).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn a_request_without_a_room_goes_by_its_address() {
        let nodes = nodes(&[1, 2, 1]);
        for number in 0..100 {
            let chosen = by_room().choose(&nodes, client(number), all);
            assert_eq!(chosen, Some(hashed(&nodes, number, all)));
        }
    }

    #[test]
    fn no_policy_chooses_what_is_not_usable() {
        let nodes = nodes(&[1, 1, 1]);
        for placement in [
            Placement::ClientIp,
            Placement::LeastSessions,
            Placement::RoundRobin,
            Placement::Random,
        ] {
            let chooser = Chooser::new(&placement);
            for number in 0..50 {
                let only = |node: &Node| node.id.0 == 1;
                assert_eq!(
                    chooser.choose(&nodes, client(number), only),
                    Some(NodeId(1))
                );
                assert_eq!(chooser.choose(&nodes, client(number), |_| false), None);
            }
        }
    }
}
