//! Accepting client connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
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
        let place = tokio::select! {
            () = edge.drain.begun() => break,
            place = place(&edge) => place,
        };
        let accepted = tokio::select! {
            () = edge.drain.begun() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
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

async fn place(edge: &Edge) -> tokio::sync::OwnedSemaphorePermit {
    let places = Arc::clone(&edge.places);
    let place = match Arc::clone(&places).try_acquire_owned() {
        Ok(place) => return place,
        Err(_) => places.acquire_owned(),
    };
    edge.proxy.metrics.connections_refused.inc();
    place.await.expect("the semaphore is never closed")
}
