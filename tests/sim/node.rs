//! A simulated node: makes sessions, holds polls, keeps the last answers of each session, and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bosh::{self, HTTPBIND};
use bowline::transport::{Door, Pipe, set_door};
use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::history::History;
use super::plan::{Defect, Fault, Habits, Plan, Terms};
use super::trace::Who;
use super::wire::{gone, read_message, stanzas_in, text_of};

/// How many answers of a session a node keeps, and how many rids it recognises. XEP-0124 §14.3
/// wants `requests` at least, and one for a request that was sent again late.
const KEPT: usize = 8;

pub(super) struct Node {
    pub(super) index: usize,
    history: Arc<History>,
    terms: Terms,
    habits: Habits,
    defect: Option<Defect>,
    /// What a request draws depends on this and its rid alone. So a run with fewer clients is alike for
    /// the others.
    seed: u64,
    state: Mutex<State>,
    /// Wakes those that wait for the end of a fault, in the order in which they came.
    healed: Notify,
    /// Sids that clients have.
    alive: Arc<Mutex<Vec<String>>>,
}

struct State {
    frozen: bool,
    /// Counts its starts.
    life: u32,
    made: u32,
    sessions: BTreeMap<String, Session>,
    /// The tasks of this life.
    tasks: JoinSet<()>,
    connections: usize,
}

#[derive(Default)]
struct Session {
    /// The requests that are held, oldest first.
    held: Vec<(u64, oneshot::Sender<Release>)>,
    /// The last answers by rid.
    answers: Vec<(u64, String)>,
    /// The lowest rid without an answer. Only its answer may carry stanzas, so that they are in rid
    /// order.
    next: u64,
    /// The last rids that were processed.
    processed: Vec<u64>,
    /// Stanzas that it has written.
    said: u64,
    /// Rids that a mishap has happened to.
    spared: BTreeSet<u64>,
}

/// How a held request is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    Answer,
    /// It stays open without an answer.
    Forget,
}

/// What becomes of a request.
enum Answer {
    Body(u16, String),
    /// The connection closes.
    Close,
    /// It has no answer.
    Never,
}

/// A mishap on the way of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    None,
    CloseAfter,
    Drop,
    Error,
    Extra,
    Cut,
}

impl Node {
    pub(super) fn new(
        index: usize,
        seed: u64,
        plan: &Plan,
        history: Arc<History>,
        alive: Arc<Mutex<Vec<String>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            history,
            terms: plan.terms,
            habits: plan.habits,
            defect: plan.defect,
            seed,
            state: Mutex::new(State {
                frozen: false,
                life: 0,
                made: 0,
                sessions: BTreeMap::new(),
                tasks: JoinSet::new(),
                connections: 0,
            }),
            healed: Notify::new(),
            alive,
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

    /// Accepts connections.
    pub(super) fn start(self: &Arc<Self>) {
        let (sender, mut accepted) = mpsc::unbounded_channel();
        let node = Arc::clone(self);
        let mut state = self.state();
        state.life += 1;
        state.tasks.spawn(async move {
            while let Some(connection) = accepted.recv().await {
                let own = Arc::clone(&node);
                let mut state = node.state();
                // Ended tasks would pile up.
                while state.tasks.try_join_next().is_some() {}
                state.connections += 1;
                state.tasks.spawn(own.serve(connection));
            }
        });
        set_door(self.address(), Door::Open(sender));
    }

    /// Begins a fault.
    pub(super) fn fail(&self, fault: Fault) {
        self.history.begin(self.index, fault);
        match fault {
            Fault::Kill => {
                set_door(self.address(), Door::Shut);
                let mut state = self.state();
                state.sessions.clear();
                state.connections = 0;
                state.tasks = JoinSet::new();
            }
            Fault::Freeze | Fault::Pause => self.state().frozen = true,
            Fault::Cut | Fault::Blip => {
                set_door(self.address(), Door::Swallows);
                self.state().frozen = true;
            }
        }
    }

    /// Ends a fault. A node that was killed begins with no session.
    pub(super) fn heal(self: &Arc<Self>, fault: Fault) {
        match fault {
            Fault::Kill | Fault::Cut | Fault::Blip => self.start(),
            Fault::Freeze | Fault::Pause => {}
        }
        self.state().frozen = false;
        self.healed.notify_waiters();
        self.history.heal(self.index);
    }

    /// Waits until it is not frozen.
    async fn awake(&self) {
        while self.state().frozen {
            self.healed.notified().await;
        }
    }

    /// Draws for a request.
    fn rng(&self, rid: u64) -> Rng {
        Rng::with_seed(self.seed ^ rid.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    async fn serve(self: Arc<Self>, mut connection: Pipe) {
        let mut bytes = Vec::new();
        while let Some((body, whole)) = read_message(&mut connection, &mut bytes).await {
            if !whole || !self.serve_one(&mut connection, &body).await {
                break;
            }
        }
        drop(connection);
        let mut state = self.state();
        state.connections = state.connections.saturating_sub(1);
    }

    /// Serves one request. Returns whether the connection stays open.
    async fn serve_one(&self, connection: &mut Pipe, body: &[u8]) -> bool {
        let request = bosh::read_request(body).expect("Bowline sends good wrappers");
        let sid = request.sid.as_deref();
        // Probes have other sids.
        let known = sid.filter(|sid| sid.starts_with('s'));
        if sid.is_none() || known.is_some() {
            self.history.came(self.index, known);
        }
        let mut rng = self.rng(request.rid);
        let drawn = rng.u8(..);
        let mishap = known.map_or(Mishap::None, |sid| self.mishap(sid, request.rid, drawn));
        // These two are no arrivals: the node does not process the request, and the next one has to wait
        // until it comes again.
        match mishap {
            Mishap::Drop => return false,
            Mishap::Error => {
                let text = b"HTTP/1.1 503 \r\nContent-Length: 5\r\n\r\nlater";
                return connection.write_all(text).await.is_ok();
            }
            Mishap::None | Mishap::CloseAfter | Mishap::Extra | Mishap::Cut => {}
        }
        let mut arrival = None;
        if let Some(sid) = known {
            let place = self.history.arrived(self.index, sid, request.rid);
            arrival = Some((place, sid));
            self.take(sid, request.rid, body);
        }
        self.awake().await;
        sleep(Duration::from_millis(rng.u64(0..20))).await;
        let answer = {
            let mut answer = std::pin::pin!(self.answer(sid, &request, rng));
            tokio::select! {
                biased;
                answer = answer.as_mut() => answer,
                // The peer is gone. The answer stays for the next connection.
                () = gone(connection) => Answer::Close,
            }
        };
        let (status, answer) = match answer {
            Answer::Body(status, answer) => (status, answer),
            Answer::Close => return false,
            Answer::Never => {
                gone(connection).await;
                return false;
            }
        };
        self.awake().await;
        if let Some((arrival, sid)) = arrival {
            self.history.answers(sid, arrival);
            let more = || format!("{status} {}", text_of(&answer));
            let request = (sid, request.rid);
            self.history
                .note(Who::Node(self.index), "answers", request, more);
        }
        let length = answer.len();
        let mut bytes = format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n{answer}");
        match mishap {
            Mishap::Cut => bytes.truncate(bytes.len() - length / 2),
            Mishap::Extra => bytes.push_str("HTTP/1.1 400 Bad Request\r\n\r\n"),
            Mishap::None | Mishap::CloseAfter | Mishap::Drop | Mishap::Error => {}
        }
        let written = connection.write_all(bytes.as_bytes()).await;
        written.is_ok() && !matches!(mishap, Mishap::Cut | Mishap::CloseAfter)
    }

    /// What happens to this request, at most once to a rid.
    fn mishap(&self, sid: &str, rid: u64, drawn: u8) -> Mishap {
        let mut state = self.state();
        let frozen = state.frozen;
        let session = state.sessions.get_mut(sid).filter(|_| !frozen);
        let Some(session) = session else {
            return Mishap::None;
        };
        let mut drawn = u16::from(drawn);
        let shares = [
            (self.habits.close, Mishap::CloseAfter),
            (self.habits.drop, Mishap::Drop),
            (self.habits.error, Mishap::Error),
            (self.habits.extra, Mishap::Extra),
            (self.habits.cut, Mishap::Cut),
        ];
        for (share, mishap) in shares {
            let share = u16::from(share);
            if drawn < share {
                let happens = session.spared.insert(rid);
                let mishap = if happens { mishap } else { Mishap::None };
                if happens {
                    drop(state);
                    let what = || format!("{mishap:?}");
                    self.history
                        .note(Who::Node(self.index), "MISHAP", (sid, rid), what);
                }
                return mishap;
            }
            drawn -= share;
        }
        Mishap::None
    }

    async fn answer(&self, sid: Option<&str>, request: &bosh::Request<'_>, mut rng: Rng) -> Answer {
        let Some(sid) = sid else {
            return Answer::Body(200, self.create(request, rng));
        };
        let rid = request.rid;
        let (held, patience) = {
            let state = &mut *self.state();
            let happens = Duration::from_millis(rng.u64(500..60_000));
            let forgets = rng.u8(..) < self.habits.lose && self.terms.hold == 1;
            let Some(session) = state.sessions.get_mut(sid) else {
                let unknown = format!(
                    "<body type='terminate' condition='item-not-found' xmlns='{HTTPBIND}'/>"
                );
                return Answer::Body(404, unknown);
            };
            if let Some((_, answer)) = session.answers.iter().find(|(of, _)| *of == rid) {
                return Answer::Body(200, answer.clone());
            }
            // The same request on an older connection has no answer there.
            session.held.retain(|(of, _)| *of != rid);
            if request.terminate {
                let held = std::mem::take(&mut session.held);
                for (_, held) in held {
                    release(held, Release::Answer);
                }
                state.sessions.remove(sid);
                let over = format!("<body type='terminate' x='{sid}:{rid}' xmlns='{HTTPBIND}'/>");
                return Answer::Body(200, over);
            }
            self.make_room(session, forgets.then_some((sid, rid)));
            let (sender, receiver) = oneshot::channel();
            session.held.push((rid, sender));
            let at_once = !request.empty || request.pause.is_some();
            let hold = Duration::from_secs(self.terms.wait).min(happens);
            let soon = Duration::from_millis(3);
            (receiver, if at_once { soon } else { hold })
        };
        // It ends by time, by the next request, or with the connection.
        match timeout(patience, held).await {
            Ok(Ok(Release::Answer)) | Err(_) => self.compose(sid, rid, rng.u8(0..3)),
            Ok(Ok(Release::Forget)) => Answer::Never,
            // The same request came on another connection.
            Ok(Err(_)) => Answer::Close,
        }
    }

    /// Lets the oldest held requests go, so that there is room for one more.
    fn make_room(&self, session: &mut Session, forgets: Option<(&str, u64)>) {
        while session.held.len() >= self.terms.hold {
            let (of, held) = session.held.remove(0);
            let forgets = forgets.filter(|(_, rid)| *rid > of && session.spared.insert(of));
            let Some((sid, _)) = forgets else {
                release(held, Release::Answer);
                continue;
            };
            let lost = || "Lose".to_owned();
            let who = Who::Node(self.index);
            self.history.note(who, "MISHAP", (sid, of), lost);
            release(held, Release::Forget);
        }
    }

    /// Takes the stanzas of a request when it is read, unless its rid is one of the last. So their order
    /// is that of the requests.
    fn take(&self, sid: &str, rid: u64, body: &[u8]) {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(sid) else {
            return;
        };
        if session.processed.contains(&rid) {
            return;
        }
        session.processed.push(rid);
        if session.processed.len() > KEPT {
            session.processed.remove(0);
        }
        let mut stanzas = stanzas_in(&String::from_utf8_lossy(body));
        if self.defect == Some(Defect::Swapped) && self.history.has_failed() {
            stanzas.reverse();
        }
        self.history.taken(sid, &stanzas);
    }

    /// The answer to a request that is let go.
    fn compose(&self, sid: &str, rid: u64, count: u8) -> Answer {
        let state = &mut *self.state();
        let Some(session) = state.sessions.get_mut(sid) else {
            return Answer::Close;
        };
        session.held.retain(|(of, _)| *of != rid);
        let mut stanzas = Vec::new();
        if session.next == rid {
            let count = u64::from(count);
            stanzas.extend(session.said + 1..=session.said + count);
            session.said += count;
        }
        let inside: String = stanzas.iter().map(|n| format!("<m n='{n}'/>")).collect();
        let answer = format!("<body x='{sid}:{rid}' xmlns='{HTTPBIND}'>{inside}</body>");
        session.answers.push((rid, answer.clone()));
        while session.answers.iter().any(|(of, _)| *of == session.next) {
            session.next += 1;
        }
        if session.answers.len() > KEPT {
            session.answers.remove(0);
        }
        self.history.said(sid, rid, stanzas);
        Answer::Body(200, answer)
    }

    fn create(&self, request: &bosh::Request<'_>, mut rng: Rng) -> String {
        let state = &mut *self.state();
        state.made += 1;
        let (index, life, made) = (self.index, state.life, state.made);
        let mut sid = format!("s{index}-{life}-{made}");
        let rid = request.rid;
        let steals = index == 0 && rng.u8(..) < self.habits.steal;
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let own = format!("s{index}-");
        let other = alive.iter().find(|other| !other.starts_with(&own));
        if let Some(other) = other.filter(|_| steals) {
            sid.clone_from(other);
        } else {
            let session = Session {
                next: rid + 1,
                ..Session::default()
            };
            state.sessions.insert(sid.clone(), session);
            self.history.made(index, &sid, rid);
        }
        let Terms {
            wait,
            inactivity,
            maxpause,
            hold,
        } = self.terms;
        let requests = hold + 1;
        format!(
            "<body sid='{sid}' wait='{wait}' inactivity='{inactivity}' maxpause='{maxpause}' \
             requests='{requests}' hold='{hold}' ver='1.6' x='{sid}:{rid}' xmlns='{HTTPBIND}'/>"
        )
    }
}

fn release(held: oneshot::Sender<Release>, how: Release) {
    // The connection may be gone.
    let _ = held.send(how);
}
