//! Coarse timers: many short waits of one thread on one tokio timer.
//!
//! A timer of tokio's costs a lock, and often a write to an eventfd and a turn of epoll, since it
//! may end before what the thread sleeps for. Requests wait for milliseconds all the time (their
//! turn, or a pause), and nearly all of these waits are given up
//! before they end. Here such a wait is a push to a list; one task a thread sleeps for all of them.
//!
//! Such a wait ends up to 3 ms late, never early. [`exactly`] is for the few that may not be late: it
//! takes a timer of tokio's. Knows nothing of what waits.

mod slow;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

pub use slow::{Slow, coarse_now, present_tick, wake_listeners};

/// Milliseconds that the wheel spans; a longer wait goes round again.
const SLOTS: u64 = 64;

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

/// A wait until a point in time.
#[derive(Debug)]
pub struct Coarse {
    deadline: Instant,
    entry: Option<Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Entry {
    fn set_waker(&self, waker: Option<Waker>) -> Option<Waker> {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, waker)
    }
}

impl Coarse {
    /// A wait until `deadline`.
    pub const fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            entry: None,
        }
    }

    /// A wait of `span` from now on.
    pub fn after(span: Duration) -> Self {
        Self::until(Instant::now() + span)
    }
}

impl Future for Coarse {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(entry) = &self.entry {
            // The order matters: a wheel that turns between the two sees the waker.
            drop(entry.set_waker(Some(context.waker().clone())));
            if !entry.over.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let entry = Arc::new(Entry::default());
        drop(entry.set_waker(Some(context.waker().clone())));
        WHEEL.with_borrow_mut(|wheel| wheel.insert(self.deadline, Arc::clone(&entry)));
        self.entry = Some(entry);
        Poll::Pending
    }
}

impl Drop for Coarse {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            drop(entry.set_waker(None));
        }
    }
}

thread_local! {
    static WHEEL: RefCell<Wheel> = const { RefCell::new(Wheel::new()) };
}

/// The waits of one thread, by the millisecond in which they end.
struct Wheel {
    slots: Vec<Vec<Arc<Entry>>>,
    /// When millisecond 0 was; set by the first wait.
    epoch: Option<Instant>,
    /// The last millisecond that was turned.
    turned: u64,
    waits: usize,
    driven: bool,
    /// The millisecond that the driver sleeps for.
    next: u64,
    /// Wakes the driver, for a wait that ends before that.
    driver: Option<Waker>,
}

impl Wheel {
    const fn new() -> Self {
        Self {
            slots: Vec::new(),
            epoch: None,
            turned: 0,
            waits: 0,
            driven: false,
            next: 0,
            driver: None,
        }
    }

    fn insert(&mut self, deadline: Instant, entry: Arc<Entry>) {
        let now = Instant::now();
        let epoch = *self.epoch.get_or_insert(now);
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS as usize, Vec::new);
        }
        if self.waits == 0 {
            self.turned = self.turned.max(millis(now - epoch));
        }
        let due = millis(deadline.saturating_duration_since(epoch)) + 1;
        let due = due.clamp(self.turned + 1, self.turned + SLOTS - 1);
        self.slots[(due % SLOTS) as usize].push(entry);
        self.waits += 1;
        if !std::mem::replace(&mut self.driven, true) {
            self.next = due;
            tokio::spawn(drive());
        } else if due < self.next {
            self.next = due;
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
    }

    /// Ends the waits whose millisecond has passed. When to come again, if any are left.
    fn turn(&mut self, over: &mut Vec<Arc<Entry>>) -> Option<Instant> {
        let epoch = self.epoch?;
        let now = millis(Instant::now() - epoch);
        while self.turned < now && self.waits > 0 {
            self.turned += 1;
            let slot = &mut self.slots[(self.turned % SLOTS) as usize];
            self.waits -= slot.len();
            over.append(slot);
        }
        self.turned = self.turned.max(now);
        if self.waits == 0 {
            self.driven = false;
            return None;
        }
        let mut due = self.turned + 1..;
        self.next = due.find(|due| !self.slots[(due % SLOTS) as usize].is_empty())?;
        Some(epoch + Duration::from_millis(self.next))
    }

    /// Whether the driver, woken or not, is to sleep until `next` still.
    fn sleeps_until(&mut self, next: Instant, driver: &Waker) -> bool {
        let earlier = self
            .epoch
            .is_some_and(|epoch| epoch + Duration::from_millis(self.next) < next);
        self.driver = (!earlier).then(|| driver.clone());
        !earlier
    }
}

/// Sleeps for the wheel of this thread until nobody waits any more.
async fn drive() {
    /// A task that is dropped with its runtime leaves the wheel to the next.
    struct Driving;
    impl Drop for Driving {
        fn drop(&mut self) {
            // The thread may be ending, and its wheel gone.
            let _ = WHEEL.try_with(|wheel| {
                if let Ok(mut wheel) = wheel.try_borrow_mut() {
                    *wheel = Wheel::new();
                }
            });
        }
    }
    let driving = Driving;
    let mut over = Vec::new();
    while let Some(next) = WHEEL.with_borrow_mut(|wheel| wheel.turn(&mut over)) {
        end(&mut over);
        let mut sleep = pin!(sleep_until(next));
        poll_fn(|context| {
            let sleeps = WHEEL.with_borrow_mut(|wheel| wheel.sleeps_until(next, context.waker()));
            if sleeps {
                sleep.as_mut().poll(context)
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
    end(&mut over);
    std::mem::forget(driving);
}

fn end(over: &mut Vec<Arc<Entry>>) {
    for entry in over.drain(..) {
        entry.over.store(true, Ordering::Release);
        if let Some(waker) = entry.set_waker(None) {
            waker.wake();
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_after_its_time_and_soon() {
        for span in [0, 1, 2, 7, 20, 63, 64, 65, 150] {
            let begun = Instant::now();
            Coarse::after(Duration::from_millis(span)).await;
            assert!(begun.elapsed() >= Duration::from_millis(span), "{span} ms");
        }
    }

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

    #[tokio::test(start_paused = true)]
    async fn waits_end_in_their_order_within_two_milliseconds() {
        let begun = Instant::now();
        let waits = [30_u64, 5, 200, 5, 64, 128, 1, 2].map(|span| async move {
            Coarse::after(Duration::from_millis(span)).await;
            (span, begun.elapsed())
        });
        let mut tasks = tokio::task::JoinSet::new();
        waits.into_iter().for_each(|wait| drop(tasks.spawn(wait)));
        let mut ended = Vec::new();
        while let Some(Ok((span, took))) = tasks.join_next().await {
            let span = Duration::from_millis(span);
            assert!(
                took >= span && took <= span + Duration::from_millis(2),
                "{span:?}: {took:?}"
            );
            ended.push(span);
        }
        assert!(ended.is_sorted(), "{ended:?}");
        assert!(WHEEL.with_borrow(|wheel| wheel.waits == 0 && !wheel.driven));
    }

    /// The driver slept for the wait of 40 ms, and the one of 3 ms ended with that.
    #[tokio::test(start_paused = true)]
    async fn a_short_wait_does_not_wait_for_a_long_one() {
        let long = tokio::spawn(Coarse::after(Duration::from_millis(40)));
        sleep(Duration::from_millis(5)).await;
        for short in [20, 3, 1] {
            let begun = Instant::now();
            Coarse::after(Duration::from_millis(short)).await;
            let took = begun.elapsed();
            assert!(
                took <= Duration::from_millis(short + 2),
                "{short}: {took:?}"
            );
        }
        assert!(!long.is_finished());
        long.await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_wakes_nobody() {
        let given_up = tokio::time::timeout(
            Duration::from_millis(5),
            Coarse::after(Duration::from_millis(30)),
        );
        assert!(given_up.await.is_err());
        Coarse::after(Duration::from_millis(40)).await;
    }

    #[test]
    fn a_runtime_that_ends_leaves_the_wheel_to_the_next() {
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::spawn(Coarse::after(Duration::from_secs(60)));
                Coarse::after(Duration::from_millis(3)).await;
            });
        }
    }
}
