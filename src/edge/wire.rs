//! The client's socket as hyper sees it, with what hyper does not tell: whether it waits for the
//! next request with nothing half done, and how often a head names `Content-Length`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// What comes next on a connection that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Bytes.
    Bytes,
    /// Its end, or an error.
    End,
}

/// A client's connection: a socket today, TLS over one later.
pub(super) trait Downstream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    /// Waits for what comes next, and leaves it there. Holds no buffer.
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next>;

    /// Whether the client has closed its side, bytes before the end or not.
    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()>;
}

impl Downstream for TcpStream {
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        // A byte on the stack: `readable` would return at once as long as the last read did not
        // end in `WouldBlock`, and that is no wait.
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        match ready!(self.poll_peek(context, &mut byte)) {
            Ok(1..) => Poll::Ready(Next::Bytes),
            Ok(0) | Err(_) => Poll::Ready(Next::End),
        }
    }

    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_next(context)) {
            Next::End => Poll::Ready(()),
            // The next request came early. It is read when its turn comes; until then the end of
            // the connection hides behind it, and only the answer shows it.
            Next::Bytes => Poll::Pending,
        }
    }
}

/// What the connection's task and hyper's side of the socket tell each other. All in one task.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The service has answered for good, and no byte of the next request has come.
    answered: AtomicBool,
    /// hyper has written since then and its last write was taken whole.
    written: AtomicBool,
    /// hyper waits for bytes.
    waiting: AtomicBool,
    /// `Content-Length` fields in the head being read.
    content_lengths: AtomicU8,
}

impl Signals {
    /// A request begins: says how often its head named `Content-Length`.
    pub(super) fn begin(&self) -> u8 {
        self.answered.store(false, Ordering::Relaxed);
        self.content_lengths.swap(0, Ordering::Relaxed)
    }

    /// The service has answered a request that was read to its end, on a connection that stays
    /// open. Only what hyper does from now on shows that it is idle: while it waits for the rest of
    /// a body it waits for bytes, too, and those are no new request.
    pub(super) fn answered(&self) {
        self.written.store(false, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the last answer is out and hyper waits for the next request.
    pub(super) fn is_idle(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
            && self.written.load(Ordering::Relaxed)
            && self.waiting.load(Ordering::Relaxed)
    }
}

/// A client's connection, wrapped for hyper.
pub(super) struct Wire<S> {
    /// The connection itself.
    pub(super) stream: S,
    /// Bytes that were read for a request that has not begun yet.
    pub(super) early: Bytes,
    signals: Arc<Signals>,
    scan: HeadScan,
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    /// Wraps a stream with the bytes that were read of its next request, and says where to learn
    /// of it; a client that takes no byte for `stall` is cut off.
    pub(super) fn new((stream, early): (S, Bytes), stall: Duration) -> (Self, Arc<Signals>) {
        let signals = Arc::<Signals>::default();
        let wire = Self {
            stream,
            early,
            signals: Arc::clone(&signals),
            scan: HeadScan::default(),
            stall,
            stalled: None,
        };
        (wire, signals)
    }
}

impl<S: Downstream> Wire<S> {
    fn see(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.signals.answered.swap(false, Ordering::Relaxed) {
            self.scan = HeadScan::default();
        }
        let found = self.scan.count(bytes);
        if found > 0 {
            self.signals
                .content_lengths
                .fetch_add(found, Ordering::Relaxed);
        }
    }

    /// A write that gives up on a client that takes nothing.
    pub(super) fn poll_write_some(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Downstream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let before = into.filled().len();
        if wire.early.is_empty() {
            wire.signals.waiting.store(true, Ordering::Relaxed);
            ready!(Pin::new(&mut wire.stream).poll_read(context, into))?;
            wire.signals.waiting.store(false, Ordering::Relaxed);
        } else {
            let some = wire.early.len().min(into.remaining());
            into.put_slice(&wire.early.split_to(some));
        }
        wire.see(&into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: Downstream> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_some(context, bytes);
        let whole = matches!(written, Poll::Ready(Ok(some)) if some == bytes.len());
        self.signals.written.store(whole, Ordering::Relaxed);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Counts `Content-Length` fields in a head as it arrives, in pieces of any size.
///
/// hyper drops a `Content-Length` beside a `Transfer-Encoding`, and the second of two equal ones,
/// so that nobody behind it can tell; RFC 9112 §6.3 wants both refused.
#[derive(Debug, Default)]
struct HeadScan {
    /// How much of [`Self::NAME`] the current line has matched; `None` once it cannot match.
    matched: Option<usize>,
    /// The line has no byte yet but perhaps a CR.
    empty_line: bool,
    /// The head has ended; what follows is body.
    over: bool,
}

impl HeadScan {
    const NAME: &'static [u8] = b"content-length:";

    /// How many fields end their name in `bytes`.
    fn count(&mut self, bytes: &[u8]) -> u8 {
        let mut found = 0_u8;
        for &byte in bytes {
            if self.over {
                break;
            }
            if byte == b'\n' {
                self.over = self.empty_line;
                self.empty_line = true;
                self.matched = Some(0);
                continue;
            }
            if byte != b'\r' {
                self.empty_line = false;
            }
            let Some(matched) = self.matched else {
                continue;
            };
            self.matched =
                (byte.to_ascii_lowercase() == Self::NAME[matched]).then_some(matched + 1);
            if self.matched == Some(Self::NAME.len()) {
                self.matched = None;
                found = found.saturating_add(1);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(head: &[u8], piece: usize) -> u8 {
        let mut scan = HeadScan::default();
        head.chunks(piece).map(|piece| scan.count(piece)).sum()
    }

    #[test]
    fn content_lengths_are_counted_in_the_head_only() {
        let cases: [(&[u8], u8); 6] = [
            (b"POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 3", 0),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\nContent-Length: 3",
                1,
            ),
            (
                b"POST / HTTP/1.1\r\ncONTENT-lENGTH:3\r\nContent-Length: 3\r\n\r\n",
                2,
            ),
            (
                b"POST / HTTP/1.1\r\nX-Content-Length: 3\r\nContent-Lengthy: 3\r\n\r\n",
                0,
            ),
            (b"POST / HTTP/1.1\nContent-Length:\n\nContent-Length:", 1),
            (
                b"POST /content-length: HTTP/1.1\r\nX: content-length:\r\n\r\n",
                0,
            ),
        ];
        for (head, expected) in cases {
            for piece in 1..=head.len() {
                let text = String::from_utf8_lossy(head);
                assert_eq!(
                    count(head, piece),
                    expected,
                    "{text:?} in pieces of {piece}"
                );
            }
        }
    }
}
