//! A node that keeps every byte that reaches it, and answers so that everybody can tell whose
//! answer it is: `for='SID/RID'`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::find;
use crate::corpus::NAMESPACE;
use crate::nodes::Misbehaviour;
use crate::readers::first_request;

/// How long a poll with `<hold/>` waits: longer than the balancer keeps its buffers for it.
const HOLD: Duration = Duration::from_millis(60);

/// A node; it ends when dropped.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    connections: Vec<Recording>,
    sids: HashSet<String>,
    misbehaviour: Option<Misbehaviour>,
    close_after_creations: bool,
}

/// What reached the node on one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) bytes: Vec<u8>,
    /// So much of it has been judged.
    judged: usize,
    /// A request came before the one before it was answered.
    pub(crate) pipelined: bool,
    /// The sessions that it was about.
    pub(crate) sids: HashSet<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut state = lock(&shared);
                    state.connections.push(Recording::default());
                    state.connections.len() - 1
                };
                let link = Link {
                    number,
                    state: Arc::clone(&shared),
                    stream,
                };
                tokio::spawn(link.serve());
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// What came since the last look, one item for each connection on which something did.
    pub(crate) fn news(&self) -> Vec<Recording> {
        let mut news = Vec::new();
        for connection in &mut lock(&self.state).connections {
            let fresh = connection.bytes[connection.judged..].to_vec();
            connection.judged = connection.bytes.len();
            if !fresh.is_empty() {
                news.push(Recording {
                    bytes: fresh,
                    pipelined: connection.pipelined,
                    ..Recording::default()
                });
            }
        }
        news
    }

    /// Everything that came, one item for each connection.
    pub(crate) fn everything(&self) -> Vec<Recording> {
        lock(&self.state).connections.clone()
    }

    pub(crate) fn knows(&self, sid: &str) -> bool {
        lock(&self.state).sids.contains(sid)
    }

    /// Whether a request of this session has come.
    pub(crate) fn was_asked_about(&self, sid: &str) -> bool {
        let mut connections = self.everything().into_iter();
        connections.any(|connection| connection.sids.contains(sid))
    }

    /// From now on, until it has done so often enough, the node misbehaves.
    pub(crate) fn misbehave(&self, misbehaviour: Option<Misbehaviour>) {
        lock(&self.state).misbehaviour = misbehaviour;
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
    pub(crate) fn mark(&self) -> String {
        mark(self.sid.as_deref(), &self.rid)
    }
}

pub(crate) fn mark(sid: Option<&str>, rid: &str) -> String {
    format!("{}/{rid}", sid.unwrap_or("creation"))
}

/// One connection of a node.
pub(crate) struct Link {
    number: usize,
    state: Arc<Mutex<State>>,
    pub(crate) stream: TcpStream,
}

impl Link {
    async fn serve(mut self) {
        let mut pending = Vec::new();
        if let Some(early) = self.take(|misbehaviour| misbehaviour.is_early()) {
            let nobody = Asked::read("");
            if early.act(&mut self, &nobody, "").await.is_break() {
                return;
            }
        }
        loop {
            while let Some((asked, length)) = whole(&pending) {
                pending.drain(..length);
                self.note(!pending.is_empty());
                if self.answer(&asked).await.is_break() {
                    return;
                }
            }
            if let Some(half) = half(&pending)
                && let Some(early) = self.take(|misbehaviour| misbehaviour.is_half())
                && early.act(&mut self, &half, "").await.is_break()
            {
                return;
            }
            if !self.read(&mut pending).await {
                return;
            }
        }
    }

    /// Reads on; false at the end.
    pub(crate) async fn read(&mut self, into: &mut Vec<u8>) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(some) => {
                into.extend_from_slice(&buffer[..some]);
                let mut state = lock(&self.state);
                state.connections[self.number]
                    .bytes
                    .extend_from_slice(&buffer[..some]);
                true
            }
        }
    }

    fn note(&self, pipelined: bool) {
        lock(&self.state).connections[self.number].pipelined |= pipelined;
    }

    fn take(&self, fits: impl Fn(&Misbehaviour) -> bool) -> Option<Misbehaviour> {
        let mut state = lock(&self.state);
        let armed = state.misbehaviour.as_mut().filter(|armed| fits(armed))?;
        armed.take()
    }

    async fn answer(&mut self, asked: &Asked) -> std::ops::ControlFlow<()> {
        let body = self.body(asked);
        let misbehaviour = self.take(|misbehaviour| misbehaviour.fits(asked));
        if let Some(misbehaviour) = misbehaviour {
            let known = body.as_deref().unwrap_or_default().to_owned();
            return misbehaviour.act(self, asked, &known).await;
        }
        if asked.hold {
            tokio::time::sleep(HOLD).await;
        }
        let closes = asked.sid.is_none() && lock(&self.state).close_after_creations;
        let (status, fields, body) = match body {
            Some(body) if closes => ("200 OK", "Connection: close\r\n", body),
            Some(body) => ("200 OK", "", body),
            None => (
                "404 Invalid SID",
                "Connection: close\r\n",
                format!("<body {NAMESPACE} type='terminate' condition='item-not-found'/>"),
            ),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {length}\r\n{fields}\r\n{body}"
        );
        match self.stream.write_all(answer.as_bytes()).await {
            Ok(()) if fields.is_empty() => std::ops::ControlFlow::Continue(()),
            _ => std::ops::ControlFlow::Break(()),
        }
    }

    fn knows(&self, sid: &str) {
        let sids = &mut lock(&self.state).connections[self.number].sids;
        sids.insert(sid.to_owned());
    }

    /// The right answer's body; none for a session that the node does not know.
    fn body(&self, asked: &Asked) -> Option<String> {
        let mark = asked.mark();
        let Some(sid) = &asked.sid else {
            let sid = format!("{:032x}", fastrand::u128(..));
            let body = format!(
                "<body {NAMESPACE} sid='{sid}' wait='1' requests='2' hold='1' inactivity='30' \
                 ver='1.6' for='{mark}'/>"
            );
            self.knows(&sid);
            lock(&self.state).sids.insert(sid);
            return Some(body);
        };
        self.knows(sid);
        let known = lock(&self.state).sids.contains(sid);
        known.then(|| format!("<body {NAMESPACE} for='{mark}'/>"))
    }
}

/// The request at the start of `pending` and its length, once it is there.
fn whole(pending: &[u8]) -> Option<(Asked, usize)> {
    let head = find(pending, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&pending[..head]);
    let length = text
        .split_once("Content-Length: ")
        .map_or("0", |(_, rest)| {
            rest.split("\r\n").next().unwrap_or_default()
        });
    let end = head.checked_add(length.parse().ok()?)?;
    let body = String::from_utf8_lossy(pending.get(head..end)?);
    Some((Asked::read(&body), end))
}

/// What is known of a request of which a part is there.
fn half(pending: &[u8]) -> Option<Asked> {
    (!pending.is_empty()).then(|| Asked::read(&String::from_utf8_lossy(pending)))
}
