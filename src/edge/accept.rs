//! Accepting client connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Edge, connection};

/// How long accepting rests after an error: most likely the process is out of file descriptors,
/// and to try again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the drain begins, then waits until the last of them has ended.
///
/// At `limits.connections` accepting rests until a connection ends; the kernel's queue holds
/// newcomers meanwhile.
pub async fn accept(edge: Arc<Edge>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = edge.drain.begun() => break,
            accepted = accept_one(&edge, &listener) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                failing = false;
                let edge = Arc::clone(&edge);
                connections.spawn(async move {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "no TCP_NODELAY");
                    }
                    edge.proxy.metrics.connections.inc();
                    connection::serve(&edge, stream, peer).await;
                    edge.proxy.metrics.connections.dec();
                    drop(place);
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
    drop(listener);
    while connections.join_next().await.is_some() {}
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
