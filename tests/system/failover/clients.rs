//! The clients of the failover benchmark: each keeps one session with one poll held, and notes the
//! time of everything that happens to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::demo::client::{Client, Error, Reply};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::chaos::creation;
use crate::support::log::now;
use crate::support::waiting::until;

/// What clients ask for, in seconds; a node of Tigase grants 30.
const WAIT: u32 = 60;
/// After a reset or a 5xx.
const PAUSE: Duration = Duration::from_secs(1);

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A new session has its poll on the way; the rid is that of the creation.
    Held { rid: u64 },
    /// A poll got an ordinary answer.
    Answered,
    /// A terminate.
    Ended,
    /// A reset, or an end of the connection without an answer.
    Broken,
    /// An HTTP error.
    Error,
}

/// Everything that happened to one client, in order.
pub(super) type Diary = Vec<(u64, What)>;

/// The clients.
pub(super) struct Crowd {
    diaries: Vec<Arc<Mutex<Diary>>>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts so many.
    pub(super) fn start(count: usize, address: SocketAddr) -> Self {
        let mut tasks = JoinSet::new();
        let diaries: Vec<Arc<Mutex<Diary>>> = (0..count).map(|_| Arc::default()).collect();
        for diary in &diaries {
            tasks.spawn(live(address, Arc::clone(diary)));
        }
        Self {
            diaries,
            _tasks: tasks,
        }
    }

    /// Waits until every client has a session with a poll held.
    pub(super) async fn all_held(&self, patience: Duration) -> Result<()> {
        let held = || {
            let diaries = self.diaries.iter();
            diaries.filter(|diary| !lock(diary).is_empty()).count()
        };
        if until(patience, async || held() == self.diaries.len()).await {
            return Ok(());
        }
        let held = held();
        Err(format!("only {held} sessions are held after {patience:?}").into())
    }

    /// Ends them all.
    pub(super) fn end(self) -> Vec<Diary> {
        self.diaries
            .iter()
            .map(|diary| lock(diary).clone())
            .collect()
    }
}

fn lock(diary: &Mutex<Diary>) -> MutexGuard<'_, Diary> {
    diary.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(diary: &Mutex<Diary>, what: What) {
    lock(diary).push((now(), what));
}

/// One client, session after session.
async fn live(address: SocketAddr, diary: Arc<Mutex<Diary>>) {
    loop {
        let mut client = Client::to(address);
        let rid = fastrand::u64(1_000_000..1 << 50);
        let reply = client.post(&creation(rid, WAIT)).await;
        let sid = match look(reply, &diary) {
            Some(reply) => reply.attribute("sid"),
            None => None,
        };
        let Some(sid) = sid else {
            sleep(PAUSE).await;
            continue;
        };
        client.adopt(&sid, rid);
        polls(&mut client, rid, &diary).await;
    }
}

/// One session, until a terminate.
async fn polls(client: &mut Client, created: u64, diary: &Mutex<Diary>) {
    let mut first = true;
    let mut again = false;
    loop {
        let pending = if again {
            None
        } else {
            let pending = client.begin_poll().await;
            if first && pending.is_ok() {
                note(diary, What::Held { rid: created });
                first = false;
            }
            Some(pending)
        };
        let reply = match pending {
            Some(Ok(pending)) => pending.reply().await,
            Some(Err(error)) => Err(error),
            None => client.repeat().await,
        };
        again = match look(reply, diary) {
            Some(reply) if reply.is_terminate() => {
                note(diary, What::Ended);
                return;
            }
            Some(_) => {
                note(diary, What::Answered);
                false
            }
            None => {
                sleep(PAUSE).await;
                true
            }
        };
    }
}

/// An answer that the client can use.
fn look(reply: std::result::Result<Reply, Error>, diary: &Mutex<Diary>) -> Option<Reply> {
    match reply {
        // An unknown session, as Tigase says it.
        Ok(reply) if reply.status < 400 || reply.is_terminate() && reply.status < 500 => {
            return Some(reply);
        }
        Ok(_) => note(diary, What::Error),
        Err(_) => note(diary, What::Broken),
    }
    None
}
