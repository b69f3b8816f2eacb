//! Tells a service manager how far the start has come (`sd_notify(3)`).
//!
//! The protocol is one datagram to the socket named in `NOTIFY_SOCKET`: too little for a crate.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, error};

use crate::server::Pulse;

/// Clients are served.
pub(super) fn ready() {
    tell("READY=1");
}

/// A reload has begun; [`ready`] ends it. The time lets the service manager tell this reload from another
/// (`Type=notify-reload`, sd_notify(3)).
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The drain has begun.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// How often the service manager waits for a sign of life (`WATCHDOG_USEC`, `WatchdogSec=`); none if it does
/// not, or waits for that of another process.
pub(super) fn watchdog() -> Option<Duration> {
    let read = |name| env::var(name).ok()?.parse::<u64>().ok();
    let own = u64::from(std::process::id());
    if read("WATCHDOG_PID").is_some_and(|process| process != own) {
        return None;
    }
    let micros = read("WATCHDOG_USEC").filter(|&micros| micros > 0)?;
    Some(Duration::from_micros(micros))
}

/// Sends a sign of life twice in each `limit`, as long as this task and every worker run. Never returns.
pub(super) async fn keep_alive(limit: Duration, pulse: Pulse) {
    let mut tick = interval(limit / 2);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match timeout(limit, pulse.beat()).await {
            Ok(()) => tell("WATCHDOG=1"),
            Err(_) => error!(
                ?limit,
                "a worker does not answer: the service manager will end this process (WatchdogSec=)"
            ),
        }
    }
}

fn tell(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        debug!(%error, state, "the service manager cannot be told");
    }
}
