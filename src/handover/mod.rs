//! Listening sockets that outlive a process: they come from the service manager, or from the process that
//! this one replaces.
//!
//! This module finds the sockets and says which listener each belongs to, and speaks the protocol of a
//! takeover. It never accepts a client.

pub mod activation;

mod channel;
mod frame;
mod predecessor;

use std::fmt;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

pub use channel::{Channel, HandoverError};
pub use frame::{Kind, Role, SocketName};
pub use predecessor::{Predecessor, answer_hello, connect};

use crate::config::ListenAddress;

/// The listening sockets that were passed to this process and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Passed>);

/// One socket.
#[derive(Debug)]
struct Passed {
    /// The address by which the configuration names it.
    address: ListenAddress,
    /// Where it comes from, for messages; none for the process that this one replaces.
    origin: Option<String>,
    /// What it is for; none if only its address says that.
    role: Option<Role>,
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
    /// Adds a socket of the service manager for the listener with this address. `origin` is its name there.
    pub fn add(&mut self, address: ListenAddress, origin: String, socket: PassedSocket) {
        self.0.push(Passed {
            address,
            origin: Some(origin),
            role: None,
            socket,
        });
    }

    /// Adds a socket of the process that this one replaces.
    fn add_named(&mut self, name: SocketName, socket: PassedSocket) {
        self.0.push(Passed {
            address: name.address,
            origin: None,
            role: Some(name.role),
            socket,
        });
    }

    /// Takes the socket for the listener with this role and address, if one was passed.
    pub fn take(&mut self, role: Role, address: &ListenAddress) -> Option<Taken> {
        let fits = |one: &Passed| {
            one.address == *address && one.role.is_none_or(|of_socket| of_socket == role)
        };
        let at = self.0.iter().position(fits)?;
        let one = self.0.remove(at);
        Some(Taken {
            socket: one.socket,
            outlives: one.origin.is_some(),
        })
    }

    /// Whether the service manager keeps them open after this process.
    pub fn outlive(&self) -> bool {
        self.0.iter().any(|one| one.origin.is_some())
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks that each socket of the service manager has a listener among `configured`, the addresses of the
    /// configuration. Clients of another socket would wait in a queue that no process serves. A socket of the
    /// process that this one replaces closes if it has no listener any more.
    ///
    /// # Errors
    /// [`Unclaimed`] for the first one without a listener.
    pub fn check(&self, configured: &[ListenAddress]) -> Result<(), Unclaimed> {
        let mut unclaimed = self.0.iter();
        let found = unclaimed.find_map(|one| {
            let origin = one.origin.as_ref()?;
            (!configured.contains(&one.address)).then_some((&one.address, origin))
        });
        let Some((address, origin)) = found else {
            return Ok(());
        };
        Err(Unclaimed {
            address: address.clone(),
            origin: origin.clone(),
            configured: configured.to_vec(),
        })
    }
}

/// A socket that a listener takes.
#[derive(Debug)]
pub struct Taken {
    /// The socket.
    pub socket: PassedSocket,
    /// The service manager keeps it open after this process, so that connections may wait there for the next
    /// one.
    pub outlives: bool,
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
        assert!(sockets.take(Role::Clients, &other).is_none());
        let error = sockets.check(std::slice::from_ref(&other)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`bowline.socket` passes a socket on {address}, and no listener has this address: write \
                 `address: '{address}'` in `listen` or `admin`, or change ListenStream= to one of 127.0.0.1:1"
            )
        );
        assert_eq!(sockets.check(&[other, address.clone()]), Ok(()));
        assert!(sockets.take(Role::Clients, &address).is_some());
        assert!(sockets.take(Role::Clients, &address).is_none());
    }
}
