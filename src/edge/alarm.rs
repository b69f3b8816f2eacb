//! When a connection that hyper has is looked at again: one timer for all that can take too long.
//!
//! A timer for each request would cost more than the look itself. So the alarm is set once, and
//! when it rings it looks whether hyper is still about the same thing as when it was set; if not,
//! it is set anew. What takes long is therefore noticed after one to two times its patience.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::sleep;

use super::wire::{Doing, Moment, Signals};
use crate::timers::Coarse;
use crate::upstream::PARK_AFTER;

/// The alarm of one connection.
pub(super) struct Alarm {
    /// How long a head may take, once its first byte has come.
    head: Duration,
    set: Set,
}

/// How an alarm is set.
enum Set {
    Off,
    /// It rings at the end of the wait, about what was going on when it was set.
    On(Pin<Box<dyn Future<Output = ()> + Send>>, Moment),
    /// It has rung about this.
    Rung(Moment),
}

impl Alarm {
    /// An alarm that is off; it lets a head take as long as `head`, or twice that.
    pub(super) const fn new(head: Duration) -> Self {
        let set = Set::Off;
        Self { head, set }
    }

    /// Rings, once, when hyper has been about the same thing for too long.
    pub(super) fn poll(&mut self, signals: &Signals, context: &mut Context<'_>) -> Poll<Doing> {
        let now = signals.moment();
        let (_, doing) = now;
        loop {
            match &mut self.set {
                Set::Rung(about) if *about == now => return Poll::Pending,
                // One that waits for a head waits for too long for anything else.
                Set::On(_, (_, Doing::Head)) if doing != Doing::Head => self.set = Set::Off,
                Set::On(wait, about) => {
                    ready!(wait.as_mut().poll(context));
                    let rings = *about == now;
                    self.set = if rings { Set::Rung(now) } else { Set::Off };
                    if rings {
                        return Poll::Ready(doing);
                    }
                }
                Set::Off | Set::Rung(_) => {
                    self.set = match doing {
                        Doing::Head => Set::On(Box::pin(sleep(self.head)), now),
                        // An exchange is parked after this, or twice this: hyper's buffers are given
                        // up. As long hyper stays behind an answer, for a client that goes on at once.
                        // A write that stalls has a timer of its own; one that is done shows only
                        // when hyper is polled again, and does so by waiting for bytes.
                        Doing::Serving | Doing::Writing | Doing::Idle => {
                            Set::On(Box::pin(Coarse::after(PARK_AFTER)), now)
                        }
                    };
                }
            }
        }
    }
}
