//! A wait of 10 to 20 ms, for what nearly always ends before that: an exchange is answered, and needs
//! no timer of its own and no watch over its connection.
//!
//! The waits of a thread are in two lists: those that began in the present interval of 10 ms, and those
//! of the one before. At the end of an interval the older ones end. So a wait costs a place in a list,
//! and all of them together one timer each 10 ms; none while nothing waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;

/// How long an interval is.
const INTERVAL: Duration = Duration::from_millis(10);

/// The places that a list keeps for the next interval.
const KEPT: usize = 1024;

/// A wait of 10 to 20 ms, from the first time that it is polled.
#[derive(Debug, Default)]
pub struct Young(Option<ListPlace>);

/// Where a wait is in its list.
#[derive(Debug, Clone, Copy)]
struct ListPlace {
    lists: u32,
    interval: u32,
    index: u32,
}

impl Future for Young {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        LISTS.with_borrow_mut(|lists| match self.0 {
            // One that was begun on another thread, or in a runtime that has ended, begins again.
            Some(place) if place.lists == lists.id => {
                let Some(waker) = lists.place(place) else {
                    return Poll::Ready(());
                };
                if let Some(waker) = waker.as_mut().filter(|old| !old.will_wake(context.waker())) {
                    waker.clone_from(context.waker());
                }
                Poll::Pending
            }
            _ => {
                self.0 = Some(lists.insert(context.waker().clone()));
                Poll::Pending
            }
        })
    }
}

impl Drop for Young {
    fn drop(&mut self) {
        let Some(place) = self.0 else { return };
        // The thread may be ending.
        let removed = LISTS.try_with(|lists| {
            let mut lists = lists.try_borrow_mut().ok()?;
            let waker = match place.lists == lists.id {
                true => lists.place(place)?.take(),
                false => None,
            };
            lists.waiting -= usize::from(waker.is_some());
            waker
        });
        drop(removed);
    }
}

thread_local! {
    static LISTS: RefCell<Lists> = RefCell::new(Lists::new());
}

/// The waits of a thread.
struct Lists {
    /// No other lists have it.
    id: u32,
    /// The intervals that have ended. It wraps after 497 days, and no wait is as old as that.
    interval: u32,
    /// The waits that began in an even interval, and in an odd one.
    begun: [Vec<Option<Waker>>; 2],
    waiting: usize,
    driven: bool,
    /// Wakes the driver, which rests.
    driver: Option<Waker>,
}

impl Lists {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            interval: 0,
            begun: [Vec::new(), Vec::new()],
            waiting: 0,
            driven: false,
            driver: None,
        }
    }

    fn list(&mut self, interval: u32) -> &mut Vec<Option<Waker>> {
        let [even, odd] = &mut self.begun;
        if interval.is_multiple_of(2) {
            even
        } else {
            odd
        }
    }

    /// The waker at a place; nothing once its wait is over.
    fn place(&mut self, place: ListPlace) -> Option<&mut Option<Waker>> {
        if self.interval.wrapping_sub(place.interval) >= 2 {
            return None;
        }
        let index = usize::try_from(place.index).ok()?;
        self.list(place.interval).get_mut(index)
    }

    fn insert(&mut self, waker: Waker) -> ListPlace {
        let (lists, interval) = (self.id, self.interval);
        let list = self.list(interval);
        list.push(Some(waker));
        // Connections are fewer.
        let index = u32::try_from(list.len() - 1).unwrap_or(u32::MAX);
        self.waiting += 1;
        if !std::mem::replace(&mut self.driven, true) {
            tokio::spawn(drive());
        } else if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        ListPlace {
            lists,
            interval,
            index,
        }
    }

    /// Ends the interval; the waits that are over with it go to `over`.
    fn turn(&mut self, over: &mut Vec<Option<Waker>>) {
        self.interval = self.interval.wrapping_add(1);
        let interval = self.interval;
        // It has the waits of the interval before the one that has just ended.
        let list = self.list(interval);
        over.append(list);
        list.shrink_to(KEPT);
        self.waiting -= over.iter().flatten().count();
    }
}

/// Ends the intervals of this thread, as long as anything waits.
async fn drive() {
    /// A task that is dropped with its runtime leaves new lists to the next.
    struct Driving;
    impl Drop for Driving {
        fn drop(&mut self) {
            // The thread may be ending, and its lists gone.
            let _ = LISTS.try_with(|lists| {
                if let Ok(mut lists) = lists.try_borrow_mut() {
                    *lists = Lists::new();
                }
            });
        }
    }
    let _driving = Driving;
    let mut over = Vec::new();
    loop {
        poll_fn(|context| {
            LISTS.with_borrow_mut(|lists| {
                if lists.waiting > 0 {
                    return Poll::Ready(());
                }
                lists.driver = Some(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
        sleep(INTERVAL).await;
        LISTS.with_borrow_mut(|lists| lists.turn(&mut over));
        over.drain(..).flatten().for_each(Waker::wake);
        over.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    fn waiting() -> usize {
        LISTS.with_borrow(|lists| lists.waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_after_one_to_two_intervals() {
        for pause in [0, 1, 5, 9, 10, 11, 19, 100, 1000] {
            sleep(Duration::from_millis(pause)).await;
            let begun = Instant::now();
            Young::default().await;
            let took = begun.elapsed();
            assert!(
                took >= INTERVAL && took <= INTERVAL * 2,
                "{pause}: {took:?}"
            );
        }
        assert_eq!(waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_that_are_given_up_leave_nothing_and_hold_up_no_other() {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..3000_u64 {
            tasks.spawn(async move {
                let span = Duration::from_millis(number % 25);
                let begun = Instant::now();
                let ended = timeout(span, Young::default()).await.is_ok();
                (ended, begun.elapsed(), span)
            });
        }
        let mut given_up = 0;
        while let Some(Ok((ended, took, span))) = tasks.join_next().await {
            if ended {
                assert!(took >= INTERVAL && took <= INTERVAL * 2, "{took:?}");
            } else {
                assert!(took >= span);
                given_up += 1;
            }
        }
        assert!((1000..2900).contains(&given_up), "{given_up}");
        assert_eq!(waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_timer_runs_while_nothing_waits() {
        Young::default().await;
        let begun = Instant::now();
        // With nothing else to do, virtual time goes on to the next timer.
        let never = timeout(Duration::from_secs(3600), std::future::pending::<()>());
        assert!(never.await.is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(3600));
        let turned = LISTS.with_borrow(|lists| lists.interval);
        assert!(turned < 10, "{turned}");
    }

    #[test]
    fn a_runtime_that_ends_leaves_new_lists_to_the_next() {
        let mut left = Young::default();
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                let look = poll_fn(|context| Poll::Ready(Pin::new(&mut left).poll(context)));
                assert!(look.await.is_pending());
                Young::default().await;
            });
        }
    }
}
