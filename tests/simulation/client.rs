//! A simulated client: logs in, holds polls, sends, rests, pauses, ends its session or just goes; and
//! holds every answer against what it asked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::downstream::Listener;
use bowline::proxy::Proxy;
use bowline::transport::{Pipe, pair};
use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::node::{INACTIVITY, MAXPAUSE};
use super::trace::Trace;

/// Longer than anything may take: a creation without a node, an answer overdue twice.
const PATIENCE: Duration = Duration::from_secs(200);

/// What clients share.
pub(super) struct Shared {
    pub(super) listener: Arc<Listener>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) trace: Arc<Trace>,
    pub(super) nodes: usize,
    /// Whether clients do nothing but send two requests at once.
    pub(super) busy: bool,
    /// Sids that are alive.
    pub(super) alive: Arc<Mutex<Vec<String>>>,
}

pub(super) struct Client {
    shared: Arc<Shared>,
    number: usize,
    rng: Rng,
}

/// A session as its client has it.
struct Session {
    sid: String,
    rid: u64,
    one: Option<Pipe>,
    other: Option<Pipe>,
}

/// Why a session is over for its client.
struct Over;

impl Client {
    pub(super) fn new(shared: Arc<Shared>, number: usize, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self {
            shared,
            number,
            rng,
        }
    }

    /// Has one session after the other until `end`.
    pub(super) async fn run(mut self, end: Duration) {
        sleep(self.millis(0..3000)).await;
        while self.shared.trace.now() < end {
            if let Some(mut session) = self.log_in().await {
                self.note(&session.sid, true);
                while self.shared.trace.now() < end && self.step(&mut session).await.is_ok() {}
                self.note(&session.sid, false);
                if self.rng.bool() {
                    // Else it goes without a word.
                    let _ = self.ask(&mut session, Some("type='terminate'"), 0).await;
                }
            }
            sleep(self.millis(10..2000)).await;
        }
    }

    /// Logs in once and holds a poll for as long as it is let.
    pub(super) async fn hold(mut self) {
        if let Some(mut session) = self.log_in().await {
            loop {
                if self.ask(&mut session, None, 0).await.is_err() {
                    return;
                }
            }
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    fn note(&self, sid: &str, lives: bool) {
        let mut alive = self
            .shared
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        alive.retain(|other| other != sid);
        if lives {
            alive.push(sid.to_owned());
        }
    }

    fn connect(&self) -> Pipe {
        let (near, far) = pair();
        let [a, b] = u16::try_from(self.number % 60_000)
            .expect("below")
            .to_be_bytes();
        let peer = IpAddr::V4(Ipv4Addr::new(198, 51, a, b));
        tokio::spawn(self.shared.listener.serve(far.into(), peer));
        near
    }

    async fn log_in(&mut self) -> Option<Session> {
        let rid = self.rng.u64(1..1 << 40);
        let body = format!(
            "<body rid='{rid}' to='example.com' wait='30' hold='1' ver='1.6' xmlns='{HTTPBIND}'/>"
        );
        let asked = self.shared.trace.now();
        let mut connection = Some(self.connect());
        let (status, body) = self.exchange(&mut connection, &body).await?;
        let now = self.shared.trace.now();
        let answer = bosh::read_response(&body).ok();
        let sid = answer.as_ref().and_then(|answer| answer.sid.as_deref());
        let ended = answer.as_ref().is_some_and(|answer| answer.terminate);
        let trace = &self.shared.trace;
        let Some(sid) = sid.filter(|_| status == 200 && !ended) else {
            let conflict = String::from_utf8_lossy(&body).contains("internal-server-error");
            if !conflict && trace.some_well(self.shared.nodes, asked, now) {
                let number = self.number;
                trace.broken(&format!(
                    "client {number}: no session, {status}, and a node was well"
                ));
            }
            return None;
        };
        let alive = self
            .shared
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if alive.iter().any(|other| other == sid) {
            trace.broken(&format!("{sid} was given to two clients"));
        }
        drop(alive);
        Some(Session {
            sid: sid.to_owned(),
            rid,
            one: connection,
            other: None,
        })
    }

    /// One thing that a client does.
    async fn step(&mut self, session: &mut Session) -> Result<(), Over> {
        if self.shared.busy {
            let later = self.millis(0..40);
            let crossed = self.rng.bool();
            return self.both(session, later, crossed).await;
        }
        match self.rng.u8(0..20) {
            0 => {
                // Rests for nearly as long as it may.
                let rest = self.rng.u64(1..INACTIVITY * 1000 - 200);
                self.rest(session, rest).await
            }
            1 => {
                self.ask(session, Some(&format!("pause='{MAXPAUSE}'")), 0)
                    .await?;
                let rest = self.rng.u64(1000..MAXPAUSE * 1000 - 200);
                self.rest(session, rest).await
            }
            2..5 => self.ask(session, None, 1).await,
            5..14 => {
                let later = self.millis(0..2500);
                self.both(session, later, false).await
            }
            14..17 => {
                let later = self.millis(0..4);
                self.both(session, later, true).await
            }
            // Gone in the middle of a poll.
            17 => {
                let until = self.millis(1..3000);
                if let Ok(ended) = timeout(until, self.ask(session, None, 0)).await {
                    ended
                } else {
                    session.one = None;
                    session.other = None;
                    // The rid that was given up is sent again, as a client does behind a reload.
                    session.rid -= 1;
                    Ok(())
                }
            }
            18 if self.rng.u8(0..6) == 0 => Err(Over),
            _ => self.ask(session, None, 0).await,
        }
    }

    async fn rest(&mut self, session: &mut Session, millis: u64) -> Result<(), Over> {
        sleep(Duration::from_millis(millis)).await;
        let Shared { proxy, trace, .. } = &*self.shared;
        let pinned = proxy.sessions.find(&session.sid).is_some();
        if !pinned && !trace.excused(&session.sid, trace.now()) {
            let sid = &session.sid;
            trace.broken(&format!("{sid} was forgotten after {millis} ms, too early"));
        }
        self.ask(session, None, 0).await
    }

    fn body(&self, session: &Session, rid: u64, extra: Option<&str>, payload: u8) -> String {
        let (sid, extra) = (&session.sid, extra.unwrap_or_default());
        let inside = "<m/>".repeat(payload.into());
        format!("<body rid='{rid}' sid='{sid}' {extra} xmlns='{HTTPBIND}'>{inside}</body>")
    }

    /// One request, and its answer.
    async fn ask(
        &mut self,
        session: &mut Session,
        extra: Option<&str>,
        payload: u8,
    ) -> Result<(), Over> {
        session.rid += 1;
        let rid = session.rid;
        let body = self.body(session, rid, extra, payload);
        let mut connection = session.one.take().or_else(|| session.other.take());
        let ended = self.held(&session.sid, rid, &mut connection, &body).await;
        session.one = connection;
        ended
    }

    /// A poll, and a little later what the client has to say; or, `crossed`, the second overtakes.
    async fn both(
        &mut self,
        session: &mut Session,
        later: Duration,
        crossed: bool,
    ) -> Result<(), Over> {
        let first = session.rid + 1;
        session.rid += 2;
        let poll = self.body(session, first, None, 0);
        let send = self.body(session, first + 1, None, 1);
        let (mut one, mut other) = (session.one.take(), session.other.take());
        let (waits, goes) = if crossed {
            (later, Duration::ZERO)
        } else {
            (Duration::ZERO, later)
        };
        let sid = session.sid.clone();
        let poll = async {
            sleep(waits).await;
            self.held(&sid, first, &mut one, &poll).await
        };
        let send = async {
            sleep(goes).await;
            self.held(&sid, first + 1, &mut other, &send).await
        };
        let (polled, sent) = tokio::join!(poll, send);
        session.one = one;
        session.other = other;
        polled.and(sent)
    }

    /// Sends a request of `sid`, and holds its answer against it.
    async fn held(
        &self,
        sid: &str,
        rid: u64,
        connection: &mut Option<Pipe>,
        body: &str,
    ) -> Result<(), Over> {
        let trace = &self.shared.trace;
        let asked = trace.now();
        let Some((status, answer)) = self.exchange(connection, body).await else {
            return Err(Over);
        };
        let now = trace.now();
        let text = String::from_utf8_lossy(&answer);
        let Ok(told) = bosh::read_response(&answer) else {
            trace.broken(&format!("{sid} {rid}: no wrapper but {status} {text}"));
            return Err(Over);
        };
        if status != 200 && trace.some_well(self.shared.nodes, asked, now) {
            trace.broken(&format!("{sid} {rid}: {status}, and a node was well"));
        }
        if let Some((_, marker)) = text.split_once(" x='") {
            let marker = marker.split('\'').next().unwrap_or_default();
            if marker != format!("{sid}:{rid}") {
                trace.broken(&format!("{sid} {rid} got the answer of {marker}"));
            }
        }
        if told.terminate {
            let asked_for = body.contains("type='terminate'");
            if !asked_for && !trace.excused(sid, now) {
                trace.broken(&format!(
                    "{sid} {rid}: ended by {text}, and its node was well"
                ));
            }
            return Err(Over);
        }
        Ok(())
    }

    /// The answer's status and body; the connection is opened if there is none, and kept if it stays.
    async fn exchange(&self, connection: &mut Option<Pipe>, body: &str) -> Option<(u16, Vec<u8>)> {
        let trace = &self.shared.trace;
        let mut stream = connection.take().unwrap_or_else(|| self.connect());
        let length = body.len();
        let head =
            format!("POST /http-bind HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n\r\n");
        let number = self.number;
        let request = head + body;
        let asked = async {
            // An idle connection that was closed meanwhile is opened anew.
            if stream.write_all(request.as_bytes()).await.is_err() || !is_open(&stream) {
                stream = self.connect();
                stream.write_all(request.as_bytes()).await.ok()?;
            }
            read_response(&mut stream).await
        };
        let Ok(answer) = timeout(PATIENCE, asked).await else {
            trace.broken(&format!("client {number}: no answer to {body}"));
            return None;
        };
        let Some((status, close, answer)) = answer else {
            trace.broken(&format!(
                "client {number}: the connection ends in place of an answer to {body}"
            ));
            return None;
        };
        trace.answered(
            number,
            &format!("{status} {}", String::from_utf8_lossy(&answer)),
        );
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
async fn read_response(stream: &mut Pipe) -> Option<(u16, bool, Vec<u8>)> {
    let mut head = Vec::new();
    // Byte by byte, so that the rest is for the other reader.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(stream, &mut byte)
            .await
            .ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let status = text.get(9..12)?.parse().ok()?;
    let length = text
        .split("content-length: ")
        .nth(1)?
        .split("\r\n")
        .next()?;
    let mut body = vec![0; length.parse().ok()?];
    tokio::io::AsyncReadExt::read_exact(stream, &mut body)
        .await
        .ok()?;
    Some((status, text.contains("connection: close"), body))
}
