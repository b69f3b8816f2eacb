//! What is open in the process that serves, and closed in one that waits for its turn or has had it: accepting,
//! the admin listeners, and writing the snapshot.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::lock;
use crate::admin::{self, AdminState, Scope};
use crate::downstream::Drain;
use crate::handover::{Role, SocketName};
use crate::snapshot::Store;

/// How long the tasks that accept may take to stop.
const PAUSE_WITHIN: Duration = Duration::from_secs(2);

/// An address of the admin listener.
#[derive(Debug)]
pub(super) struct AdminSocket {
    pub(super) scope: Scope,
    /// As the configuration has it.
    pub(super) configured: SocketAddr,
    pub(super) socket: TcpListener,
}

impl AdminSocket {
    const fn role(&self) -> Role {
        match self.scope {
            Scope::Admin => Role::Admin,
            Scope::Probes => Role::Probes,
        }
    }

    /// Where it is, with the port that port 0 became.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }
}

/// A task that serves an admin listener until the sender is dropped.
type Serving = (oneshot::Sender<()>, JoinHandle<()>);

/// The gate of one process, closed at first.
#[derive(Debug)]
pub(super) struct Gate {
    drain: Arc<Drain>,
    snapshot: Option<Arc<Store>>,
    admin: Arc<AdminState>,
    sockets: Vec<AdminSocket>,
    serving: Mutex<Vec<Serving>>,
}

impl Gate {
    /// A gate that is closed.
    pub(super) fn closed(
        drain: Arc<Drain>,
        snapshot: Option<Arc<Store>>,
        admin: Arc<AdminState>,
        sockets: Vec<AdminSocket>,
    ) -> Self {
        drain.pause();
        if let Some(store) = &snapshot {
            store.pause(true);
        }
        Self {
            drain,
            snapshot,
            admin,
            sockets,
            serving: Mutex::default(),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// There are no more files.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut serving = Vec::new();
        for AdminSocket { scope, socket, .. } in &self.sockets {
            let socket = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            let (stop, stopped) = oneshot::channel();
            let stopped = async { drop(stopped.await) };
            let task = admin::serve(socket, *scope, Arc::clone(&self.admin), stopped);
            serving.push((stop, tokio::spawn(task)));
        }
        *lock(&self.serving) = serving;
        if let Some(store) = &self.snapshot {
            store.pause(false);
        }
        self.drain.resume();
        Ok(())
    }

    /// Accepts no client any more. Says whether no task does by now.
    pub(super) async fn pause(&self) -> bool {
        self.drain.pause();
        timeout(PAUSE_WITHIN, self.drain.nothing_accepts())
            .await
            .is_ok()
    }

    /// Accepts clients again.
    pub(super) fn resume(&self) {
        self.drain.resume();
    }

    /// Leaves the snapshot to another process, or takes it back. Waits until it is written.
    pub(super) async fn pause_snapshot(&self, is_paused: bool) {
        if let Some(store) = self.snapshot.clone() {
            let pause = move || store.pause(is_paused);
            // It panics in no case that is known, and a panic is logged.
            let _ = tokio::task::spawn_blocking(pause).await;
        }
    }

    /// Closes the admin listeners.
    pub(super) fn close_admin(&self) {
        lock(&self.serving).clear();
    }

    /// The admin sockets, to be passed on.
    pub(super) fn to_pass(&self) -> impl Iterator<Item = (SocketName, BorrowedFd<'_>)> {
        self.sockets.iter().map(|one| {
            let name = SocketName {
                role: one.role(),
                address: one.configured.into(),
            };
            (name, one.socket.as_fd())
        })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        for (_, task) in lock(&self.serving).drain(..) {
            task.abort();
        }
    }
}
