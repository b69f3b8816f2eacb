//! Tells a service manager how far the start has come (`sd_notify(3)`).
//!
//! The protocol is one datagram to the socket named in `NOTIFY_SOCKET`: too little for a crate.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

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
