//! How many connections to one node are opened at a time, and how many in a second: so many
//! clients that lose their node at once do not overrun the next one.
//!
//! A node takes connections at a bounded rate: Tigase closes what exceeds 1000 in a second, and
//! ejabberd lets five wait to be accepted. Who may not open a connection yet waits for its turn,
//! first come, first served; giving up the wait is dropping it. Whoever need not wait pays for two
//! atomics and an uncontended lock, and no timer is made.
//!
//! Each node has a pace of its own. Nothing here opens a connection or knows a node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// The most that wait for their turn at one node; each takes a few hundred bytes.
const MOST_WAITING: usize = 65_536;

/// In any span of this length there are at most `per_second` connections.
const SPAN: Duration = Duration::from_secs(1);

/// The pace at which connections to one node are opened.
#[derive(Debug)]
pub struct Pace {
    /// One permit for each connection that may be opened at the same time. Fair: what is given
    /// back goes to whoever has waited longest, and nobody overtakes.
    opening: Semaphore,
    rate: Option<Rate>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Rate {
    /// Its one permit is held by whoever is the next in line while the span is full.
    next: Semaphore,
    window: Mutex<Window>,
}

/// The connections of the last span.
#[derive(Debug)]
struct Window {
    most: usize,
    begun: VecDeque<Instant>,
}

impl Window {
    const fn new(most: usize) -> Self {
        Self {
            most,
            begun: VecDeque::new(),
        }
    }

    /// Counts one more connection; if that is too many, says when it may be tried again.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while let Some(&oldest) = self.begun.front() {
            if now < oldest + SPAN {
                break;
            }
            self.begun.pop_front();
        }
        match self.begun.front() {
            Some(&oldest) if self.begun.len() >= self.most => Err(oldest + SPAN),
            _ => {
                self.begun.push_back(now);
                Ok(())
            }
        }
    }
}

impl Rate {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to open one connection; to be kept until it is open.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub struct Turn<'a> {
    pace: &'a Pace,
    _opening: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// The connection was refused and cost the node nothing: it does not count in its second.
    pub fn forgive(self) {
        if let Some(rate) = &self.pace.rate {
            rate.window().begun.pop_back();
        }
    }
}

/// One that waits, counted until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace {
    /// At most `opening` connections being opened at a time and, unless that is 0, at most
    /// `per_second` in any second.
    ///
    /// # Panics
    /// If `opening` is more than a semaphore can count.
    pub fn new(opening: usize, per_second: usize) -> Self {
        Self {
            opening: Semaphore::new(opening),
            rate: (per_second > 0).then(|| Rate {
                next: Semaphore::new(1),
                window: Mutex::new(Window::new(per_second)),
            }),
            waiting: AtomicUsize::new(0),
        }
    }

    /// A turn, if there is one to be had at once and nobody waits for it.
    pub fn try_turn(&self, now: Instant) -> Option<Turn<'_>> {
        let opening = self.opening.try_acquire().ok()?;
        if let Some(rate) = &self.rate {
            let _next = rate.next.try_acquire().ok()?;
            rate.window().take(now).ok()?;
        }
        Some(self.begin(opening))
    }

    /// Waits for a turn, behind all who wait already; none if they are too many.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MOST_WAITING {
            return None;
        }
        let opening = self.opening.acquire().await.ok()?;
        if let Some(rate) = &self.rate {
            let _next = rate.next.acquire().await.ok()?;
            loop {
                let taken = rate.window().take(Instant::now());
                match taken {
                    Ok(()) => break,
                    Err(at) => sleep_until(at).await,
                }
            }
        }
        Some(self.begin(opening))
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    const fn begin<'a>(&'a self, opening: SemaphorePermit<'a>) -> Turn<'a> {
        Turn {
            pace: self,
            _opening: opening,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn in_no_second_there_are_more_than_allowed() {
        let mut window = Window::new(3);
        let begun = Instant::now();
        let mut granted: Vec<Instant> = vec![];
        let mut random = fastrand::Rng::with_seed(1);
        let mut now = begun;
        for _ in 0..2_000 {
            now += MILLISECOND * random.u32(0..400);
            match window.take(now) {
                Ok(()) => granted.push(now),
                Err(at) => {
                    assert!(at > now && at <= now + SPAN);
                    assert!(window.take(at - MILLISECOND).is_err());
                }
            }
        }
        assert!(granted.windows(4).all(|w| w[3] >= w[0] + SPAN));
        assert!(granted.len() > 1_000, "{}", granted.len());
    }

    #[test]
    fn a_full_second_says_when_there_is_room() {
        let mut window = Window::new(2);
        let now = Instant::now();
        assert_eq!(window.take(now), Ok(()));
        assert_eq!(window.take(now + 300 * MILLISECOND), Ok(()));
        assert_eq!(window.take(now + 400 * MILLISECOND), Err(now + SPAN));
        assert_eq!(window.take(now + SPAN), Ok(()));
        let next = now + SPAN + 300 * MILLISECOND;
        assert_eq!(window.take(now + SPAN), Err(next));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_opened_at_a_time() {
        let pace = Pace::new(2, 0);
        let first = pace.try_turn(Instant::now()).unwrap();
        let _second = pace.try_turn(Instant::now()).unwrap();
        assert!(pace.try_turn(Instant::now()).is_none());
        let waits = tokio::time::timeout(MILLISECOND, pace.turn()).await;
        assert!(waits.is_err());
        assert_eq!(pace.waiting(), 0, "it gave up");
        drop(first);
        assert!(pace.turn().await.is_some());
        assert!(pace.try_turn(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_first_is_first_and_nobody_overtakes() {
        let pace = Arc::new(Pace::new(1, 0));
        let (sender, mut order) = mpsc::unbounded_channel();
        let turn = pace.try_turn(Instant::now()).unwrap();
        for number in 0..10 {
            let (pace, sender) = (Arc::clone(&pace), sender.clone());
            tokio::spawn(async move {
                let _turn = pace.turn().await.unwrap();
                assert!(pace.try_turn(Instant::now()).is_none());
                sender.send(number).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert_eq!(pace.waiting(), 10);
        drop(turn);
        assert!(pace.try_turn(Instant::now()).is_none(), "overtaken");
        for number in 0..10 {
            assert_eq!(order.recv().await, Some(number));
        }
        assert!(pace.turn().await.is_some());
        assert_eq!(pace.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_what_exceeds_it_in_the_next_second() {
        let pace = Pace::new(5, 10);
        let begun = Instant::now();
        let mut at = vec![];
        for _ in 0..25 {
            let turn = match pace.try_turn(Instant::now()) {
                Some(turn) => turn,
                None => pace.turn().await.unwrap(),
            };
            at.push(begun.elapsed().as_secs());
            drop(turn);
        }
        let of = |second| at.iter().filter(|&&s| s == second).count();
        assert_eq!([of(0), of(1), of(2)], [10, 10, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_connection_does_not_count() {
        let pace = Pace::new(5, 1);
        for _ in 0..100 {
            pace.try_turn(Instant::now()).unwrap().forgive();
        }
        drop(pace.try_turn(Instant::now()).unwrap());
        assert!(pace.try_turn(Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_nobodys_place() {
        let pace = Pace::new(1, 1);
        drop(pace.try_turn(Instant::now()).unwrap());
        let begun = Instant::now();
        for _ in 0..50 {
            let gave_up = tokio::time::timeout(MILLISECOND, pace.turn()).await;
            assert!(gave_up.is_err());
        }
        assert!(pace.turn().await.is_some());
        assert!(begun.elapsed() <= SPAN + 2 * MILLISECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let pace = Pace::new(1, 0);
        let _turn = pace.try_turn(Instant::now()).unwrap();
        pace.waiting.store(MOST_WAITING, Ordering::Relaxed);
        assert!(pace.turn().await.is_none());
        assert_eq!(pace.waiting(), MOST_WAITING);
    }
}
