//! How long a connection on which nothing is asked is kept.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Downstream;
use crate::timers::{self, Slow};

/// How long a connection on which nothing was asked yet is waited for while the process ends, or leaves newcomers
/// to another one: its request is most likely on its way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A wait for the next request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// When it began, give or take 50 ms.
    since: Instant,
    /// The drain has begun since, and `since` is when.
    last_call: bool,
}

impl Idle {
    /// A wait that begins now.
    #[inline]
    pub(super) fn begin() -> Self {
        Self {
            since: timers::coarse_now(),
            last_call: false,
        }
    }

    /// Ready when the connection is to end: `most` after the begin, sooner in a drain or when places run
    /// short. `fresh` says that nothing was asked on it so far.
    #[inline]
    pub(super) fn poll(
        &mut self,
        fresh: bool,
        most: Duration,
        downstream: &Downstream,
        alarm: &mut Slow,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        downstream.drain.attend();
        let mut until = self.since + most;
        if downstream.drain.lets_go() {
            if !fresh {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut self.last_call, true) {
                self.since = Instant::now();
            }
            until = until.min(self.since + FIRST_REQUEST);
        } else if downstream.load_shedding.gives_up(self.since) {
            downstream.proxy.metrics.connections_given_up.inc();
            return Poll::Ready(());
        }
        alarm.poll_until_called(until, context)
    }
}
