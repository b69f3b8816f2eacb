//! A connection over TLS, with a client or with a node.
//!
//! rustls keeps no buffers of records here: bytes are read into memory of the thread, decrypted there,
//! and only what is no whole record yet stays with the connection. So a connection that waits has none.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ProxyHeader, Stream};
use encode::{Then, append_message, follow};
pub use error::HandshakeError;
use pending::Pending;
use side::Side;

mod encode;
mod error;
mod pending;
mod side;

/// The most bytes taken by one read of the connection.
const READ: usize = 16 * 1024;

/// The most bytes that are encrypted at a time: four records.
const WRITE: usize = 64 * 1024;

/// The most that is kept of records that are not whole. A message of a handshake may span several
/// (64 KiB, the most that rustls takes), and the last record of it has more than 16 KiB.
const MOST_INCOMING: usize = 96 * 1024;

/// The memory that a thread keeps for the next read or write, in bytes.
const KEPT: usize = 96 * 1024;

thread_local! {
    /// Memory for the records that this thread reads, and for those that it writes. All of it is
    /// initialized, and what is in it means nothing.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection with a client over TLS, from its first byte.
pub type TlsStream = Tls<UnbufferedServerConnection>;

/// A connection with a node over TLS, from its first byte.
pub type NodeTlsStream = Tls<UnbufferedClientConnection>;

/// A connection over TLS; the balancer is the side `S`.
pub struct Tls<S: Side> {
    stream: Stream,
    tls: S,
    /// Records that are not whole.
    incoming: Vec<u8>,
    /// What was decrypted and found no room yet.
    plain: Pending,
    /// Records that the peer did not take yet.
    outgoing: Pending,
    /// Nothing more comes from the peer.
    ended: bool,
    /// The end of our side is written.
    closing: bool,
    /// The peer broke the protocol.
    broken: bool,
}

impl<S: Side> fmt::Debug for Tls<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The error for `bytes` that begin no handshake.
fn not_tls(bytes: &[u8]) -> HandshakeError {
    let proxy_header = ProxyHeader::begins(bytes);
    HandshakeError::NotTls { proxy_header }
}

impl TlsStream {
    /// A connection over `stream`, with nothing read yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(stream: Stream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::over(stream, UnbufferedServerConnection::new(config)?))
    }
}

impl NodeTlsStream {
    /// A connection over `stream` to the node with this name, with nothing sent yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(
        stream: Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        let mut stream = Self::over(stream, tls);
        let mut nowhere = ReadBuf::new(&mut []);
        // Its first message.
        stream.drive(&mut [], &mut nowhere, &Then::Wait, &mut Vec::new())?;
        Ok(stream)
    }
}

impl<S: Side> Tls<S> {
    fn over(stream: Stream, tls: S) -> Self {
        Self {
            stream,
            tls,
            incoming: Vec::new(),
            plain: Pending::default(),
            outgoing: Pending::default(),
            ended: false,
            closing: false,
            broken: false,
        }
    }

    /// Takes the first bytes of the handshake, which were read before.
    ///
    /// # Errors
    /// They are not TLS. [`Tls::poll_handshake`] says what else is wrong with them.
    pub fn begin(&mut self, early: &[u8]) -> Result<(), HandshakeError> {
        match early.first() {
            None => return Ok(()),
            Some(first) if S::FIRST.contains(first) => {}
            Some(_) => return Err(not_tls(early)),
        }
        let mut records = early.to_vec();
        let mut nowhere = ReadBuf::new(&mut []);
        let taken = self.drive(&mut records, &mut nowhere, &Then::Wait, &mut Vec::new());
        self.incoming = records.split_off(taken.unwrap_or(early.len()));
        Ok(())
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// [`HandshakeError`]. The peer was sent the alert that belongs to it, as far as it took that at
    /// once.
    pub fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        loop {
            ready!(self.poll_send(context)).map_err(HandshakeError::Io)?;
            if self.broken {
                let error = io::ErrorKind::InvalidData.into();
                return Poll::Ready(Err(HandshakeError::Tls(error)));
            }
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let fresh = self.incoming.is_empty() && self.tls.protocol_version().is_none();
            let read = ready!(self.poll_records(context, &mut ReadBuf::new(&mut []), fresh));
            match read {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(HandshakeError::Closed)),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Poll::Ready(Err(not_tls(self.plain.rest())));
                }
                Err(error) if self.broken => {
                    return Poll::Ready(Err(HandshakeError::Tls(error)));
                }
                Err(error) => return Poll::Ready(Err(HandshakeError::Io(error))),
            }
        }
    }

    /// The protocol that ALPN chose; none if the peer named none.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Whether TLS 1.3 was agreed on. It is TLS 1.2 otherwise.
    pub fn is_tls13(&self) -> bool {
        self.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
    }

    /// Whether the handshake went on with a ticket of an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The connection below.
    pub const fn transport(&self) -> &Stream {
        &self.stream
    }

    /// Waits for decrypted bytes, and leaves them there: 1, or 0 at the end.
    ///
    /// # Errors
    /// What the connection says, and `InvalidData` if the peer breaks the protocol.
    pub fn poll_peek(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while self.plain.is_empty() {
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            ready!(self.poll_records(context, &mut ReadBuf::new(&mut []), false))?;
        }
        Poll::Ready(Ok(1))
    }

    /// Waits for bytes, and decrypts them into `buffer` as far as it has room. Says whether there may be
    /// more: not if the peer has ended its side. `fresh` wants the first byte of a handshake.
    ///
    /// # Errors
    /// What the connection says, `Unsupported` if a fresh connection does not begin as TLS does, and
    /// `InvalidData` if the peer breaks the protocol.
    fn poll_records(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        fresh: bool,
    ) -> Poll<io::Result<bool>> {
        let have = self.incoming.len();
        if have > MOST_INCOMING {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let mut room = INCOMING.take();
        if room.len() < have + READ {
            room.resize(have + READ, 0);
        }
        let mut into = ReadBuf::new(&mut room[have..have + READ]);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut into);
        let count = into.filled().len();
        let result = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if count == 0 => {
                self.ended = true;
                Poll::Ready(Ok(false))
            }
            Poll::Ready(Ok(())) if fresh && !S::FIRST.contains(&room[have]) => {
                self.plain
                    .bytes
                    .extend_from_slice(&room[have..have + count]);
                Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
            }
            Poll::Ready(Ok(())) => {
                room[..have].copy_from_slice(&self.incoming);
                let records = &mut room[..have + count];
                let taken = self.drive(records, buffer, &Then::Wait, &mut Vec::new());
                Poll::Ready(taken.map(|taken| {
                    self.incoming = records[taken..].to_vec();
                    !self.ended
                }))
            }
        };
        if room.len() <= KEPT {
            INCOMING.set(room);
        }
        if self.broken {
            // The alert, as far as the peer takes it now.
            let _ = self.poll_send(context);
        }
        result
    }

    /// Has rustls do all that it can with these records, and says how many of their bytes it took.
    /// What it decrypts goes to `buffer` while there is room, then to `plain`. What is to be sent goes to
    /// `outgoing`, what `then` encrypts to `encrypted`, behind that.
    ///
    /// # Errors
    /// `InvalidData` if the peer breaks the protocol, `BrokenPipe` where nothing can be sent any more.
    fn drive(
        &mut self,
        records: &mut [u8],
        buffer: &mut ReadBuf<'_>,
        then: &Then<'_>,
        encrypted: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let driven = self.try_drive(records, buffer, then, encrypted);
        // rustls is not called again: it would look for records that are gone.
        self.broken |= driven.is_err();
        self.ended |= driven.is_err();
        driven
    }

    fn try_drive(
        &mut self,
        records: &mut [u8],
        buffer: &mut ReadBuf<'_>,
        then: &Then<'_>,
        encrypted: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let rest = records.get_mut(taken..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process(rest);
            taken += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        taken += record.discard;
                        let fits = record.payload.len().min(buffer.remaining());
                        let (now, later) = record.payload.split_at(fits);
                        buffer.put_slice(now);
                        self.plain.bytes.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    append_message(data, &mut self.outgoing.bytes)?;
                }
                // What was encoded is sent in order, before anything that follows.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    follow(traffic, then, encrypted)?;
                    return Ok(taken);
                }
                Ok(ConnectionState::BlockedHandshake) if matches!(then, Then::Wait) => {
                    return Ok(taken);
                }
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    return if matches!(then, Then::Encrypt(_)) {
                        Err(io::ErrorKind::BrokenPipe.into())
                    } else {
                        Ok(taken)
                    };
                }
                // Early data is never accepted.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    self.take_alert(records.get_mut(taken..).unwrap_or_default());
                    return Err(invalid(error));
                }
            }
        }
    }

    /// Takes the alert that rustls has for an error. Asked again, rustls would read on in the `records`
    /// that it left, and it panics where that leads to a second alert.
    fn take_alert(&mut self, records: &mut [u8]) {
        let state = self.tls.process(records).state;
        if let Ok(ConnectionState::EncodeTlsData(data)) = state {
            let _ = append_message(data, &mut self.outgoing.bytes);
        }
    }

    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, self.outgoing.rest());
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.consume(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts `bytes` and sends them; what the peer does not take at once waits in `outgoing`.
    fn encrypt(&mut self, then: &Then<'_>, context: &mut Context<'_>) -> io::Result<()> {
        let mut encrypted = OUTGOING.take();
        let mut records = std::mem::take(&mut self.incoming);
        let mut nowhere = ReadBuf::new(&mut []);
        let driven = self.drive(&mut records, &mut nowhere, then, &mut encrypted);
        let sent = driven.and_then(|taken| {
            records.drain(..taken);
            self.incoming = records;
            let mut rest = encrypted.as_slice();
            while self.outgoing.is_empty() && !rest.is_empty() {
                match Pin::new(&mut self.stream).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => rest = &rest[count..],
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
            self.outgoing.bytes.extend_from_slice(rest);
            Ok(())
        });
        if encrypted.capacity() <= KEPT {
            encrypted.clear();
            OUTGOING.set(encrypted);
        }
        sent
    }
}

/// An end without `close_notify` looks like a connection that was cut (RFC 8446 §6.1). It is sent as far as
/// the peer takes it now: not behind an answer that the peer did not take.
impl<S: Side> Drop for Tls<S> {
    fn drop(&mut self) {
        if self.closing || self.broken || self.tls.is_handshaking() || !self.outgoing.is_empty() {
            return;
        }
        self.closing = true;
        let _ = self.encrypt(&Then::Close, &mut Context::from_waker(Waker::noop()));
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: Side> AsyncRead for Tls<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An answer to an update of keys, or what the last write left.
        if let Poll::Ready(Err(error)) = this.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        loop {
            if !this.plain.is_empty() {
                let count = this.plain.rest().len().min(buffer.remaining());
                buffer.put_slice(&this.plain.rest()[..count]);
                this.plain.consume(count);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_records(context, buffer, false))?;
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Side> AsyncWrite for Tls<S> {
    /// Encrypts bytes when all that was written before is sent. Taken are those that are encrypted; the
    /// peer has them when [`poll_flush`](AsyncWrite::poll_flush) is done.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        if this.closing || this.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let some = bytes.get(..WRITE).unwrap_or(bytes);
        if !some.is_empty() {
            this.encrypt(&Then::Encrypt(some), context)?;
        }
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    /// Sends `close_notify`, then ends our side of the connection.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing && !this.broken {
            ready!(this.poll_send(context))?;
            this.closing = true;
            this.encrypt(&Then::Close, context)?;
        }
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
