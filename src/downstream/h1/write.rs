//! Writing answers, and the end of a connection behind the last one.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::super::Downstream;
use super::super::handler::Response;
use super::super::io::Io;
use super::answer::Form;
use crate::proxy::{Delivered, Delivery};
use crate::timers::Slow;

/// The slowest that a client may read, in bytes a second. A mobile network at its worst does better.
pub(in super::super) const SLOWEST: u64 = 1024;

/// How long, and for how many bytes, a closed connection is still read from.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERING: usize = 1024 * 1024;

/// The same while the process ends: it waits for no client that does not close its side.
const LAST_LINGER: Duration = Duration::from_millis(500);

/// The memory that a thread keeps for the next answer, in bytes.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// Memory for the answer that this thread writes.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An answer that the client did not take at once.
pub(super) struct Writing {
    bytes: Box<[u8]>,
    /// Bytes that were taken.
    at: usize,
    since: Instant,
    closes: bool,
    delivery: Option<Delivery>,
}

/// How far an answer came at once.
pub(super) enum FirstWrite {
    /// It was taken.
    Whole {
        /// Whether the connection closes behind it.
        closes: bool,
    },
    /// A part of it was taken, or none.
    Part(Box<Writing>),
    /// The connection broke.
    Broken,
}

impl Writing {
    /// Writes an answer as far as the client takes it.
    pub(super) fn begin(
        io: &mut Io,
        response: Response,
        form: &Form,
        downstream: &Downstream,
        context: &mut Context<'_>,
    ) -> FirstWrite {
        let mut out = OUT.take();
        let closes = form.write(&response, downstream, &mut out);
        let mut at = 0;
        let begun = loop {
            let rest = out.get(at..).unwrap_or_default();
            let written = if rest.is_empty() {
                io.poll_flush(context).map_ok(|()| 0)
            } else {
                io.poll_write(context, rest)
            };
            match written {
                Poll::Ready(Ok(_)) if rest.is_empty() => {
                    if let Some(delivery) = response.delivery {
                        delivery.ended(Delivered::AtOnce);
                    }
                    break FirstWrite::Whole { closes };
                }
                Poll::Ready(Ok(taken)) if taken > 0 => at += taken,
                Poll::Ready(_) => break FirstWrite::Broken,
                Poll::Pending => {
                    break FirstWrite::Part(Box::new(Self {
                        bytes: rest.into(),
                        at: 0,
                        since: Instant::now(),
                        closes,
                        delivery: response.delivery,
                    }));
                }
            }
        };
        if out.capacity() <= KEPT {
            out.clear();
            OUT.set(out);
        }
        begun
    }

    /// Writes on; says whether the connection closes behind the answer. For what a client did not take
    /// at once it has `stall`, and a second more for each [`SLOWEST`] bytes that it then takes.
    ///
    /// # Errors
    /// `TimedOut` when the client has had its time, and whatever the connection says.
    pub(super) fn poll(
        &mut self,
        io: &mut Io,
        alarm: &mut Slow,
        stall: Duration,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let written = if rest.is_empty() {
                io.poll_flush(context).map_ok(|()| 0)
            } else {
                io.poll_write(context, rest)
            };
            match written {
                Poll::Ready(Ok(_)) if rest.is_empty() => return Poll::Ready(Ok(self.closes)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => self.at += taken,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let taken = u64::try_from(self.at).unwrap_or(u64::MAX);
                    let earned = Duration::from_millis(taken.saturating_mul(1000) / SLOWEST);
                    ready!(alarm.poll_until(self.since + stall + earned, context));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// Tells how it ended.
    pub(super) fn ended(self, result: &io::Result<bool>) {
        let Some(delivery) = self.delivery else {
            return;
        };
        match result {
            Ok(_) => delivery.ended(Delivered::Slowly),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                delivery.ended(Delivered::TooSlow);
            }
            // Dropped, it has ended with its connection.
            Err(_) => {}
        }
    }
}

/// A connection that closes so that the client can read the answer: our side first, then what it still
/// sends is read away, within bounds. To close over unread bytes would reset the connection and take the
/// answer with it (RFC 9112 §9.6).
pub(in super::super) struct Linger {
    until: Instant,
    shut: bool,
    seen: usize,
}

impl Linger {
    pub(in super::super) fn new(downstream: &Downstream) -> Self {
        let limit = if downstream.drain.is_closing() {
            LAST_LINGER
        } else {
            LINGER
        };
        Self {
            until: Instant::now() + limit,
            shut: false,
            seen: 0,
        }
    }

    /// Reads away until the client has closed, or for long enough.
    pub(in super::super) fn poll(
        &mut self,
        io: &mut Io,
        alarm: &mut Slow,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.shut && io.poll_shutdown(context).is_ready() {
            self.shut = true;
        }
        let mut room = [const { MaybeUninit::uninit() }; 4096];
        while self.seen < MOST_LINGERING {
            let mut buffer = ReadBuf::uninit(&mut room);
            match io.poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.seen += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll_until(self.until, context),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::transport::pair;

    /// Writes an answer of 64 KiB and a bit more than that to a client that takes `bytes` of it every
    /// `pause`, and says how long that took until the end, or until the client was cut off.
    async fn read_slowly(bytes: usize, pause: Duration, extra: usize) -> (bool, Duration) {
        let (near, mut far) = pair();
        let begun = Instant::now();
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; bytes];
            loop {
                tokio::time::sleep(pause).await;
                if !matches!(far.read(&mut taken).await, Ok(1..)) {
                    return;
                }
            }
        });
        let mut io = Io::Plain(near.into());
        let mut alarm = Slow::default();
        let at_once = vec![b'x'; 64 * 1024];
        let taken = poll_fn(|context| io.poll_write(context, &at_once)).await;
        assert_eq!(taken.unwrap(), at_once.len());
        let mut writing = Writing {
            bytes: vec![b'x'; extra].into(),
            at: 0,
            since: Instant::now(),
            closes: false,
            delivery: None,
        };
        let stall = Duration::from_secs(30);
        let written = poll_fn(|context| writing.poll(&mut io, &mut alarm, stall, context)).await;
        let took = begun.elapsed();
        drop(io);
        reading.await.unwrap();
        (written.is_ok(), took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_cut_off() {
        let (whole, took) = read_slowly(1, Duration::from_secs(29), 60).await;
        assert!(!whole, "served for {took:?}");
        assert!(took < Duration::from_secs(60), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_twice_the_slowest_rate_gets_everything() {
        let mib = 1024 * 1024;
        let (whole, took) = read_slowly(2048, Duration::from_secs(1), mib).await;
        assert!(whole, "cut off after {took:?}");
        assert!(took > Duration::from_secs(500), "{took:?}");
    }
}
