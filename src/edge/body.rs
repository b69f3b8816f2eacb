//! Reading a request body, bounded in size and in time.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::proxy::Cause;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is refused.
    Refused(Cause),
    /// The client went away before its end.
    Gone,
}

impl From<Cause> for Unread {
    fn from(cause: Cause) -> Self {
        Self::Refused(cause)
    }
}

/// Memory for the bodies that come in several pieces, over all connections. One that came with its
/// head takes none of it: so it is with nearly all.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    used: AtomicUsize,
}

/// What one body takes, until it is dropped.
struct Part<'a> {
    memory: &'a Memory,
    bytes: usize,
}

impl Memory {
    /// So many bytes.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            used: AtomicUsize::new(0),
        }
    }
}

impl Part<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Cause> {
        self.bytes += bytes;
        let before = self.memory.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.memory.most {
            return Err(Cause::BodyMemory);
        }
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `most` bytes within `patience`.
///
/// # Errors
///
/// [`Unread::Gone`]; [`Cause::TooLarge`], [`Cause::BodyTimeout`], [`Cause::BodyMemory`];
/// [`Cause::BadHead`] when its
/// framing breaks.
pub(super) async fn read(
    mut body: Incoming,
    most: usize,
    patience: Duration,
    memory: &Memory,
) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    if announced > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(Cause::TooLarge.into());
    }
    // Most bodies came with their head: no timer for those.
    let (first, deadline) = {
        let mut frame = std::pin::pin!(body.frame());
        match std::future::poll_fn(|context| std::task::Poll::Ready(frame.as_mut().poll(context)))
            .await
        {
            std::task::Poll::Ready(first) => (first, None),
            // Boxed: rare, and its timer would widen the future of every request.
            std::task::Poll::Pending => {
                let deadline = Instant::now() + patience;
                let first = Box::pin(timeout_at(deadline, frame)).await;
                (first.map_err(|_| Cause::BodyTimeout)?, Some(deadline))
            }
        }
    };
    let first = data(first)?;
    if body.is_end_stream() {
        return bounded(first, most);
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + patience);
    Box::pin(timeout_at(deadline, collect(body, first, most, memory)))
        .await
        .map_err(|_| Cause::BodyTimeout)?
}

async fn collect(
    mut body: Incoming,
    first: Bytes,
    most: usize,
    memory: &Memory,
) -> Result<Bytes, Unread> {
    let mut part = Part { memory, bytes: 0 };
    part.grow(first.len())?;
    let mut whole = BytesMut::from(first);
    while let Some(frame) = body.frame().await {
        let data = data(Some(frame))?;
        part.grow(data.len())?;
        whole.extend_from_slice(&data);
        if whole.len() > most {
            return Err(Cause::TooLarge.into());
        }
    }
    bounded(whole.freeze(), most)
}

fn data(frame: Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>) -> Result<Bytes, Unread> {
    match frame {
        None => Ok(Bytes::new()),
        // Trailers are dropped.
        Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
        Some(Err(error)) if is_gone(&error) => Err(Unread::Gone),
        Some(Err(_)) => Err(Cause::BadHead.into()),
    }
}

/// Whether the connection ended, and not only the body's framing broke.
fn is_gone(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|source: &io::Error| {
        // hyper's words for what breaks the framing.
        !matches!(
            source.kind(),
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other
        )
    })
}

fn bounded(body: Bytes, most: usize) -> Result<Bytes, Unread> {
    if body.len() > most {
        Err(Cause::TooLarge.into())
    } else {
        Ok(body)
    }
}
