//! Where a simulated node listens, and the sockets that it accepts: TCP, or pipes in memory. The
//! rest of the node does not know which of the two it has.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::transport::{Door, Pipe, set_door};

/// The longest queue of connections that wait for an accept.
const BACKLOG: u32 = 1024;

/// The address of a node. It stays the node's own while the node is down.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// Bound and never listening, so that no other program takes the port. None in memory.
    port: Option<TcpSocket>,
}

impl Place {
    /// Takes an address: a TCP port, or a name in this thread's network in memory.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub(super) fn take(address: SocketAddr, in_memory: bool) -> io::Result<Self> {
        let port = if in_memory {
            None
        } else {
            Some(bind(address)?)
        };
        let address = port.as_ref().map_or(Ok(address), TcpSocket::local_addr)?;
        Ok(Self { address, port })
    }

    /// Starts to accept connections.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub(super) fn listen(&self) -> io::Result<Listener> {
        if self.port.is_some() {
            let listener = bind(self.address)?.listen(BACKLOG)?;
            return Ok(Listener::Tcp(listener));
        }
        let (sender, accepted) = mpsc::unbounded_channel();
        set_door(self.address, Door::Open(sender));
        Ok(Listener::Memory(accepted))
    }
}

/// Accepts connections until it is dropped; after that they are refused.
pub(super) enum Listener {
    Tcp(TcpListener),
    Memory(mpsc::UnboundedReceiver<Pipe>),
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// What the kernel reports.
    pub(super) async fn accept(&mut self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it only the timing of small writes changes.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream))
            }
            Self::Memory(accepted) => match accepted.recv().await {
                Some(pipe) => Ok(Socket::Pipe(Mutex::new(pipe))),
                // Another door was set at this address.
                None => std::future::pending().await,
            },
        }
    }
}

/// A connection. Its methods take `&self`, so that a node can write while it waits for bytes.
pub(super) enum Socket {
    Tcp(TcpStream),
    Pipe(Mutex<Pipe>),
}

impl Socket {
    /// Waits until there are bytes to read, or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Pipe(pipe) => {
                poll_fn(|context| own(pipe).poll_next(context)).await;
                Ok(())
            }
        }
    }

    /// Reads what is there: 0 at the end, `WouldBlock` if nothing has come.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Pipe(pipe) => {
                let mut pipe = own(pipe);
                if pipe.peek()? == 0 {
                    return Ok(0);
                }
                let mut buffer = ReadBuf::new(into);
                // Bytes are there, so the waker is never used.
                let mut context = Context::from_waker(Waker::noop());
                match Pin::new(&mut *pipe).poll_read(&mut context, &mut buffer) {
                    Poll::Ready(read) => read.map(|()| buffer.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Writes all of it.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Tcp(stream) => {
                    stream.writable().await?;
                    match stream.try_write(bytes) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                        other => other,
                    }
                }
                Self::Pipe(pipe) => {
                    poll_fn(|context| Pin::new(&mut *own(pipe)).poll_write(context, bytes)).await
                }
            };
            bytes = &bytes[written?..];
        }
        Ok(())
    }

    /// Sends a FIN.
    pub(super) async fn end(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Pipe(pipe) => {
                poll_fn(|context| Pin::new(&mut *own(pipe)).poll_shutdown(context)).await
            }
        }
    }

    /// Makes the end of the connection, when it comes, a reset. A pipe has no resets: its reader
    /// sees the end.
    pub(super) fn reset_at_end(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only where the socket is gone already.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

fn own(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bound socket. The address may be in use by a socket that does not listen.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
