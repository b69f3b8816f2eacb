//! The bytes under an HTTP/2 connection, with deadlines that its library does not have.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::super::Downstream;
use super::super::h1::{Linger, SLOWEST};
use super::super::io::{Early, Io};
use crate::timers::Slow;

/// A client's connection. A client that does not take what is written has the time of one that does not
/// take an answer over HTTP/1.1; the end of the connection lingers as there.
pub(super) struct Wire {
    io: Io,
    /// What was read before.
    early: Early,
    downstream: Arc<Downstream>,
    stalled: Option<Stall>,
    alarm: Slow,
    linger: Option<Box<Linger>>,
}

/// Frames that the client did not take at once.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    /// Bytes that it has taken since.
    taken: usize,
}

impl Wire {
    /// The connection over `io`, of which `early` was read before.
    pub(super) fn new(io: Io, early: Early, downstream: Arc<Downstream>) -> Self {
        Self {
            io,
            early,
            downstream,
            stalled: None,
            alarm: Slow::default(),
            linger: None,
        }
    }
}

/// The time that a client has earned with `taken` bytes.
pub(super) fn earned(taken: usize) -> Duration {
    let taken = u64::try_from(taken).unwrap_or(u64::MAX);
    Duration::from_millis(taken.saturating_mul(1000) / SLOWEST)
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let early = own.early.rest();
        if early.is_empty() {
            return own.io.poll_read(context, into);
        }
        let some = early.len().min(into.remaining());
        into.put_slice(&early[..some]);
        own.early.consume(some);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        match own.io.poll_write(context, bytes) {
            Poll::Ready(Ok(taken)) => {
                if let Some(stall) = &mut own.stalled {
                    stall.taken += taken;
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let stall = own.stalled.get_or_insert_with(|| Stall {
                    since: Instant::now(),
                    taken: 0,
                });
                let most = own.downstream.settings.timeouts.write_stall;
                let until = stall.since + most + earned(stall.taken);
                ready!(own.alarm.poll_until(until, context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// The library flushes when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        own.stalled = None;
        Pin::new(&mut own.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let linger = &mut own.linger;
        let linger = linger.get_or_insert_with(|| Box::new(Linger::new(&own.downstream)));
        linger.poll(&mut own.io, &mut own.alarm, context).map(Ok)
    }
}
