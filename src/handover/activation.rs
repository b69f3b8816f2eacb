//! Sockets from a service manager (`sd_listen_fds(3)`): it opens them, and keeps them open while no process
//! runs. Connections wait in the kernel's queue meanwhile.

use std::env;
use std::fmt;
use std::io;

use listenfd::ListenFd;
use socket2::SockRef;

use super::{PassedSocket, Sockets};

/// The most sockets that are taken: systemd passes no more from one unit.
const MOST: usize = 1024;

/// A file that the service manager passed is no socket that can serve clients.
#[derive(Debug)]
pub struct Unusable {
    name: String,
    source: io::Error,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the service manager passes {}, which is no listening stream socket: {}. The socket unit needs \
             ListenStream= and Accept=no",
            self.name, self.source
        )
    }
}

impl std::error::Error for Unusable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Checks that a socket listens, and makes its accepts return at once.
pub(super) fn check(socket: &SockRef<'_>) -> io::Result<()> {
    if !socket.is_listener()? {
        return Err(io::Error::other("a socket that does not listen"));
    }
    socket.set_nonblocking(true)
}

/// Takes the sockets that the service manager passed to this process (`LISTEN_PID`, `LISTEN_FDS`,
/// `LISTEN_FDNAMES`); none without a service manager. To be called once, and before there are threads: it
/// removes the variables.
///
/// # Errors
/// One of them is no listening stream socket.
pub fn sockets() -> Result<Sockets, Unusable> {
    let mut sockets = Sockets::default();
    // `listenfd` also takes files that are meant for no process in particular.
    if env::var_os("LISTEN_PID").is_none() {
        return Ok(sockets);
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    for at in 0..passed.len().min(MOST) {
        let name = names.next().filter(|name| !name.is_empty());
        let name = format!("`{}`", name.unwrap_or("unknown"));
        let mut take = || {
            let taken_twice = || io::Error::other("taken twice");
            // Another kind of socket stays where it is, for the second try.
            if let Ok(socket) = passed.take_tcp_listener(at) {
                let socket = socket.ok_or_else(taken_twice)?;
                check(&SockRef::from(&socket))?;
                return Ok((socket.local_addr()?.into(), PassedSocket::Tcp(socket)));
            }
            let socket = passed.take_unix_listener(at)?.ok_or_else(taken_twice)?;
            check(&SockRef::from(&socket))?;
            let address = socket.local_addr()?;
            let path = address.as_pathname();
            let path = path.ok_or_else(|| io::Error::other("a Unix socket without a path"))?;
            Ok((path.to_owned().into(), PassedSocket::Unix(socket)))
        };
        let (address, socket) = take().map_err(|source| Unusable {
            name: name.clone(),
            source,
        })?;
        sockets.add(address, name, socket);
    }
    Ok(sockets)
}
