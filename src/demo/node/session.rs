//! One session of a simulated node: what it holds, answers, repeats and forgets.
//!
//! Pure: it does no I/O and reads no clock. Each call returns what is to be done.

mod order;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Manner;
use super::profile::Rules;
use super::record::Fate;
use super::words::{FEATURES, FEATURES_AFTER_LOGIN, SUCCESS};
use super::xml::Stanza;

/// How many sockets a Tigase session remembers.
const SOCKETS: usize = 4;
/// How many requests are remembered to recognise a repetition.
const MEMORY: usize = 20;
/// How many requests a client may have under way.
pub(super) const REQUESTS: u64 = 2;

/// The number of a connection.
pub(super) type Line = u64;

/// A request of a session.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) line: Line,
    /// Which read of the connection it came in.
    pub(super) read: u64,
    pub(super) rid: Option<u64>,
    pub(super) stanzas: Vec<Stanza>,
    pub(super) terminate: bool,
    pub(super) restart: bool,
    pub(super) manner: Manner,
}

/// What an answer to a request of a session says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) ack: Option<u64>,
    pub(super) stanzas: Vec<String>,
    pub(super) terminate: bool,
    pub(super) condition: Option<&'static str>,
}

/// Something to be done for a session.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Answer {
        line: Line,
        manner: Manner,
        reply: Reply,
    },
    /// Ends a connection, so long from now.
    Close {
        line: Line,
        delay: Duration,
    },
    Deliver {
        to: String,
        stanza: String,
    },
    Named {
        name: String,
    },
    Gone,
}

#[derive(Clone, Debug)]
struct Held {
    line: Line,
    rid: Option<u64>,
    manner: Manner,
    arrived: Instant,
    until: Instant,
}

/// What is granted to a session when it is made.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) wait: u32,
    pub(super) hold: u32,
    pub(super) content: Option<String>,
}

/// The end of a connection, at once.
const fn close(line: Line) -> Act {
    let delay = Duration::ZERO;
    Act::Close { line, delay }
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) sid: Arc<str>,
    pub(super) terms: Terms,
    pub(super) jid: Option<String>,
    domain: Arc<str>,
    rules: Rules,
    held: VecDeque<Held>,
    pending: VecDeque<String>,
    acks: VecDeque<u64>,
    memory: VecDeque<(u64, Vec<Stanza>)>,
    kept: VecDeque<(u64, Reply)>,
    early: BTreeMap<u64, Request>,
    last: Option<u64>,
    sockets: VecDeque<Line>,
    arrival: Option<(Instant, Line, u64)>,
    idle_since: Instant,
    flush_at: Option<Instant>,
    ended: Option<Instant>,
}

impl Session {
    pub(super) fn new(
        sid: Arc<str>,
        terms: Terms,
        domain: Arc<str>,
        rules: Rules,
        now: Instant,
    ) -> Self {
        Self {
            sid,
            terms,
            jid: None,
            domain,
            rules,
            held: VecDeque::new(),
            pending: VecDeque::new(),
            acks: VecDeque::new(),
            memory: VecDeque::new(),
            kept: VecDeque::new(),
            early: BTreeMap::new(),
            last: None,
            sockets: VecDeque::new(),
            arrival: None,
            idle_since: now,
            flush_at: None,
            ended: None,
        }
    }

    /// Notes the creation: its rid, its connection, and the features that a stream begins with.
    pub(super) fn created(
        &mut self,
        rid: Option<u64>,
        line: Line,
        xmpp: bool,
        acts: &mut Vec<Act>,
    ) {
        self.last = rid;
        if xmpp {
            self.pending.push_back(FEATURES.to_owned());
        }
        self.remember_socket(line, acts);
    }

    /// Whether it has been ended and is only remembered.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The connections of the requests that it holds.
    pub(super) fn held(&self) -> impl Iterator<Item = Line> {
        self.held.iter().map(|held| held.line)
    }

    /// Takes one request.
    pub(super) fn take(&mut self, request: Request, now: Instant, acts: &mut Vec<Act>) -> Fate {
        if self.ended.is_some() {
            let reply = Reply {
                ack: request.rid,
                terminate: true,
                ..Reply::default()
            };
            acts.push(Act::Answer {
                line: request.line,
                manner: request.manner,
                reply,
            });
            acts.push(close(request.line));
            return Fate::Refused;
        }
        if self.rules.ordered {
            return self.take_in_order(request, now, acts);
        }
        let mut run = true;
        if let Some(rid) = request.rid {
            if let Some((_, stanzas)) = self.memory.iter().find(|(known, _)| *known == rid) {
                if *stanzas != request.stanzas {
                    let reply = Reply {
                        terminate: true,
                        ..Reply::default()
                    };
                    acts.push(Act::Answer {
                        line: request.line,
                        manner: request.manner,
                        reply,
                    });
                    return Fate::Refused;
                }
                run = false;
            } else {
                self.remember_rid(rid, &request.stanzas);
            }
        }
        self.serve(&request, run, now, acts)
    }

    fn remember_rid(&mut self, rid: u64, stanzas: &[Stanza]) {
        if self
            .last
            .is_none_or(|last| last.checked_add(1) == Some(rid))
        {
            self.acks.push_back(rid);
        }
        self.last = Some(rid);
        self.memory.push_back((rid, stanzas.to_vec()));
        if self.memory.len() > MEMORY {
            self.memory.pop_front();
        }
    }

    fn serve(&mut self, request: &Request, run: bool, now: Instant, acts: &mut Vec<Act>) -> Fate {
        let collides = !request.terminate && self.collides(request, now);
        self.arrival = Some((now, request.line, request.read));
        if !collides {
            self.held.push_back(Held {
                line: request.line,
                rid: request.rid,
                manner: request.manner.clone(),
                arrived: now,
                until: now + self.rules.second * self.terms.wait,
            });
            let most = usize::try_from(self.terms.hold).unwrap_or(1).max(1);
            while !request.terminate && self.held.len() > most {
                self.answer_first(Reply::default(), now, acts);
            }
        }
        if run {
            self.run(request, acts);
        }
        if request.terminate {
            self.end(now, None, acts);
            return Fate::Served;
        }
        self.flush(now, acts);
        match (collides, run) {
            (true, _) => Fate::TooClose,
            (false, true) => Fate::Served,
            (false, false) => Fate::Repeated,
        }
    }

    /// Whether it comes too close after a request that has no answer yet, or came in one read
    /// with another one.
    fn collides(&self, request: &Request, now: Instant) -> bool {
        let (Some(window), Some((arrived, line, read))) = (self.rules.collision, self.arrival)
        else {
            return false;
        };
        let open = self.held.iter().any(|held| held.arrived == arrived);
        let one_read = (line, read) == (request.line, request.read);
        now.duration_since(arrived) < window && (open || one_read)
    }

    fn run(&mut self, request: &Request, acts: &mut Vec<Act>) {
        if request.restart {
            self.pending.push_back(FEATURES_AFTER_LOGIN.to_owned());
        }
        for stanza in &request.stanzas {
            match stanza.tag.name.as_str() {
                "auth" => self.pending.push_back(SUCCESS.to_owned()),
                "iq" if matches!(stanza.tag.get("type"), Some("get" | "set")) => {
                    let result = self.result(stanza, acts);
                    self.pending.push_back(result);
                }
                "message" => {
                    if let Some(to) = stanza.tag.get("to") {
                        let from = self.jid.as_deref().unwrap_or(&self.sid);
                        let stanza = stanza.stamped(from);
                        acts.push(Act::Deliver {
                            to: to.to_owned(),
                            stanza,
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn result(&mut self, iq: &Stanza, acts: &mut Vec<Act>) -> String {
        let mut inner = String::new();
        if iq.rest.contains("<bind") {
            let between = |open, close| {
                let (_, rest) = iq.rest.split_once(open)?;
                rest.split_once(close).map(|(text, _)| text)
            };
            let resource = between("<resource>", "</resource>").unwrap_or("tigase-1");
            let user = &self.sid[..self.sid.len().min(8)];
            let jid = format!("user-{user}@{}/{resource}", self.domain);
            let space = "xmlns=\"urn:ietf:params:xml:ns:xmpp-bind\"";
            inner = format!("<bind {space}><jid>{jid}</jid></bind>");
            acts.push(Act::Named { name: jid.clone() });
            self.jid = Some(jid);
        }
        let to = self
            .jid
            .as_ref()
            .map(|jid| format!(" to=\"{jid}\""))
            .unwrap_or_default();
        let id = iq.tag.get("id").unwrap_or_default();
        let head = format!("<iq{to} xmlns=\"jabber:client\" type=\"result\" id=\"{id}\"");
        if inner.is_empty() {
            head + "/>"
        } else {
            format!("{head}>{inner}</iq>")
        }
    }

    /// Gives it a stanza.
    pub(super) fn deliver(&mut self, stanza: String, now: Instant, acts: &mut Vec<Act>) {
        self.pending.push_back(stanza);
        self.flush(now, acts);
    }

    fn flush(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.pending.is_empty() || self.held.is_empty() {
            self.flush_at = None;
            return;
        }
        if !self.rules.batching.is_zero() {
            let at = *self.flush_at.get_or_insert(now + self.rules.batching);
            if now < at {
                return;
            }
        }
        self.flush_at = None;
        let stanzas = self.pending.drain(..).collect();
        self.answer_first(
            Reply {
                stanzas,
                ..Reply::default()
            },
            now,
            acts,
        );
    }

    fn answer_first(&mut self, mut reply: Reply, now: Instant, acts: &mut Vec<Act>) {
        let Some(held) = self.held.pop_front() else {
            return;
        };
        reply.ack = self.acks.pop_front();
        if self.rules.ordered
            && let Some(rid) = held.rid
        {
            self.kept.push_back((rid, reply.clone()));
            if self.kept.len() > 2 {
                self.kept.pop_front();
            }
        }
        acts.push(Act::Answer {
            line: held.line,
            manner: held.manner,
            reply,
        });
        self.idle_since = now;
        self.remember_socket(held.line, acts);
    }

    fn remember_socket(&mut self, line: Line, acts: &mut Vec<Act>) {
        if !self.rules.ties_sockets {
            return;
        }
        self.sockets.retain(|known| *known != line);
        self.sockets.push_back(line);
        while self.sockets.len() > SOCKETS {
            let Some(oldest) = self.sockets.pop_front() else {
                break;
            };
            if self.held().all(|held| held != oldest) {
                acts.push(close(oldest));
            }
        }
    }

    /// Ends it: the oldest held request gets the answer, and on Tigase the others get EOF.
    pub(super) fn end(
        &mut self,
        now: Instant,
        condition: Option<&'static str>,
        acts: &mut Vec<Act>,
    ) {
        let stanzas = self.pending.drain(..).collect();
        let reply = Reply {
            terminate: true,
            condition,
            stanzas,
            ack: None,
        };
        self.answer_first(reply, now, acts);
        while !self.held.is_empty() && !self.rules.ties_sockets {
            let reply = Reply {
                terminate: true,
                condition,
                ..Reply::default()
            };
            self.answer_first(reply, now, acts);
        }
        self.close_sockets(acts);
        self.ended = Some(now);
        if self.rules.lingers.is_zero() {
            acts.push(Act::Gone);
        }
    }

    fn close_sockets(&mut self, acts: &mut Vec<Act>) {
        // Where an answer would be slow, the end that comes in its place is.
        let held = self.held.drain(..).map(|held| Act::Close {
            line: held.line,
            delay: held.manner.delay,
        });
        let closes: Vec<Act> = held.chain(self.sockets.drain(..).map(close)).collect();
        if self.rules.ties_sockets {
            acts.extend(closes);
        }
    }

    /// Forgets a connection whose client has gone.
    pub(super) fn line_gone(&mut self, line: Line, now: Instant) {
        self.sockets.retain(|known| *known != line);
        let before = self.held.len();
        self.held.retain(|held| held.line != line);
        if self.held.len() != before {
            self.idle_since = now;
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if let Some(ended) = self.ended {
            if now >= ended + self.rules.lingers {
                acts.push(Act::Gone);
            }
            return;
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush(now, acts);
        }
        while self.held.front().is_some_and(|held| held.until <= now) {
            self.answer_first(Reply::default(), now, acts);
        }
        if self.held.is_empty() && now >= self.idle_since + self.patience() {
            self.close_sockets(acts);
            self.ended = Some(now);
            acts.push(Act::Gone);
        }
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub(super) fn due(&self) -> Instant {
        if let Some(ended) = self.ended {
            return ended + self.rules.lingers;
        }
        let held = self.held.front().map(|held| held.until);
        let rest = held.unwrap_or(self.idle_since + self.patience());
        self.flush_at.map_or(rest, |at| at.min(rest))
    }

    fn patience(&self) -> Duration {
        self.rules.second * self.rules.inactivity
    }
}

#[cfg(test)]
mod tests;
