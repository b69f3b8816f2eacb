//! One direction of a tunnel: bytes are read, their frames are looked at, and they are written on as they
//! are. What the receiver does not take at once is kept, and nothing more is read meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::super::io::Io;
use crate::upstream::NodeStream;
use crate::websocket::{Scanner, Violation};

/// The most bytes taken by one read, and kept.
const READ: usize = 16 * 1024;

/// The slowest that a receiver may read, in bytes a second, once it does not keep up.
const SLOWEST: u64 = 1024;

/// One end of a tunnel.
pub(super) trait End {
    /// Reads what is there into `buffer`; nothing at the end of the connection.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Writes what fits.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

impl End for Io {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Self::poll_read(self, context, buffer)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self, context, bytes)
    }
}

impl End for NodeStream {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self).poll_read(context, buffer)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, bytes)
    }
}

/// Why a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayEnd {
    /// The sender has closed its side.
    Closed,
    /// The sender's connection broke.
    Broken,
    /// The receiver's connection broke.
    Deaf,
    /// The sender broke a rule of RFC 6455.
    Invalid(Violation),
}

/// Bytes that the receiver did not take at once.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    /// Where the rest begins.
    at: usize,
    since: Instant,
    /// Bytes that were taken since.
    taken: u64,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    scanner: Scanner,
    kept: Option<Box<Kept>>,
    /// Bytes that the receiver took.
    passed: u64,
}

impl Way {
    pub(super) const fn new(scanner: Scanner) -> Self {
        Self {
            scanner,
            kept: None,
            passed: 0,
        }
    }

    /// The frames so far.
    pub(super) const fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// How many bytes the receiver took.
    pub(super) const fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether nothing waits for the receiver.
    pub(super) const fn is_flushed(&self) -> bool {
        self.kept.is_none()
    }

    /// Adds bytes that are no part of the sender's frames, or whole frames at a boundary.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let kept = self.kept.get_or_insert_with(|| {
            Box::new(Kept {
                bytes: Vec::new(),
                at: 0,
                since: Instant::now(),
                taken: 0,
            })
        });
        kept.bytes.extend_from_slice(bytes);
    }

    /// Adds bytes of the sender that were read elsewhere.
    ///
    /// # Errors
    /// The rule that they break. The bytes in front of that are added.
    pub(super) fn add_sent(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let scanned = self.scanner.scan(bytes);
        let good = scanned.map_or_else(|(good, _)| good, |()| bytes.len());
        self.add(bytes.get(..good).unwrap_or_default());
        scanned.map_err(|(_, violation)| violation)
    }

    /// When the receiver must have taken what it did not take at once: it has `stall`, and a second more
    /// for each KiB that it then takes.
    pub(super) fn deadline(&self, stall: Duration) -> Option<Instant> {
        let kept = self.kept.as_ref()?;
        let earned = Duration::from_millis(kept.taken.saturating_mul(1000) / SLOWEST);
        Some(kept.since + stall + earned)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Whatever the receiver's connection says.
    pub(super) fn poll_flush(
        &mut self,
        to: &mut impl End,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(kept) = &mut self.kept {
            let rest = kept.bytes.get(kept.at..).unwrap_or_default();
            if rest.is_empty() {
                self.kept = None;
                break;
            }
            let taken = ready!(to.poll_write(context, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            kept.at += taken;
            kept.taken += taken as u64;
            self.passed += taken as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on what there is, until there is nothing more or the receiver takes no more. `heard` is
    /// called when the sender has sent something.
    pub(super) fn poll(
        &mut self,
        from: &mut impl End,
        to: &mut impl End,
        mut heard: impl FnMut(),
        context: &mut Context<'_>,
    ) -> Poll<WayEnd> {
        let mut room = [const { MaybeUninit::uninit() }; READ];
        loop {
            if ready!(self.poll_flush(to, context)).is_err() {
                return Poll::Ready(WayEnd::Deaf);
            }
            let mut buffer = ReadBuf::uninit(&mut room);
            if ready!(from.poll_read(context, &mut buffer)).is_err() {
                return Poll::Ready(WayEnd::Broken);
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(WayEnd::Closed);
            }
            heard();
            let scanned = self.scanner.scan(bytes);
            let good = scanned.map_or_else(|(good, _)| good, |()| bytes.len());
            let good = bytes.get(..good).unwrap_or_default();
            if self.write(to, good, context).is_err() {
                return Poll::Ready(WayEnd::Deaf);
            }
            if let Err((_, violation)) = scanned {
                return Poll::Ready(WayEnd::Invalid(violation));
            }
        }
    }

    /// Writes bytes as far as the receiver takes them, and keeps the rest. Nothing was kept so far.
    fn write(
        &mut self,
        to: &mut impl End,
        mut bytes: &[u8],
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.poll_write(context, bytes) {
                Poll::Ready(Ok(taken)) if taken > 0 => {
                    self.passed += taken as u64;
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                Poll::Ready(Ok(_)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.add(bytes);
                    break;
                }
            }
        }
        Ok(())
    }
}
