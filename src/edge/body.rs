//! Reading a request body, bounded in size and in time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::proxy::Cause;

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
/// [`Cause::TooLarge`], [`Cause::BodyTimeout`], [`Cause::BodyMemory`]; [`Cause::BadHead`] when its
/// framing breaks.
pub(super) async fn read(
    mut body: Incoming,
    most: usize,
    patience: Duration,
    memory: &Memory,
) -> Result<Bytes, Cause> {
    let announced = body.size_hint().lower();
    if announced > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(Cause::TooLarge);
    }
    // Most bodies came with their head: no timer for those.
    let first = {
        let mut frame = std::pin::pin!(body.frame());
        match std::future::poll_fn(|context| std::task::Poll::Ready(frame.as_mut().poll(context)))
            .await
        {
            std::task::Poll::Ready(first) => first,
            std::task::Poll::Pending => timeout(patience, frame)
                .await
                .map_err(|_| Cause::BodyTimeout)?,
        }
    };
    let first = data(first)?;
    if body.is_end_stream() {
        return bounded(first, most);
    }
    let rest = Box::pin(collect(body, first, most, memory));
    timeout(patience, rest)
        .await
        .map_err(|_| Cause::BodyTimeout)?
}

async fn collect(
    mut body: Incoming,
    first: Bytes,
    most: usize,
    memory: &Memory,
) -> Result<Bytes, Cause> {
    let mut part = Part { memory, bytes: 0 };
    part.grow(first.len())?;
    let mut whole = BytesMut::from(first);
    while let Some(frame) = body.frame().await {
        let data = data(Some(frame))?;
        part.grow(data.len())?;
        whole.extend_from_slice(&data);
        if whole.len() > most {
            return Err(Cause::TooLarge);
        }
    }
    bounded(whole.freeze(), most)
}

fn data(frame: Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>) -> Result<Bytes, Cause> {
    match frame {
        None => Ok(Bytes::new()),
        // Trailers are dropped.
        Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
        Some(Err(_)) => Err(Cause::BadHead),
    }
}

fn bounded(body: Bytes, most: usize) -> Result<Bytes, Cause> {
    if body.len() > most {
        Err(Cause::TooLarge)
    } else {
        Ok(body)
    }
}
