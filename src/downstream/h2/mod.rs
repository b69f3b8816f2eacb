//! One client connection over HTTP/2: its streams, and its end.
//!
//! The `h2` crate reads and writes frames, and holds the limits of HTTP/2. Each stream is one request,
//! in a task of its own (`stream.rs`), with the same handler as HTTP/1.1. This file accepts streams,
//! counts them, tries whether the client is still there, and says goodbye.
//!
//! hyper's server is not used: it polls no timer while a client opens no window, and so has no deadline
//! for an answer that is not taken.

mod body;
mod preface;
mod stream;
mod wire;

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use hyper::Request;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::Downstream;
use super::client::Peer;
use super::idle::Idle;
use super::io::{Early, Io};
use super::listener::{Counted, Listener};
use crate::http1::MAX_HEAD;
use crate::limits;
use crate::proxy::{HttpVersion, Protocol};
use crate::timers::Slow;
pub(super) use preface::Preface;
use stream::Ended;
use wire::Wire;

/// What a client may send ahead on one stream, and on the connection, in bytes: as much as HTTP/2 has
/// without a setting (RFC 9113 §6.9.2).
const WINDOW: u32 = 65_535;

/// What the library keeps of one answer, in bytes.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// How many more requests a client may give up than it has had answered, before its connection is cut.
const MAX_RESETS: u32 = 100;

/// Streams that the client gave up before they were accepted, at the same time.
const MAX_PENDING_RESETS: usize = 20;

/// Errors of streams that the library answers with a reset, in all.
const MAX_LOCAL_RESETS: usize = 1024;

/// While requests are held, a client that asks for nothing is tried after this long.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long it then has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client has to close a connection after GOAWAY, once no request is under way.
const GOODBYE: Duration = Duration::from_millis(500);

/// Serves HTTP/2 over `io`, of which `early` was read before. Returns when the connection is served by a
/// task of its own, or has ended: the client has the time of a head to say that it speaks HTTP/2.
pub(super) async fn serve(
    listener: Arc<Listener>,
    io: Io,
    early: Early,
    peer: IpAddr,
    counted: Counted,
) {
    let downstream = Arc::clone(listener.downstream());
    io.watch();
    let peer = Peer {
        address: peer,
        protocol: Protocol {
            http: HttpVersion::Http2,
            tls: io.tls(),
        },
        connected: downstream.proxy.now(),
    };
    let wire = Wire::new(io, early, Arc::clone(&downstream));
    let mut opening = pin!(builder(&downstream).handshake(wire));
    let (mut idle, mut alarm) = (Idle::begin(), Slow::default());
    let opened = std::future::poll_fn(|context| {
        if let Poll::Ready(opened) = opening.as_mut().poll(context) {
            return Poll::Ready(opened.ok());
        }
        let most = downstream.settings.timeouts.head;
        ready!(idle.poll(true, most, &downstream, &mut alarm, context));
        Poll::Ready(None)
    });
    if let Some(opened) = opened.await {
        let connection = Connection::new(listener, opened, peer, counted);
        tokio::spawn(connection);
    }
}

fn builder(downstream: &Downstream) -> server::Builder {
    let mut builder = server::Builder::new();
    let streams = downstream.settings.limits.streams;
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    builder
}

/// One client connection, served to its end. Dropping it cuts the connection, and ends its requests at
/// their nodes.
struct Connection {
    listener: Arc<Listener>,
    peer: Peer,
    frames: server::Connection<Wire, Bytes>,
    pings: Option<PingPong>,
    streams: JoinSet<Ended>,
    /// Requests that the client gave up, less those that were answered.
    resets: u32,
    /// Nothing was asked so far.
    fresh: bool,
    /// The wait for the next request, where none is under way.
    idle: Option<Idle>,
    /// GOAWAY was sent.
    leaving: bool,
    /// When nothing was asked any more after that.
    left: Option<Instant>,
    /// The last sign of life that was noted.
    heard: Instant,
    /// When the ping was sent that is not answered yet.
    pinged: Option<Instant>,
    alarm: Slow,
    connections: Gauge,
    _counted: Counted,
}

impl Connection {
    fn new(
        listener: Arc<Listener>,
        mut frames: server::Connection<Wire, Bytes>,
        peer: Peer,
        counted: Counted,
    ) -> Self {
        let connections = listener
            .downstream()
            .proxy
            .metrics
            .http2_connections
            .clone();
        connections.inc();
        Self {
            pings: frames.ping_pong(),
            listener,
            peer,
            frames,
            streams: JoinSet::new(),
            resets: 0,
            fresh: true,
            idle: None,
            leaving: false,
            left: None,
            heard: Instant::now(),
            pinged: None,
            alarm: Slow::default(),
            connections,
            _counted: counted,
        }
    }

    /// Reads and writes frames, and begins what is asked. Ready at the end of the connection.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.frames.poll_accept(context)) {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => {
                    debug!(client = %self.peer.address, %error, "the HTTP/2 connection ends");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.fresh = false;
        self.heard = Instant::now();
        let downstream = self.listener.downstream();
        // One request is under way on an HTTP/1.1 connection. Each more takes the place of a connection.
        let place = if self.streams.is_empty() {
            None
        } else {
            let Some(place) = downstream.place_of_stream(self.peer.address) else {
                downstream.proxy.metrics.connections_refused.inc();
                respond.send_reset(Reason::REFUSED_STREAM);
                return;
            };
            Some(place)
        };
        let downstream = Arc::clone(downstream);
        let client = self.peer;
        self.streams.spawn(async move {
            let ended = stream::serve(downstream, client, request, respond).await;
            drop(place);
            ended
        });
    }

    /// Counts the streams that have ended.
    fn reap(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.streams.poll_join_next(context) {
            match ended {
                Ok(Ended::Answered) => self.resets = self.resets.saturating_sub(1),
                Ok(Ended::GivenUp) => self.resets += 1,
                // A panic ends its own stream.
                Err(_) => {}
            }
        }
    }

    /// Whether it is time to send GOAWAY.
    fn leaves(&mut self, context: &mut Context<'_>) -> bool {
        if self.leaving {
            return false;
        }
        let downstream = self.listener.downstream();
        if self.resets > MAX_RESETS {
            downstream.proxy.metrics.http2_floods.inc();
            debug!(client = %self.peer.address, "too many requests were given up");
            self.streams.abort_all();
            self.frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.leaving = true;
            return true;
        }
        let is_over = if self.streams.is_empty() {
            let idle = self.idle.get_or_insert_with(Idle::begin);
            let most = downstream.settings.timeouts.idle;
            let idle = idle.poll(self.fresh, most, downstream, &mut self.alarm, context);
            idle.is_ready() || downstream.is_retired()
        } else {
            self.idle = None;
            downstream.drain.attend();
            downstream.is_closing()
        };
        if is_over {
            self.frames.graceful_shutdown();
            self.leaving = true;
        }
        is_over
    }

    /// Ready when the client has had its time: to answer a ping, or to leave.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.streams.is_empty() {
            if !self.leaving {
                return Poll::Pending;
            }
            let left = *self.left.get_or_insert_with(Instant::now);
            return self.alarm.poll_until(left + GOODBYE, context);
        }
        self.left = None;
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        if self.pinged.is_some() && pings.poll_pong(context).is_ready() {
            self.pinged = None;
            self.heard = Instant::now();
        }
        if let Some(pinged) = self.pinged {
            return self.alarm.poll_until_called(pinged + PING_TIMEOUT, context);
        }
        let until = self.heard + PING_AFTER;
        if self.alarm.poll_until_called(until, context).is_ready() {
            if pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            let now = Instant::now();
            self.pinged = Some(now);
            let asked = pings.poll_pong(context).is_pending();
            debug_assert!(asked, "no answer is there yet");
            return self.alarm.poll_until_called(now + PING_TIMEOUT, context);
        }
        Poll::Pending
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_frames(context).is_ready() {
                return Poll::Ready(());
            }
            self.reap(context);
            if !self.leaves(context) {
                return self.poll_patience(context);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// A place among the connections, and one among those of the client.
type Place = (tokio::sync::OwnedSemaphorePermit, limits::Counted);

impl Downstream {
    /// A place for one more request on a connection; none if all are taken, or all of this client.
    fn place_of_stream(&self, peer: IpAddr) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let share = self.connections.open(self.clients.client(peer))?;
        Some((place, share))
    }
}

#[cfg(test)]
mod tests;
