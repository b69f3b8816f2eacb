//! What happens when connections run short: idle ones are given up, the longest idle first.
//!
//! Nothing is kept of idle connections, since most requests end in one. While places are short this
//! task tells all of them an age at which to end, and halves it until there are enough places. A
//! hoard that sits idle goes first; a client that has just been answered goes last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Downstream;

/// From one age to the next. Connections that were told end within it.
const STEP: Duration = Duration::from_millis(50);

/// The least age while some places are left, and how often it is told then.
const YOUNG: Duration = Duration::from_secs(1);

/// The least age when no place is left: a connection that has just been made is about to ask.
const YOUNGEST: Duration = Duration::from_millis(100);

/// Steps without need after which the next need begins with the oldest again.
const CALM: u32 = 10;

/// How short places are.
#[derive(Debug)]
pub(super) struct LoadShedding {
    started: Instant,
    noticed: Notify,
    /// Open files are short, whatever the places.
    no_files: AtomicBool,
    /// Connections idle since then or before end, in microseconds since `started`; 0 is none.
    since: AtomicU64,
}

impl LoadShedding {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            noticed: Notify::new(),
            no_files: AtomicBool::new(false),
            since: AtomicU64::new(0),
        }
    }

    /// Whether a connection that is idle since `since` is to end.
    pub(super) fn gives_up(&self, since: Instant) -> bool {
        let told = self.since.load(Ordering::Relaxed);
        told > 0 && self.micros(since) <= told
    }

    /// Notes that places are short.
    pub(super) fn notice(&self) {
        self.noticed.notify_one();
    }

    /// Notes that open files are short.
    pub(super) fn no_files(&self) {
        self.no_files.store(true, Ordering::Relaxed);
        self.notice();
    }

    /// Whether open files were noted to be short, and nothing was done about it yet.
    #[cfg(test)]
    pub(super) fn is_short_of_files(&self) -> bool {
        self.no_files.load(Ordering::Relaxed)
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Downstream {
    /// Whether fewer than a tenth of the places are left.
    pub(super) fn is_crowded(&self) -> bool {
        self.places.available_permits() < self.settings.limits.connections.div_ceil(10)
    }
}

/// Gives up idle connections whenever places or open files are short. Never returns.
pub async fn relieve(current: Arc<ArcSwap<Downstream>>) {
    // All of them share it.
    let shedding = Arc::clone(&current.load().load_shedding);
    loop {
        shedding.noticed.notified().await;
        let mut downstream = current.load_full();
        let (mut age, mut calm) = (downstream.settings.timeouts.idle, 0);
        while calm < CALM {
            downstream = current.load_full();
            let no_files = shedding.no_files.swap(false, Ordering::Relaxed);
            if !no_files && !downstream.is_crowded() {
                calm += 1;
                sleep(STEP).await;
                continue;
            }
            calm = 0;
            let some_left = !no_files && downstream.places.available_permits() > 0;
            let least = if some_left { YOUNG } else { YOUNGEST };
            let pause = if some_left && age <= least {
                YOUNG
            } else {
                STEP
            };
            age = (age / 2).max(least);
            if let Some(since) = Instant::now().checked_sub(age) {
                shedding
                    .since
                    .store(shedding.micros(since), Ordering::Relaxed);
                downstream.drain.wake_idle();
            }
            sleep(pause).await;
        }
        shedding.since.store(0, Ordering::Relaxed);
    }
}
