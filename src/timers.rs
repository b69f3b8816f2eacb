//! The two waits of a request: an exact one of milliseconds, and a long one that most often ends before its
//! time.
//!
//! [`exactly`] takes a timer of tokio's. [`Slow`] takes a place in a list of its thread. Neither knows what
//! waits.

mod slow;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use slow::{Slow, coarse_now, present_tick, wake_listeners};

/// Waits until `deadline`, never less. On a thread that does nothing else meanwhile, the wait ends
/// within the whole millisecond from its beginning in which the deadline falls; on others up to 2 ms
/// late.
///
/// Tokio rounds a timer up to its next millisecond, and the thread then sleeps for whole milliseconds
/// from the one in which it is: a timer of n ms ends after n + 1. So it is asked for one less.
pub async fn exactly(deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let whole = Duration::from_millis(millis(left - Duration::from_nanos(1)));
        // A little more than a whole number, so that there is something to wait for below 1 ms.
        sleep(whole + Duration::from_nanos(1)).await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exact_wait_ends_with_its_millisecond() {
        for (span, most) in [(0, 0), (1, 1_000), (999, 1_000), (1_000, 1_000)] {
            for begin in [0, 1, 500, 999] {
                tokio::time::advance(Duration::from_micros(begin)).await;
                let begun = Instant::now();
                exactly(begun + Duration::from_micros(span)).await;
                let took = begun.elapsed();
                assert!(took >= Duration::from_micros(span), "{span} µs: {took:?}");
                assert!(took <= Duration::from_micros(most), "{span} µs: {took:?}");
            }
        }
        let begun = Instant::now();
        exactly(begun + Duration::from_millis(5)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(5));
    }
}
