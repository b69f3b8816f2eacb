//! The addresses that clients connect to, and the workers that accept there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tracing::{info, warn};

use super::error::BindError;
use super::workers::Workers;
use crate::config::{Listen, ListenAddress};
use crate::downstream::{
    Downstream, Listener, ListenerSlot, ListeningSocket, SocketFile, bind_tcp,
};
use crate::handover::{self, PassedSocket};
use crate::tls::Acceptor;

/// A socket that listens on an address, for each of the workers.
#[derive(Debug)]
struct Sockets {
    /// With the port that port 0 became.
    address: ListenAddress,
    /// It was passed to this process, and stays open after it.
    passed: bool,
    /// Goes with the listener.
    file: Option<SocketFile>,
    each: Vec<ListeningSocket>,
}

impl Sockets {
    /// The socket that was passed for the address of `listen`, one of `all`, or a new one.
    fn open(
        listen: &Listen,
        all: &[Listen],
        workers: usize,
        passed: &mut handover::Sockets,
    ) -> Result<Self, BindError> {
        let mut open = || {
            let given = passed.take(&listen.address);
            let passed = given.is_some();
            let (socket, address) = match given {
                Some(PassedSocket::Tcp(socket)) => {
                    let address = socket.local_addr()?.into();
                    (ListeningSocket::Tcp(socket), address)
                }
                Some(PassedSocket::Unix(socket)) => {
                    (ListeningSocket::Unix(socket), listen.address.clone())
                }
                None => ListeningSocket::bind(listen, all)?,
            };
            // What outlives this process keeps its file.
            let file = SocketFile::of(&address).filter(|_| !passed);
            let each = (0..workers).map(|_| socket.try_clone());
            let each = each.collect::<io::Result<_>>()?;
            Ok(Self {
                address,
                passed,
                file,
                each,
            })
        };
        open().map_err(|source| BindError {
            address: listen.address.clone(),
            source,
        })
    }
}

/// Listens on an address for the admin listener.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    bind_tcp(address, false).map_err(|source| BindError {
        address: address.into(),
        source,
    })
}

/// A listener of the configuration, and what its TLS handshakes are made with.
type Configured = (Listen, Option<Arc<Acceptor>>);

/// An address that is open.
#[derive(Debug)]
struct Open {
    configured: Listen,
    address: ListenAddress,
    file: Option<SocketFile>,
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
    /// Opens what `listen` names and is not open, by the sockets in `passed` where it has them.
    pub(super) fn prepare(
        &self,
        listen: &[Listen],
        workers: usize,
        passed: &mut handover::Sockets,
    ) -> Result<Prepared, BindError> {
        let mut unused: Vec<_> = self.open.iter().collect();
        let mut prepared = Vec::new();
        for one in listen {
            let known = |open: &&Open| open.configured.address == one.address;
            let socket = match unused.iter().position(known) {
                Some(at) => {
                    unused.remove(at);
                    None
                }
                None => Some(Sockets::open(one, listen, workers, passed)?),
            };
            prepared.push(((one.clone(), None), socket));
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
            if let Some(sockets) = sockets {
                let Sockets {
                    address, passed, ..
                } = sockets;
                let slot = Arc::new(ListenerSlot::new(listener(), passed));
                workers.listen(&slot, sockets.each);
                info!(%address, passed, "listening");
                self.open.push(Open {
                    configured: listen,
                    address,
                    file: sockets.file,
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
            if let Some(file) = open
                .file
                .as_ref()
                .filter(|_| open.configured.mode != listen.mode)
                && let Err(error) = file.set_mode(listen.mode)
            {
                warn!(address = %open.address, %error, "the mode of the socket stays");
            }
            open.configured = listen;
            self.open.push(open);
        }
        for closed in old {
            info!(address = %closed.address, "no longer listening");
            closed.slot.close();
        }
    }

    /// The TCP addresses where clients are served, with the ports that port 0 became.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = self.open.iter().filter_map(|open| open.address.tcp());
        tcp.collect()
    }
}
