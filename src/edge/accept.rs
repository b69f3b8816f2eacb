//! Accepting client connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Edge;
use super::connection::Connection;
use crate::config::Release;
use crate::limits;

/// How long accepting rests when descriptors or memory are short: to try again at once would only
/// spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How long accepting rests after another error: long enough not to spin, too short to be noticed.
const BLINK: Duration = Duration::from_millis(1);

/// The errors of accept(2) that mean a shortage, as Linux numbers them: `ENOMEM`, `ENFILE`, `EMFILE`
/// and `ENOBUFS`.
const SHORTAGES: [i32; 4] = [12, 23, 24, 105];

/// So many files before the reserve it is looked at each time whether there is one.
const NEAR: i32 = 32;

/// Accepts connections until the drain begins, or with `upstream.release: keep` until the last
/// connection has ended. Then waits until that has happened.
///
/// At `limits.connections` accepting rests until a connection ends; the kernel's queue holds
/// newcomers meanwhile.
pub async fn accept(edge: Arc<Edge>, listener: TcpListener) {
    // Each connection holds a sender; the channel ends with the last of them.
    let (alive, mut all_over) = mpsc::channel(1);
    let mut door = Door {
        edge: &edge,
        listener,
        failing: false,
        near: false,
    };
    loop {
        let accepted = tokio::select! {
            () = edge.drain.begun() => break,
            accepted = door.next() => accepted,
        };
        door.admit(accepted, &alive).await;
    }
    match edge.settings.upstream.release {
        Release::HalfClose => {
            door.admit_waiting(&alive).await;
            drop(alive);
        }
        Release::Keep => {
            let last = alive.downgrade();
            drop(alive);
            loop {
                let accepted = tokio::select! {
                    biased;
                    // Nothing is ever sent.
                    _ = all_over.recv() => break,
                    accepted = door.next() => accepted,
                };
                let Some(alive) = last.upgrade() else { break };
                door.admit(accepted, &alive).await;
            }
        }
    }
    drop(door);
    let _: Option<()> = all_over.recv().await;
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// A listener, and how it fared last.
struct Door<'a> {
    edge: &'a Arc<Edge>,
    listener: TcpListener,
    /// The last accept failed.
    failing: bool,
    /// The last connection took one of the last files.
    near: bool,
}

impl Door<'_> {
    /// The next connection, when there is a place for it.
    async fn next(&self) -> io::Result<Accepted> {
        accept_one(self.edge, &self.listener, self.near).await
    }

    /// Serves a connection, or rests after an error.
    async fn admit(&mut self, accepted: io::Result<Accepted>, alive: &mpsc::Sender<()>) {
        match accepted {
            Ok(accepted) => {
                self.failing = false;
                self.near =
                    accepted.0.as_raw_fd() >= self.edge.files.ceiling().saturating_sub(NEAR);
                serve(self.edge, accepted, alive);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "accepting fails");
                }
                sleep(self.edge.rest_after(&error)).await;
            }
        }
    }

    /// Serves what waits in the kernel's queue, which would be reset when the listener closes.
    async fn admit_waiting(&self, alive: &mpsc::Sender<()>) {
        // Lets the runtime see what has come.
        tokio::task::yield_now().await;
        let look = |context: &mut Context<'_>| Poll::Ready(self.listener.poll_accept(context));
        while let Ok(place) = Arc::clone(&self.edge.places).try_acquire_owned() {
            let Poll::Ready(Ok((stream, peer))) = std::future::poll_fn(look).await else {
                return;
            };
            serve(self.edge, (stream, peer, place), alive);
        }
    }
}

/// Serves a connection in a task of its own.
fn serve(edge: &Arc<Edge>, (stream, peer, place): Accepted, alive: &mpsc::Sender<()>) {
    let client = edge.clients.client(peer.ip());
    let Some(share) = edge.connections.open(client) else {
        edge.proxy.metrics.connections_refused.inc();
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let counted = Counted::new(edge, (place, share), alive.clone());
    let connection = Connection::new(Arc::clone(edge), stream, peer);
    tokio::spawn(async move {
        let _counted = counted;
        connection.await;
    });
}

/// A connection, counted as open until dropped.
struct Counted {
    connections: Gauge,
    _place: OwnedSemaphorePermit,
    _share: limits::Counted,
    _alive: mpsc::Sender<()>,
}

impl Counted {
    fn new(
        edge: &Edge,
        (place, share): (OwnedSemaphorePermit, limits::Counted),
        alive: mpsc::Sender<()>,
    ) -> Self {
        let connections = edge.proxy.metrics.connections.clone();
        connections.inc();
        Self {
            connections,
            _place: place,
            _share: share,
            _alive: alive,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// Accepts one connection when there is a place for it. The place is taken only then, so that
/// several listeners and workers that wait hold none. `near` says that the last one took one of the
/// last files.
async fn accept_one(edge: &Edge, listener: &TcpListener, near: bool) -> io::Result<Accepted> {
    if edge.is_crowded() {
        edge.crowd.notice();
        if edge.places.available_permits() == 0 {
            edge.proxy.metrics.accept_waits.inc();
        }
    }
    drop(edge.places.acquire().await);
    if near {
        until_files(edge, listener).await?;
    }
    let (stream, peer) = listener.accept().await?;
    let place = Arc::clone(&edge.places).acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    Ok((stream, peer, place))
}

/// Waits until a file is free that is not of the reserve: newcomers stay in the kernel's queue.
async fn until_files(edge: &Edge, listener: &TcpListener) -> io::Result<()> {
    let mut waited = false;
    // The kernel gives the lowest number that is free, to this file as to the next connection.
    while listener.as_fd().try_clone_to_owned()?.as_raw_fd() >= edge.files.ceiling() {
        if !std::mem::replace(&mut waited, true) {
            edge.proxy.metrics.accept_waits.inc();
        }
        edge.no_files();
        sleep(PAUSE).await;
    }
    Ok(())
}

impl Edge {
    /// How long accepting rests after `error`. A shortage makes room; any other error concerns one
    /// connection only, such as one that its client gave up or a firewall refused.
    fn rest_after(&self, error: &io::Error) -> Duration {
        match error.raw_os_error() {
            Some(number) if SHORTAGES.contains(&number) => {
                self.no_files();
                PAUSE
            }
            _ if error.kind() == io::ErrorKind::ConnectionAborted => Duration::ZERO,
            _ => BLINK,
        }
    }

    /// Open files are short: whatever is idle is given up, on both sides.
    fn no_files(&self) {
        self.crowd.no_files();
        self.proxy.short_of_files();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::fuzzing;

    #[tokio::test(start_paused = true)]
    async fn only_a_shortage_gives_up_idle_connections() {
        // ECONNABORTED, EPERM, EPROTO, ENETDOWN, ENONET and EHOSTUNREACH of accept(2).
        for number in [103, 1, 71, 100, 64, 113] {
            let edge = fuzzing::edge_for_nodes(Vec::new());
            let rest = edge.rest_after(&io::Error::from_raw_os_error(number));
            assert!(rest <= BLINK, "{number}");
            assert!(!edge.crowd.is_short_of_files(), "{number}");
        }
        for number in SHORTAGES {
            let edge = fuzzing::edge_for_nodes(Vec::new());
            let rest = edge.rest_after(&io::Error::from_raw_os_error(number));
            assert_eq!(rest, PAUSE, "{number}");
            assert!(edge.crowd.is_short_of_files(), "{number}");
        }
    }
}
