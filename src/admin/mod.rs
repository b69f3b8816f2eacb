//! The admin listener: health, readiness, metrics and nodes over HTTP, read only.
//!
//! Owns its own small server, apart from the clients' one, so that it answers while they are
//! turned away. It reads what others write and decides nothing.

mod answer;
mod report;
mod time;

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::cluster::Cluster;
use crate::metrics::Metrics;

/// Connections served at the same time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a request head may take, from the end of the request before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may live: one that takes no byte of its answer ends, too.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long a connection that is to end may take to finish its answer.
const GRACE: Duration = Duration::from_secs(1);
/// The pause after an error of accept, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin endpoints tell.
#[derive(Debug)]
pub struct AdminState {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
}

impl AdminState {
    /// The state of a balancer that is not draining.
    pub fn new(cluster: Arc<Cluster>, metrics: Arc<Metrics>) -> Self {
        Self {
            cluster,
            metrics,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on `/ready` says no.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the balancer is draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Serves the admin endpoints until `stop`, then closes the listener and gives the answers under
/// way a second to leave.
pub async fn serve(listener: TcpListener, state: Arc<AdminState>, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        connections.spawn(connection(stream, peer, slot, state, closing.subscribe()));
    }
    drop(listener);
    closing.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, all_ended).await.is_err() {
        debug!("admin connections cut");
    }
}

/// The next connection, once there is a free slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(error) => {
                warn!(%error, "accept failed on the admin listener");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, to its end or its age's, and holds its slot as long.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    _slot: OwnedSemaphorePermit,
    state: Arc<AdminState>,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let answer = answer::to(&state, &request);
        ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // An error means that the server is gone, which is a reason to end, too.
        _ = closing.wait_for(|&closing| closing) => None,
        () = sleep(MAX_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "admin connection failed");
    }
}

#[cfg(test)]
mod tests;
