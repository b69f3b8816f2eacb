//! Reading a request body, bounded in size and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::proxy::Cause;

/// Reads a body of at most `most` bytes within `patience`.
///
/// # Errors
///
/// [`Cause::TooLarge`], [`Cause::BodyTimeout`]; [`Cause::BadHead`] when its framing breaks.
pub(super) async fn read(
    mut body: Incoming,
    most: usize,
    patience: Duration,
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
            // Boxed: rare, and its timer would widen the future of every request.
            std::task::Poll::Pending => Box::pin(timeout(patience, frame))
                .await
                .map_err(|_| Cause::BodyTimeout)?,
        }
    };
    let first = data(first)?;
    if body.is_end_stream() {
        return bounded(first, most);
    }
    Box::pin(timeout(patience, collect(body, first, most)))
        .await
        .map_err(|_| Cause::BodyTimeout)?
}

async fn collect(mut body: Incoming, first: Bytes, most: usize) -> Result<Bytes, Cause> {
    let mut whole = BytesMut::from(first);
    while let Some(frame) = body.frame().await {
        whole.extend_from_slice(&data(Some(frame))?);
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
