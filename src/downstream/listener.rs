//! Listeners: what is set for each, and accepting its connections.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::Downstream;
use super::bind::{Incoming, ListeningSocket};
use super::drain::Drain;
use super::h1::Connection;
use super::io::Io;
use super::listener_slot::ListenerSlot;
use super::opening;
use crate::config::{Listen, Release};
use crate::limits;
use crate::tls::Acceptor;
use crate::transport::Stream;

/// How long accepting rests when descriptors or memory are short: to try again at once would only
/// spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How long accepting rests after another error: long enough not to spin, too short to be noticed.
const BLINK: Duration = Duration::from_millis(1);

/// The errors of accept(2) that mean a shortage, as Linux numbers them: `ENOMEM`, `ENFILE`, `EMFILE`
/// and `ENOBUFS`.
const SHORTAGES: [i32; 4] = [12, 23, 24, 105];

/// How often it is logged that clients speak the wrong protocol.
const WRONG_PROTOCOL_EVERY: Duration = Duration::from_secs(60);

/// This close to the reserve, each accept checks for a free descriptor.
const NEAR: i32 = 32;

/// One of the addresses that clients connect to, and how it serves them.
#[derive(Debug)]
pub struct Listener {
    downstream: Arc<Downstream>,
    settings: Listen,
    acceptor: Option<Arc<Acceptor>>,
    /// When it was last logged that a client speaks the wrong protocol.
    wrong_protocol: Mutex<Option<Instant>>,
}

impl Listener {
    /// A listener of the client's side.
    pub const fn new(downstream: Arc<Downstream>, settings: Listen) -> Self {
        Self {
            downstream,
            settings,
            acceptor: None,
            wrong_protocol: Mutex::new(None),
        }
    }

    /// The same with what its TLS handshakes are made with, if it has TLS.
    #[must_use]
    pub fn with_tls(self, acceptor: Option<Arc<Acceptor>>) -> Self {
        Self { acceptor, ..self }
    }

    /// What TLS handshakes are made with; none for a plain listener.
    pub(super) const fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        self.acceptor.as_ref()
    }

    /// Logs that a client speaks another protocol than this listener, once a minute.
    pub(super) fn log_wrong_protocol(&self, peer: IpAddr, what: &'static str) {
        let now = Instant::now();
        let mut last = (self.wrong_protocol.lock()).unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now - last >= WRONG_PROTOCOL_EVERY) {
            *last = Some(now);
            let listener = &self.settings.address;
            warn!(%listener, client = %peer, "{what}");
        }
    }

    /// What it has in common with the others.
    pub(super) const fn downstream(&self) -> &Arc<Downstream> {
        &self.downstream
    }

    /// The settings of this one.
    pub const fn settings(&self) -> &Listen {
        &self.settings
    }

    /// Serves one client's connection to its end. Dropped, it cuts the connection.
    pub fn serve(
        self: &Arc<Self>,
        stream: Stream,
        peer: IpAddr,
    ) -> impl Future<Output = ()> + Send + use<> {
        Connection::new(Arc::clone(self), Io::Plain(stream), peer)
    }
}

/// Accepts connections until the slot is closed or the drain begins, or with `upstream.release: keep` until the last
/// connection has ended. Then waits until that has happened. Accepts none while the drain is paused.
///
/// At `limits.connections` accepting rests until a connection ends; the kernel's queue holds
/// newcomers meanwhile.
pub async fn accept(slot: Arc<ListenerSlot>, socket: ListeningSocket) {
    let socket = match Incoming::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(%error, "a worker cannot watch its listener");
            return;
        }
    };
    // Each connection holds a sender; the channel ends with the last of them.
    let (alive, mut all_over) = mpsc::channel(1);
    let mut door = Door {
        slot: &slot,
        socket,
        failing: false,
        near: false,
        arrived: None,
    };
    let drain = Arc::clone(&slot.listener().downstream().drain);
    let closed = door.admit_until_the_end(&drain, &alive).await;
    let release = match closed {
        true => Release::HalfClose,
        false => slot.listener().downstream().settings.upstream.release,
    };
    // Another process serves what waits.
    let is_left_to_another = !closed && (drain.is_paused() || slot.outlives());
    match release {
        Release::Keep if !drain.is_paused() => {
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
        Release::HalfClose | Release::Keep => {
            door.admit_arrived(&alive);
            if !is_left_to_another {
                door.admit_waiting(&alive).await;
            }
            drop(alive);
        }
    }
    drop(door);
    let _: Option<()> = all_over.recv().await;
}

type Accepted = (Stream, IpAddr, OwnedSemaphorePermit);
type Arrived = (Stream, IpAddr);

/// A listener, and how it fared last.
struct Door<'a> {
    slot: &'a ListenerSlot,
    socket: Incoming,
    /// The last accept failed.
    failing: bool,
    /// The last connection took one of the last files.
    near: bool,
    /// A connection that is accepted and has no place yet.
    arrived: Option<Arrived>,
}

impl Door<'_> {
    /// Serves newcomers until the drain begins or the slot is closed; says whether that is so. None are
    /// accepted in a pause, which other processes may use to accept them.
    async fn admit_until_the_end(&mut self, drain: &Drain, alive: &mpsc::Sender<()>) -> bool {
        let slot = self.slot;
        loop {
            tokio::select! {
                biased;
                () = drain.begun() => return false,
                () = slot.closed() => return true,
                accepted = self.has_arrived() => {
                    self.admit(Ok(accepted), alive).await;
                    continue;
                }
                () = drain.goes_on() => {}
            }
            let Some(_accepting) = drain.accepting() else {
                continue;
            };
            loop {
                let accepted = tokio::select! {
                    () = drain.interrupts() => break,
                    () = slot.closed() => return true,
                    accepted = self.next() => accepted,
                };
                self.admit(accepted, alive).await;
            }
        }
    }

    /// The next connection, when there is a place for it. Dropped half-way, it loses none.
    async fn next(&mut self) -> io::Result<Accepted> {
        let listener = self.slot.listener();
        let downstream = listener.downstream();
        if self.arrived.is_none() {
            self.arrived = Some(accept_one(downstream, &self.socket, self.near).await?);
        }
        Ok(self.has_arrived().await)
    }

    /// The connection that is accepted, when there is a place for it; never returns if there is none.
    async fn has_arrived(&mut self) -> Accepted {
        if self.arrived.is_some() {
            let places = Arc::clone(&self.slot.listener().downstream().places);
            let place = places.acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            if let Some((stream, peer)) = self.arrived.take() {
                return (stream, peer, place);
            }
        }
        std::future::pending().await
    }

    /// Serves a connection, or rests after an error.
    async fn admit(&mut self, accepted: io::Result<Accepted>, alive: &mpsc::Sender<()>) {
        // The settings may have changed during the accept.
        let listener = self.slot.listener();
        let downstream = listener.downstream();
        match accepted {
            Ok(accepted) => {
                self.failing = false;
                self.near =
                    accepted.0.as_raw_fd() >= downstream.files.ceiling().saturating_sub(NEAR);
                serve(&listener, accepted, alive);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "accepting fails");
                }
                sleep(downstream.rest_after(&error)).await;
            }
        }
    }

    /// Serves what is accepted and has no place yet, if there is one now.
    fn admit_arrived(&mut self, alive: &mpsc::Sender<()>) {
        let listener = self.slot.listener();
        let place = Arc::clone(&listener.downstream().places).try_acquire_owned();
        if let (Some((stream, peer)), Ok(place)) = (self.arrived.take(), place) {
            serve(&listener, (stream, peer, place), alive);
        }
    }

    /// Serves what waits in the kernel's queue, which would be reset when the listener closes.
    async fn admit_waiting(&self, alive: &mpsc::Sender<()>) {
        // Lets the runtime see what has come.
        tokio::task::yield_now().await;
        let look = |context: &mut Context<'_>| Poll::Ready(self.socket.poll_accept(context));
        let listener = self.slot.listener();
        while let Ok(place) = Arc::clone(&listener.downstream().places).try_acquire_owned() {
            let Poll::Ready(Ok((stream, peer))) = poll_fn(look).await else {
                return;
            };
            serve(&listener, (stream, peer, place), alive);
        }
    }
}

/// Serves a connection in a task of its own.
fn serve(listener: &Arc<Listener>, (stream, peer, place): Accepted, alive: &mpsc::Sender<()>) {
    let downstream = listener.downstream();
    let share = if listener.settings.expects_proxy_header(peer) {
        // Its client is counted, as soon as that is known.
        limits::Counted::default()
    } else if let Some(share) = downstream.share_of(peer) {
        share
    } else {
        return;
    };
    let nodelay = stream.socket().map(|socket| socket.set_nodelay(true));
    if let Some(Err(error)) = nodelay {
        debug!(%error, "no TCP_NODELAY");
    }
    let counted = Counted::new(downstream, (place, share), alive.clone());
    opening::open(listener, stream, peer, counted);
}

/// A connection, counted as open until dropped.
pub(super) struct Counted {
    connections: Gauge,
    _place: OwnedSemaphorePermit,
    share: limits::Counted,
    _alive: mpsc::Sender<()>,
}

impl Counted {
    fn new(
        downstream: &Downstream,
        (place, share): (OwnedSemaphorePermit, limits::Counted),
        alive: mpsc::Sender<()>,
    ) -> Self {
        let connections = downstream.proxy.metrics.connections.clone();
        connections.inc();
        Self {
            connections,
            _place: place,
            share,
            _alive: alive,
        }
    }

    /// Counts the connection for `client`. False if that has as many as it may.
    pub(super) fn count_for(&mut self, client: IpAddr, downstream: &Downstream) -> bool {
        let share = downstream.share_of(client);
        let counted = share.is_some();
        self.share = share.unwrap_or_default();
        counted
    }

    /// A connection of `peer`.
    #[cfg(test)]
    pub(super) fn for_tests(downstream: &Downstream, peer: IpAddr) -> Self {
        let place = Arc::clone(&downstream.places).try_acquire_owned();
        let share = downstream.connections.open(downstream.clients.client(peer));
        let both = place.ok().zip(share).expect("a place for it");
        Self::new(downstream, both, mpsc::channel(1).0)
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
async fn accept_one(downstream: &Downstream, socket: &Incoming, near: bool) -> io::Result<Arrived> {
    if downstream.is_crowded() {
        downstream.load_shedding.notice();
        if downstream.places.available_permits() == 0 {
            downstream.proxy.metrics.accept_waits.inc();
        }
    }
    drop(downstream.places.acquire().await);
    if near {
        until_files(downstream, socket).await?;
    }
    poll_fn(|context| socket.poll_accept(context)).await
}

/// Waits until a file is free that is not of the reserve: newcomers stay in the kernel's queue.
async fn until_files(downstream: &Downstream, socket: &Incoming) -> io::Result<()> {
    let mut waited = false;
    // The kernel gives the lowest number that is free, to this file as to the next connection.
    while socket.as_fd().try_clone_to_owned()?.as_raw_fd() >= downstream.files.ceiling() {
        if !std::mem::replace(&mut waited, true) {
            downstream.proxy.metrics.accept_waits.inc();
        }
        downstream.no_files();
        sleep(PAUSE).await;
    }
    Ok(())
}

impl Downstream {
    /// Counts a connection of `client`; none if that has as many as it may.
    fn share_of(&self, client: IpAddr) -> Option<limits::Counted> {
        let share = self.connections.open(self.clients.client(client));
        if share.is_none() {
            self.proxy.metrics.connections_refused.inc();
        }
        share
    }

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
        self.load_shedding.no_files();
        self.proxy.short_of_files();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_shortage_gives_up_idle_connections() {
        // ECONNABORTED, EPERM, EPROTO, ENETDOWN, ENONET and EHOSTUNREACH of accept(2).
        for number in [103, 1, 71, 100, 64, 113] {
            let downstream = Downstream::for_tests();
            let rest = downstream.rest_after(&io::Error::from_raw_os_error(number));
            assert!(rest <= BLINK, "{number}");
            assert!(!downstream.load_shedding.is_short_of_files(), "{number}");
        }
        for number in SHORTAGES {
            let downstream = Downstream::for_tests();
            let rest = downstream.rest_after(&io::Error::from_raw_os_error(number));
            assert_eq!(rest, PAUSE, "{number}");
            assert!(downstream.load_shedding.is_short_of_files(), "{number}");
        }
    }
}
