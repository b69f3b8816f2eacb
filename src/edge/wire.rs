//! The client's socket as hyper sees it, with what hyper does not tell: whether it waits for the
//! next request with nothing half done, and how often a head names `Content-Length`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
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

/// What hyper is about on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doing {
    /// It reads a head.
    Head,
    /// The service is at work: it reads a body, or waits for a node.
    Serving,
    /// It writes an answer.
    Writing,
    /// It waits for the next request, with nothing half done.
    Idle,
}

/// Something that hyper is about, told from the same thing a request later.
pub(super) type Moment = (u32, Doing);

/// What the connection's task and hyper's side of the socket tell each other. All in one task.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Counts what happens, so that two looks tell whether anything did.
    steps: AtomicU32,
    /// The service is at work.
    serving: AtomicBool,
    /// The service has answered a request that closes the connection.
    closing: AtomicBool,
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
        self.step();
        self.serving.store(true, Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
        self.content_lengths.swap(0, Ordering::Relaxed)
    }

    /// The service goes on to something else.
    pub(super) fn step(&self) {
        // One task: nobody writes meanwhile.
        let steps = self.steps.load(Ordering::Relaxed);
        self.steps.store(steps.wrapping_add(1), Ordering::Relaxed);
    }

    /// The service has answered a request that was read to its end, if the connection `stays`
    /// open. Only what hyper does from now on shows that it is idle: while it waits for the rest of
    /// a body it waits for bytes, too, and those are no new request.
    pub(super) fn answered(&self, stays: bool) {
        self.step();
        self.serving.store(false, Ordering::Relaxed);
        self.written.store(false, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        let signal = if stays { &self.answered } else { &self.closing };
        signal.store(true, Ordering::Relaxed);
    }

    /// What hyper is about.
    pub(super) fn moment(&self) -> Moment {
        let is = |signal: &AtomicBool| signal.load(Ordering::Relaxed);
        let doing = if is(&self.serving) {
            Doing::Serving
        } else if is(&self.closing) {
            Doing::Writing
        } else if !is(&self.answered) {
            Doing::Head
        } else if is(&self.written) && is(&self.waiting) {
            Doing::Idle
        } else {
            Doing::Writing
        };
        (self.steps.load(Ordering::Relaxed), doing)
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
    fn count(&mut self, mut bytes: &[u8]) -> u8 {
        let mut found = 0_u8;
        while let Some((&byte, rest)) = bytes.split_first()
            && !self.over
        {
            let Some(matched) = self.matched else {
                // Nothing else of this line matters; all lines but one or two are such.
                let Some(end) = memchr::memchr(b'\n', bytes) else {
                    break;
                };
                self.begin_line();
                bytes = &bytes[end + 1..];
                continue;
            };
            bytes = rest;
            match byte {
                b'\n' => {
                    self.over = self.empty_line;
                    self.begin_line();
                }
                b'\r' => self.matched = (matched == 0).then_some(0),
                _ => {
                    self.empty_line = false;
                    let goes_on = byte.to_ascii_lowercase() == Self::NAME[matched];
                    self.matched = goes_on.then_some(matched + 1);
                }
            }
            if self.matched == Some(Self::NAME.len()) {
                self.matched = None;
                found = found.saturating_add(1);
            }
        }
        found
    }

    fn begin_line(&mut self) {
        self.empty_line = true;
        self.matched = Some(0);
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
