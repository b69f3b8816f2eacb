//! A simulated client: logs in, polls, sends, rests, pauses, ends its session or goes without a word.
//! It checks each answer against its request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::downstream::Listener;
use bowline::proxy::Proxy;
use bowline::transport::{Pipe, pair};
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::history::History;
use super::invariants::Invariant;
use super::plan::{ClientPlan, Defect, Terms, Weights};
use super::trace::Who;
use super::wire::{field, stanzas_in, text_of};

/// What clients share.
pub(super) struct Shared {
    pub(super) listener: Arc<Listener>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) history: Arc<History>,
    pub(super) nodes: usize,
    pub(super) terms: Terms,
    pub(super) weights: Weights,
    /// The table of sessions may be full.
    pub(super) crowded: bool,
    pub(super) defect: Option<Defect>,
    /// Sids that clients have.
    pub(super) alive: Arc<Mutex<Vec<String>>>,
}

pub(super) struct Client {
    shared: Arc<Shared>,
    number: usize,
    busy: bool,
    rng: Rng,
}

/// A session as its client has it.
struct Session {
    sid: String,
    rid: u64,
    /// The last stanza that it has sent.
    stanza: u64,
    one: Option<Connection>,
    other: Option<Connection>,
}

/// A connection to the balancer.
pub(super) struct Connection {
    pub(super) pipe: Pipe,
    bytes: Vec<u8>,
}

impl Connection {
    pub(super) const fn new(pipe: Pipe) -> Self {
        let bytes = Vec::new();
        Self { pipe, bytes }
    }
}

/// A request of a session.
struct Request {
    rid: u64,
    extra: String,
    stanzas: Vec<u64>,
}

/// The session is over for its client.
struct Over;

impl Request {
    fn body(&self, sid: &str) -> String {
        let Self {
            rid,
            extra,
            stanzas,
        } = self;
        let inside: String = stanzas.iter().map(|n| format!("<m n='{n}'/>")).collect();
        format!("<body rid='{rid}' sid='{sid}' {extra} xmlns='{HTTPBIND}'>{inside}</body>")
    }

    fn text(&self) -> String {
        match (&self.extra, self.stanzas.as_slice()) {
            (extra, []) if extra.is_empty() => "poll".to_owned(),
            (extra, []) => extra.clone(),
            (_, stanzas) => format!("stanzas {stanzas:?}"),
        }
    }
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, plan: &ClientPlan) -> Self {
        Self {
            shared,
            number: plan.number,
            busy: plan.busy,
            rng: Rng::with_seed(plan.seed),
        }
    }

    fn who(&self) -> Who {
        Who::Client(self.number)
    }

    /// Has one session after the other until `end`.
    pub(super) async fn run(mut self, end: Duration) {
        sleep(self.millis(0..3000)).await;
        while self.shared.history.now() < end {
            if let Some(mut session) = self.log_in().await {
                self.set_alive(&session.sid, true);
                while self.shared.history.now() < end && self.step(&mut session).await.is_ok() {}
                self.set_alive(&session.sid, false);
                if self.rng.bool() {
                    let _ = self.ask(&mut session, "type='terminate'", false).await;
                } else {
                    let request = (session.sid.as_str(), session.rid);
                    let history = &self.shared.history;
                    history.note(self.who(), "goes", request, String::new);
                }
            }
            sleep(self.millis(10..2000)).await;
        }
    }

    /// Logs in once and polls without end.
    pub(super) async fn hold(mut self) {
        if let Some(mut session) = self.log_in().await {
            while self.ask(&mut session, "", false).await.is_ok() {}
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    fn alive(&self) -> MutexGuard<'_, Vec<String>> {
        let alive = self.shared.alive.lock();
        alive.unwrap_or_else(PoisonError::into_inner)
    }

    fn set_alive(&self, sid: &str, alive: bool) {
        let mut all = self.alive();
        all.retain(|other| other != sid);
        if alive {
            all.push(sid.to_owned());
        }
    }

    fn connect(&self) -> Connection {
        let (near, far) = pair();
        let number = u16::try_from(self.number % 60_000).expect("below");
        let [a, b] = number.to_be_bytes();
        let peer = IpAddr::V4(Ipv4Addr::new(198, 51, a, b));
        tokio::spawn(self.shared.listener.serve(far.into(), peer));
        Connection::new(near)
    }

    async fn log_in(&mut self) -> Option<Session> {
        let rid = self.rng.u64(1..1 << 40);
        let Terms { wait, hold, .. } = self.shared.terms;
        let body = format!(
            "<body rid='{rid}' to='example.com' wait='{wait}' hold='{hold}' ver='1.6' xmlns='{HTTPBIND}'/>"
        );
        let history = &self.shared.history;
        let asked = history.now();
        history.note(self.who(), "creates", ("", 0), String::new);
        let mut connection = Some(self.connect());
        let (status, body) = self.exchange(&mut connection, &body).await?;
        let answer = bosh::read_response(&body).ok();
        let sid = answer.as_ref().and_then(|answer| answer.sid.as_deref());
        let ended = answer.as_ref().is_some_and(|answer| answer.terminate);
        let sid = sid.filter(|_| status == 200 && !ended);
        let more = || format!("{status} {}", text_of(&String::from_utf8_lossy(&body)));
        let known = (sid.unwrap_or_default(), sid.map_or(0, |_| rid));
        history.note(self.who(), "gets", known, more);
        let Some(sid) = sid else {
            // The sid of a node that offers another one's is refused.
            let conflict = String::from_utf8_lossy(&body).contains("internal-server-error");
            let full = self.shared.crowded && status == 503;
            let well = history.some_well(self.shared.nodes, asked, history.now());
            if !conflict && !full && well {
                let number = self.number;
                let text = format!("client {number}: no session, {status}, and a node was well");
                history.broken(Invariant::Creation, &text);
            }
            return None;
        };
        if self.alive().iter().any(|other| other == sid) {
            let text = format!("{sid} was given to two clients");
            history.broken(Invariant::SidIsUnique, &text);
        }
        Some(Session {
            sid: sid.to_owned(),
            rid,
            stanza: 0,
            one: connection,
            other: None,
        })
    }

    /// One thing that a client does.
    async fn step(&mut self, session: &mut Session) -> Result<(), Over> {
        if self.busy {
            let later = self.millis(0..40);
            let crossed = self.rng.bool();
            return self.both(session, later, crossed).await;
        }
        let weights = self.shared.weights;
        let steps = [
            weights.poll,
            weights.send,
            weights.both,
            weights.crossed,
            weights.rest,
            weights.pause,
            weights.give_up,
            weights.leave,
        ];
        let all: u8 = steps.iter().sum();
        let mut drawn = self.rng.u8(..all);
        let mut step = 0;
        while drawn >= steps[step] {
            drawn -= steps[step];
            step += 1;
        }
        match step {
            1 => self.ask(session, "", true).await,
            2 => {
                let later = self.millis(0..2500);
                self.both(session, later, false).await
            }
            3 => {
                let later = self.millis(0..4);
                self.both(session, later, true).await
            }
            4 => {
                // A full table forgets sessions without a second request early.
                if self.shared.crowded && session.stanza == 0 {
                    self.ask(session, "", true).await?;
                }
                let rest = self.rng.u64(1..self.shared.terms.inactivity * 1000 - 200);
                self.rest(session, rest).await
            }
            5 => {
                let maxpause = self.shared.terms.maxpause;
                let pause = format!("pause='{maxpause}'");
                self.ask(session, &pause, false).await?;
                let rest = self.rng.u64(1000..maxpause * 1000 - 200);
                self.rest(session, rest).await
            }
            6 => self.give_up(session).await,
            7 if self.rng.u8(0..6) == 0 => Err(Over),
            _ => self.ask(session, "", false).await,
        }
    }

    async fn rest(&mut self, session: &mut Session, millis: u64) -> Result<(), Over> {
        sleep(Duration::from_millis(millis)).await;
        let Shared { proxy, history, .. } = &*self.shared;
        let pinned = proxy.sessions.find(&session.sid).is_some();
        if !pinned && !history.excused(&session.sid, history.now()) {
            let text = format!("{} was forgotten after {millis} ms", session.sid);
            history.broken(Invariant::NotForgotten, &text);
        }
        self.ask(session, "", false).await
    }

    /// The next request of a session.
    fn next(&mut self, session: &mut Session, extra: &str, sends: bool) -> Request {
        session.rid += 1;
        let count = if sends { self.rng.u64(1..4) } else { 0 };
        let stanzas = (session.stanza + 1..=session.stanza + count).collect();
        session.stanza += count;
        Request {
            rid: session.rid,
            extra: extra.to_owned(),
            stanzas,
        }
    }

    /// One request, and its answer.
    async fn ask(&mut self, session: &mut Session, extra: &str, sends: bool) -> Result<(), Over> {
        let request = self.next(session, extra, sends);
        let mut connection = session.one.take().or_else(|| session.other.take());
        let ended = self.answered(&session.sid, &request, &mut connection).await;
        session.one = connection;
        ended
    }

    /// Gives a poll up and sends it again, as a client does after a reload.
    async fn give_up(&mut self, session: &mut Session) -> Result<(), Over> {
        let request = self.next(session, "", false);
        let until = self.millis(1..3000);
        let mut connection = session.one.take().or_else(|| session.other.take());
        let asked = self.answered(&session.sid, &request, &mut connection);
        if let Ok(ended) = timeout(until, asked).await {
            session.one = connection;
            return ended;
        }
        drop(connection);
        session.other = None;
        let id = (session.sid.as_str(), request.rid);
        let history = &self.shared.history;
        history.note(self.who(), "gives up", id, String::new);
        let away = self.millis(0..1000);
        sleep(away).await;
        let mut connection = None;
        let ended = self.answered(&session.sid, &request, &mut connection).await;
        session.one = connection;
        ended
    }

    /// A poll, and later a request with stanzas. `crossed` sends the second one first.
    async fn both(
        &mut self,
        session: &mut Session,
        later: Duration,
        crossed: bool,
    ) -> Result<(), Over> {
        let poll = self.next(session, "", crossed);
        let send = self.next(session, "", true);
        let (mut one, mut other) = (session.one.take(), session.other.take());
        let (first, second) = if crossed {
            (later, Duration::ZERO)
        } else {
            (Duration::ZERO, later)
        };
        let sid = &session.sid;
        let poll = async {
            sleep(first).await;
            self.answered(sid, &poll, &mut one).await
        };
        let send = async {
            sleep(second).await;
            self.answered(sid, &send, &mut other).await
        };
        let (polled, sent) = tokio::join!(poll, send);
        session.one = one;
        session.other = other;
        polled.and(sent)
    }

    /// Sends a request of `sid`, and checks its answer.
    async fn answered(
        &self,
        sid: &str,
        request: &Request,
        connection: &mut Option<Connection>,
    ) -> Result<(), Over> {
        let history = &self.shared.history;
        let rid = request.rid;
        let asked = history.now();
        history.sent(sid, rid, request.stanzas.clone());
        history.note(self.who(), "sends", (sid, rid), || request.text());
        let body = request.body(sid);
        let Some((status, answer)) = self.exchange(connection, &body).await else {
            return Err(Over);
        };
        let now = history.now();
        let text = String::from_utf8_lossy(&answer);
        let more = || format!("{status} {}", text_of(&text));
        history.note(self.who(), "gets", (sid, rid), more);
        let Ok(response) = bosh::read_response(&answer) else {
            let text = format!("{sid} {rid}: no wrapper but {status} {text}");
            history.broken(Invariant::Wrapper, &text);
            return Err(Over);
        };
        history.heard(sid, rid, self.stanzas(&text), !response.terminate);
        if status != 200 && history.some_well(self.shared.nodes, asked, now) {
            let text = format!("{sid} {rid}: {status}, and a node was well");
            history.broken(Invariant::Status, &text);
        }
        if let Some((_, marker)) = text.split_once(" x='") {
            let marker = marker.split('\'').next().unwrap_or_default();
            if marker != format!("{sid}:{rid}") {
                let text = format!("{sid} {rid} got the answer of {marker}");
                history.broken(Invariant::RightAnswer, &text);
            }
        }
        if response.terminate {
            let asked_for = request.extra.contains("terminate");
            if !asked_for && !history.excused(sid, now) {
                let text = format!("{sid} {rid}: ended by {text}, and its node was well");
                history.broken(Invariant::NotEnded, &text);
            }
            return Err(Over);
        }
        Ok(())
    }

    /// The stanzas of an answer, or what a planted defect leaves of them.
    fn stanzas(&self, answer: &str) -> Vec<u64> {
        let mut stanzas = stanzas_in(answer);
        let fifth = stanzas.iter().position(|stanza| stanza % 5 == 0);
        let (Some(at), Some(defect)) = (fifth, self.shared.defect) else {
            return stanzas;
        };
        if self.shared.history.has_failed() {
            match defect {
                Defect::Lost => drop(stanzas.remove(at)),
                Defect::Doubled => stanzas.insert(at, stanzas[at]),
                Defect::Swapped => {}
            }
        }
        stanzas
    }

    /// The status and body of an answer. Opens a connection if there is none, and keeps it if it stays
    /// open.
    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        body: &str,
    ) -> Option<(u16, Vec<u8>)> {
        let history = &self.shared.history;
        let mut stream = connection.take().unwrap_or_else(|| self.connect());
        let length = body.len();
        let request = format!(
            "POST /http-bind HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let request = request.as_bytes();
        let asked = async {
            // The balancer may have closed an idle connection.
            if stream.pipe.write_all(request).await.is_err() || !is_open(&stream.pipe) {
                stream = self.connect();
                stream.pipe.write_all(request).await.ok()?;
            }
            read_response(&mut stream).await
        };
        // Twice the time of an overdue answer, and a minute for a creation and the moves of a session.
        let patience = Duration::from_secs(2 * (self.shared.terms.wait + 10) + 60);
        let number = self.number;
        let Ok(answer) = timeout(patience, asked).await else {
            let text = format!("client {number}: no answer to {body}");
            history.broken(Invariant::Answered, &text);
            return None;
        };
        let Some((status, close, answer)) = answer else {
            let text = format!("client {number}: an end in place of an answer to {body}");
            history.broken(Invariant::Answered, &text);
            return None;
        };
        history.answered();
        if !close {
            *connection = Some(stream);
        }
        Some((status, answer))
    }
}

/// Whether the other side has not closed.
fn is_open(stream: &Pipe) -> bool {
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    !matches!(stream.poll_next(&context), std::task::Poll::Ready(false))
}

/// Status, whether the connection closes, and body.
pub(super) async fn read_response(connection: &mut Connection) -> Option<(u16, bool, Vec<u8>)> {
    let Connection { pipe, bytes } = connection;
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end]).ok()?;
            let status = head.get(9..12)?.parse().ok()?;
            let length: usize = field(head, "content-length")?.parse().ok()?;
            let close = field(head, "connection").is_some_and(|value| value == "close");
            let (start, end) = (end + 4, end + 4 + length);
            if bytes.len() >= end {
                let body = bytes[start..end].to_vec();
                bytes.drain(..end);
                return Some((status, close, body));
            }
        }
        if pipe.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
