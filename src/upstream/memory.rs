//! Connections in memory, for the simulation and the fuzz targets; in no build of the product.
//!
//! A thread may have a net of its own: addresses, each with a door. Where there is one, connections
//! are opened through the doors; elsewhere through TCP, as ever. Bytes take no time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

/// Bytes that a pipe takes before its writer has to wait.
const ROOM: usize = 64 * 1024;

/// What becomes of a connect.
#[derive(Debug, Clone)]
pub enum Door {
    /// It is accepted, and the other end handed out.
    Open(UnboundedSender<Memory>),
    /// It is refused.
    Shut,
    /// Nothing comes back, as long as it stays so.
    Swallows,
}

thread_local! {
    static NET: RefCell<BTreeMap<SocketAddr, Door>> = const { RefCell::new(BTreeMap::new()) };
}

/// Sets the door of an address on this thread.
pub fn set_door(address: SocketAddr, door: Door) {
    NET.with_borrow_mut(|net| drop(net.insert(address, door)));
}

/// When the first packet of a connection is sent again that nobody answered, as Linux does, in seconds.
const AGAIN: [u64; 4] = [1, 2, 4, 8];

/// Opens a connection if this thread has a net; an address without a door refuses.
pub(super) fn connect(
    address: SocketAddr,
) -> Option<impl Future<Output = io::Result<Memory>> + Send> {
    NET.with_borrow(|net| (!net.is_empty()).then_some(()))?;
    Some(async move {
        for pause in AGAIN.map(Duration::from_secs) {
            match NET.with_borrow(|net| net.get(&address).cloned()) {
                Some(Door::Open(listener)) => {
                    let (near, far) = pair();
                    return match listener.send(far) {
                        Ok(()) => Ok(near),
                        Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
                    };
                }
                Some(Door::Swallows) => sleep(pause).await,
                Some(Door::Shut) | None => break,
            }
        }
        let refused = NET.with_borrow(|net| !matches!(net.get(&address), Some(Door::Swallows)));
        Err(if refused {
            io::ErrorKind::ConnectionRefused.into()
        } else {
            io::ErrorKind::TimedOut.into()
        })
    })
}

/// The two ends of a connection.
pub fn pair() -> (Memory, Memory) {
    let (one, other) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
    let near = Memory {
        reads: Arc::clone(&one),
        writes: Arc::clone(&other),
    };
    let far = Memory {
        reads: other,
        writes: one,
    };
    (near, far)
}

/// One end of a connection. Dropping it closes both ways.
#[derive(Debug)]
pub struct Memory {
    reads: Arc<Pipe>,
    writes: Arc<Pipe>,
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Pipe(Mutex<Flow>);

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

impl Pipe {
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

impl Memory {
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

impl Drop for Memory {
    fn drop(&mut self) {
        self.writes.end();
        let mut flow = self.reads.flow();
        flow.deaf = true;
        flow.bytes.clear();
        wake(&mut flow.writer);
    }
}

impl AsyncRead for Memory {
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

impl AsyncWrite for Memory {
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

/// A socket, or a connection in memory.
#[derive(Debug)]
pub enum Stream {
    /// A socket.
    Tcp(TcpStream),
    /// A connection in memory.
    Memory(Memory),
}

impl Stream {
    /// Waits until a byte can be read, and leaves it there.
    pub(super) fn poll_peek(
        &self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_peek(context, into),
            Self::Memory(stream) => stream.poll_next(context).map(|bytes| Ok(bytes.into())),
        }
    }

    /// The socket.
    ///
    /// # Panics
    /// If it is a connection in memory.
    #[cfg(test)]
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Memory(_) => panic!("no socket"),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            // It has none, and so the one that is never too high.
            Self::Memory(_) => 0,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Memory(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Memory(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
