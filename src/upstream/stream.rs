//! Opening the connection to a node, and what it means when that fails.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::{Error, ProxyHeader, TlsClient};
use crate::config::{NodeSettings, unix_path};
use crate::transport::{self, ConnectError, NodeTlsStream, Stream};

/// What a connection to a node begins with, ahead of its first request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opening {
    /// The Unix socket to open, whatever the address is; none for TCP.
    pub unix: Option<Arc<Path>>,
    /// TLS; none for a plain connection.
    pub tls: Option<Arc<TlsClient>>,
    /// The client, ahead of TLS.
    pub proxy: Option<ProxyHeader>,
}

impl Opening {
    /// The same for a connection of this client.
    pub const fn set_client(&mut self, client: IpAddr) {
        if let Some(proxy) = &mut self.proxy {
            proxy.client = Some(client);
        }
    }

    /// What `settings` ask for. Reads the file of the node's authorities. A client stays if nothing of it
    /// has changed, since it keeps sessions of TLS that can go on.
    #[must_use]
    pub fn renewed(&self, settings: &NodeSettings) -> Self {
        let tls = settings.tls.as_ref().map(|tls| {
            let client = TlsClient::new(tls, &settings.address);
            let old = self.tls.as_ref().filter(|old| ***old == client);
            old.map_or_else(|| Arc::new(client), Arc::clone)
        });
        let proxy = settings.send_proxy.map(|version| ProxyHeader {
            version,
            client: None,
        });
        let unix = unix_path(&settings.address).map(Arc::from);
        Self { unix, tls, proxy }
    }
}

/// A connection to a node.
#[derive(Debug)]
pub enum NodeStream {
    /// Without TLS.
    Plain(Stream),
    /// Over TLS. Boxed, since most nodes have none and a session keeps its connection.
    Tls(Box<NodeTlsStream>),
}

/// Opens a connection.
pub(super) async fn connect(address: SocketAddr, opening: &Opening) -> Result<NodeStream, Error> {
    let stream = match &opening.unix {
        Some(path) => transport::connect_unix(path).await,
        None => transport::connect(address).await,
    };
    let mut stream = stream.map_err(failed)?;
    if stream.is_own_end(address) {
        return Err(Error::Refused(io::ErrorKind::ConnectionRefused.into()));
    }
    if let Some(proxy) = opening.proxy {
        let written = stream.write_all(&proxy.write(address)).await;
        written.map_err(|error| Error::Closed(Some(error)))?;
    }
    match &opening.tls {
        Some(tls) => tls.shake_hands(stream).await,
        None => Ok(NodeStream::Plain(stream)),
    }
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

impl NodeStream {
    /// Waits until a byte of the node can be read, and leaves it there: 1, or 0 at the end.
    ///
    /// # Errors
    /// What the socket or TLS says.
    pub fn poll_peek(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_peek(context),
            Self::Tls(stream) => stream.poll_peek(context),
        }
    }

    /// Looks whether a byte of the node waits, and leaves it there: 1, 0 at the end, or `WouldBlock`.
    /// It makes a system call only if the reactor has reported something since the last read. No task
    /// may be waiting for a byte meanwhile.
    ///
    /// # Errors
    /// What the socket or TLS says.
    pub fn peek(&mut self) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.peek(),
            // A ticket or another message of TLS is no byte of the node.
            Self::Tls(stream) => match stream.poll_peek(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(peeked) => peeked,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            },
        }
    }

    /// Has TCP notice when the node is gone. See [`Stream::watch`].
    pub fn watch(&self) {
        self.transport().watch();
    }

    /// Whether bytes that it took may wait in it until [`poll_flush`](AsyncWrite::poll_flush).
    pub const fn buffers(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    pub(super) fn transport(&self) -> &Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.transport(),
        }
    }
}

impl AsRawFd for NodeStream {
    fn as_raw_fd(&self) -> RawFd {
        self.transport().as_raw_fd()
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, into),
        }
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every session keeps a connection, most of them without TLS.
    #[test]
    fn a_connection_without_tls_takes_40_bytes() {
        assert!(size_of::<NodeStream>() <= 40, "{}", size_of::<NodeStream>());
    }
}
