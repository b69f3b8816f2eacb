//! A simulated node: makes sessions, holds polls, keeps the last answers of each, and fails.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::transport::{Door, Pipe, set_door};
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::trace::{Fault, Trace};

/// The terms that nodes set, in seconds.
pub(super) const WAIT: u64 = 30;
pub(super) const INACTIVITY: u64 = 10;
pub(super) const MAXPAUSE: u64 = 20;

pub(super) struct Node {
    pub(super) index: usize,
    trace: Arc<Trace>,
    state: Mutex<State>,
    stopped: watch::Sender<bool>,
    /// Sids of other nodes' sessions that it may offer as its own, where the seed wants it hostile.
    stolen: Option<Arc<Mutex<Vec<String>>>>,
}

struct State {
    rng: Rng,
    /// Counts its starts.
    life: u32,
    made: u32,
    sessions: BTreeMap<String, Session>,
    tasks: JoinSet<()>,
    /// The tasks of this life.
    connections: usize,
}

#[derive(Default)]
struct Session {
    /// The request that is held: its rid, and what lets it go.
    held: Option<(u64, oneshot::Sender<()>)>,
    /// The last answers by rid.
    answers: Vec<(u64, String)>,
}

impl Node {
    pub(super) fn new(
        index: usize,
        seed: u64,
        trace: Arc<Trace>,
        stolen: Option<Arc<Mutex<Vec<String>>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            trace,
            state: Mutex::new(State {
                rng: Rng::with_seed(seed),
                life: 0,
                made: 0,
                sessions: BTreeMap::new(),
                tasks: JoinSet::new(),
                connections: 0,
            }),
            stopped: watch::Sender::new(false),
            stolen,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        let number = u8::try_from(self.index + 1).expect("few nodes");
        (Ipv4Addr::new(192, 0, 2, number), 5280).into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.state().connections
    }

    /// Opens its door.
    pub(super) fn start(self: &Arc<Self>) {
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let node = Arc::clone(self);
        let mut state = self.state();
        state.life += 1;
        state.tasks.spawn(async move {
            while let Some(connection) = accepted.recv().await {
                let own = Arc::clone(&node);
                node.state().connections += 1;
                node.state().tasks.spawn(own.serve(connection));
            }
        });
        set_door(self.address(), Door::Open(sender));
    }

    /// Makes something go wrong.
    pub(super) fn fail(&self, fault: Fault) {
        self.trace.begin(self.index, fault);
        match fault {
            Fault::Kill => {
                set_door(self.address(), Door::Shut);
                let mut state = self.state();
                state.sessions.clear();
                state.connections = 0;
                state.tasks = JoinSet::new();
            }
            Fault::Freeze | Fault::Pause => drop(self.stopped.send_replace(true)),
            Fault::Cut | Fault::Blip => {
                set_door(self.address(), Door::Swallows);
                self.stopped.send_replace(true);
            }
        }
    }

    /// Makes it go right again; a node that was killed begins with nothing.
    pub(super) fn heal(self: &Arc<Self>, fault: Fault) {
        match fault {
            Fault::Kill | Fault::Cut | Fault::Blip => self.start(),
            Fault::Freeze | Fault::Pause => {}
        }
        self.stopped.send_replace(false);
        self.trace.heal(self.index);
    }

    /// Waits until it is not frozen.
    async fn awake(&self) {
        let mut stopped = self.stopped.subscribe();
        let woken = stopped.wait_for(|stopped| !stopped).await;
        drop(woken.expect("the sender lives in the node"));
    }

    async fn serve(self: Arc<Self>, mut connection: Pipe) {
        while let Some((body, whole)) = read_message(&mut connection).await {
            if !whole {
                break;
            }
            let told = bosh::read_request(&body).expect("Bowline sends good wrappers");
            let sid = told.sid.as_deref().map(ToOwned::to_owned);
            let of = sid.clone();
            // Probes have other sids.
            if sid.as_ref().is_none_or(|sid| sid.starts_with('s')) {
                self.trace.came(self.index, sid.as_deref());
            }
            let of = of.filter(|sid| sid.starts_with('s'));
            let arrival = of.map(|sid| (self.trace.arrived(self.index, &sid, told.rid), sid));
            let frozen = *self.stopped.borrow();
            if frozen {
                self.awake().await;
            }
            let pause = Duration::from_millis(self.state().rng.u64(0..20));
            sleep(pause).await;
            let answer = {
                let mut answer = std::pin::pin!(self.answer(sid, &told));
                tokio::select! {
                    biased;
                    answer = answer.as_mut() => Some(answer),
                    // Whoever asked is gone: what would have been the answer stays for the next.
                    () = gone(&connection) => None,
                }
            };
            let Some((status, answer)) = answer else {
                break;
            };
            self.awake().await;
            if let Some((arrival, sid)) = arrival {
                self.trace.answers(&sid, arrival);
            }
            let length = answer.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            if connection
                .write_all((head + &answer).as_bytes())
                .await
                .is_err()
            {
                break;
            }
        }
        let mut state = self.state();
        state.connections = state.connections.saturating_sub(1);
    }

    async fn answer(&self, sid: Option<String>, told: &bosh::Request<'_>) -> (u16, String) {
        let Some(sid) = sid else {
            return (200, self.create(told));
        };
        let rid = told.rid;
        let (held, pause) = {
            let mut state = self.state();
            let happens = Duration::from_millis(state.rng.u64(500..60_000));
            let Some(session) = state.sessions.get_mut(&sid) else {
                let unknown = format!(
                    "<body type='terminate' condition='item-not-found' xmlns='{HTTPBIND}'/>"
                );
                return (404, unknown);
            };
            if let Some((_, answer)) = session.answers.iter().find(|(of, _)| *of == rid) {
                return (200, answer.clone());
            }
            // A new request lets the one before go.
            drop(session.held.take());
            if told.terminate {
                state.sessions.remove(&sid);
                let over = format!("<body type='terminate' x='{sid}:{rid}' xmlns='{HTTPBIND}'/>");
                return (200, over);
            }
            let (sender, receiver) = oneshot::channel();
            let at_once = !told.empty || told.pause.is_some();
            session.held = Some((rid, sender));
            let hold = Duration::from_secs(WAIT).min(happens);
            (
                receiver,
                if at_once {
                    Duration::from_millis(3)
                } else {
                    hold
                },
            )
        };
        // Ends by time, by the next request, or with the connection.
        let _ = timeout(pause, held).await;
        let answer = format!("<body x='{sid}:{rid}' xmlns='{HTTPBIND}'><m/></body>");
        if let Some(session) = self.state().sessions.get_mut(&sid) {
            if session.held.as_ref().is_some_and(|(of, _)| *of == rid) {
                session.held = None;
            }
            session.answers.push((rid, answer.clone()));
            if session.answers.len() > 4 {
                session.answers.remove(0);
            }
        }
        (200, answer)
    }

    fn create(&self, told: &bosh::Request<'_>) -> String {
        let mut state = self.state();
        state.made += 1;
        let (index, life, made) = (self.index, state.life, state.made);
        let mut sid = format!("s{index}-{life}-{made}");
        if let Some(stolen) = &self.stolen
            && state.rng.u8(0..8) == 0
            && let Some(other) = stolen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .find(|other| !other.starts_with(&format!("s{index}-")))
        {
            sid.clone_from(other);
        } else {
            state.sessions.insert(sid.clone(), Session::default());
            self.trace.made(index, &sid);
        }
        let rid = told.rid;
        format!(
            "<body sid='{sid}' wait='{WAIT}' inactivity='{INACTIVITY}' maxpause='{MAXPAUSE}' requests='2' \
             hold='1' ver='1.6' x='{sid}:{rid}' xmlns='{HTTPBIND}'/>"
        )
    }
}

async fn gone(connection: &Pipe) {
    std::future::poll_fn(|context| match connection.poll_next(context) {
        std::task::Poll::Ready(false) => std::task::Poll::Ready(()),
        _ => std::task::Poll::Pending,
    })
    .await;
}

/// Reads one message framed by its length: its body, and whether it came whole. None at the end.
pub(super) async fn read_message(connection: &mut Pipe) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1)?;
            let length: usize = length.split("\r\n").next()?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                let whole = bytes.len() == end + 4 + length;
                return Some((bytes.split_off(end + 4), whole));
            }
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
