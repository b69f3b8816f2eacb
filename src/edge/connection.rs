//! One client connection, from its first byte to its end.
//!
//! A connection is in one of three phases, and hyper is there in one of them only:
//!
//! ```text
//! idle ──bytes──▶ http ──answered, nothing more to read──▶ idle
//!                  │
//!                  └─an exchange takes long─▶ held ──answer written──▶ idle
//! ```
//!
//! hyper keeps a read buffer and a head buffer of 8 KiB each; held polls are what clients do
//! nearly all the time. So the task owns the socket, lends it to a hyper connection while there
//! is something to parse or to write, and takes it back (`into_parts`) as soon as there is not.
//! Bytes that hyper had read beyond the request travel along. A state machine written out, since an
//! `async fn` keeps room for the largest of its states in all of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::Edge;
use super::alarm::Alarm;
use super::answer::{bytes_of, response};
use super::cors::Allowed;
use super::head::LARGEST_HEAD;
use super::service::{Held, Hold, Requests};
use super::wire::{Doing, Downstream, Next, Wire};
use crate::metrics::Kind;
use crate::proxy::{Answer, Cause, Note};
use crate::traces::Parent;

/// How long, and for how many bytes, a closed connection is still read from.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERING: usize = 1024 * 1024;

/// The same while the process ends: it waits for no client that does not close its side.
const LAST_LINGER: Duration = Duration::from_millis(500);

/// How long a connection on which nothing was asked yet is waited for while the process ends: its
/// request is most likely on its way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

type Http<S> = http1::Connection<TokioIo<Wire<S>>, Requests>;

/// A phase that is over when it has made something of the connection: boxed, so that a connection
/// takes the room of the phase that it is in, and none for the others.
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection between two requests: the stream, and what was read of the next one.
type Rest<S> = (S, Bytes);

/// How the phase with hyper ended.
enum Parted<S> {
    /// The connection is over.
    Over,
    /// It is over when the client has read the last answer.
    Closing(S),
    /// What the client sent is no request; it is to be told so with this status.
    Refused(S, u16),
    /// Everything that was asked is answered.
    Idle(Rest<S>),
    /// An exchange is to be waited for.
    Holding(Rest<S>, Held),
}

/// Where a connection is in its life.
enum Phase<S> {
    /// Nothing is asked. Ends with the first byte, or with none.
    Idle(Boxed<Option<S>>),
    /// hyper reads a request, or writes its answer.
    Http(Boxed<Parted<S>>),
    /// A request is at its node, and nothing else is there.
    Held(S, Held, Option<Box<Bytes>>),
    /// The answer to a held request is written. Ends with the connection, if it goes on.
    Answering(Boxed<Option<Rest<S>>>),
    /// The client reads the last answer.
    Closing(Boxed<()>),
}

/// One client connection, served to its end. Dropping it cuts the connection, and ends its request
/// at the node.
pub(super) struct Connection<S> {
    edge: Arc<Edge>,
    peer: SocketAddr,
    /// The socket is watched: its client was held once.
    watched: bool,
    phase: Phase<S>,
}

impl<S: Downstream> Connection<S> {
    /// The connection over `stream`, with nothing read yet.
    pub(super) fn new(edge: Arc<Edge>, stream: S, peer: SocketAddr) -> Self {
        let phase = Phase::Idle(Box::pin(await_bytes(Arc::clone(&edge), stream, true)));
        Self {
            edge,
            peer,
            watched: false,
            phase,
        }
    }

    fn between(&self, (stream, early): Rest<S>) -> Phase<S> {
        if early.is_empty() {
            Phase::Idle(Box::pin(await_bytes(Arc::clone(&self.edge), stream, false)))
        } else {
            self.http((stream, early))
        }
    }

    fn http(&self, rest: Rest<S>) -> Phase<S> {
        Phase::Http(Box::pin(http(Arc::clone(&self.edge), rest, self.peer)))
    }

    /// The phase after the present one; none when the connection is over.
    fn poll_phase(&mut self, context: &mut Context<'_>) -> Poll<Option<Phase<S>>> {
        Poll::Ready(match &mut self.phase {
            Phase::Idle(idle) => {
                let stream = ready!(idle.as_mut().poll(context));
                stream.map(|stream| self.http((stream, Bytes::new())))
            }
            Phase::Http(http) => match ready!(http.as_mut().poll(context)) {
                Parted::Over => None,
                Parted::Closing(stream) => {
                    let limit = self.edge.linger();
                    Some(Phase::Closing(Box::pin(linger(stream, limit))))
                }
                Parted::Refused(stream, status) => Some(Phase::Closing(Box::pin(refuse(
                    Arc::clone(&self.edge),
                    stream,
                    status,
                    self.peer,
                )))),
                Parted::Idle(rest) => Some(self.between(rest)),
                Parted::Holding((stream, early), held) => {
                    // Here, so that quick requests cost no system call for it.
                    if !std::mem::replace(&mut self.watched, true) {
                        stream.watch();
                    }
                    let early = (!early.is_empty()).then(|| Box::new(early));
                    Some(Phase::Held(stream, held, early))
                }
            },
            Phase::Held(stream, held, _) => {
                let Poll::Ready(answer) = held.exchange.as_mut().poll(context) else {
                    // A client that goes away ends its request at the node, which then keeps the
                    // stanzas.
                    ready!(stream.poll_closed(context));
                    return Poll::Ready(None);
                };
                Some(self.answer(answer))
            }
            Phase::Answering(answering) => {
                let rest = ready!(answering.as_mut().poll(context));
                rest.map(|rest| self.between(rest))
            }
            Phase::Closing(closing) => {
                ready!(closing.as_mut().poll(context));
                None
            }
        })
    }

    fn answer(&mut self, answer: Answer) -> Phase<S> {
        let over = Phase::Closing(Box::pin(std::future::ready(())));
        match std::mem::replace(&mut self.phase, over) {
            Phase::Held(stream, held, early) => {
                let rest = (stream, early.map_or_else(Bytes::new, |early| *early));
                let edge = Arc::clone(&self.edge);
                Phase::Answering(Box::pin(write_answer(edge, rest, answer, held.allowed)))
            }
            other => other,
        }
    }
}

impl<S: Downstream> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while let Some(phase) = ready!(self.poll_phase(context)) {
            self.phase = phase;
        }
        Poll::Ready(())
    }
}

/// Waits for the next request with nothing but the socket. A `new` connection has not had one.
async fn await_bytes<S: Downstream>(edge: Arc<Edge>, stream: S, new: bool) -> Option<S> {
    let since = Instant::now();
    let next = {
        let next = std::future::poll_fn(|context| stream.poll_next(context));
        tokio::select! {
            biased;
            next = next => next,
            () = edge.drain.begun_or(|| edge.crowd.gives_up(since)) => {
                if !edge.drain.is_closing() {
                    edge.proxy.metrics.connections_given_up.inc();
                    Next::End
                } else if new {
                    let next = std::future::poll_fn(|context| stream.poll_next(context));
                    timeout(FIRST_REQUEST, next).await.unwrap_or(Next::End)
                } else {
                    Next::End
                }
            }
            () = sleep_until(since + edge.settings.timeouts.idle) => Next::End,
        }
    };
    (next == Next::Bytes).then_some(stream)
}

/// Lends the socket to hyper until there is nothing more for it to do.
async fn http<S: Downstream>(edge: Arc<Edge>, rest: Rest<S>, peer: SocketAddr) -> Parted<S> {
    let (wire, signals) = Wire::new(rest, edge.settings.timeouts.write_stall);
    let hold = Arc::new(Hold::default());
    let requests = Requests {
        edge: Arc::clone(&edge),
        peer,
        signals: Arc::clone(&signals),
        hold: Arc::clone(&hold),
    };
    let mut connection: Option<Http<S>> = Some(
        http1::Builder::new()
            // No timer of hyper's: the alarm sees to heads.
            .header_read_timeout(None)
            .max_buf_size(LARGEST_HEAD)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(wire), requests),
    );
    let mut alarm = Alarm::new(edge.settings.timeouts.head);
    std::future::poll_fn(move |context| {
        loop {
            let Some(running) = connection.as_mut() else {
                return Poll::Ready(Parted::Over);
            };
            if let Poll::Ready(ended) = running.poll_without_shutdown(context) {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "client connection ended");
                }
                let rest = take_back(&mut connection);
                return Poll::Ready(match (rest, signals.refused()) {
                    (Some((stream, _)), Some(status)) => Parted::Refused(stream, status),
                    (Some((stream, _)), None) => Parted::Closing(stream),
                    (None, _) => Parted::Over,
                });
            }
            match ready!(alarm.poll(&signals, context)) {
                Doing::Head => return Poll::Ready(Parted::Over),
                Doing::Idle => {
                    let rest = take_back(&mut connection);
                    return Poll::Ready(rest.map_or(Parted::Over, Parted::Idle));
                }
                Doing::Serving => {
                    if let Some(held) = hold.take() {
                        let rest = take_back(&mut connection);
                        let held = rest.map(|rest| Parted::Holding(rest, held));
                        return Poll::Ready(held.unwrap_or(Parted::Over));
                    }
                    // An exchange that stays with hyper is told by a poll that it takes long.
                    signals.watch();
                }
                Doing::Writing => {}
            }
        }
    })
    .await
}

/// Takes the socket back from hyper, with the bytes that it had read ahead.
fn take_back<S: Downstream>(connection: &mut Option<Http<S>>) -> Option<Rest<S>> {
    let parts = connection.take()?.into_parts();
    let wire = parts.io.into_inner();
    // Copied even if there is nothing to copy: an empty view would keep hyper's 8 KiB alive.
    let early = if parts.read_buf.is_empty() && wire.early.is_empty() {
        Bytes::new()
    } else {
        [&parts.read_buf[..], &wire.early[..]].concat().into()
    };
    Some((wire.stream, early))
}

/// Writes an answer without hyper, and closes behind it if it says so.
async fn write_answer<S: Downstream>(
    edge: Arc<Edge>,
    (stream, early): Rest<S>,
    answer: Answer,
    allowed: Allowed,
) -> Option<Rest<S>> {
    let close = answer.close || edge.drain.is_closing();
    let (head, body) = response(answer, allowed, close).into_parts();
    let body = body
        .collect()
        .await
        .map_or_else(|never| match never {}, |whole| whole.to_bytes());
    let bytes = bytes_of(head.status, &head.headers, &body);
    // A slow client takes its time: one copy of a large answer is enough to wait with it.
    drop(body);
    let (mut wire, _) = Wire::new((stream, early), edge.settings.timeouts.write_stall);
    write_all(&mut wire, &bytes).await.ok()?;
    if close {
        let limit = edge.linger();
        linger(wire.stream, limit).await;
        return None;
    }
    Some((wire.stream, wire.early))
}

/// Refuses what hyper cannot parse, in the form of every other reject. Of its head nothing is known.
async fn refuse<S: Downstream>(edge: Arc<Edge>, stream: S, status: u16, peer: SocketAddr) {
    let answer = Answer {
        status,
        ..Answer::reject(Cause::BadHead, false)
    };
    let client = peer.ip().to_canonical();
    let note = Note::new(
        Arc::clone(&edge.proxy),
        Kind::Other,
        client,
        &Parent::default(),
    );
    note.finish(&answer);
    let allowed = edge.cors.allowed(&HeaderMap::new());
    // It closes, which ends the phase.
    let _ = write_answer(edge, (stream, Bytes::new()), answer, allowed).await;
}

async fn write_all<S: Downstream>(wire: &mut Wire<S>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = std::future::poll_fn(|context| wire.poll_write_some(context, rest)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
    }
    wire.stream.flush().await
}

/// Closes so that the client can read the answer: our side first, then what it still sends is read
/// away, within bounds. To close over unread bytes would reset the connection and take the answer
/// with it (RFC 9112 §9.6).
async fn linger<S: Downstream>(mut stream: S, limit: Duration) {
    let mut away = vec![0; 4096];
    let rest = async {
        stream.shutdown().await?;
        let mut seen = 0;
        while seen < MOST_LINGERING {
            match stream.read(&mut away).await? {
                0 => break,
                some => seen += some,
            }
        }
        io::Result::Ok(())
    };
    // Whatever ends it, the connection is over.
    let _ = timeout(limit, rest).await;
}

impl Edge {
    /// How long a closed connection is still read from.
    fn linger(&self) -> Duration {
        if self.drain.is_closing() {
            LAST_LINGER
        } else {
            LINGER
        }
    }
}
