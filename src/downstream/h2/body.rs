//! The body of a request, as its frames bring it.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use tokio::time::Instant;

use super::super::Downstream;
use super::super::body_budget::{Share, UsedUp};
use crate::proxy::Cause;
use crate::timers::Slow;

/// A body as far as it has come.
pub(super) struct Body {
    bytes: Received,
    /// What it takes of the memory for bodies. One that came at once takes none.
    share: Share,
    most: usize,
    /// When the rest must be there.
    deadline: Instant,
    alarm: Slow,
}

/// The bytes of a body: those of one frame are not copied.
enum Received {
    One(Bytes),
    More(BytesMut),
}

impl Body {
    /// One of which nothing has come.
    pub(super) fn new(downstream: &Downstream) -> Self {
        Self {
            bytes: Received::One(Bytes::new()),
            share: downstream.bodies.share(),
            most: downstream.settings.bosh.max_body,
            deadline: Instant::now() + downstream.settings.timeouts.body,
            alarm: Slow::default(),
        }
    }

    /// What has come.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Reads to the end of the stream, in time; without a cause its client has gone.
    pub(super) fn poll(
        &mut self,
        stream: &mut RecvStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Option<Cause>>> {
        if let Poll::Ready(read) = self.poll_data(stream, context) {
            return Poll::Ready(read);
        }
        if self.share.grow(self.bytes.len() - self.share.bytes()) == Err(UsedUp) {
            return Poll::Ready(Err(Some(Cause::BodyMemory)));
        }
        ready!(self.alarm.poll_until(self.deadline, context));
        Poll::Ready(Err(Some(Cause::BodyTimeout)))
    }

    /// The same without a deadline. Trailers are passed over, as over HTTP/1.1.
    pub(super) fn poll_data(
        &mut self,
        stream: &mut RecvStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Option<Cause>>> {
        while !stream.is_end_stream() {
            let Some(frame) = ready!(stream.poll_data(context)) else {
                break;
            };
            let Ok(bytes) = frame else {
                return Poll::Ready(Err(None));
            };
            if stream.flow_control().release_capacity(bytes.len()).is_err() {
                return Poll::Ready(Err(None));
            }
            if self.bytes.len() + bytes.len() > self.most {
                return Poll::Ready(Err(Some(Cause::TooLarge)));
            }
            self.bytes.append(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl Received {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::More(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn append(&mut self, more: Bytes) {
        match self {
            Self::One(bytes) if bytes.is_empty() => *bytes = more,
            Self::One(bytes) => {
                let mut both = BytesMut::with_capacity(2 * (bytes.len() + more.len()));
                both.extend_from_slice(bytes);
                both.extend_from_slice(&more);
                *self = Self::More(both);
            }
            Self::More(bytes) => bytes.extend_from_slice(&more),
        }
    }
}
