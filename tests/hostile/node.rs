//! A simulated node whose answers say whose they are, `for='SID/RID'`, and which keeps every byte that
//! reaches it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::demo::node::{self, Ending, Fault, Profile, Reaction, Seen, Step};

use crate::corpus::NAMESPACE;
use crate::nodes::Misbehaviour;
use crate::readers::first_request;

/// How long a poll with `<hold/>` waits: longer than the balancer keeps its buffers for it.
const HOLD: Duration = Duration::from_millis(60);

/// A node; it ends when dropped.
pub(crate) struct Node {
    node: node::Node,
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sids: HashSet<String>,
    /// The sessions that each connection was about.
    carried: BTreeMap<u64, HashSet<String>>,
    misbehaviour: Option<Misbehaviour>,
    close_after_creations: bool,
    /// How much of each connection has been judged.
    judged: BTreeMap<u64, usize>,
}

/// What reached the node on one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) bytes: Vec<u8>,
    /// A request came before the one before it was answered.
    pub(crate) pipelined: bool,
    /// The sessions that it was about.
    pub(crate) sids: HashSet<String>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let profile = Profile::prosody("t")
            .recording_bytes()
            .with_script(move |seen| lock(&shared).react(seen));
        let node = node::Node::start(profile).await.unwrap();
        Self {
            address: node.address(),
            node,
            state,
        }
    }

    /// What came since the last look, one item for each connection on which something did.
    pub(crate) fn news(&self) -> Vec<Recording> {
        let mut news = Vec::new();
        for (connection, mut recording) in self.recordings() {
            let mut state = lock(&self.state);
            let judged = state.judged.entry(connection).or_default();
            let fresh = recording.bytes.split_off(*judged);
            *judged += fresh.len();
            recording.bytes = fresh;
            if !recording.bytes.is_empty() {
                news.push(recording);
            }
        }
        news
    }

    /// Everything that came, one item for each connection.
    pub(crate) fn everything(&self) -> Vec<Recording> {
        self.recordings().into_values().collect()
    }

    fn recordings(&self) -> BTreeMap<u64, Recording> {
        let mut recordings = BTreeMap::<u64, Recording>::new();
        for (connection, bytes) in self.node.bytes() {
            recordings.entry(connection).or_default().bytes = bytes;
        }
        for seen in self.node.record() {
            let recording = recordings.entry(seen.connection).or_default();
            recording.pipelined |= seen.followed;
        }
        for (connection, sids) in &lock(&self.state).carried {
            recordings.entry(*connection).or_default().sids = sids.clone();
        }
        recordings
    }

    pub(crate) fn knows(&self, sid: &str) -> bool {
        lock(&self.state).sids.contains(sid)
    }

    /// Whether a request of this session has come.
    pub(crate) fn was_asked_about(&self, sid: &str) -> bool {
        let state = lock(&self.state);
        state.carried.values().any(|sids| sids.contains(sid))
    }

    /// From now on, until it has done so often enough, the node misbehaves.
    pub(crate) fn misbehave(&self, misbehaviour: Option<Misbehaviour>) {
        self.node.behave();
        // Of a request that is not whole nothing is known.
        let steps = |one: &Misbehaviour| one.steps(&Asked::read("").mark(), "");
        match misbehaviour {
            Some(early) if early.is_early() => {
                let fault = Fault::at_accept(steps(&early));
                self.node.misbehave(fault.times(early.left()));
            }
            Some(half) if half.is_half() => {
                let fault = Fault::at_part(steps(&half));
                self.node.misbehave(fault.times(half.left()));
            }
            other => lock(&self.state).misbehaviour = other,
        }
    }

    /// From now on, or no more, creations are answered with `Connection: close`.
    pub(crate) fn close_after_creations(&self, close: bool) {
        lock(&self.state).close_after_creations = close;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as the node understands it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) sid: Option<String>,
    pub(crate) rid: String,
    hold: bool,
}

impl Asked {
    fn read(body: &str) -> Self {
        let seen = first_request(body).unwrap_or_default();
        Self {
            sid: seen.sid,
            rid: seen.rid,
            hold: body.contains("<hold "),
        }
    }

    /// The mark that its answer bears.
    fn mark(&self) -> String {
        mark(self.sid.as_deref(), &self.rid)
    }
}

pub(crate) fn mark(sid: Option<&str>, rid: &str) -> String {
    format!("{}/{rid}", sid.unwrap_or("creation"))
}

impl State {
    fn react(&mut self, seen: &Seen) -> Reaction {
        let text = seen.text();
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let asked = Asked::read(body);
        let body = self.body(&asked, seen.connection);
        let fits = |armed: &&mut Misbehaviour| armed.fits(&asked);
        let armed = self.misbehaviour.as_mut().filter(fits);
        if let Some(armed) = armed.and_then(Misbehaviour::take) {
            let own = body.unwrap_or_default();
            return Reaction::Steps(armed.steps(&asked.mark(), &own));
        }
        let closes = asked.sid.is_none() && self.close_after_creations;
        let (status, body) = match body {
            Some(body) => ("200 OK", body),
            None => (
                "404 Invalid SID",
                format!("<body {NAMESPACE} type='terminate' condition='item-not-found'/>"),
            ),
        };
        let closes = closes || status != "200 OK";
        let field = if closes { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {length}\r\n{field}\r\n{body}"
        );
        let mut steps = vec![Step::Bytes(answer.into())];
        if asked.hold {
            steps.insert(0, Step::Pause(HOLD));
        }
        if closes {
            steps.push(Step::End(Ending::Eof));
        }
        Reaction::Steps(steps)
    }

    /// The right answer's body; none for a session that the node does not know.
    fn body(&mut self, asked: &Asked, connection: u64) -> Option<String> {
        let mark = asked.mark();
        let carried = self.carried.entry(connection).or_default();
        let Some(sid) = &asked.sid else {
            let sid = format!("{:032x}", fastrand::u128(..));
            let body = format!(
                "<body {NAMESPACE} sid='{sid}' wait='1' requests='2' hold='1' inactivity='30' \
                 ver='1.6' for='{mark}'/>"
            );
            carried.insert(sid.clone());
            self.sids.insert(sid);
            return Some(body);
        };
        carried.insert(sid.clone());
        let known = self.sids.contains(sid);
        known.then(|| format!("<body {NAMESPACE} for='{mark}'/>"))
    }
}
