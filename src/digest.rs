//! Counters that the log and the timeline report in sums: sessions that moved off a node, and
//! answers that the balancer gave in place of a node.
//!
//! It reads counters and never changes them. A failure touches many requests at once; a line for
//! each of them would hide the line that matters.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cluster::{Cluster, Node, NodeId};
use crate::observe::events::{Event, EventKind};
use crate::observe::metrics::Metrics;

/// From one look at the counters to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A wave of moves is reported after this many looks, even if it goes on.
const LONGEST_WAVE: u32 = 3;

/// From one line about the balancer's own answers to the next, at least.
const ANSWERS_EVERY: Duration = Duration::from_secs(10);

/// Causes that lie with clients alone. They are worth a line, but not a warning.
const CAUSES_OF_CLIENTS: [&str; 15] = [
    "malformed",
    "bad_head",
    "coding",
    "too_large",
    "body_timeout",
    "not_found",
    "method",
    "creation_rate",
    "unknown_sid",
    "unknown_budget",
    "too_many",
    "no_upgrade",
    "bad_upgrade",
    "origin",
    "session_closed",
];

/// Looks at the counters once a second and reports what changed. Never returns.
pub async fn run(cluster: Arc<Cluster>, metrics: Arc<Metrics>) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moves = Moves::new(&cluster);
    let mut answers = OwnAnswers::new(&metrics, tick.tick().await);
    loop {
        let now = tick.tick().await;
        moves.look(&cluster, SystemTime::now());
        if let Some(report) = answers.look(&metrics, now) {
            report.log();
        }
    }
}

/// Sessions that moved, gathered for each node.
#[derive(Debug)]
struct Moves(HashMap<NodeId, Wave>);

#[derive(Debug, Default, Clone, Copy)]
struct Wave {
    /// The counters at the last look.
    seen: Moved,
    /// Moves that are not reported yet.
    pending: Moved,
    looks: u32,
}

/// Sessions that moved off one node, by cause.
#[derive(Debug, Default, Clone, Copy)]
struct Moved {
    by_failure: u64,
    by_operator: u64,
}

impl Moved {
    fn of(node: &Node) -> Self {
        Self {
            by_failure: node.reassigned.get(),
            by_operator: node.moved_off.get(),
        }
    }

    const fn sum(self) -> u64 {
        self.by_failure + self.by_operator
    }
}

impl Wave {
    /// No moves so far.
    fn from(node: &Node) -> Self {
        Self {
            seen: Moved::of(node),
            ..Self::default()
        }
    }
}

impl Moves {
    fn new(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes();
        Self(
            nodes
                .iter()
                .map(|node| (node.id, Wave::from(node)))
                .collect(),
        )
    }

    /// Reports each wave that is over, or that has lasted for [`LONGEST_WAVE`] looks.
    fn look(&mut self, cluster: &Cluster, now: SystemTime) {
        let nodes = cluster.nodes();
        self.0
            .retain(|id, _| nodes.iter().any(|node| node.id == *id));
        for node in nodes.iter() {
            let wave = self.0.entry(node.id).or_insert_with(|| Wave::from(node));
            let moved = Moved::of(node);
            let goes_on = moved.sum() > wave.seen.sum();
            wave.pending.by_failure += moved.by_failure.saturating_sub(wave.seen.by_failure);
            wave.pending.by_operator += moved.by_operator.saturating_sub(wave.seen.by_operator);
            wave.seen = moved;
            if wave.pending.sum() == 0 {
                continue;
            }
            wave.looks += 1;
            if goes_on && wave.looks < LONGEST_WAVE {
                continue;
            }
            report_moves(cluster, node, wave.pending, now);
            wave.pending = Moved::default();
            wave.looks = 0;
        }
    }
}

fn report_moves(cluster: &Cluster, node: &Node, moved: Moved, now: SystemTime) {
    let (name, sessions) = (&node.name, moved.sum());
    let noun = if sessions == 1 { "session" } else { "sessions" };
    let text = format!("{sessions} {noun} moved off {name}");
    if moved.by_failure > 0 {
        warn!(node = %name, sessions, "{text}");
    } else {
        info!(node = %name, sessions, "{text}");
    }
    let event = Event::new(EventKind::Reassigned, now, text);
    cluster.events.add(event.about(name).sessions(sessions));
}

/// Answers of the balancer's own, gathered by cause.
#[derive(Debug)]
struct OwnAnswers {
    /// The counters at the last report, or at the last look that found nothing to report.
    seen: Vec<(&'static str, u64)>,
    /// When that was.
    since: Instant,
    reported: Option<Instant>,
}

/// What one line reports.
#[derive(Debug, PartialEq, Eq)]
struct AnswersReport {
    answers: u64,
    /// Whether some of them have another cause than a client's mistake.
    alarming: bool,
    text: String,
}

impl OwnAnswers {
    fn new(metrics: &Metrics, now: Instant) -> Self {
        Self {
            seen: metrics.rejects().collect(),
            since: now,
            reported: None,
        }
    }

    /// The sum since the last report. None if there is nothing new, or if that report is younger
    /// than [`ANSWERS_EVERY`].
    fn look(&mut self, metrics: &Metrics, now: Instant) -> Option<AnswersReport> {
        let mut new: Vec<_> = metrics
            .rejects()
            .zip(&self.seen)
            .map(|((cause, count), (_, seen))| (cause, count - seen))
            .filter(|(_, count)| *count > 0)
            .collect();
        if new.is_empty() {
            self.since = now;
            return None;
        }
        if self
            .reported
            .is_some_and(|reported| now.saturating_duration_since(reported) < ANSWERS_EVERY)
        {
            return None;
        }
        new.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        self.seen = metrics.rejects().collect();
        self.since = now;
        self.reported = Some(now);
        Some(AnswersReport::new(&new, seconds))
    }
}

impl AnswersReport {
    fn new(new: &[(&'static str, u64)], seconds: f64) -> Self {
        let mut text = String::from("answered in place of a node:");
        for (place, (cause, count)) in new.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(text, "{comma} {count} {cause}");
        }
        let _ = write!(text, " in the last {:.0}s", seconds.max(1.0));
        let of_client = |cause| CAUSES_OF_CLIENTS.contains(cause);
        Self {
            answers: new.iter().map(|(_, count)| count).sum(),
            alarming: !new.iter().all(|(cause, _)| of_client(cause)),
            text,
        }
    }

    fn log(&self) {
        let answers = self.answers;
        if self.alarming {
            warn!(answers, "{}", self.text);
        } else {
            info!(answers, "{}", self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::settings;
    use crate::config::Placement;
    use crate::observe::metrics::CAUSES;

    #[test]
    fn a_wave_of_moves_is_one_event() {
        let cluster = Cluster::new(&settings(2, Placement::ClientIp), &Metrics::new());
        let node = cluster.node(NodeId(1));
        let mut moves = Moves::new(&cluster);
        let mut look = |more| {
            node.reassigned.add(more);
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

    #[test]
    fn own_answers_are_summed_up_and_reported_every_ten_seconds_at_most() {
        let metrics = Metrics::new();
        let start = Instant::now();
        let mut answers = OwnAnswers::new(&metrics, start);
        let mut at = |second: u64, causes: &[(&'static str, u64)]| {
            for (cause, count) in causes {
                (0..*count).for_each(|_| metrics.count_reject(cause));
            }
            let report = answers.look(&metrics, start + Duration::from_secs(second));
            report.map(|report| (report.text, report.answers, report.alarming))
        };
        assert_eq!(at(60, &[]), None, "nothing to report");
        let text = "answered in place of a node: 3 malformed in the last 1s".to_owned();
        assert_eq!(at(61, &[("malformed", 3)]), Some((text, 3, false)));
        assert_eq!(at(62, &[("no_node", 1)]), None, "too early");
        assert_eq!(at(70, &[("session_lost", 12)]), None, "still too early");
        let text = "answered in place of a node: 12 session_lost, 3 no_node in the last 10s";
        assert_eq!(at(71, &[("no_node", 2)]), Some((text.to_owned(), 15, true)));
        assert_eq!(at(72, &[]), None, "each answer is reported once");
    }

    #[test]
    fn the_causes_of_clients_are_known() {
        assert!(CAUSES_OF_CLIENTS.iter().all(|cause| CAUSES.contains(cause)));
    }
}
