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
//! Bytes that hyper had read beyond the request travel along as [`Wire::early`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::Edge;
use super::answer::{bytes_of, response};
use super::head::LARGEST_HEAD;
use super::head_timer::HeadTimer;
use super::service::{Held, Hold, PARK_AFTER, Requests};
use super::wire::{Downstream, Next, Wire};
use crate::timers::Coarse;

/// Fields of a request head, at most (RFC 9110 §5.4 leaves it to the server).
const MOST_FIELDS: usize = 100;

/// How long, and for how many bytes, a closed connection is still read from.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERING: usize = 1024 * 1024;

type Http<S> = http1::Connection<TokioIo<Wire<S>>, Requests>;

/// How the phase with hyper ended.
enum Parted<S> {
    /// The connection is over.
    Over,
    /// It is over when the client has read the last answer.
    Closing(Wire<S>),
    /// Everything that was asked is answered.
    Idle(Wire<S>),
    /// An exchange is to be waited for.
    Holding(Wire<S>, Held),
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Downstream>(edge: &Arc<Edge>, stream: S, peer: SocketAddr) {
    let mut wire = Wire::new(stream, edge.settings.timeouts.write_stall);
    let mut idle = std::pin::pin!(sleep(edge.settings.timeouts.idle));
    loop {
        if wire.early.is_empty() && await_bytes(edge, &wire, idle.as_mut()).await == Next::End {
            return;
        }
        wire = match Box::pin(http(edge, wire, peer)).await {
            Parted::Over => return,
            Parted::Closing(wire) => return Box::pin(linger(wire)).await,
            Parted::Idle(wire) => wire,
            Parted::Holding(wire, held) => match hold(edge, wire, held).await {
                Some(wire) => wire,
                None => return,
            },
        };
    }
}

/// Waits for the next request with nothing but the socket. `timer` runs on from one wait to the
/// next, and is set anew only when it has ended too early: a busy connection sets none.
async fn await_bytes<S: Downstream>(
    edge: &Edge,
    wire: &Wire<S>,
    mut timer: Pin<&mut Sleep>,
) -> Next {
    let next = std::future::poll_fn(|context| wire.stream.poll_next(context));
    let mut next = std::pin::pin!(next);
    let give_up = Instant::now() + edge.settings.timeouts.idle;
    loop {
        tokio::select! {
            biased;
            next = next.as_mut() => return next,
            () = edge.drain.begun() => return Next::End,
            () = timer.as_mut() => {
                if Instant::now() >= give_up {
                    return Next::End;
                }
                timer.as_mut().reset(give_up);
            }
        }
    }
}

/// Lends the socket to hyper until there is nothing more for it to do.
async fn http<S: Downstream>(edge: &Arc<Edge>, mut wire: Wire<S>, peer: SocketAddr) -> Parted<S> {
    let signals = wire.begin();
    let hold = Arc::new(Hold::default());
    let requests = Requests {
        edge: Arc::clone(edge),
        peer,
        signals: Arc::clone(&signals),
        hold: Arc::clone(&hold),
    };
    let mut connection: Option<Http<S>> = Some(
        http1::Builder::new()
            .timer(HeadTimer(Arc::clone(&signals)))
            .header_read_timeout(edge.settings.timeouts.head)
            .max_buf_size(LARGEST_HEAD)
            .max_headers(MOST_FIELDS)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(wire), requests),
    );
    let mut linger: Option<Coarse> = None;
    std::future::poll_fn(move |context| {
        let Some(running) = connection.as_mut() else {
            return Poll::Ready(Parted::Over);
        };
        if let Poll::Ready(ended) = running.poll_without_shutdown(context) {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "client connection ended");
            }
            return Poll::Ready(take_back(&mut connection).map_or(Parted::Over, Parted::Closing));
        }
        if let Some(held) = hold.take_ripe() {
            return Poll::Ready(match take_back(&mut connection) {
                Some(wire) => Parted::Holding(wire, held),
                None => Parted::Over,
            });
        }
        if !signals.is_idle() {
            linger = None;
            return Poll::Pending;
        }
        // A client that sends its next request at once finds hyper still there.
        let lingered = linger.get_or_insert_with(|| Coarse::after(PARK_AFTER));
        ready!(Pin::new(lingered).poll(context));
        Poll::Ready(take_back(&mut connection).map_or(Parted::Over, Parted::Idle))
    })
    .await
}

/// Takes the socket back from hyper, with the bytes that it had read ahead.
fn take_back<S: Downstream>(connection: &mut Option<Http<S>>) -> Option<Wire<S>> {
    let parts = connection.take()?.into_parts();
    let mut wire = parts.io.into_inner();
    // Copied even if there is nothing to copy: an empty view would keep hyper's 8 KiB alive.
    wire.early = if parts.read_buf.is_empty() && wire.early.is_empty() {
        Bytes::new()
    } else {
        [&parts.read_buf[..], &wire.early[..]].concat().into()
    };
    Some(wire)
}

/// Waits for a held exchange with nothing but the socket, then writes its answer. None when the
/// connection is over; if that is because the client went away, dropping the exchange ends its
/// request at the node, which then keeps the stanzas.
async fn hold<S: Downstream>(edge: &Edge, mut wire: Wire<S>, mut held: Held) -> Option<Wire<S>> {
    let answer = std::future::poll_fn(|context| {
        if let Poll::Ready(answer) = held.exchange.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        ready!(wire.stream.poll_closed(context));
        Poll::Ready(None)
    })
    .await?;
    let close = answer.close || edge.drain.is_closing();
    let (head, body) = response(answer, held.allowed, close).into_parts();
    let body = body
        .collect()
        .await
        .map_or_else(|never| match never {}, |whole| whole.to_bytes());
    let bytes = bytes_of(head.status, &head.headers, &body);
    write_all(&mut wire, &bytes).await.ok()?;
    if close {
        Box::pin(linger(wire)).await;
        return None;
    }
    Some(wire)
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
async fn linger<S: Downstream>(mut wire: Wire<S>) {
    let mut away = [0; 4096];
    let rest = async {
        wire.stream.shutdown().await?;
        let mut seen = 0;
        while seen < MOST_LINGERING {
            match wire.stream.read(&mut away).await? {
                0 => break,
                some => seen += some,
            }
        }
        io::Result::Ok(())
    };
    // Whatever ends it, the connection is over.
    let _ = timeout(LINGER, rest).await;
}
