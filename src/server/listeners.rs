//! The addresses that clients connect to, and the workers that accept there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tracing::info;

use super::error::BindError;
use super::workers::Workers;
use crate::config::Listen;
use crate::downstream::{Downstream, Listener, ListenerSlot};
use crate::tls::Acceptor;

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 4096;

/// A socket that listens on an address, once for each of the workers.
fn sockets(address: SocketAddr, workers: usize) -> Result<Sockets, BindError> {
    let socket = bind(address)?;
    let sockets = || {
        let each = (0..workers).map(|_| socket.try_clone());
        Ok((socket.local_addr()?, each.collect::<io::Result<_>>()?))
    };
    sockets().map_err(|source| BindError { address, source })
}

/// Where it listens, with the port that port 0 became, and a socket for each worker.
type Sockets = (SocketAddr, Vec<TcpListener>);

/// Listens on an address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for the old process's connections to be forgotten.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    bound().map_err(|source| BindError { address, source })
}

/// A listener of the configuration, and what its TLS handshakes are made with.
type Configured = (Listen, Option<Arc<Acceptor>>);

/// An address that is open.
#[derive(Debug)]
struct Open {
    configured: Listen,
    address: SocketAddr,
    slot: Arc<ListenerSlot>,
}

/// All addresses that are open, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Vec<Open>,
}

/// The listeners of a new configuration: sockets for the new ones are open, and nothing has changed yet.
#[derive(Debug)]
pub(super) struct Prepared(Vec<(Configured, Option<Sockets>)>);

impl Prepared {
    /// The same with what TLS is made with, one for each listener.
    pub(super) fn with_tls(
        mut self,
        acceptors: impl IntoIterator<Item = Option<Arc<Acceptor>>>,
    ) -> Self {
        for (((_, tls), _), acceptor) in self.0.iter_mut().zip(acceptors) {
            *tls = acceptor;
        }
        self
    }
}

impl Listeners {
    /// Opens what `listen` names and is not open.
    pub(super) fn prepare(&self, listen: &[Listen], workers: usize) -> Result<Prepared, BindError> {
        let mut unused: Vec<_> = self.open.iter().collect();
        let mut prepared = Vec::new();
        for listen in listen {
            let known = |open: &&Open| open.configured.address == listen.address;
            let socket = match unused.iter().position(known) {
                Some(at) => {
                    unused.remove(at);
                    None
                }
                None => Some(sockets(listen.address, workers)?),
            };
            prepared.push(((listen.clone(), None), socket));
        }
        Ok(Prepared(prepared))
    }

    /// Serves clients at these addresses from now on. Listeners that are not in it close. Those that stay
    /// serve newcomers by `downstream` if `exchange` says so.
    pub(super) fn apply(
        &mut self,
        prepared: Prepared,
        (downstream, exchange): (&Arc<Downstream>, bool),
        workers: &Workers,
    ) {
        let mut old = std::mem::take(&mut self.open);
        for ((listen, acceptor), sockets) in prepared.0 {
            let listener = || {
                let listener = Listener::new(Arc::clone(downstream), listen.clone());
                Arc::new(listener.with_tls(acceptor.clone()))
            };
            if let Some((address, sockets)) = sockets {
                let slot = Arc::new(ListenerSlot::new(listener()));
                workers.listen(&slot, sockets);
                info!(%address, "listening");
                self.open.push(Open {
                    configured: listen,
                    address,
                    slot,
                });
                continue;
            }
            let known = |open: &Open| open.configured.address == listen.address;
            let Some(at) = old.iter().position(known) else {
                continue;
            };
            let mut open = old.remove(at);
            if exchange {
                open.slot.exchange(listener());
            }
            open.configured = listen;
            self.open.push(open);
        }
        for closed in old {
            info!(address = %closed.address, "no longer listening");
            closed.slot.close();
        }
    }

    /// Where clients are served, with the ports that port 0 became.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }
}
