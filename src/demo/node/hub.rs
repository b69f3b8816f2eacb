//! What the nodes of one simulated cluster have in common: sessions, names, connections.
//!
//! One lock, never held over an await. Sessions say what is to be done; the hub does it, by putting
//! bytes into the outboxes of connections and stanzas into other sessions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::answer::Answer;
use super::clock::Clock;
use super::connection::Connection;
use super::fault::{Manner, Step};
use super::profile::{Rules, Software};
use super::record::Fate;
use super::session::{Act, Line, Request, Session, Terms};
use super::xml::Tag;

/// A simulated cluster. Cheap to clone; every clone is the same cluster.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    sessions: BTreeMap<Arc<str>, Entry>,
    names: BTreeMap<String, Arc<str>>,
    lines: BTreeMap<Line, Arc<Connection>>,
    last_line: Line,
    last_node: u32,
    undelivered: usize,
}

struct Entry {
    session: Session,
    home: u32,
    clock: Arc<Clock>,
    armed: Option<Instant>,
    names: Vec<String>,
}

/// Who asks: which node, and whether it knows the sessions of its whole cluster.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) node: u32,
    pub(super) shares: bool,
    pub(super) rules: Rules,
    pub(super) clock: Arc<Clock>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages had no addressee.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.lock().undelivered
    }

    pub(super) fn join(&self) -> u32 {
        let mut state = self.lock();
        state.last_node += 1;
        state.last_node
    }

    /// Registers a connection under the next number.
    pub(super) fn connect(&self, make: impl FnOnce(Line) -> Connection) -> Arc<Connection> {
        let mut state = self.lock();
        state.last_line += 1;
        let connection = Arc::new(make(state.last_line));
        state.lines.insert(connection.line, Arc::clone(&connection));
        connection
    }

    /// Forgets a connection and what was held on it.
    pub(super) fn disconnect(&self, line: Line, now: Instant) {
        let mut state = self.lock();
        let Some(connection) = state.lines.remove(&line) else {
            return;
        };
        for sid in connection.users() {
            if let Some(entry) = state.sessions.get_mut(&sid) {
                entry.session.line_gone(line, now);
                entry.arm();
            }
        }
    }

    /// The open connections of a node.
    pub(super) fn lines_of(&self, node: u32) -> Vec<Arc<Connection>> {
        let state = self.lock();
        state
            .lines
            .values()
            .filter(|line| line.node == node)
            .cloned()
            .collect()
    }

    /// How many connections of a node are open.
    pub(super) fn count_lines(&self, node: u32) -> usize {
        self.lock()
            .lines
            .values()
            .filter(|line| line.node == node)
            .count()
    }

    /// How many requests are held on connections of a node.
    pub(super) fn count_held(&self, node: u32) -> usize {
        let state = self.lock();
        let held = state
            .sessions
            .values()
            .flat_map(|entry| entry.session.held());
        held.filter(|line| state.lines.get(line).is_some_and(|line| line.node == node))
            .count()
    }

    /// The live sessions of a node.
    pub(super) fn sessions_of(&self, node: u32) -> Vec<String> {
        let state = self.lock();
        let entries = state.sessions.values();
        entries
            .filter(|entry| entry.home == node && !entry.session.is_over())
            .map(|entry| entry.session.sid.to_string())
            .collect()
    }

    /// Whether a session lives at a node.
    pub(super) fn owns(&self, node: u32, sid: &str) -> bool {
        let state = self.lock();
        let entry = state.sessions.get(sid);
        entry.is_some_and(|entry| entry.home == node && !entry.session.is_over())
    }

    /// Makes a session and answers its creation; the sid.
    pub(super) fn create(
        &self,
        asker: &Asker,
        connection: &Connection,
        tag: &Tag,
        manner: &Manner,
        now: Instant,
    ) -> String {
        let rules = asker.rules;
        let asked = tag
            .get("wait")
            .and_then(|wait| wait.parse().ok())
            .unwrap_or(u32::MAX);
        let hold = tag
            .get("hold")
            .and_then(|hold| hold.parse().ok())
            .unwrap_or(1);
        let terms = Terms {
            wait: asked.min(rules.wait_limit),
            hold: hold.max(1),
            content: tag.get("content").map(str::to_owned),
        };
        let sid: Arc<str> = match rules.software {
            Software::Ejabberd => uuid().replace('-', "") + &uuid()[..8],
            Software::Tigase | Software::Prosody => uuid(),
        }
        .into();
        let domain = Arc::from(connection.voice.domain.as_str());
        let mut session = Session::new(Arc::clone(&sid), terms, domain, rules, now);
        let rid = tag.get("rid").and_then(|rid| rid.parse().ok());
        let mut acts = Vec::new();
        let xmpp = tag.get("xmpp:version").is_some();
        let answer = connection.voice.creation(&session, &rules, rid);
        session.created(rid, connection.line, xmpp, &mut acts);
        acts.extend(tag.get("from").map(|from| Act::Named {
            name: from.to_owned(),
        }));
        let clock = Arc::clone(&asker.clock);
        let entry = Entry {
            session,
            home: asker.node,
            clock,
            armed: None,
            names: Vec::new(),
        };
        let mut state = self.lock();
        state.sessions.insert(Arc::clone(&sid), entry);
        connection.used_by(&sid);
        connection.answer(&answer, manner);
        state.perform(&sid, acts, now);
        sid.to_string()
    }

    /// Gives a session a request; `None` where this node does not know it.
    pub(super) fn take(
        &self,
        asker: &Asker,
        sid: &str,
        request: Request,
        now: Instant,
    ) -> Option<Fate> {
        let mut state = self.lock();
        let (sid, entry) = state.sessions.get_key_value(sid)?;
        if entry.home != asker.node && !asker.shares {
            return None;
        }
        let sid = Arc::clone(sid);
        let entry = state.sessions.get_mut(&sid)?;
        if entry.clock.is_stopped() {
            entry.home = asker.node;
            entry.clock = Arc::clone(&asker.clock);
            entry.armed = None;
        }
        if let Some(connection) = state.lines.get(&request.line) {
            connection.used_by(&sid);
        }
        let entry = state.sessions.get_mut(&sid)?;
        let mut acts = Vec::new();
        let fate = entry.session.take(request, now, &mut acts);
        state.perform(&sid, acts, now);
        Some(fate)
    }

    /// Gives a session a stanza; false where there is no such session.
    pub(super) fn push(&self, sid: &str, stanza: String, now: Instant) -> bool {
        let mut state = self.lock();
        let Some((sid, _)) = state.sessions.get_key_value(sid) else {
            return false;
        };
        let sid = Arc::clone(sid);
        state.deliver(&sid, stanza, now)
    }

    /// Does what is due for a session.
    pub(super) fn tick(&self, sid: &Arc<str>, now: Instant) {
        let mut state = self.lock();
        let Some(entry) = state.sessions.get_mut(sid) else {
            return;
        };
        entry.armed = None;
        let mut acts = Vec::new();
        entry.session.tick(now, &mut acts);
        state.perform(sid, acts, now);
    }

    /// Ends a node's sessions aloud, with this condition.
    pub(super) fn end_all(&self, node: u32, condition: &'static str, now: Instant) {
        let mut state = self.lock();
        for sid in state.homes(node) {
            let Some(entry) = state.sessions.get_mut(&sid) else {
                continue;
            };
            let mut acts = Vec::new();
            entry.session.end(now, Some(condition), &mut acts);
            state.perform(&sid, acts, now);
        }
    }

    /// Loses a node's sessions without a word.
    pub(super) fn lose_all(&self, node: u32) {
        let mut state = self.lock();
        for sid in state.homes(node) {
            state.forget(&sid);
        }
    }
}

impl State {
    fn homes(&self, node: u32) -> Vec<Arc<str>> {
        let entries = self.sessions.iter().filter(|(_, entry)| entry.home == node);
        entries.map(|(sid, _)| Arc::clone(sid)).collect()
    }

    fn forget(&mut self, sid: &str) {
        let Some(entry) = self.sessions.remove(sid) else {
            return;
        };
        for name in entry.names {
            if self.names.get(&name).is_some_and(|owner| **owner == *sid) {
                self.names.remove(&name);
            }
        }
    }

    fn deliver(&mut self, sid: &Arc<str>, stanza: String, now: Instant) -> bool {
        let Some(entry) = self.sessions.get_mut(sid) else {
            return false;
        };
        if entry.session.is_over() {
            return false;
        }
        let mut acts = Vec::new();
        entry.session.deliver(stanza, now, &mut acts);
        self.perform(sid, acts, now);
        true
    }

    /// Does what a session says, and what follows from it.
    fn perform(&mut self, sid: &Arc<str>, acts: Vec<Act>, now: Instant) {
        let mut posts = VecDeque::new();
        for act in acts {
            match act {
                Act::Answer {
                    line,
                    manner,
                    reply,
                } => {
                    let (Some(connection), Some(entry)) =
                        (self.lines.get(&line), self.sessions.get(sid))
                    else {
                        continue;
                    };
                    let answer: Answer = connection.voice.reply(&entry.session, &reply);
                    connection.answer(&answer, &manner);
                }
                Act::Close { line, delay } => {
                    if let Some(connection) = self.lines.get(&line) {
                        if !delay.is_zero() {
                            connection.put([Step::Pause(delay)]);
                        }
                        connection.end();
                    }
                }
                Act::Deliver { to, stanza } => posts.push_back((to, stanza)),
                Act::Named { name } => {
                    if let Some(entry) = self.sessions.get_mut(sid) {
                        entry.names.push(name.clone());
                        self.names.insert(name, Arc::clone(sid));
                    }
                }
                Act::Gone => self.forget(sid),
            }
        }
        if let Some(entry) = self.sessions.get_mut(sid) {
            entry.arm();
        }
        for (to, stanza) in posts {
            let target = self
                .names
                .get(&to)
                .cloned()
                .unwrap_or_else(|| Arc::from(to.as_str()));
            if !self.deliver(&target, stanza, now) {
                self.undelivered += 1;
            }
        }
    }
}

impl Entry {
    /// Sees to it that the clock looks after the session in time.
    fn arm(&mut self) {
        let due = self.session.due();
        if self.armed.is_none_or(|armed| due < armed) {
            self.armed = Some(due);
            self.clock.arm(due, Arc::clone(&self.session.sid));
        }
    }
}

/// A random UUID.
pub(super) fn uuid() -> String {
    let bits = fastrand::u128(..);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}
