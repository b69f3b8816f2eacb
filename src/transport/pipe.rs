//! A connection in memory: two pipes, one for each direction. Bytes take no time.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a pipe takes before its writer has to wait.
const ROOM: usize = 64 * 1024;

/// The two ends of a connection.
pub fn pair() -> (Pipe, Pipe) {
    let (one, other) = (Arc::<Way>::default(), Arc::<Way>::default());
    let near = Pipe {
        reads: Arc::clone(&one),
        writes: Arc::clone(&other),
    };
    let far = Pipe {
        reads: other,
        writes: one,
    };
    (near, far)
}

/// One end of a connection. Dropping it closes both ways.
#[derive(Debug)]
pub struct Pipe {
    reads: Arc<Way>,
    writes: Arc<Way>,
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Way(Mutex<Flow>);

#[derive(Debug, Default)]
struct Flow {
    bytes: VecDeque<u8>,
    /// No byte will be added.
    ended: bool,
    /// No byte will be taken.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut flow = self.flow();
        flow.ended = true;
        wake(&mut flow.reader);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Pipe {
    /// Whether a byte waits on it: 1, 0 at its end, or `WouldBlock`.
    pub fn peek(&self) -> io::Result<usize> {
        let flow = self.reads.flow();
        match (flow.bytes.is_empty(), flow.ended) {
            (false, _) => Ok(1),
            (true, true) => Ok(0),
            (true, false) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until there is something to read: true for bytes, false for the end.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<bool> {
        let mut flow = self.reads.flow();
        if flow.bytes.is_empty() && !flow.ended {
            flow.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(!flow.bytes.is_empty())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.writes.end();
        let mut flow = self.reads.flow();
        flow.deaf = true;
        flow.bytes.clear();
        wake(&mut flow.writer);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_next(context).is_pending() {
            return Poll::Pending;
        }
        let mut flow = self.reads.flow();
        let some = flow.bytes.len().min(into.remaining());
        let (first, second) = flow.bytes.as_slices();
        let first = &first[..some.min(first.len())];
        into.put_slice(first);
        into.put_slice(&second[..some - first.len()]);
        flow.bytes.drain(..some);
        if flow.bytes.is_empty() {
            // A connection at rest holds no buffer.
            flow.bytes = VecDeque::new();
        }
        wake(&mut flow.writer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut flow = self.writes.flow();
        if flow.deaf || flow.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let some = bytes.len().min(ROOM - flow.bytes.len().min(ROOM));
        if some == 0 && !bytes.is_empty() {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        flow.bytes.extend(&bytes[..some]);
        wake(&mut flow.reader);
        Poll::Ready(Ok(some))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.end();
        Poll::Ready(Ok(()))
    }
}
