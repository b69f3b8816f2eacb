//! The last minutes of every node: what `/history` shows, and the rates that `/health` tells.
//!
//! One sample each [`EVERY`], all of bounded number. Rates compare the counters of now with those
//! of a sample, so they cost nothing where requests are counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

use super::traffic::{Recent, Traffic};
use crate::cluster::{Cluster, Node, NodeId};
use crate::observe::metrics::{Metrics, Times, Timing};

/// From one sample to the next.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// Samples of `/history`: 15 minutes.
const KEPT: usize = 180;
/// Samples that the rates look back on: five minutes.
pub(super) const LOOK_BACK: usize = 60;
/// Samples in a minute.
const MINUTE: usize = 12;

/// Samples of every node.
#[derive(Debug)]
pub(super) struct History(Mutex<Samples>);

#[derive(Debug)]
struct Samples {
    times: VecDeque<SystemTime>,
    /// Of the whole balancer.
    requests_per_second: VecDeque<f64>,
    traffic: Traffic,
    tracks: Vec<Track>,
}

/// One node's samples.
#[derive(Debug)]
struct Track {
    node: NodeId,
    points: VecDeque<Point>,
    /// Counters, the newest last; one more than look back.
    totals: VecDeque<Totals>,
    /// Response times of the last minute, the newest last.
    answers: VecDeque<Times>,
    /// The same of probes.
    probes: VecDeque<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    at: Instant,
    created: u64,
    answers: u64,
    failures: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Point {
    sessions: u64,
    held: u64,
    creations_per_second: f64,
    p99_ms: Option<f64>,
}

/// What was lately at one node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    /// Over the last five to ten seconds.
    pub(super) creations_per_second: f64,
    /// The part of exchanges that failed; none without an exchange.
    pub(super) error_share_1m: Option<f64>,
    pub(super) error_share_5m: Option<f64>,
    /// Over the last minute; none without an answer.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// The same of probes that passed.
    pub(super) probe_p50_ms: Option<f64>,
    pub(super) probe_p99_ms: Option<f64>,
}

/// `/history`: a column for each sample, oldest first.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    schema: u32,
    interval_seconds: u64,
    /// Seconds since 1970.
    times: Vec<u64>,
    requests_per_second: Vec<f64>,
    nodes: Vec<ToldTrack>,
}

#[derive(Debug, Serialize)]
struct ToldTrack {
    name: String,
    sessions: Vec<u64>,
    held: Vec<u64>,
    creations_per_second: Vec<f64>,
    p99_ms: Vec<Option<f64>>,
}

impl History {
    /// No samples of the nodes of `cluster`; the counters begin now.
    pub(super) fn new(cluster: &Cluster, metrics: &Metrics, now: Instant) -> Self {
        let nodes = cluster.nodes();
        Self(Mutex::new(Samples {
            times: VecDeque::new(),
            requests_per_second: VecDeque::new(),
            traffic: Traffic::new(metrics, now),
            tracks: nodes.iter().map(|node| Track::new(node, 0, now)).collect(),
        }))
    }

    /// Takes a sample of the balancer and of each node.
    pub(super) fn sample(
        &self,
        cluster: &Cluster,
        metrics: &Metrics,
        now: Instant,
        when: SystemTime,
    ) {
        let (mut samples, nodes) = (self.samples(), cluster.nodes());
        let Samples {
            times,
            requests_per_second,
            traffic,
            tracks,
        } = &mut *samples;
        push(requests_per_second, traffic.sample(metrics, now), KEPT);
        tracks.retain(|track| nodes.iter().any(|node| node.id == track.node));
        for node in nodes.iter() {
            if tracks.iter().all(|track| track.node != node.id) {
                tracks.push(Track::new(node, times.len(), now));
            }
        }
        push(times, when, KEPT);
        for track in tracks {
            let node = cluster.node(track.node);
            let rates = track.rates(node, now);
            let point = Point {
                sessions: node.sessions.get(),
                held: node.held.get(),
                creations_per_second: rates.creations_per_second,
                p99_ms: rates.p99_ms,
            };
            push(&mut track.points, point, KEPT);
            push(&mut track.totals, totals(node, now), LOOK_BACK + 1);
            let answers = node.metrics.answer_seconds.times();
            push(&mut track.answers, answers, MINUTE + 1);
            let probes = node.metrics.probe_seconds.times();
            push(&mut track.probes, probes, MINUTE + 1);
        }
    }

    /// The nodes, and what was lately at each of them.
    pub(super) fn rates(&self, cluster: &Cluster, now: Instant) -> Vec<(Arc<Node>, Rates)> {
        let (samples, nodes) = (self.samples(), cluster.nodes());
        let rates = |node: &Arc<Node>| {
            let track = samples.tracks.iter().find(|track| track.node == node.id);
            let rates = track
                .map(|track| track.rates(node, now))
                .unwrap_or_default();
            (Arc::clone(node), rates)
        };
        nodes.iter().map(rates).collect()
    }

    /// What the balancer did lately.
    pub(super) fn recent(&self, metrics: &Metrics, now: Instant) -> Recent {
        self.samples().traffic.recent(metrics, now)
    }

    /// All samples.
    pub(super) fn told(&self, cluster: &Cluster) -> Told {
        let samples = self.samples();
        let seconds = |time: &SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        Told {
            schema: super::report::SCHEMA,
            interval_seconds: EVERY.as_secs(),
            times: samples.times.iter().map(seconds).collect(),
            requests_per_second: samples.requests_per_second.iter().copied().collect(),
            nodes: samples
                .tracks
                .iter()
                .map(|track| {
                    let points = &track.points;
                    ToldTrack {
                        name: cluster.node(track.node).name.clone(),
                        sessions: points.iter().map(|point| point.sessions).collect(),
                        held: points.iter().map(|point| point.held).collect(),
                        creations_per_second: points
                            .iter()
                            .map(|point| point.creations_per_second)
                            .collect(),
                        p99_ms: points.iter().map(|point| point.p99_ms).collect(),
                    }
                })
                .collect(),
        }
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    /// A node's track from now on, behind `missed` samples without it.
    fn new(node: &Node, missed: usize, now: Instant) -> Self {
        Self {
            node: node.id,
            points: std::iter::repeat_n(Point::default(), missed).collect(),
            totals: VecDeque::from([totals(node, now)]),
            answers: VecDeque::from([node.metrics.answer_seconds.times()]),
            probes: VecDeque::from([node.metrics.probe_seconds.times()]),
        }
    }

    fn rates(&self, node: &Node, now: Instant) -> Rates {
        let here = totals(node, now);
        // The last sample may be a moment old; the one before it is a span long enough.
        let recent = self.back(1);
        let span = now.saturating_duration_since(recent.at).as_secs_f64();
        let created = as_f64(here.created.saturating_sub(recent.created));
        let answers = since(&node.metrics.answer_seconds, &self.answers);
        let probes = since(&node.metrics.probe_seconds, &self.probes);
        Rates {
            creations_per_second: if span > 0.0 {
                rounded(created / span)
            } else {
                0.0
            },
            error_share_1m: error_share(&self.back(MINUTE - 1), &here),
            error_share_5m: error_share(&self.back(LOOK_BACK - 1), &here),
            p50_ms: quantile_ms(answers, 0.5),
            p99_ms: quantile_ms(answers, 0.99),
            probe_p50_ms: quantile_ms(probes, 0.5),
            probe_p99_ms: quantile_ms(probes, 0.99),
        }
    }

    /// The counters `samples` before the last one, or the oldest there are.
    fn back(&self, samples: usize) -> Totals {
        let place = self.totals.len().saturating_sub(1 + samples);
        self.totals[place]
    }
}

/// What `timing` counted since the oldest of these samples.
fn since(timing: &Timing, samples: &VecDeque<Times>) -> Option<Times> {
    let before = samples.front()?;
    Some(timing.times().since(before))
}

fn quantile_ms(times: Option<Times>, q: f64) -> Option<f64> {
    let took: Duration = times?.quantile(q)?;
    Some(rounded(took.as_secs_f64() * 1000.0))
}

fn totals(node: &Node, at: Instant) -> Totals {
    Totals {
        at,
        created: node.metrics.created.get(),
        answers: node.metrics.answers.get(),
        failures: node.metrics.failures(),
    }
}

fn error_share(before: &Totals, now: &Totals) -> Option<f64> {
    let failures = now.failures.saturating_sub(before.failures);
    let all = failures + now.answers.saturating_sub(before.answers);
    (all > 0).then(|| (as_f64(failures) / as_f64(all) * 1e4).round() / 1e4)
}

pub(super) fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// To three digits behind the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^53 may lose its last digit"
)]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::settings;
    use crate::config::Placement;

    const WHEN: SystemTime = UNIX_EPOCH;

    #[tokio::test]
    async fn rates_look_back_as_far_as_they_say() {
        let all = Metrics::new();
        let cluster = Cluster::new(&settings(1, Placement::ClientIp), &all);
        let metrics = &cluster.node(NodeId(0)).metrics;
        let begun = Instant::now();
        let history = History::new(&cluster, &all, begun);
        let at = |count: u32| begun + EVERY * count;
        let rates = |count| history.rates(&cluster, at(count))[0].1;
        assert_eq!(rates(0).creations_per_second, 0.0);
        assert_eq!(rates(0).error_share_1m, None);
        assert_eq!(rates(0).p99_ms, None);

        metrics.created.inc_by(20);
        metrics.answers.inc_by(3);
        metrics.exchange_failures.inc();
        metrics.answer_seconds.observe(Duration::from_millis(4));
        metrics.probe_seconds.observe(Duration::from_millis(40));
        assert_eq!(rates(1).creations_per_second, 4.0);
        assert_eq!(rates(1).error_share_1m, Some(0.25));
        assert!(
            rates(1)
                .p50_ms
                .is_some_and(|p50| (2.5..=5.0).contains(&p50))
        );
        assert!(
            rates(1)
                .probe_p99_ms
                .is_some_and(|p99| (10.0..=50.0).contains(&p99))
        );
        for sample in 1..=13 {
            history.sample(&cluster, &all, at(sample), WHEN);
        }
        assert_eq!(rates(13).creations_per_second, 0.0);
        assert_eq!(rates(13).error_share_1m, None, "over a minute ago");
        assert_eq!(rates(13).error_share_5m, Some(0.25));
        for sample in 14..=200 {
            history.sample(&cluster, &all, at(sample), WHEN);
        }
        assert_eq!(rates(200).error_share_5m, None);
        assert_eq!(rates(200).p99_ms, None);
        let told = history.told(&cluster);
        assert_eq!((told.times.len(), told.nodes[0].sessions.len()), (180, 180));
        assert_eq!(told.requests_per_second.len(), 180);
    }
}
