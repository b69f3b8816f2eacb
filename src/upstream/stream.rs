//! The bytes under a connection: a TCP socket, made prompt, and watched once it waits. Under the tests it may be a
//! pair of pipes in memory instead (`memory`), so that whole clusters run in one process.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};

use super::Error;

/// A silent connection is tried after this long, then every [`KEEPALIVE_INTERVAL`].
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Sent bytes that stay unacknowledged for this long end the connection.
#[cfg(target_os = "linux")]
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection reads from and writes to.
#[cfg(not(any(test, fuzzing)))]
pub type Stream = TcpStream;
#[cfg(any(test, fuzzing))]
pub use super::memory::Stream;

/// Opens a connection, tuned.
pub(super) async fn connect(address: SocketAddr) -> Result<Stream, Error> {
    #[cfg(any(test, fuzzing))]
    if let Some(connecting) = super::memory::connect(address) {
        return connecting.await.map(Stream::Memory).map_err(failed);
    }
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(Error::Local)?;
    let stream = socket.connect(address).await.map_err(failed)?;
    if is_own_end(&stream, address) {
        return Err(Error::Refused(io::ErrorKind::ConnectionRefused.into()));
    }
    // A socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    Ok(Stream::from(stream))
}

/// Looks whether a byte waits on the stream, and leaves it there: 1, 0 at its end, or `WouldBlock`.
///
/// It makes a system call only if the reactor has reported something since the last read.
pub(super) fn peek(stream: &Stream) -> io::Result<usize> {
    #[cfg(any(test, fuzzing))]
    let stream = match stream {
        Stream::Tcp(stream) => stream,
        Stream::Memory(stream) => return stream.peek(),
    };
    let mut byte = [MaybeUninit::uninit()];
    stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(&mut byte))
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::Refused(error),
        // No free port, or no address of that family here.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Error::Local(error),
        io::ErrorKind::TimedOut => Error::ConnectTimeout,
        // The node had accepted, and let go before anybody looked.
        io::ErrorKind::ConnectionReset => Error::Closed(Some(error)),
        _ => Error::Unreachable(error),
    }
}

/// Whether a socket was connected to itself: TCP can do that where a local port on which nobody
/// listens is among those that the kernel hands out.
pub(super) fn is_own_end(stream: &TcpStream, address: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own == address)
}

/// Has TCP notice when the other end is gone. A socket that refuses an option still works, so refusals
/// are passed over.
pub(super) fn watch(stream: &Stream) {
    #[cfg(any(test, fuzzing))]
    let Stream::Tcp(stream) = stream else { return };
    watch_socket(stream);
}

/// The same for any socket: the other end counts as gone 40 s after its last sign of life, 60 s where
/// there is no user timeout.
pub fn watch_socket(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}
