//! A simulated BOSH node: scripted by behaviour, and it keeps a record. It listens at a real TCP
//! port, or in the network in memory of its thread ([`Profile::in_memory`]).
//!
//! It speaks as Tigase, Prosody or ejabberd do on the wire ([`Profile`]), misbehaves on demand
//! ([`Fault`]), can be killed, frozen and revived on the same port, and shares messages or whole
//! sessions with the other nodes of its [`Hub`]. It reads requests by means of its own: nothing of
//! the balancer but its transport of bytes is used here, so that one cannot hide the other's errors.
//!
//! A connection is one small task that holds no buffer while a poll waits. Everything stops when the
//! [`Node`] is dropped.

mod answer;
mod clock;
mod connection;
mod fault;
mod http;
mod hub;
mod profile;
mod record;
mod server;
mod session;
mod socket;
mod words;
mod xml;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub use fault::{Ending, Fault, Manner, Reaction, Step};
pub use hub::Hub;
pub use profile::{Profile, Software};
pub use record::{Fate, Kind, Seen};
use server::{Entrance, Server};
use socket::Place;

/// How long [`Node::wait_until`] waits.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a Tigase node still accepts after SIGTERM.
const LAST_ACCEPTS: Duration = Duration::from_millis(600);

/// A condition that did not come true in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate(pub Duration);

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not so within {:?}", self.0)
    }
}

impl std::error::Error for TooLate {}

/// A simulated node.
pub struct Node {
    server: Arc<Server>,
    place: Place,
    accepting: Mutex<Option<JoinHandle<()>>>,
    keeping_time: Mutex<Option<JoinHandle<()>>>,
    dying: Mutex<Option<JoinHandle<()>>>,
}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// Where its address cannot be bound.
    pub async fn start(profile: Profile) -> io::Result<Self> {
        let place = Place::take(profile.address, profile.in_memory)?;
        let refusing = profile.refusing;
        let node = Self {
            server: Arc::new(Server::new(profile)),
            place,
            accepting: Mutex::default(),
            keeping_time: Mutex::default(),
            dying: Mutex::default(),
        };
        node.keep_time();
        if !refusing {
            node.listen().await?;
        }
        Ok(node)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.server.profile().name
    }

    /// Whether a session lives here.
    #[must_use]
    pub fn owns(&self, sid: &str) -> bool {
        self.server.hub.owns(self.server.number, sid)
    }

    /// How many requests of a session came here, its creation included.
    #[must_use]
    pub fn requests_of(&self, sid: &str) -> usize {
        self.server.counts().get(sid).copied().unwrap_or(0)
    }

    /// The sids of the sessions that live here.
    #[must_use]
    pub fn sessions(&self) -> Vec<String> {
        self.server.hub.sessions_of(self.server.number)
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn record(&self) -> Vec<Seen> {
        self.server.record().clone()
    }

    /// Every byte so far, by the number of its connection. Empty unless the node was started
    /// [with a record of bytes](Profile::recording_bytes).
    #[must_use]
    pub fn bytes(&self) -> BTreeMap<u64, Vec<u8>> {
        self.server.bytes().clone()
    }

    /// How many requests so far the filter picks.
    pub fn count(&self, filter: impl Fn(&Seen) -> bool) -> usize {
        self.server
            .record()
            .iter()
            .filter(|seen| filter(seen))
            .count()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.hub.count_lines(self.server.number)
    }

    /// How many requests are held here.
    #[must_use]
    pub fn held(&self) -> usize {
        self.server.hub.count_held(self.server.number)
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.server.is_listening()
    }

    /// Waits until the condition holds; it is looked at whenever something changes here.
    ///
    /// # Errors
    /// Where it does not hold within [`PATIENCE`].
    pub async fn wait_until(&self, condition: impl Fn(&Self) -> bool) -> Result<(), TooLate> {
        let wait = async {
            loop {
                let changed = self.server.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(self) {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.map_err(|_| TooLate(PATIENCE))
    }

    /// Gives a session a stanza: it answers the held poll, or waits for the next. False where no
    /// such session lives in the node's cluster.
    pub fn push(&self, sid: &str, stanza: impl Into<String>) -> bool {
        let pushed = self.server.hub.push(sid, stanza.into(), Instant::now());
        self.server.changed.notify_waiters();
        pushed
    }

    /// Misbehaves from now on, before the misbehaviours that are there already.
    pub fn misbehave(&self, fault: Fault) {
        self.server.set_faults(|faults| faults.insert(0, fault));
    }

    /// Ends every misbehaviour.
    pub fn behave(&self) {
        self.server.set_faults(Vec::clear);
    }

    /// Refuses new connections; the open ones go on.
    pub async fn refuse(&self) {
        stop(&self.accepting).await;
        self.server.changed.notify_waiters();
    }

    /// Accepts connections again after [`refuse`](Self::refuse).
    ///
    /// # Errors
    /// Where the address cannot be listened at.
    pub async fn listen(&self) -> io::Result<()> {
        stop(&self.accepting).await;
        let entrance = Entrance::new(self.place.listen()?, &self.server);
        let task = tokio::spawn(Arc::clone(&self.server).accept(entrance));
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(task);
        self.server.changed.notify_waiters();
        Ok(())
    }

    /// Dies as by SIGKILL: every socket is closed without a byte, the sessions are lost. All of
    /// that has happened when it returns.
    pub async fn kill(&self, ending: Ending) {
        stop(&self.dying).await;
        stop(&self.accepting).await;
        self.close_all(ending).await;
        stop(&self.keeping_time).await;
        self.server.die();
        self.server.changed.notify_waiters();
    }

    /// Dies as by SIGTERM. Tigase and Prosody close every socket without a byte; ejabberd ends its
    /// sessions aloud first. A Tigase node still accepts connections for 0.6 s, and answers none.
    pub async fn terminate_gracefully(&self) {
        stop(&self.dying).await;
        let server = &self.server;
        match server.profile().rules.software {
            Software::Tigase => {
                server.deafen();
                self.close_all(Ending::Eof).await;
                server.die();
                let accepting = self.take(&self.accepting);
                let dying = tokio::spawn(last_accepts(Arc::clone(server), accepting));
                *self.dying.lock().unwrap_or_else(PoisonError::into_inner) = Some(dying);
            }
            Software::Prosody => self.kill(Ending::Eof).await,
            Software::Ejabberd => {
                server
                    .hub
                    .end_all(server.number, "remote-stream-error", Instant::now());
                for connection in server.hub.lines_of(server.number) {
                    connection.end();
                }
                // What a stalled client does not read is not waited for.
                let _ = self.wait_until(|node| node.connections() == 0).await;
                self.kill(Ending::Eof).await;
            }
        }
        self.server.changed.notify_waiters();
    }

    /// Stops: the kernel still accepts connections and takes bytes, and the node reads and answers nothing.
    pub fn freeze(&self) {
        self.server.freeze(true);
    }

    /// Goes on where it stopped.
    pub fn thaw(&self) {
        self.server.freeze(false);
    }

    /// Lives again, on the same port, without any old session.
    ///
    /// # Errors
    /// Where the address cannot be listened at.
    pub async fn revive(&self) -> io::Result<()> {
        self.kill(Ending::Eof).await;
        self.server.revive();
        self.keep_time();
        self.listen().await
    }

    fn keep_time(&self) {
        let task = tokio::spawn(Arc::clone(&self.server).keep_time());
        *self
            .keeping_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    async fn close_all(&self, ending: Ending) {
        if ending == Ending::Reset {
            for connection in self.server.hub.lines_of(self.server.number) {
                connection.reset_at_end();
            }
        }
        self.server.close_all().await;
    }

    fn take(&self, task: &Mutex<Option<JoinHandle<()>>>) -> Option<JoinHandle<()>> {
        task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in [&self.accepting, &self.keeping_time, &self.dying] {
            if let Some(task) = self.take(task) {
                task.abort();
            }
        }
        for task in self.server.take_tasks() {
            task.abort();
        }
        self.server.die();
    }
}

async fn stop(task: &Mutex<Option<JoinHandle<()>>>) {
    let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(task) = task {
        task.abort();
        // Aborted or ended: it is gone either way.
        let _ = task.await;
    }
}

/// Lets a node that is shutting down accept a little longer, then closes everything.
async fn last_accepts(server: Arc<Server>, accepting: Option<JoinHandle<()>>) {
    let accepting = Aborting(accepting);
    sleep(LAST_ACCEPTS).await;
    drop(accepting);
    server.close_all().await;
    server.changed.notify_waiters();
}

/// A task that is aborted with its owner.
struct Aborting(Option<JoinHandle<()>>);

impl Drop for Aborting {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
