//! What the operator decided about a node, apart from what the probes say of it.

use std::time::SystemTime;

use tracing::info;

use super::{Cluster, Node, NodeId};
use crate::config::{NodeSettings, NodeState};
use crate::observe::events::{Event, EventKind};

/// What the operator decided about a node. A snapshot keeps it across a restart; without one every node
/// starts ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperatorState {
    /// It takes sessions, if the probes call it up.
    Ready,
    /// It keeps the sessions that it has, and takes no new one.
    Drain,
    /// It takes no session, and those that it has move off, as if it were down.
    Maint,
}

impl OperatorState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// The word for it, in requests, answers and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// The state that has this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    pub(super) const fn of_number(number: u8) -> Self {
        match number {
            1 => Self::Drain,
            2 => Self::Maint,
            _ => Self::Ready,
        }
    }
}

impl From<NodeState> for OperatorState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Ready => Self::Ready,
            NodeState::Drain => Self::Drain,
            NodeState::Maint => Self::Maint,
        }
    }
}

/// Who changes a state and has no name.
pub const OPERATOR: &str = "the operator";

/// Why a state was refused: new sessions would have no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastNode {
    /// No other node is ready.
    Ready,
    /// Other nodes are ready, but none of them is up.
    Up,
}

impl LastNode {
    /// The refusal in words, with the names of the nodes that it is about.
    pub fn words(self, names: &str) -> String {
        let why = match self {
            Self::Ready => "no other node is ready",
            Self::Up => "no other ready node is up",
        };
        format!("{why}: without {names} no user could log in")
    }
}

impl Cluster {
    /// As [`Cluster::set_states`] for one node, without the name of an operator.
    ///
    /// # Errors
    /// As there.
    pub fn set_state(
        &self,
        id: NodeId,
        to: OperatorState,
        force: bool,
        now: SystemTime,
    ) -> Result<OperatorState, LastNode> {
        let before = self.set_states(&[id], to, force, OPERATOR, now)?;
        Ok(before[0])
    }

    /// Sets what the operator `by` decided about some nodes, of all of them or of none, and says what it
    /// was before. Requests that wait at a node that goes into `maint` are woken and move on. Requests
    /// that wait for any node are woken when one becomes ready.
    ///
    /// # Errors
    /// Without `force`, if no node would be left for new sessions and there is one now.
    pub fn set_states(
        &self,
        ids: &[NodeId],
        to: OperatorState,
        force: bool,
        by: &str,
        now: SystemTime,
    ) -> Result<Vec<OperatorState>, LastNode> {
        let _one_at_a_time = self.changing();
        let before: Vec<_> = ids.iter().map(|id| self.node(*id).state()).collect();
        if !force && let Some(refused) = self.needs(ids, to) {
            return Err(refused);
        }
        for id in ids {
            let node = self.node(*id);
            let from = node.state();
            if from == to {
                continue;
            }
            node.set_state(to, now);
            if to == OperatorState::Ready {
                self.went_up.notify_waiters();
            }
            let (name, from, to) = (&node.name, from.word(), to.word());
            let text = format!("{by} set {name} from {from} to {to}");
            self.events
                .add(Event::new(EventKind::State, now, text).about(name));
        }
        Ok(before)
    }

    /// Sets the states of the file, at the start (`before` is empty) or at a reload: of each node whose
    /// `state` differs from the one `before`. A state that is not in the file any more is `ready`. It asks
    /// for no other node: the file says what is wanted.
    pub fn configure_states(
        &self,
        before: &[NodeSettings],
        nodes: &[NodeSettings],
        now: SystemTime,
    ) {
        let _one_at_a_time = self.changing();
        for settings in nodes {
            let earlier = before.iter().find(|other| other.name == settings.name);
            if earlier.and_then(|other| other.state) == settings.state {
                continue;
            }
            let to = settings.state.map_or(OperatorState::Ready, Into::into);
            let node = self.named(&settings.name);
            let Some(node) = node.filter(|node| node.state() != to) else {
                continue;
            };
            node.set_state(to, now);
            if to == OperatorState::Ready {
                self.went_up.notify_waiters();
            }
            let (name, to) = (&node.name, to.word());
            info!(node = %name, state = to, "operator state set by the configuration");
            let text = format!("the configuration set {name} to {to}");
            self.events
                .add(Event::new(EventKind::State, now, text).about(name));
        }
    }

    /// Sets a state that the operator chose in an earlier process. It asks for no other node: that process
    /// did.
    pub fn restore_state(&self, id: NodeId, to: OperatorState, now: SystemTime) {
        let _one_at_a_time = self.changing();
        let node = self.node(id);
        node.set_state(to, now);
        let text = format!("{} is in {} as before the restart", node.name, to.word());
        self.events
            .add(Event::new(EventKind::State, now, text).about(&node.name));
    }

    /// Why the nodes `ids` cannot go to the state `to` without harm.
    fn needs(&self, ids: &[NodeId], to: OperatorState) -> Option<LastNode> {
        if to == OperatorState::Ready {
            return None;
        }
        let changing = || {
            let nodes = ids.iter().map(|id| self.node(*id));
            nodes.filter(|node| node.state() != to)
        };
        let loses = |node: &Node| match to {
            OperatorState::Ready => false,
            OperatorState::Drain => node.takes_new(),
            // Its sessions would have no node to go to either.
            OperatorState::Maint => node.serves(),
        };
        let set = self.set.load();
        let others = || {
            set.members()
                .iter()
                .filter(|other| !ids.contains(&other.id))
        };
        let is_ready = |node: &Node| node.state() == OperatorState::Ready;
        if changing().any(is_ready) && !others().any(|other| is_ready(other)) {
            return Some(LastNode::Ready);
        }
        (changing().any(loses) && !others().any(|other| other.takes_new())).then_some(LastNode::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::tests::settings;
    use super::*;
    use crate::config::Placement;
    use crate::observe::metrics::Metrics;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const T1: NodeId = NodeId(0);
    const T2: NodeId = NodeId(1);

    fn cluster(up: &[bool]) -> Cluster {
        let nodes = u16::try_from(up.len()).unwrap();
        let cluster = Cluster::new(&settings(nodes, Placement::RoundRobin), &Metrics::new());
        for (id, up) in (0..).zip(up) {
            let verdict = if *up { Verdict::Up } else { Verdict::Down };
            cluster.set_verdict(NodeId(id), verdict, NOW);
        }
        cluster
    }

    fn placed(cluster: &Cluster) -> Vec<NodeId> {
        let client: std::net::IpAddr = "192.0.2.1".parse().unwrap();
        let mut nodes: Vec<_> = (0..8).filter_map(|_| cluster.place(client, &[])).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    #[test]
    fn a_state_is_apart_from_the_verdict() {
        let cluster = cluster(&[true, true]);
        let t1 = cluster.node(T1);
        for (state, takes_new, serves) in [
            (OperatorState::Drain, false, true),
            (OperatorState::Maint, false, false),
            (OperatorState::Ready, true, true),
        ] {
            cluster.set_state(T1, state, false, NOW).unwrap();
            assert_eq!(
                (t1.takes_new(), t1.serves()),
                (takes_new, serves),
                "{state:?}"
            );
            assert!(t1.is_up());
            let usable = if takes_new { vec![T1, T2] } else { vec![T2] };
            assert_eq!(placed(&cluster), usable);
        }
        cluster.set_verdict(T1, Verdict::Down, NOW);
        assert_eq!(t1.state(), OperatorState::Ready);
        assert!(!t1.takes_new() && !t1.serves());
    }

    #[test]
    fn the_home_of_an_unknown_session_may_drain() {
        let cluster = cluster(&[true, true]);
        let homes = || -> Vec<_> {
            (0..64_u8)
                .filter_map(|last| cluster.home(std::net::IpAddr::from([192, 0, 2, last]), &[]))
                .collect()
        };
        let before = homes();
        cluster
            .set_state(T1, OperatorState::Drain, false, NOW)
            .unwrap();
        assert_eq!(homes(), before);
        cluster
            .set_state(T1, OperatorState::Maint, false, NOW)
            .unwrap();
        assert!(homes().iter().all(|home| *home == T2));
    }

    #[test]
    fn the_last_node_is_kept_unless_forced() {
        use OperatorState::{Drain, Maint, Ready};
        let down = cluster(&[true, false]);
        assert_eq!(down.set_state(T1, Drain, false, NOW), Err(LastNode::Up));
        assert_eq!(down.set_state(T2, Maint, false, NOW), Ok(Ready));
        assert_eq!(down.set_state(T1, Maint, false, NOW), Err(LastNode::Ready));
        assert_eq!(down.set_state(T1, Drain, true, NOW), Ok(Ready));
        assert_eq!(placed(&down), []);
        assert!(!down.any_up(), "none that takes sessions");
        assert_eq!(down.set_state(T1, Maint, false, NOW), Err(LastNode::Up));
        assert_eq!(down.set_state(T1, Maint, true, NOW), Ok(Drain));
        assert_eq!(down.set_state(T1, Ready, false, NOW), Ok(Maint));
        let all_down = cluster(&[false, false]);
        assert_eq!(all_down.set_state(T1, Drain, false, NOW), Ok(Ready));
        assert_eq!(
            all_down.set_state(T2, Drain, false, NOW),
            Err(LastNode::Ready)
        );
    }

    #[test]
    fn a_change_is_an_event_and_no_change_is_none() {
        let cluster = cluster(&[true, true]);
        let before = cluster.events.since(0).len();
        for _ in 0..2 {
            cluster
                .set_state(T1, OperatorState::Drain, false, NOW)
                .unwrap();
        }
        let events = cluster.events.since(0);
        assert_eq!(events.len(), before + 1);
        let last = events.last().unwrap();
        assert_eq!(last.kind, EventKind::State);
        assert_eq!(last.text, "the operator set t1 from ready to drain");
    }

    #[test]
    fn words() {
        for state in OperatorState::ALL {
            assert_eq!(OperatorState::of_word(state.word()), Some(state));
            assert_eq!(OperatorState::of_number(state as u8), state);
        }
        assert_eq!(OperatorState::of_word("READY"), None);
    }
}
