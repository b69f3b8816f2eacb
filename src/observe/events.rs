//! What happened to the cluster, newest last: a bounded ring that the admin endpoints tell from.
//!
//! It holds what a person wants to see on a timeline, a few words each, and nothing of single
//! requests. Whoever writes here is off the request path.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

/// How many events are kept; an older one goes for each that comes.
pub const KEPT: usize = 512;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The balancer started.
    Start,
    /// The balancer stops: it takes nothing new any more.
    Stop,
    /// The probes call a node up.
    NodeUp,
    /// The probes call a node silent.
    NodeSilent,
    /// A node answers its probes again and is held back by its penalty.
    NodeHeldBack,
    /// The probes call a node down.
    NodeDown,
    /// The balancer suspects its own network, or does so no longer.
    Network,
    /// A configuration was read again.
    Reload,
    /// The operator changed a node's state.
    State,
    /// Sessions were moved off a node.
    Reassigned,
    /// A node was started anew and has lost its sessions.
    SessionsLost,
    /// The operator ended sessions.
    SessionsEnded,
    /// A listener has new certificates, or cannot use those that are there.
    Certificates,
    /// Discovery found other nodes, or cannot look any more.
    Discovery,
}

impl EventKind {
    /// The word for it in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::NodeUp => "node_up",
            Self::NodeSilent => "node_silent",
            Self::NodeHeldBack => "node_held_back",
            Self::NodeDown => "node_down",
            Self::Network => "network",
            Self::Reload => "reload",
            Self::State => "state",
            Self::Reassigned => "reassigned",
            Self::SessionsLost => "sessions_lost",
            Self::SessionsEnded => "sessions_ended",
            Self::Certificates => "certificates",
            Self::Discovery => "discovery",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1, without a gap, as long as the process lives.
    pub id: u64,
    /// When.
    pub when: SystemTime,
    /// What kind of thing.
    pub kind: EventKind,
    /// The node that it is about.
    pub node: Option<String>,
    /// How many sessions moved, were lost or were ended ([`EventKind::Reassigned`],
    /// [`EventKind::SessionsLost`] and [`EventKind::SessionsEnded`] only).
    pub sessions: Option<u64>,
    /// The whole of it in words.
    pub text: String,
}

impl Event {
    /// An event that is about no node; [`Events::add`] gives it its number.
    pub fn new(kind: EventKind, when: SystemTime, text: impl Into<String>) -> Self {
        Self {
            id: 0,
            when,
            kind,
            node: None,
            sessions: None,
            text: text.into(),
        }
    }

    /// The same about the node called `name`.
    #[must_use]
    pub fn about(self, name: &str) -> Self {
        Self {
            node: Some(name.to_owned()),
            ..self
        }
    }

    /// The same with the number of sessions that moved or were lost.
    #[must_use]
    pub fn sessions(self, count: u64) -> Self {
        Self {
            sessions: Some(count),
            ..self
        }
    }
}

/// The last [`KEPT`] events.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }
}

impl Events {
    /// Adds an event behind all others.
    pub fn add(&self, mut event: Event) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let id = kept.back().map_or(1, |last| last.id + 1);
        event.id = id;
        kept.push_back(event);
        self.newest.send_replace(id);
    }

    /// The events behind the one with the number `id`, oldest first. A number that was not given
    /// out yet is one of an earlier process: then all that are kept.
    pub fn since(&self, id: u64) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.back().map_or(0, |last| last.id);
        let since = if id > newest { 0 } else { id };
        let events = kept.iter().filter(|event| event.id > since);
        events.cloned().collect()
    }

    /// The number of the newest event; 0 before the first.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The number of the newest event, and a wait for the next one; 0 before the first.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event::new(EventKind::Start, SystemTime::UNIX_EPOCH, text)
    }

    #[test]
    fn the_oldest_goes_for_the_newest() {
        let events = Events::default();
        assert_eq!(events.since(0), []);
        for number in 1..=KEPT + 3 {
            events.add(event(&number.to_string()));
        }
        let all = events.since(0);
        assert_eq!(all.len(), KEPT);
        assert_eq!((all[0].id, all[0].text.as_str()), (4, "4"));
        let newest = all[KEPT - 1].id;
        assert_eq!(newest, 515);
        assert_eq!(events.since(newest), []);
        assert_eq!(events.since(newest - 1).len(), 1);
        assert_eq!(
            events.since(newest + 1).len(),
            KEPT,
            "of an earlier process"
        );
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let events = Events::default();
        let mut watch = events.watch();
        assert_eq!(*watch.borrow_and_update(), 0);
        events.add(event("one").about("t1").sessions(3));
        watch.changed().await.unwrap();
        assert_eq!(*watch.borrow(), 1);
        let told = events.since(0);
        assert_eq!(told[0].node.as_deref(), Some("t1"));
        assert_eq!(told[0].sessions, Some(3));
    }
}
