//! The bytes of a client's connection, plain or over TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::TlsVersion;
use crate::transport::Stream;
use crate::transport::TlsStream;

/// A client's connection.
#[derive(Debug)]
pub(super) enum Io {
    /// Bytes as they are.
    Plain(Stream),
    /// Bytes of TLS, boxed so that a plain connection has no room for it.
    Tls(Box<TlsStream>),
}

impl Io {
    /// Reads what is there into `buffer`; nothing at the end of the connection.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }

    /// Writes what fits. The client's system has it after [`Io::poll_flush`].
    #[inline]
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    /// Sends what was written. On a plain connection nothing waits.
    #[inline]
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    /// Ends our side.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }

    /// Waits for the client's end while a request is held. What comes before the end goes to `early`,
    /// up to `most` bytes there; then nothing more is read.
    #[inline]
    pub(super) fn poll_closed(
        &mut self,
        context: &mut Context<'_>,
        early: &mut Early,
        most: usize,
    ) -> Poll<()> {
        loop {
            let room = most.saturating_sub(early.rest().len());
            if room == 0 {
                return Poll::Pending;
            }
            let mut bytes = [std::mem::MaybeUninit::uninit(); EARLY];
            let mut buffer = ReadBuf::uninit(&mut bytes[..room.min(EARLY)]);
            match ready!(self.poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => early.append(buffer.filled()),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// The version of TLS; none on a plain connection.
    pub(super) fn tls(&self) -> Option<TlsVersion> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) if stream.is_tls13() => Some(TlsVersion::Tls13),
            Self::Tls(_) => Some(TlsVersion::Tls12),
        }
    }

    /// Has the transport notice, from now on, when the client is gone without a word.
    pub(super) fn watch(&self) {
        match self {
            Self::Plain(stream) => stream.watch(),
            Self::Tls(stream) => stream.transport().watch(),
        }
    }
}

/// For a protocol of a library: HTTP/2.
impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read(context, into)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(context)
    }
}

/// How much is read at a time while a request is held.
const EARLY: usize = 2048;

/// Bytes that were read and belong to no request yet; no memory where there are none.
#[derive(Debug, Default)]
pub(super) struct Early(Option<Box<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    bytes: Vec<u8>,
    /// Where the rest begins.
    at: usize,
}

impl Early {
    /// What is there.
    pub(super) fn rest(&self) -> &[u8] {
        let rest = self
            .0
            .as_ref()
            .and_then(|early| early.bytes.get(early.at..));
        rest.unwrap_or_default()
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let early = self.0.get_or_insert_default();
            early.bytes.extend_from_slice(bytes);
        }
    }

    /// Drops bytes at the start.
    pub(super) fn consume(&mut self, count: usize) {
        let Some(early) = &mut self.0 else { return };
        early.at += count;
        if early.at >= early.bytes.len() {
            self.0 = None;
        } else if early.at > early.bytes.len() / 2 {
            // What was read makes room for what comes. Each byte is moved once, on average.
            early.bytes.drain(..early.at);
            early.at = 0;
        }
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_bytes_come_out_as_they_went_in() {
        let mut early = Early::default();
        let (mut went_in, mut came_out) = (Vec::new(), Vec::new());
        for number in 0..200_u8 {
            let bytes = vec![number; usize::from(number % 7)];
            early.append(&bytes);
            went_in.extend(bytes);
            let some = early.rest().len().min(usize::from(number % 5));
            came_out.extend_from_slice(&early.rest()[..some]);
            early.consume(some);
        }
        came_out.extend_from_slice(early.rest());
        early.consume(early.rest().len());
        assert_eq!(came_out, went_in);
        assert!(early.0.is_none(), "no memory where there is nothing");
    }
}
