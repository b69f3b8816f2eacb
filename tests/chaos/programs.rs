//! What the suites need that start the real program: shared by `tests/chaos/` and `tests/floods/`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::Result;

/// Ports for loopback: below those that the kernel gives to outgoing connections, so that a
/// connection to a dead node cannot meet itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// An address of loopback with a port that is free.
pub(crate) fn free_address() -> Result<SocketAddr> {
    (0..100)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".into())
}

/// Where the program stands: the given place, or beside this program's own folder.
pub(crate) fn release_binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().and_then(Path::parent);
    let found = beside.map(|folder| folder.join("bowline"));
    found
        .filter(|path| path.exists())
        .ok_or_else(|| "no bowline binary: give --binary".into())
}
