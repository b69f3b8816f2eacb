//! Reading the PROXY header of a connection, and what is said of those that are missing, bad or not
//! allowed.

use std::io;
use std::net::IpAddr;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Downstream;
use super::io::Early;
use super::listener::Listener;
use crate::transport::{MAX_PROXY_HEADER, ProxyHeader, ProxyHeaderError, Stream};

/// The most bytes taken by one read: nearly every header, and many a first request behind it.
const READ: usize = 2048;

/// Why there is no header.
enum NoHeader {
    /// The bytes are none.
    Refused(ProxyHeaderError),
    /// The proxy closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

/// Reads the header that `peer` must send until the deadline. Returns the client that it names, and the bytes
/// that came behind it. None if there is no good header: that is counted, and logged.
pub(super) async fn read(
    listener: &Listener,
    stream: &mut Stream,
    (peer, deadline): (IpAddr, Instant),
) -> Option<(Option<IpAddr>, Early)> {
    let headers = &listener.downstream().proxy.metrics.proxy_headers;
    let (result, error) = match timeout_at(deadline, Box::pin(header(stream))).await {
        Ok(Ok((client, early))) => {
            headers.inc(if client.is_some() {
                "client"
            } else {
                "no_client"
            });
            return Some((client, early));
        }
        Ok(Err(NoHeader::Refused(error))) => {
            let (result, what) = match error {
                ProxyHeaderError::Missing => (
                    "missing",
                    "a proxy of `proxy_protocol.from` sends no PROXY header",
                ),
                ProxyHeaderError::Malformed => {
                    ("malformed", "a proxy sends a malformed PROXY header")
                }
                ProxyHeaderError::TooLong => (
                    "malformed",
                    "a proxy sends a PROXY header of more than 4096 bytes",
                ),
            };
            headers.inc(result);
            listener.log_wrong_protocol(peer, what);
            return None;
        }
        Ok(Err(NoHeader::Closed)) => ("closed", None),
        Ok(Err(NoHeader::Broken(error))) => ("closed", Some(error)),
        Err(_) => ("timeout", None),
    };
    headers.inc(result);
    debug!(proxy = %peer, ?error, "no PROXY header: {result}");
    None
}

/// Reads until the header is whole.
async fn header(stream: &mut Stream) -> Result<(Option<IpAddr>, Early), NoHeader> {
    let mut bytes = Vec::with_capacity(READ);
    loop {
        let count = stream.read_buf(&mut bytes).await;
        if count.map_err(NoHeader::Broken)? == 0 {
            return Err(NoHeader::Closed);
        }
        if let Some(header) = ProxyHeader::parse(&bytes).map_err(NoHeader::Refused)? {
            let mut early = Early::default();
            early.append(bytes.get(header.length..).unwrap_or_default());
            return Ok((header.client, early));
        }
        // A longer one was refused.
        debug_assert!(bytes.len() < MAX_PROXY_HEADER);
    }
}

impl Downstream {
    /// Says of bytes that are no request whether they begin with a PROXY header, from a peer that may not
    /// send one. Counts and logs it then.
    pub(super) fn is_foreign_proxy_header(
        &self,
        listener: &Listener,
        peer: IpAddr,
        bytes: &[u8],
    ) -> bool {
        let begins = ProxyHeader::begins(bytes);
        if begins {
            self.refuse_proxy_header(listener, peer);
        }
        begins
    }

    /// Counts and logs a PROXY header of a peer that may not send one.
    pub(super) fn refuse_proxy_header(&self, listener: &Listener, peer: IpAddr) {
        self.proxy.metrics.proxy_headers.inc("refused");
        let what =
            "a peer sends a PROXY header that `proxy_protocol.from` of the listener does not name";
        listener.log_wrong_protocol(peer, what);
    }
}
