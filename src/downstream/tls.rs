//! The TLS handshake of an accepted connection: its deadline, and its place among the others.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::io::Early;
use super::listener::Listener;
use crate::tls::Acceptor;
use crate::transport::Stream;
use crate::transport::{HandshakeError, TlsStream};

/// How long a handshake keeps its place among `limits.handshakes`. A client that goes on later has lost
/// nothing, and clients that never go on cannot hold all places.
const PLACE_FOR: Duration = Duration::from_secs(1);

/// Shakes hands until `deadline`. None if that failed: it is counted, and logged.
pub(super) async fn handshake(
    listener: &Listener,
    acceptor: &Acceptor,
    (stream, early): (Stream, &Early),
    (peer, deadline): (IpAddr, Instant),
) -> Option<Box<TlsStream>> {
    let counts = &listener.downstream().proxy.metrics.tls.handshakes;
    let shaken = timeout_at(
        deadline,
        Box::pin(shake(listener, acceptor, stream, early.rest())),
    )
    .await;
    let error = match shaken {
        Ok(Ok(stream)) => {
            counts.inc(if stream.is_resumed() {
                "resumed"
            } else {
                "full"
            });
            return Some(stream);
        }
        Ok(Err(error)) => error,
        Err(_) => {
            counts.inc("timeout");
            debug!(client = %peer, "the TLS handshake took too long");
            return None;
        }
    };
    counts.inc(match error {
        HandshakeError::NotTls { .. } => "not_tls",
        HandshakeError::Closed | HandshakeError::Io(_) => "closed",
        HandshakeError::Tls(_) => "failed",
    });
    match error {
        HandshakeError::NotTls { proxy_header: true } => {
            (listener.downstream()).refuse_proxy_header(listener, peer);
        }
        HandshakeError::NotTls { .. } => {
            let what = "a client does not speak TLS on a listener with TLS";
            listener.log_wrong_protocol(peer, what);
        }
        error => debug!(client = %peer, %error, "a TLS handshake failed"),
    }
    None
}

async fn shake(
    listener: &Listener,
    acceptor: &Acceptor,
    stream: Stream,
    early: &[u8],
) -> Result<Box<TlsStream>, HandshakeError> {
    // A client that says nothing takes no place.
    if early.is_empty() {
        let _first = poll_fn(|context| stream.poll_peek(context)).await;
    }
    let places = Arc::clone(&listener.downstream().handshakes);
    let place = places.acquire_owned().await;
    let stream = TlsStream::new(stream, acceptor.config());
    let mut stream = match stream {
        Ok(stream) => Box::new(stream),
        Err(error) => {
            warn!(%error, "TLS cannot begin");
            return Err(HandshakeError::Closed);
        }
    };
    stream.begin(early)?;
    let mut shaking = poll_fn(|context| stream.poll_handshake(context));
    let shaken = match timeout(PLACE_FOR, &mut shaking).await {
        Ok(shaken) => shaken,
        Err(_) => {
            drop(place);
            shaking.await
        }
    };
    shaken.map(|()| stream)
}
