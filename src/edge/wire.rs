//! The client's socket as hyper sees it, with what hyper does not tell: whether it waits for the
//! next request with nothing half done, and whether what it reads can be read in one way only. What
//! hyper writes by itself, to a client that it does not understand, goes no further.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::scan::{Doubt, Scan};
use crate::upstream::watch_socket;

/// The slowest that a client may read, in bytes a second. A mobile network at its worst does better.
const SLOWEST: u64 = 1024;

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

    /// Has the transport notice, from now on, when the client is gone without a word.
    fn watch(&self) {}
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

    fn watch(&self) {
        watch_socket(self);
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
    /// Heads that were read to their end and have not become a request yet.
    heads: AtomicU32,
    /// What was read can be read in more than one way.
    doubtful: AtomicBool,
    /// Whether what is written answers a request: see [`Answering`].
    answering: AtomicU8,
    /// The status of an answer of hyper's own, to a head that is none; 0 if there was none.
    refused: AtomicU16,
    /// The socket is to be watched when hyper reads next.
    watch: AtomicBool,
}

/// Values of `Signals::answering`.
struct Answering;

impl Answering {
    /// Nobody has asked anything.
    const NOTHING: u8 = 0;
    /// A request has begun.
    const BEGUN: u8 = 1;
    /// Its answer is made, and not written to its end.
    const MADE: u8 = 2;
}

impl Signals {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.step();
        self.serving.store(true, Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
        self.answering.store(Answering::BEGUN, Ordering::Relaxed);
        // Only where the two readings have parted there is none left.
        let heads = self.heads.load(Ordering::Relaxed);
        match heads.checked_sub(1) {
            Some(left) => self.heads.store(left, Ordering::Relaxed),
            None => self.doubtful.store(true, Ordering::Relaxed),
        }
    }

    /// Whether something that was read so far, also ahead of its turn, can be read in two ways.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    /// The status with which hyper would have refused a head.
    pub(super) fn refused(&self) -> Option<u16> {
        match self.refused.load(Ordering::Relaxed) {
            0 => None,
            status => Some(status),
        }
    }

    /// Has the socket watched when hyper is polled next, which looks for the client's end meanwhile.
    pub(super) fn watch(&self) {
        self.watch.store(true, Ordering::Relaxed);
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
        self.answering.store(Answering::MADE, Ordering::Relaxed);
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
    scan: Scan,
    stall: Duration,
    slow: Option<Box<Slow>>,
}

/// An answer that the client did not take at once.
struct Slow {
    since: Instant,
    /// Bytes taken since then.
    taken: u64,
    timer: Pin<Box<Sleep>>,
}

impl<S> Wire<S> {
    /// Wraps a stream with the bytes that were read of its next request, and says where to learn
    /// of it. For what a client did not take of an answer at once it has `stall`, and a second more for
    /// each [`SLOWEST`] bytes that it then takes; after that it is cut off.
    pub(super) fn new((stream, early): (S, Bytes), stall: Duration) -> (Self, Arc<Signals>) {
        let signals = Arc::<Signals>::default();
        let wire = Self {
            stream,
            early,
            signals: Arc::clone(&signals),
            scan: Scan::default(),
            stall,
            slow: None,
        };
        (wire, signals)
    }
}

impl<S: Downstream> Wire<S> {
    fn see(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let signals = &self.signals;
        signals.answered.store(false, Ordering::Relaxed);
        match self.scan.read(bytes) {
            Ok(0) => {}
            Ok(heads) => {
                // One task alone writes it.
                let before = signals.heads.load(Ordering::Relaxed);
                let heads = before.saturating_add(heads);
                signals.heads.store(heads, Ordering::Relaxed);
            }
            Err(Doubt) => signals.doubtful.store(true, Ordering::Relaxed),
        }
    }

    /// A write that gives up on a client that is too slow.
    pub(super) fn poll_write_some(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        match written {
            // The usual case: all of it at once, and no timer.
            Poll::Ready(Ok(taken)) if taken == bytes.len() => self.slow = None,
            Poll::Ready(Ok(taken)) => {
                if let Some(slow) = &mut self.slow {
                    slow.taken += u64::try_from(taken).unwrap_or(u64::MAX);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.poll_too_slow(context),
        }
        written
    }

    /// Fails when the client has had its time.
    fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stall = self.stall;
        let slow = self.slow.get_or_insert_with(|| {
            let since = Instant::now();
            Box::new(Slow {
                since,
                taken: 0,
                timer: Box::pin(sleep_until(since + stall)),
            })
        });
        let earned = Duration::from_millis(slow.taken.saturating_mul(1000) / SLOWEST);
        let deadline = slow.since + stall + earned;
        if slow.timer.deadline() != deadline {
            slow.timer.as_mut().reset(deadline);
        }
        ready!(slow.timer.as_mut().poll(context));
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
            if wire.signals.watch.load(Ordering::Relaxed) {
                wire.signals.watch.store(false, Ordering::Relaxed);
                wire.stream.watch();
            }
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
        let answering = self.signals.answering.load(Ordering::Relaxed);
        if answering == Answering::NOTHING {
            // Nobody has asked: hyper refuses a head. The connection's task does it better.
            let status = bytes.get(9..12).and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                digits.parse().ok()
            });
            let status = status.unwrap_or(400);
            self.signals.refused.store(status, Ordering::Relaxed);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = self.poll_write_some(context, bytes);
        let whole = matches!(written, Poll::Ready(Ok(some)) if some == bytes.len());
        self.signals.written.store(whole, Ordering::Relaxed);
        if whole && answering == Answering::MADE {
            let answering = &self.signals.answering;
            answering.store(Answering::NOTHING, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper refuses as well shows here only whether it is seen.
    #[tokio::test]
    async fn a_doubt_about_what_was_read_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (rest, doubtful) in [
            ("0\r\nX: y\r\n\r\n", false),
            ("0\r\nX: y\n\r\n", true),
            ("0\r\n\r\nGET / HTTP/1.1\n\n", true),
        ] {
            let address = listener.local_addr().unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut wire, signals) = Wire::new((stream, Bytes::new()), Duration::ZERO);
            wire.see(head.as_bytes());
            signals.begin();
            assert!(!signals.is_doubtful(), "{rest:?}");
            wire.see(rest.as_bytes());
            assert_eq!(signals.is_doubtful(), doubtful, "{rest:?}");
        }
    }

    /// Writes an answer of 64 KiB and a bit more than that to a client that takes `bytes` of it every
    /// `pause`, and says how long that took until the end, or until the client was cut off.
    async fn read_slowly(bytes: usize, pause: Duration, extra: usize) -> (bool, Duration) {
        let (near, mut far) = crate::upstream::memory::pair();
        let begun = Instant::now();
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; bytes];
            loop {
                tokio::time::sleep(pause).await;
                let read = tokio::io::AsyncReadExt::read(&mut far, &mut taken).await;
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        });
        let stall = Duration::from_secs(30);
        let (mut wire, _) = Wire::new((near, Bytes::new()), stall);
        let answer = vec![b'x'; 64 * 1024 + extra];
        let mut rest = &answer[..];
        let mut whole = true;
        while !rest.is_empty() {
            let wrote = std::future::poll_fn(|context| wire.poll_write_some(context, rest)).await;
            let Ok(wrote) = wrote else {
                whole = false;
                break;
            };
            rest = &rest[wrote..];
        }
        let took = begun.elapsed();
        drop(wire);
        reading.await.unwrap();
        (whole, took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_cut_off() {
        let (whole, took) = read_slowly(1, Duration::from_secs(29), 60).await;
        assert!(!whole, "served for {took:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_twice_the_slowest_rate_gets_everything() {
        let mib = 1024 * 1024;
        let (whole, took) = read_slowly(2048, Duration::from_secs(1), mib).await;
        assert!(whole, "cut off after {took:?}");
        assert!(took > Duration::from_secs(500), "{took:?}");
    }

    #[test]
    fn a_request_whose_head_was_not_seen_is_in_doubt() {
        let signals = Signals::default();
        signals.begin();
        assert!(signals.is_doubtful());
    }
}
