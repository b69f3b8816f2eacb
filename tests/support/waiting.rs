//! Waiting for conditions, each with a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Result;

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// From one look at a condition to the next.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds; false if that takes longer than `patience`.
pub(crate) async fn until(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let give_up = Instant::now() + patience;
    while !condition().await {
        if Instant::now() > give_up {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    // Not by `until`: a future of an async closure is not `Send` for every lifetime.
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        sleep(LOOK).await;
    }
}

/// Waits until a program accepts connections at `address`.
pub(crate) async fn accepts(address: SocketAddr) -> Result<()> {
    let open = async || TcpStream::connect(address).await.is_ok();
    if until(PATIENCE, open).await {
        return Ok(());
    }
    Err(format!("no program accepts connections at {address}").into())
}
