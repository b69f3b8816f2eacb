//! What has to be back at zero when the clients are gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;
use crate::world::balancer::Balancer;

/// How long everything may take to go. A session that its client left is kept for its inactivity
/// and a grace.
const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptors that may be open beyond those of the start: probes under way, and this look itself.
const SPARE: usize = 6;

/// The gauges that count what clients hold.
const GAUGES: [(&str, &str); 3] = [
    ("bowline_held_requests", "requests under way"),
    ("bowline_connections", "client connections"),
    ("bowline_sessions", "sessions"),
];

/// Waits until nothing is left of the clients; says what is left at the end.
pub(crate) async fn check(balancer: &Balancer, descriptors: usize) -> Result<Vec<String>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let left = left(balancer, descriptors).await?;
        if left.is_empty() || Instant::now() > give_up {
            return Ok(left);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn left(balancer: &Balancer, descriptors: usize) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let after = format!("{} s after the last client went", PATIENCE.as_secs());
    for (gauge, what) in GAUGES {
        let value = balancer.metric(gauge).await?;
        if value != 0.0 {
            left.push(format!("a leak: {gauge} counts {value} {what}, {after}"));
        }
    }
    let upstream = balancer.upstream_connections()?;
    if upstream != 0 {
        left.push(format!("a leak: {upstream} connections to nodes, {after}"));
    }
    let open = balancer.descriptors()?;
    if open > descriptors + SPARE {
        left.push(format!(
            "a leak: {open} file descriptors, {after}; {descriptors} before the first came"
        ));
    }
    Ok(left)
}
