//! The process that serves, while another one takes over: it hands its sockets and pins over, and keeps the
//! requests that its nodes hold until they are answered.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use super::error::BindError;
use super::gate::Gate;
use super::listeners::Listeners;
use super::lock;
use super::passing;
use crate::config::{Listen, ListenAddress};
use crate::downstream::{ListeningSocket, SocketFile};
use crate::handover::{
    Channel, HandoverError, Kind, PassedSocket, Role, SocketName, Sockets, answer_hello,
};
use crate::proxy::Proxy;
use crate::sessions::{Change, SPACING};
use crate::snapshot::{self, Moment};

/// Who may connect: processes of the same user, and root.
const MODE: u32 = 0o600;

/// How long the new process may take to start.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a step may take while no process accepts.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// Changes that wait while the pins are on their way. Of further ones, sessions are found by their nodes, and
/// answers are lost with the connections of their clients.
const MOST_LATE: usize = 4096;

/// Changes in one frame: with the largest answers they still fit.
const LATE_AT_ONCE: usize = 12;

/// How long kept answers may take on their way while no process accepts. The rest is left out.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// How often the old process looks whether its last connection has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A request may take so much longer than its node's `wait`, and its answer as long again.
const BEYOND_WAIT: Duration = Duration::from_secs(30);

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves, or waits until it may.
    Serving,
    /// Another process is about to take over.
    Passing,
    /// Another process serves.
    Passed,
    /// Another process serves, and this one has nothing left to do.
    Over,
}

impl Phase {
    /// Whether another process serves.
    pub(super) const fn is_passed(self) -> bool {
        matches!(self, Self::Passed | Self::Over)
    }
}

/// The socket by which the next process takes over.
#[derive(Debug)]
pub(super) struct TakeoverSocket {
    path: PathBuf,
    socket: std::os::unix::net::UnixListener,
    file: SocketFile,
}

impl TakeoverSocket {
    /// The socket that was passed for this path, or a new one.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) fn open(path: &Path, passed: &mut Sockets) -> Result<Self, BindError> {
        let address = ListenAddress::Unix(path.to_owned());
        let socket = match passed.take(Role::Takeover, &address).map(|one| one.socket) {
            Some(PassedSocket::Unix(socket)) => Ok(socket),
            Some(PassedSocket::Tcp(_)) | None => bind(&address),
        };
        match (socket, SocketFile::of(&address)) {
            (Ok(socket), Some(file)) => Ok(Self {
                path: path.to_owned(),
                socket,
                file,
            }),
            (socket, _) => Err(BindError {
                address,
                source: socket.err().unwrap_or(io::ErrorKind::Unsupported.into()),
            }),
        }
    }
}

fn bind(address: &ListenAddress) -> io::Result<std::os::unix::net::UnixListener> {
    let listen = Listen {
        mode: MODE,
        ..Listen::new(address.clone())
    };
    match ListeningSocket::bind(&listen, &[])? {
        (ListeningSocket::Unix(socket), _) => Ok(socket),
        (ListeningSocket::Tcp(_), _) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// What is handed over.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) gate: Arc<Gate>,
    pub(super) listeners: Arc<Mutex<Listeners>>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) phase: Arc<watch::Sender<Phase>>,
}

/// Waits for processes that want to take over, until one has.
#[derive(Debug)]
pub(super) struct Host {
    parts: Parts,
    path: PathBuf,
    socket: UnixListener,
    file: SocketFile,
}

impl Host {
    /// Begins to listen.
    ///
    /// # Errors
    /// There are no more files.
    pub(super) fn new(socket: TakeoverSocket, parts: Parts) -> io::Result<Self> {
        Ok(Self {
            parts,
            path: socket.path,
            socket: UnixListener::from_std(socket.socket)?,
            file: socket.file,
        })
    }

    /// Returns when another process serves, and this one has nothing left to do.
    pub(super) async fn run(mut self) {
        loop {
            let stream = self.accept().await;
            let passed = tokio::select! {
                passed = self.hand_over(stream) => passed,
                () = self.refuse_others() => continue,
            };
            match passed {
                Ok((channel, late)) => {
                    if self.stay_behind(channel, late).await {
                        self.parts.phase.send_replace(Phase::Over);
                        return;
                    }
                }
                Err(error) => warn!(%error, "no takeover: this process goes on"),
            }
            self.go_on().await;
        }
    }

    async fn accept(&self) -> UnixStream {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    warn!(%error, "accepting a takeover fails");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Refuses further processes while one takes over. Never returns.
    async fn refuse_others(&self) {
        loop {
            let stream = self.accept().await;
            let refuse = async {
                let mut channel = Channel::new(stream)?;
                answer_hello(&mut channel).await?;
                refuse(&mut channel, "another process takes over at present").await
            };
            if let Err(error) = refuse.await {
                warn!(%error, "a second takeover is refused");
            }
        }
    }

    /// Serves again.
    async fn go_on(&mut self) {
        let parts = &self.parts;
        parts.proxy.sessions.unfollow();
        let is_passed = parts.phase.borrow().is_passed();
        if is_passed {
            self.leave_files(false);
            if let Err(error) = self.parts.gate.open() {
                warn!(%error, "the admin listener stays closed");
            }
        }
        let parts = &self.parts;
        parts.gate.pause_snapshot(false).await;
        parts.gate.resume();
        parts.phase.send_replace(Phase::Serving);
    }

    fn leave_files(&mut self, leave: bool) {
        self.file.leave(leave);
        lock(&self.parts.listeners).leave_files(leave);
    }

    /// Hands everything over, and says how sessions that are made from now on are heard of. Until the end of it
    /// this process can go on.
    async fn hand_over(
        &self,
        stream: UnixStream,
    ) -> Result<(Channel, mpsc::Receiver<Change>), HandoverError> {
        let mut channel = Channel::new(stream)?;
        answer_hello(&mut channel).await?;
        let Parts {
            gate, proxy, phase, ..
        } = &self.parts;
        phase.send_replace(Phase::Passing);
        for (name, socket) in self.sockets()? {
            let body = name.write();
            channel
                .send(Kind::Socket, &body, Some(socket.as_fd()), STEP)
                .await?;
        }
        channel.send(Kind::Offer, b"", None, STEP).await?;
        channel.expect(Kind::Ready, READY_WITHIN).await?;

        let begun = Instant::now();
        let late = proxy.sessions.follow(MOST_LATE);
        if !gate.pause().await {
            let why = "the old process cannot stop accepting at present";
            refuse(&mut channel, why).await?;
            return Err(HandoverError::Refused(why.to_owned()));
        }
        // What a node has read here is at a distance from what it reads from the new process.
        sleep(SPACING).await;
        let (pins, count) = self.pins().await?;
        channel.send(Kind::Pins, &pins, None, STEP).await?;
        passing::send_answers(&mut channel, proxy, ANSWERS_WITHIN).await?;
        channel.send(Kind::All, b"", None, STEP).await?;
        channel.expect(Kind::Loaded, STEP).await?;
        gate.pause_snapshot(true).await;
        channel.send(Kind::Yours, b"", None, STEP).await?;
        confirm(&mut channel).await?;
        let paused_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(
            sessions = count,
            bytes = pins.len(),
            paused_ms,
            "another process has taken over"
        );
        Ok((channel, late))
    }

    /// All sockets, and what each is for.
    fn sockets(&self) -> io::Result<Vec<(SocketName, OwnedFd)>> {
        let Parts {
            gate, listeners, ..
        } = &self.parts;
        let own = SocketName {
            role: Role::Takeover,
            address: ListenAddress::Unix(self.path.clone()),
        };
        let own = std::iter::once((own, self.socket.as_fd()));
        let listeners = lock(listeners);
        let all = listeners.to_pass().chain(gate.to_pass()).chain(own);
        all.map(|(name, socket)| Ok((name, socket.try_clone_to_owned()?)))
            .collect()
    }

    async fn pins(&self) -> io::Result<(Vec<u8>, u64)> {
        let proxy = Arc::clone(&self.parts.proxy);
        let encode = move || {
            let both = (&*proxy.cluster, &*proxy.sessions);
            // The rids that go on from here are sent one by one.
            snapshot::encode(both, Moment::Ending, (proxy.now(), SystemTime::now()))
        };
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.map_err(io::Error::other)
    }

    /// Keeps what is under way until that has ended, and sends pins of sessions that are made meanwhile. False
    /// if the new process crashes first: this one has to serve again.
    async fn stay_behind(
        &mut self,
        mut channel: Channel,
        mut late: mpsc::Receiver<Change>,
    ) -> bool {
        self.parts.gate.close_admin();
        self.leave_files(true);
        self.parts.phase.send_replace(Phase::Passed);
        let proxy = Arc::clone(&self.parts.proxy);
        let connections = || proxy.metrics.connections.get();
        info!(
            connections = connections(),
            "waiting for the connections to end"
        );
        let last = Instant::now() + longest_wait(&proxy) + BEYOND_WAIT;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut replaced = false;
        let mut changes = Vec::new();
        loop {
            tokio::select! {
                received = channel.receive(), if !replaced => match received {
                    Ok((Kind::Passed, _)) => replaced = true,
                    Ok((Kind::Leaving, _)) => return true,
                    Ok(_) | Err(_) => {
                        warn!("the process that took over has crashed: this one serves again");
                        return false;
                    }
                },
                _ = late.recv_many(&mut changes, LATE_AT_ONCE), if !late.is_closed() && !replaced => {
                    // If it has gone, that is received next.
                    let _ = passing::send_changes(&mut channel, &proxy, &changes).await;
                    changes.clear();
                }
                _ = look.tick() => {
                    if connections() == 0 {
                        info!("the last connection has ended");
                        return true;
                    }
                }
                () = sleep_until(last) => {
                    warn!(connections = connections(), "connections that have not ended are cut");
                    return true;
                }
            }
        }
    }
}

/// Says why there is no takeover.
async fn refuse(channel: &mut Channel, why: &str) -> Result<(), HandoverError> {
    channel
        .send(Kind::Refused, why.as_bytes(), None, STEP)
        .await
}

/// Waits for the new process to say that it serves. Behind the deadline it cannot say so any more.
async fn confirm(channel: &mut Channel) -> Result<(), HandoverError> {
    match channel.expect(Kind::Mine, STEP).await {
        Err(HandoverError::Late(_)) => {
            channel.shut();
            channel.expect(Kind::Mine, STEP).await.map(drop)
        }
        confirmed => confirmed.map(drop),
    }
}

/// The longest time that a node may hold a request that is under way.
fn longest_wait(proxy: &Proxy) -> Duration {
    let mut longest = 0;
    proxy.sessions.each(|session| {
        if session.under_way() > 0 {
            longest = longest.max(session.terms().wait);
        }
    });
    Duration::from_secs(longest.into())
}
