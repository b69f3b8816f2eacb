//! What has to be back at zero when the clients are gone.

use std::time::Duration;

use crate::Result;
use crate::support::process::Process;
use crate::support::waiting::until;
use crate::world::World;
use crate::world::balancer::{metric, upstream_connections};

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
pub(super) async fn check(
    process: &Process,
    world: &World,
    descriptors: usize,
) -> Result<Vec<String>> {
    let mut last = Ok(Vec::new());
    until(PATIENCE, async || {
        last = left(process, world, descriptors).await;
        last.as_ref().map_or(true, Vec::is_empty)
    })
    .await;
    last
}

async fn left(process: &Process, world: &World, descriptors: usize) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let after = format!("{} s after the last client went", PATIENCE.as_secs());
    for (gauge, what) in GAUGES {
        let value = metric(process, gauge).await?;
        if value != 0.0 {
            left.push(format!("a leak: {gauge} counts {value} {what}, {after}"));
        }
    }
    let upstream = upstream_connections(process, world)?;
    if upstream != 0 {
        left.push(format!("a leak: {upstream} connections to nodes, {after}"));
    }
    let open = process.program.usage().descriptors()?;
    if open > descriptors + SPARE {
        left.push(format!(
            "a leak: {open} file descriptors, {after}; {descriptors} before the first came"
        ));
    }
    Ok(left)
}
