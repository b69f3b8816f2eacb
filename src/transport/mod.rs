//! The bytes under a connection: a TCP socket, a Unix socket, or a pipe in memory, and TLS over them. Knows
//! nothing of what they say, but for the header of the PROXY protocol, which names the other end.

mod network;
mod pipe;
mod proxy_header;
mod tls;

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

pub use network::{Door, set_door};
pub use pipe::{Pipe, pair};
pub use proxy_header::{MAX_PROXY_HEADER, ProxyHeader, ProxyHeaderError};
pub use tls::{HandshakeError, NodeTlsStream, TlsStream};

/// A silent connection is tried after this long, then every 10 s.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Sent bytes that stay unacknowledged for this long end the connection.
#[cfg(target_os = "linux")]
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection. What is rare is boxed: thousands of TCP sockets wait, and each takes the largest size.
#[derive(Debug)]
pub enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Anything else.
    Other(Box<OtherStream>),
}

/// A connection that is no TCP socket.
#[derive(Debug)]
pub enum OtherStream {
    /// A Unix socket.
    Unix(UnixStream),
    /// A pipe in memory.
    Pipe(Pipe),
}

/// Why no connection was opened.
#[derive(Debug)]
pub enum ConnectError {
    /// This machine has no socket for it.
    NoSocket(io::Error),
    /// The connect failed.
    Failed(io::Error),
}

/// Opens a connection, through the network of this thread. A socket sends without delay.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(address: SocketAddr) -> Result<Stream, ConnectError> {
    if let Some(connecting) = network::connect(address) {
        let connected = connecting.await.map(Stream::from);
        return connected.map_err(ConnectError::Failed);
    }
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(ConnectError::NoSocket)?;
    let connected = socket.connect(address).await;
    let stream = connected.map_err(ConnectError::Failed)?;
    // A socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    Ok(Stream::Tcp(stream))
}

/// Opens a connection to a Unix socket.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_unix(path: &Path) -> Result<Stream, ConnectError> {
    let stream = UnixStream::connect(path).await;
    stream.map(Stream::from).map_err(ConnectError::Failed)
}

impl Stream {
    /// Waits until a byte can be read, and leaves it there: 1, or 0 at the end.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => {
                let mut byte = [0];
                stream.poll_peek(context, &mut ReadBuf::new(&mut byte))
            }
            Self::Other(other) => other.poll_peek(context),
        }
    }

    /// Looks whether a byte waits, and leaves it there: 1, 0 at the end, or `WouldBlock`. It makes a
    /// system call only if the reactor has reported something since the last read.
    ///
    /// # Errors
    /// What the socket says.
    pub fn peek(&self) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                let mut byte = [MaybeUninit::uninit()];
                let look = || SockRef::from(stream).peek(&mut byte);
                stream.try_io(Interest::READABLE, look)
            }
            Self::Other(other) => other.peek(),
        }
    }

    /// Has TCP notice when the other end is gone: 40 s after its last sign of life, 60 s where there is
    /// no user timeout. A socket that refuses an option still works, so refusals are passed over. The
    /// kernel itself reports the end of the other side of a Unix socket.
    pub fn watch(&self) {
        let Self::Tcp(stream) = self else { return };
        let socket = SockRef::from(stream);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    }

    /// The TCP socket; none if it is something else.
    pub const fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Other(_) => None,
        }
    }

    /// Whether it is a socket that was connected to itself: TCP can do that where a local port on which
    /// nothing listens is among those that the kernel hands out.
    pub fn is_own_end(&self, address: SocketAddr) -> bool {
        match self {
            Self::Tcp(stream) => stream.local_addr().is_ok_and(|own| own == address),
            Self::Other(_) => false,
        }
    }
}

impl OtherStream {
    fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match look(stream) {
                    // The readiness was old, and is cleared.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    looked => break Poll::Ready(looked),
                }
            },
            Self::Pipe(pipe) => pipe.poll_next(context).map(|bytes| Ok(bytes.into())),
        }
    }

    fn peek(&self) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => look(stream),
            Self::Pipe(pipe) => pipe.peek(),
        }
    }
}

/// Looks whether a byte waits at a Unix socket, as [`Stream::peek`].
fn look(stream: &UnixStream) -> io::Result<usize> {
    let mut byte = [MaybeUninit::uninit()];
    stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(&mut byte))
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Other(other) => match &**other {
                OtherStream::Unix(stream) => stream.as_raw_fd(),
                // It has none, and so the one that is never too high.
                OtherStream::Pipe(_) => 0,
            },
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Other(Box::new(OtherStream::Unix(stream)))
    }
}

impl From<Pipe> for Stream {
    fn from(pipe: Pipe) -> Self {
        Self::Other(Box::new(OtherStream::Pipe(pipe)))
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
            Self::Other(other) => match &mut **other {
                OtherStream::Unix(stream) => Pin::new(stream).poll_read(context, into),
                OtherStream::Pipe(stream) => Pin::new(stream).poll_read(context, into),
            },
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
            Self::Other(other) => match &mut **other {
                OtherStream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
                OtherStream::Pipe(stream) => Pin::new(stream).poll_write(context, bytes),
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Other(other) => match &mut **other {
                OtherStream::Unix(stream) => Pin::new(stream).poll_flush(context),
                OtherStream::Pipe(stream) => Pin::new(stream).poll_flush(context),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Other(other) => match &mut **other {
                OtherStream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
                OtherStream::Pipe(stream) => Pin::new(stream).poll_shutdown(context),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_tcp_connection_takes_no_more_than_its_socket() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }

    #[tokio::test]
    async fn a_unix_socket_is_peeked_at_and_leaves_its_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::from(near), Stream::from(far));
        assert_eq!(near.peek().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        far.write_all(b"ab").await.unwrap();
        for _ in 0..3 {
            assert_eq!(poll_fn(|context| near.poll_peek(context)).await.unwrap(), 1);
        }
        assert_eq!(near.peek().unwrap(), 1);
        assert_eq!(near.read_u16().await.unwrap(), 0x6162);
        // Readiness that was used up does not count as a byte.
        let waiting = poll_fn(|context| Poll::Ready(near.poll_peek(context).is_pending()));
        assert!(waiting.await);
        far.shutdown().await.unwrap();
        assert_eq!(poll_fn(|context| near.poll_peek(context)).await.unwrap(), 0);
        assert_eq!(near.peek().unwrap(), 0);
        near.watch();
        assert!(near.socket().is_none());
        assert!(!near.is_own_end("127.0.0.1:1".parse().unwrap()));
    }
}
