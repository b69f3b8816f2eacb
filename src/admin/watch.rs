//! What has to be looked at from time to time so that it can be told: samples for the history, and
//! sessions that moved, as one event for each wave of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{AdminState, history};
use crate::cluster::{Cluster, Node};
use crate::events::{Event, EventKind};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that a wave of moves is gathered before it is told, in looks.
const LONGEST_WAVE: u32 = 3;

/// Looks, for ever.
pub(super) async fn run(state: Arc<AdminState>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moves = Moves::new(&state.cluster);
    let mut sample_at = Instant::now() + history::EVERY;
    loop {
        let now = tick.tick().await;
        moves.look(&state.cluster, SystemTime::now());
        if now >= sample_at {
            sample_at += history::EVERY;
            state.history.sample(&state.cluster, now, SystemTime::now());
            state.measure().await;
        }
    }
}

/// Gathers moves of sessions, node by node.
#[derive(Debug)]
struct Moves(Vec<Wave>);

#[derive(Debug, Default, Clone, Copy)]
struct Wave {
    /// The counters at the last look.
    seen: u64,
    /// Moves that have not been told.
    untold: u64,
    looks: u32,
}

impl Moves {
    fn new(cluster: &Cluster) -> Self {
        let wave = |node: &Node| Wave {
            seen: moved(node),
            ..Wave::default()
        };
        Self(cluster.nodes().iter().map(wave).collect())
    }

    /// Tells a wave once it is over, or has lasted for long.
    fn look(&mut self, cluster: &Cluster, now: SystemTime) {
        for (wave, node) in self.0.iter_mut().zip(cluster.nodes()) {
            let moved = moved(node);
            let new = moved.saturating_sub(wave.seen);
            wave.seen = moved;
            wave.untold += new;
            if wave.untold == 0 {
                continue;
            }
            wave.looks += 1;
            if new > 0 && wave.looks < LONGEST_WAVE {
                continue;
            }
            let (name, count) = (&node.name, wave.untold);
            let sessions = if count == 1 { "session" } else { "sessions" };
            let text = format!("{count} {sessions} moved off {name}");
            let event = Event::new(EventKind::Reassigned, now, text);
            cluster.events.add(event.about(name).sessions(count));
            wave.untold = 0;
            wave.looks = 0;
        }
    }
}

fn moved(node: &Node) -> u64 {
    node.metrics.reassigned.get() + node.metrics.moved_off.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;
    use crate::cluster::tests::settings;
    use crate::config::Placement;
    use crate::metrics::Metrics;

    #[test]
    fn a_wave_of_moves_is_one_event() {
        let cluster = Cluster::new(&settings(2, Placement::ClientIp), &Metrics::new());
        let metrics = &cluster.node(NodeId(1)).metrics;
        let mut moves = Moves::new(&cluster);
        let mut look = |more| {
            metrics.reassigned.inc_by(more);
            moves.look(&cluster, SystemTime::UNIX_EPOCH);
            let events = cluster.events.since(0);
            events
                .iter()
                .map(|event| event.text.clone())
                .collect::<Vec<_>>()
        };
        assert!(look(0).is_empty());
        assert!(look(5).is_empty());
        assert!(look(2).is_empty());
        assert_eq!(look(0), ["7 sessions moved off t2"]);
        for _ in 0..2 {
            assert_eq!(look(1).len(), 1);
        }
        assert_eq!(
            look(1)[1],
            "3 sessions moved off t2",
            "a wave does not go on for ever"
        );
        assert_eq!(look(0).len(), 2);
        let told = cluster.events.since(1);
        assert_eq!(
            (told[0].sessions, told[0].node.as_deref()),
            (Some(3), Some("t2"))
        );
    }
}
