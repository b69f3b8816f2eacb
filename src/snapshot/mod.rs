//! Pins and operator states in a file, so that a restart forgets no session.
//!
//! `format` is the file as bytes; `file` reads and replaces it. A file that cannot be used is set aside
//! and never prevents a start.

pub mod format;

mod file;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::cluster::{Cluster, NodeId, OperatorState};
use crate::config;
use crate::observe::metrics::Metrics;
use crate::sessions::{Pin, Sessions, Time};
use format::{SavedNode, Snapshot, Writer};

/// What the process does after the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It goes on. Clients send further requests, so no rid in the snapshot could be relied on.
    Running,
    /// It ends. The last rid of each session is exact.
    Ending,
}

/// The snapshot of one balancer.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    /// From one snapshot to the next.
    pub interval: Duration,
    cluster: Arc<Cluster>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    /// Held while the file is written. True after a failure.
    failing: Mutex<bool>,
}

impl Store {
    /// The snapshot of these sessions, in the file of `settings`. Reads and writes nothing yet.
    pub fn new(
        settings: &config::Snapshot,
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            file: settings.file.clone(),
            interval: settings.interval,
            cluster,
            sessions,
            metrics,
            failing: Mutex::new(false),
        }
    }

    /// Writes a snapshot in place of the last one. `now` is the time of the sessions and `wall` that of
    /// the wall clock: the file has wall-clock times, since the sessions' clock does not see a suspended
    /// machine. Logs the first failure of several, and counts each.
    pub fn save(&self, moment: Moment, now: Time, wall: SystemTime) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, pins) = self.encode(moment, now, wall);
        match file::replace(&self.file, &bytes) {
            Ok(()) => {
                if std::mem::take(&mut *failing) {
                    info!(file = %self.file.display(), "the snapshot is written again");
                }
                self.metrics.snapshot_written(format::seconds(wall), pins);
            }
            Err(error) => {
                self.metrics.snapshot_failures.inc();
                if !std::mem::replace(&mut *failing, true) {
                    warn!(file = %self.file.display(), %error,
                        "cannot write the snapshot: a restart would forget sessions");
                }
            }
        }
    }

    fn encode(&self, moment: Moment, now: Time, wall: SystemTime) -> (Vec<u8>, u64) {
        let set = self.cluster.nodes();
        let nodes: Vec<_> = set.members().iter().chain(set.leaving()).collect();
        let saved = nodes.iter().map(|node| SavedNode {
            name: &node.name,
            state: node.state(),
        });
        let mut writer = Writer::new(saved, self.sessions.len());
        let position = |id: NodeId| {
            let at = nodes.iter().position(|node| node.id == id)?;
            Some(NodeId(u16::try_from(at).ok()?))
        };
        let wall = format::seconds(wall);
        let ahead = i64::from(wall) - i64::from(now.seconds());
        self.sessions.each_pin(now, |mut pin| {
            let Some(node) = position(pin.node) else {
                return;
            };
            pin.node = node;
            pin.owner = pin.owner.and_then(position);
            if moment == Moment::Running {
                pin.last_rid = None;
            }
            let expires = i64::from(pin.expires) + ahead;
            pin.expires = u32::try_from(expires.max(0)).unwrap_or(u32::MAX);
            writer.add(&pin);
        });
        let pins = writer.pins();
        (writer.finish(wall), pins)
    }

    /// Takes in what the last process left, at the start. Pins that have expired, and pins of nodes
    /// that are not configured any more, are dropped. A file that cannot be used is set aside, with a warning.
    pub fn restore(&self, now: Time, wall: SystemTime) {
        let file = self.file.display();
        let bytes = match file::read(&self.file) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                info!(%file, "no snapshot yet");
                return;
            }
            Err(error) => return self.set_aside(&error),
        };
        match Snapshot::read(&bytes) {
            Ok(snapshot) => self.take(&snapshot, now, wall),
            Err(error) => self.set_aside(&io::Error::other(error)),
        }
    }

    fn take(&self, snapshot: &Snapshot<'_>, now: Time, wall: SystemTime) {
        let nodes: Vec<Option<NodeId>> = snapshot
            .nodes()
            .map(|saved| {
                let node = self
                    .cluster
                    .named(saved.name)
                    .filter(|node| node.is_member())?;
                if saved.state != OperatorState::Ready {
                    self.cluster.restore_state(node.id, saved.state, wall);
                }
                Some(node.id)
            })
            .collect();
        let here = |id: NodeId| nodes.get(id.index()).copied().flatten();
        let (mut restored, mut dropped) = (0_u64, 0_u64);
        for pin in snapshot.pins() {
            let pin = here(pin.node).map(|node| Pin {
                node,
                owner: pin.owner.and_then(here),
                ..pin
            });
            if pin.is_some_and(|pin| self.sessions.restore(pin, now)) {
                restored += 1;
            } else {
                dropped += 1;
            }
        }
        self.metrics.sessions_restored.inc_by(restored);
        let age = format::seconds(wall).saturating_sub(snapshot.written());
        info!(file = %self.file.display(), restored, dropped, age_seconds = age, "snapshot read");
    }

    fn set_aside(&self, error: &io::Error) {
        self.metrics.snapshot_failures.inc();
        let file = self.file.display();
        match file::set_aside(&self.file) {
            Ok(to) => warn!(%file, %error, kept_as = %to.display(),
                "the snapshot cannot be used and is set aside: sessions start empty"),
            Err(second) => warn!(%file, %error, %second,
                "the snapshot cannot be used, nor be set aside: sessions start empty"),
        }
    }
}

#[cfg(test)]
mod tests;
