//! What the text of a node's address says.

use std::path::Path;

use super::check::UNIX;

/// The path of the Unix socket that a node's address names; none for `host:port`.
pub fn unix_path(address: &str) -> Option<&Path> {
    address.strip_prefix(UNIX).map(Path::new)
}

/// The host of a node's address, with its port, as `Host` has it: `localhost` for a Unix socket.
pub fn host_of(address: &str) -> &str {
    if address.starts_with(UNIX) {
        "localhost"
    } else {
        address
    }
}
