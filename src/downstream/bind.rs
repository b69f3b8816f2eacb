//! Sockets that listen for clients: TCP and Unix. They are opened without a runtime, and then watched by one
//! for each worker.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::{Listen, ListenAddress};
use crate::transport::Stream;

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 4096;

/// The peer of a Unix socket, which has no address.
const UNIX_PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A socket that listens.
#[derive(Debug)]
pub enum ListeningSocket {
    /// A TCP socket.
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file stays when it closes: see [`SocketFile`].
    Unix(UnixListener),
}

impl ListeningSocket {
    /// Listens on the address of `listen`, and says where with the port that port 0 became. A file of a Unix
    /// socket on which no process listens is replaced. `[::]` takes IPv4 too, unless one of `all` listens on
    /// `0.0.0.0` with the same port.
    ///
    /// # Errors
    /// What the system says. `AddrInUse` where a process listens on the Unix socket, `AlreadyExists` where
    /// its path is a file of another kind.
    pub fn bind(listen: &Listen, all: &[Listen]) -> io::Result<(Self, ListenAddress)> {
        match &listen.address {
            ListenAddress::Tcp(address) => {
                let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                let is_shared = all.iter().any(|other| other.address.tcp() == Some(ipv4));
                let only_v6 = is_shared && address.port() != 0;
                let socket = bind_tcp(*address, only_v6)?;
                let address = socket.local_addr()?.into();
                Ok((Self::Tcp(socket), address))
            }
            ListenAddress::Unix(path) => {
                let socket = bind_unix(path, listen.mode)?;
                Ok((Self::Unix(socket), listen.address.clone()))
            }
        }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// There are no more files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }
}

/// Listens on an IP address; on one of IPv6 also for IPv4, unless `only_v6` is set.
///
/// # Errors
/// What the system says.
pub fn bind_tcp(address: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old process's connections to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on a Unix socket.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // No client can connect until it listens, so that none comes with other permissions.
    let listening = fs::set_permissions(path, Permissions::from_mode(mode))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| socket.set_nonblocking(true));
    if let Err(error) = listening {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(socket.into())
}

/// Removes the file of a Unix socket that a process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let what = "a file that is no socket has this path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A process whose queue is full would let us wait.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The file of a Unix socket. Dropped, it removes the file, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    made: Option<Made>,
    /// It belongs to another process.
    is_left: bool,
}

/// What tells one file from the next with its path, even if that has the same number.
type Made = (u64, u64, i64, i64);

fn made_of(found: &Metadata) -> Made {
    (found.dev(), found.ino(), found.mtime(), found.mtime_nsec())
}

impl SocketFile {
    /// The file of a socket that was opened just now; none for TCP.
    pub fn of(address: &ListenAddress) -> Option<Self> {
        let ListenAddress::Unix(path) = address else {
            return None;
        };
        let made = fs::symlink_metadata(path).ok();
        Some(Self {
            path: path.clone(),
            made: made.as_ref().map(made_of),
            is_left: false,
        })
    }

    /// Leaves the file to another process, or takes it back.
    pub const fn leave(&mut self, leave: bool) {
        self.is_left = leave;
    }

    /// Sets its permissions.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let found = fs::symlink_metadata(&self.path).ok();
        if found.is_some() && found.as_ref().map(made_of) == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that listens, watched by the runtime of this thread.
#[derive(Debug)]
pub(super) enum Incoming {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Incoming {
    pub(super) fn new(socket: ListeningSocket) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            ListeningSocket::Unix(socket) => {
                Self::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
        })
    }

    /// The next connection and the address of its peer: IPv4 where that is mapped into IPv6, and loopback
    /// for a Unix socket.
    pub(super) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, IpAddr)>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(context))?;
                (stream.into(), peer.ip().to_canonical())
            }
            Self::Unix(socket) => {
                let (stream, _) = ready!(socket.poll_accept(context))?;
                (stream.into(), UNIX_PEER)
            }
        }))
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsFd for Incoming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}
