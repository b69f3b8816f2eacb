//! The addresses that clients connect to, and the workers that accept there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use tracing::{info, warn};

use super::error::BindError;
use super::workers::Workers;
use crate::config::{Listen, ListenAddress};
use crate::downstream::{
    Downstream, Listener, ListenerSlot, ListeningSocket, SocketFile, bind_tcp,
};
use crate::handover::{self, PassedSocket, Role, SocketName};
use crate::tls::Acceptor;

/// A socket that listens on an address, for each of the workers.
#[derive(Debug)]
struct Sockets {
    /// With the port that port 0 became.
    address: ListenAddress,
    /// It was passed to this process.
    passed: bool,
    /// The service manager keeps it open after this process.
    outlives: bool,
    /// Goes with the listener.
    file: Option<SocketFile>,
    each: Vec<ListeningSocket>,
    /// The same once more, to be passed on.
    own: ListeningSocket,
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
            let given = passed.take(Role::Clients, &listen.address);
            let passed = given.is_some();
            let outlives = given.as_ref().is_some_and(|given| given.outlives);
            let (socket, address) = match given.map(|given| given.socket) {
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
            let file = SocketFile::of(&address).filter(|_| !outlives);
            let each = (0..workers).map(|_| socket.try_clone());
            let each = each.collect::<io::Result<_>>()?;
            Ok(Self {
                address,
                passed,
                outlives,
                file,
                each,
                own: socket,
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
    /// To be passed on; none once the process stops.
    socket: Option<ListeningSocket>,
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
                None => {
                    let opened = Sockets::open(one, listen, workers, passed);
                    Some(opened.map_err(|error| self.explain(error))?)
                }
            };
            prepared.push(((one.clone(), None), socket));
        }
        Ok(Prepared(prepared))
    }

    /// Names the open listener that has the port, as `[::]` has that of `0.0.0.0`.
    fn explain(&self, error: BindError) -> BindError {
        let port = |address: &ListenAddress| address.tcp().map(|address| address.port());
        let wanted = port(&error.address);
        let has_it = |open: &&Open| wanted.is_some() && port(&open.address) == wanted;
        match self.open.iter().find(has_it) {
            Some(open) if error.source.kind() == io::ErrorKind::AddrInUse => {
                let what = format!(
                    "the address is in use by the open listener {}; restart Bowline to change it",
                    open.address
                );
                let source = io::Error::new(io::ErrorKind::AddrInUse, what);
                BindError { source, ..error }
            }
            _ => error,
        }
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
                let slot = Arc::new(ListenerSlot::new(listener(), sockets.outlives));
                workers.listen(&slot, sockets.each);
                info!(%address, passed, "listening");
                self.open.push(Open {
                    configured: listen,
                    address,
                    file: sockets.file,
                    slot,
                    socket: Some(sockets.own),
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

    /// The sockets, to be passed on: as the configuration names them.
    pub(super) fn to_pass(&self) -> impl Iterator<Item = (SocketName, BorrowedFd<'_>)> {
        self.open.iter().filter_map(|open| {
            let name = SocketName {
                role: Role::Clients,
                address: open.configured.address.clone(),
            };
            Some((name, open.socket.as_ref()?.as_fd()))
        })
    }

    /// The files of Unix sockets belong to another process, which removes them in its time; or they belong to
    /// this one again.
    pub(super) fn leave_files(&mut self, leave: bool) {
        for open in &mut self.open {
            if let Some(file) = &mut open.file {
                file.leave(leave);
            }
        }
    }

    /// The process stops: it passes no socket on, so that each closes with the last worker that accepts there.
    pub(super) fn stop(&mut self) {
        for open in &mut self.open {
            open.socket = None;
        }
    }

    /// The TCP addresses where clients are served, with the ports that port 0 became.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = self.open.iter().filter_map(|open| open.address.tcp());
        tcp.collect()
    }
}
