//! Opening the connection to a node, and what it means when that fails.

use std::io;
use std::net::SocketAddr;

use super::Error;
use crate::transport::{self, ConnectError, Stream};

/// Opens a connection.
pub(super) async fn connect(address: SocketAddr) -> Result<Stream, Error> {
    let stream = transport::connect(address).await.map_err(failed)?;
    if stream.is_own_end(address) {
        return Err(Error::Refused(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(stream)
}

fn failed(error: ConnectError) -> Error {
    let error = match error {
        ConnectError::NoSocket(error) => return Error::Local(error),
        ConnectError::Failed(error) => error,
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::Refused(error),
        // No free port, or no address of that family here.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Error::Local(error),
        io::ErrorKind::TimedOut => Error::ConnectTimeout,
        // The node had accepted, and let go before its connection was seen.
        io::ErrorKind::ConnectionReset => Error::Closed(Some(error)),
        _ => Error::Unreachable(error),
    }
}
