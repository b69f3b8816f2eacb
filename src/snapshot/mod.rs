//! Pins and operator states in a file, so that a restart forgets no session.
//!
//! `format` is the file as bytes; `file` reads and replaces it. A file that cannot be used is set aside
//! and never prevents a start.

pub mod changes;
pub mod format;

mod file;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::cluster::{Cluster, NodeId, OperatorState};
use crate::config;
use crate::observe::metrics::Metrics;
use crate::sessions::{Pin, Session, Sessions, Time};
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
    /// The file belongs to another process.
    paused: AtomicBool,
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
            paused: AtomicBool::new(false),
        }
    }

    /// From now on, or from now on no more, the file belongs to another process, and this one does not write
    /// it. Waits until it is written, if that is under way: not for a thread that serves.
    pub fn pause(&self, is_paused: bool) {
        let _written = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        self.paused.store(is_paused, Ordering::Release);
    }

    /// Writes a snapshot in place of the last one. `now` is the time of the sessions and `wall` that of
    /// the wall clock: the file has wall-clock times, since the sessions' clock does not see a suspended
    /// machine. Logs the first failure of several, and counts each.
    pub fn save(&self, moment: Moment, now: Time, wall: SystemTime) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.paused.load(Ordering::Acquire) {
            return;
        }
        let (bytes, pins) = encode((&self.cluster, &self.sessions), moment, (now, wall));
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
        take_states(snapshot, &self.cluster, wall);
        let taken = take_pins(snapshot, &self.cluster, &self.sessions, now);
        let Taken { restored, dropped } = taken;
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

/// The pins and operator states as the bytes of a snapshot, and how many pins they are. `now` is the time of
/// the sessions and `wall` that of the wall clock.
pub fn encode(
    (cluster, sessions): (&Cluster, &Sessions),
    moment: Moment,
    (now, wall): (Time, SystemTime),
) -> (Vec<u8>, u64) {
    encode_pins(cluster, sessions.len(), (moment, now, wall), |take| {
        sessions.each_pin(now, take);
    })
}

/// The same of these sessions only.
pub fn encode_some(
    cluster: &Cluster,
    sessions: &[Arc<Session>],
    moment: Moment,
    (now, wall): (Time, SystemTime),
) -> (Vec<u8>, u64) {
    encode_pins(cluster, sessions.len(), (moment, now, wall), |take| {
        let pins = sessions.iter().filter_map(|session| session.pin(now));
        pins.for_each(take);
    })
}

fn encode_pins(
    cluster: &Cluster,
    about: usize,
    (moment, now, wall): (Moment, Time, SystemTime),
    each: impl FnOnce(&mut dyn FnMut(Pin)),
) -> (Vec<u8>, u64) {
    let set = cluster.nodes();
    let nodes: Vec<_> = set.members().iter().chain(set.leaving()).collect();
    let saved = nodes.iter().map(|node| SavedNode {
        name: &node.name,
        state: node.state(),
    });
    let mut writer = Writer::new(saved, about);
    let position = |id: NodeId| {
        let at = nodes.iter().position(|node| node.id == id)?;
        Some(NodeId(u16::try_from(at).ok()?))
    };
    let wall = format::seconds(wall);
    let ahead = i64::from(wall) - i64::from(now.seconds());
    each(&mut |mut pin| {
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

/// How many pins of a snapshot are there now, and how many are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// They are there.
    pub restored: u64,
    /// They have expired, their node is not configured any more, or their sid is there already.
    pub dropped: u64,
}

/// Takes in the operator states of a snapshot.
pub fn take_states(snapshot: &Snapshot<'_>, cluster: &Cluster, wall: SystemTime) {
    for saved in snapshot.nodes() {
        if let Some(node) = cluster.named(saved.name)
            && node.is_member()
            && saved.state != OperatorState::Ready
        {
            cluster.restore_state(node.id, saved.state, wall);
        }
    }
}

/// Takes in the pins of a snapshot. A sid that is there already stays as it is.
pub fn take_pins(
    snapshot: &Snapshot<'_>,
    cluster: &Cluster,
    sessions: &Sessions,
    now: Time,
) -> Taken {
    let named = |saved: SavedNode<'_>| cluster.named(saved.name).filter(|node| node.is_member());
    let nodes = snapshot.nodes().map(|saved| Some(named(saved)?.id));
    let nodes: Vec<Option<NodeId>> = nodes.collect();
    let here = |id: NodeId| nodes.get(id.index()).copied().flatten();
    let mut taken = Taken {
        restored: 0,
        dropped: 0,
    };
    for pin in snapshot.pins() {
        let pin = here(pin.node).map(|node| Pin {
            node,
            owner: pin.owner.and_then(here),
            ..pin
        });
        if pin.is_some_and(|pin| sessions.restore(pin, now)) {
            taken.restored += 1;
        } else {
            taken.dropped += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests;
