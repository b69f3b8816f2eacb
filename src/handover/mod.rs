//! Listening sockets that outlive a process: they come from the service manager, or from the process that
//! this one replaces.
//!
//! This module finds the sockets and says which listener each belongs to. It never accepts a connection.

pub mod activation;

use std::fmt;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use crate::config::ListenAddress;

/// The listening sockets that were passed to this process and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Passed>);

/// One socket.
#[derive(Debug)]
struct Passed {
    /// The address by which the configuration names it.
    address: ListenAddress,
    /// Where it comes from, for messages.
    origin: String,
    socket: PassedSocket,
}

/// A listening socket of either kind.
#[derive(Debug)]
pub enum PassedSocket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Sockets {
    /// Adds a socket for the listener with this address. `origin` says where it comes from.
    pub fn add(&mut self, address: ListenAddress, origin: String, socket: PassedSocket) {
        self.0.push(Passed {
            address,
            origin,
            socket,
        });
    }

    /// Takes the socket for the listener with this address, if one was passed.
    pub fn take(&mut self, address: &ListenAddress) -> Option<PassedSocket> {
        let at = self.0.iter().position(|one| one.address == *address)?;
        Some(self.0.remove(at).socket)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks that each socket has a listener among `configured`, the addresses of the configuration. Clients
    /// of another socket would wait in a queue that no process serves.
    ///
    /// # Errors
    /// [`Unclaimed`] for the first one without a listener.
    pub fn check(&self, configured: &[ListenAddress]) -> Result<(), Unclaimed> {
        let mut unclaimed = self.0.iter();
        let Some(one) = unclaimed.find(|one| !configured.contains(&one.address)) else {
            return Ok(());
        };
        Err(Unclaimed {
            address: one.address.clone(),
            origin: one.origin.clone(),
            configured: configured.to_vec(),
        })
    }
}

/// A socket was passed for an address that the configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclaimed {
    /// The socket's address.
    pub address: ListenAddress,
    /// Where it comes from.
    pub origin: String,
    /// The addresses that the configuration has.
    pub configured: Vec<ListenAddress>,
}

impl fmt::Display for Unclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address, origin, ..
        } = self;
        write!(
            f,
            "{origin} passes a socket on {address}, and no listener has this address: write `address: \
             '{address}'` in `listen` or `admin`, or change ListenStream= to one of"
        )?;
        for (at, address) in self.configured.iter().enumerate() {
            write!(f, "{} {address}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for Unclaimed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_to_the_listener_with_its_address_and_a_rest_is_an_error() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: ListenAddress = socket.local_addr().unwrap().into();
        let other: ListenAddress = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let mut sockets = Sockets::default();
        let socket = PassedSocket::Tcp(socket);
        sockets.add(address.clone(), "`bowline.socket`".to_owned(), socket);
        assert!(sockets.take(&other).is_none());
        let error = sockets.check(std::slice::from_ref(&other)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`bowline.socket` passes a socket on {address}, and no listener has this address: write \
                 `address: '{address}'` in `listen` or `admin`, or change ListenStream= to one of 127.0.0.1:1"
            )
        );
        assert_eq!(sockets.check(&[other, address.clone()]), Ok(()));
        assert!(sockets.take(&address).is_some());
        assert!(sockets.take(&address).is_none());
    }
}
