//! Accepting client connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Edge;
use super::connection::Connection;

/// How long accepting rests after an error: most likely the process is out of file descriptors,
/// and to try again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the drain begins, then waits until the last of them has ended.
///
/// At `limits.connections` accepting rests until a connection ends; the kernel's queue holds
/// newcomers meanwhile.
pub async fn accept(edge: Arc<Edge>, listener: TcpListener) {
    // Each connection holds a sender; the channel ends with the last of them.
    let (alive, mut all_over) = mpsc::channel(1);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = edge.drain.begun() => break,
            accepted = accept_one(&edge, &listener) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                failing = false;
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "no TCP_NODELAY");
                }
                let counted = Counted::new(&edge, place, alive.clone());
                let connection = Connection::new(Arc::clone(&edge), stream, peer);
                tokio::spawn(async move {
                    let _counted = counted;
                    connection.await;
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "accepting fails");
                }
                sleep(PAUSE).await;
            }
        }
    }
    drop((listener, alive));
    // Nothing is ever sent.
    let _: Option<()> = all_over.recv().await;
}

/// A connection, counted as open until dropped.
struct Counted {
    connections: Gauge,
    _place: OwnedSemaphorePermit,
    _alive: mpsc::Sender<()>,
}

impl Counted {
    fn new(edge: &Edge, place: OwnedSemaphorePermit, alive: mpsc::Sender<()>) -> Self {
        let connections = edge.proxy.metrics.connections.clone();
        connections.inc();
        Self {
            connections,
            _place: place,
            _alive: alive,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// Accepts one connection when there is a place for it. The place is taken only then, so that
/// several listeners and workers that wait hold none.
async fn accept_one(
    edge: &Edge,
    listener: &TcpListener,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    if edge.places.available_permits() == 0 {
        edge.proxy.metrics.accept_waits.inc();
    }
    drop(edge.places.acquire().await);
    let (stream, peer) = listener.accept().await?;
    let place = Arc::clone(&edge.places).acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    Ok((stream, peer, place))
}
