//! The first bytes of a connection, which say whether its client speaks HTTP/2.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::super::Downstream;
use super::super::idle::Idle;
use super::super::io::{Early, Io};
use crate::timers::Slow;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most bytes taken by one read: many a first request whole.
const READ: usize = 2048;

/// Reads until it is clear what the client speaks.
pub(in super::super) struct Preface {
    downstream: Arc<Downstream>,
    io: Option<Io>,
    early: Early,
    idle: Idle,
    alarm: Slow,
}

/// What a client speaks, and what was read of it.
pub(in super::super) struct Opened {
    pub(in super::super) io: Io,
    pub(in super::super) early: Early,
    pub(in super::super) http2: bool,
}

impl Preface {
    /// Reads from `io`.
    pub(in super::super) fn new(downstream: Arc<Downstream>, io: Io) -> Self {
        Self {
            downstream,
            io: Some(io),
            early: Early::default(),
            idle: Idle::begin(),
            alarm: Slow::default(),
        }
    }

    /// The same, with bytes that were read before.
    pub(in super::super) fn having_read(self, early: Early) -> Self {
        Self { early, ..self }
    }
}

impl Future for Preface {
    /// None if the client has gone, or had its time.
    type Output = Option<Opened>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Opened>> {
        let own = &mut *self;
        let Some(io) = &mut own.io else {
            return Poll::Ready(None);
        };
        loop {
            let begin = own.early.rest();
            let http2 = begin.starts_with(PREFACE);
            if http2 || !PREFACE.starts_with(begin) {
                let opened = own.io.take().map(|io| Opened {
                    io,
                    early: own.early.take(),
                    http2,
                });
                return Poll::Ready(opened);
            }
            let mut room = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut room);
            let Poll::Ready(read) = io.poll_read(context, &mut buffer) else {
                let most = own.downstream.settings.timeouts.head;
                ready!(
                    own.idle
                        .poll(true, most, &own.downstream, &mut own.alarm, context)
                );
                return Poll::Ready(None);
            };
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(None);
            }
            own.early.append(buffer.filled());
        }
    }
}
