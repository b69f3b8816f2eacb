//! Waits of seconds, which most often end before their time: a held poll, an idle connection.
//!
//! All of a thread's waits are in one list, sorted into ticks of 50 ms, and one task ends them. A wait
//! takes 40 bytes there and no timer of tokio's. It ends at its deadline or up to 100 ms later, never
//! earlier.

use std::cell::RefCell;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long a tick is.
const TICK: Duration = Duration::from_millis(50);

/// Ticks in a second.
const PER_SECOND: u64 = 20;

/// Ticks that have a list of their own. A longer wait shares the list of an earlier tick, and stays
/// there when that tick ends.
const SLOTS: u32 = 2048;

/// The end of a linked list.
const END: u32 = u32::MAX;

/// The places that a list of wakers keeps for the next tick.
const KEPT: usize = 1024;

/// A wait. It begins when it is polled.
#[derive(Debug, Default)]
pub struct Slow(Option<Place>);

/// Where a wait is in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    lists: NonZeroU32,
    index: u32,
    generation: u32,
    /// The tick that ends it.
    due: u32,
}

impl Slow {
    /// Waits for 50 to 100 ms from the first poll, and up to a tick more on a busy thread. It reads no
    /// clock.
    pub fn poll_soon(&mut self, context: &Context<'_>) -> Poll<()> {
        self.poll(context, None, false)
    }

    /// Waits until `deadline`, which may change from poll to poll.
    pub fn poll_until(&mut self, deadline: Instant, context: &Context<'_>) -> Poll<()> {
        self.poll(context, Some(deadline), false)
    }

    /// The same. [`wake_listeners`] wakes it as well.
    pub fn poll_until_called(&mut self, deadline: Instant, context: &Context<'_>) -> Poll<()> {
        self.poll(context, Some(deadline), true)
    }

    /// Ends the wait, so that the next poll begins another one.
    pub fn clear(&mut self) {
        let Some(place) = self.0.take() else { return };
        // The thread may be ending.
        let removed = LISTS.try_with(|lists| {
            let mut lists = lists.try_borrow_mut().ok()?;
            lists.remove(place)
        });
        // Outside of the borrow: the last waker of a task drops the task, and its waits.
        drop(removed);
    }

    fn poll(
        &mut self,
        context: &Context<'_>,
        deadline: Option<Instant>,
        listens: bool,
    ) -> Poll<()> {
        let (poll, _old) = LISTS.with_borrow_mut(|lists| {
            // A wait of another thread, or of a runtime that has ended, begins again.
            let place = self.0.filter(|place| place.lists == lists.id);
            let due = deadline.map(|deadline| lists.tick_of(deadline));
            let mut old = None;
            if let Some(place) = place {
                let Some(entry) = lists.entry(place) else {
                    // It rang. That is early for a deadline that was put off.
                    self.0 = None;
                    if due.is_none_or(|due| due <= place.due) {
                        return (Poll::Ready(()), None);
                    }
                    self.0 = Some(lists.insert(due.unwrap_or(0), context.waker(), listens));
                    return (Poll::Pending, None);
                };
                // A deadline that was put off: it rings once too early, which costs less than to
                // move it each time.
                if due.is_none_or(|due| place.due <= due) {
                    entry.listens = listens;
                    let waker = &mut entry.waker;
                    if waker
                        .as_ref()
                        .is_none_or(|own| !own.will_wake(context.waker()))
                    {
                        old = waker.replace(context.waker().clone());
                    }
                    return (Poll::Pending, old);
                }
                old = lists.remove(place);
            }
            self.0 = None;
            if due.is_some_and(|due| due <= lists.tick && lists.epoch.is_some()) {
                return (Poll::Ready(()), old);
            }
            let due = due.unwrap_or_else(|| lists.present_tick().saturating_add(2));
            self.0 = Some(lists.insert(due, context.waker(), listens));
            (Poll::Pending, old)
        });
        poll
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Wakes all waits of this thread that were polled with [`Slow::poll_until_called`]. They go on.
pub fn wake_listeners() {
    let wakers: Vec<Waker> = LISTS.with_borrow(|lists| {
        let listening = lists.entries.iter().filter(|entry| entry.listens);
        listening.filter_map(|entry| entry.waker.clone()).collect()
    });
    wakers.into_iter().for_each(Waker::wake);
}

/// A point in time of this thread, without a look at the clock: up to 50 ms ago, more on a busy thread.
pub fn coarse_now() -> Instant {
    LISTS.with_borrow_mut(|lists| {
        let tick = lists.present_tick();
        let epoch = *lists.epoch.get_or_insert_with(Instant::now);
        epoch + TICK.saturating_mul(tick)
    })
}

/// A count of this thread that goes up every 50 ms, as long as anything waits.
pub fn present_tick() -> u32 {
    LISTS.with_borrow_mut(Lists::present_tick)
}

thread_local! {
    static LISTS: RefCell<Lists> = RefCell::new(Lists::new());
}

/// A wait, or a free place for one.
#[derive(Debug)]
struct Entry {
    /// None if the place is free.
    waker: Option<Waker>,
    due: u32,
    /// It goes up when the place becomes free.
    generation: u32,
    /// The next one of the same slot, or the next free one.
    next: u32,
    /// The one before in the same slot.
    previous: u32,
    /// [`wake_listeners`] wakes it.
    listens: bool,
}

/// The waits of a thread.
struct Lists {
    /// No other lists have it.
    id: NonZeroU32,
    entries: Vec<Entry>,
    /// The first free place.
    free: u32,
    /// The first wait of each slot.
    slots: Vec<u32>,
    /// When tick 0 was; none before the first wait.
    epoch: Option<Instant>,
    /// The last tick that has ended.
    tick: u32,
    waiting: usize,
    /// A wait was begun since the last tick.
    busy: bool,
    driver: Driver,
}

/// What the task that ends the ticks does.
enum Driver {
    /// There is none.
    None,
    /// It sleeps until the next tick.
    Ticks,
    /// It sleeps until this tick, or without an end.
    Rests(u32, Waker),
}

impl Lists {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            id: id.unwrap_or(NonZeroU32::MIN),
            entries: Vec::new(),
            free: END,
            slots: Vec::new(),
            epoch: None,
            tick: 0,
            waiting: 0,
            busy: false,
            driver: Driver::None,
        }
    }

    /// The first tick that ends at `deadline` or later.
    fn tick_of(&self, deadline: Instant) -> u32 {
        let Some(epoch) = self.epoch else {
            // The first wait is looked at once more when there is an epoch.
            return 0;
        };
        let left = deadline.saturating_duration_since(epoch);
        let begun = u64::from(left.subsec_nanos()).div_ceil(1_000_000_000 / PER_SECOND);
        let ticks = left.as_secs().saturating_mul(PER_SECOND) + begun;
        u32::try_from(ticks).unwrap_or(END)
    }

    /// The present tick: the clock is read only if the driver rests.
    fn present_tick(&mut self) -> u32 {
        if !matches!(self.driver, Driver::Ticks) {
            self.catch_up();
        }
        self.tick
    }

    /// Brings the tick up to the present, where no wait can end in between.
    fn catch_up(&mut self) {
        let epoch = *self.epoch.get_or_insert_with(Instant::now);
        let passed = ticks(Instant::now() - epoch);
        let most = match &self.driver {
            Driver::Rests(until, _) => until.saturating_sub(1),
            Driver::None | Driver::Ticks => END,
        };
        self.tick = self.tick.max(passed.min(most));
    }

    fn entry(&mut self, place: Place) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(usize::try_from(place.index).ok()?)?;
        (entry.generation == place.generation).then_some(entry)
    }

    fn at(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    fn slot(&mut self, due: u32) -> &mut u32 {
        &mut self.slots[(due % SLOTS) as usize]
    }

    fn insert(&mut self, due: u32, waker: &Waker, listens: bool) -> Place {
        self.present_tick();
        if self.slots.is_empty() {
            self.slots = vec![END; SLOTS as usize];
        }
        let due = due.max(self.tick.saturating_add(1));
        let next = *self.slot(due);
        let waker = Some(waker.clone());
        let index = self.free;
        let generation = if let Some(entry) = self.at(index) {
            let generation = entry.generation;
            let free = std::mem::replace(&mut entry.next, next);
            (entry.waker, entry.due, entry.previous) = (waker, due, END);
            entry.listens = listens;
            self.free = free;
            generation
        } else {
            self.entries.push(Entry {
                waker,
                due,
                generation: 0,
                next,
                previous: END,
                listens,
            });
            0
        };
        // Connections are fewer.
        let index = if index == END {
            u32::try_from(self.entries.len() - 1).unwrap_or(END)
        } else {
            index
        };
        *self.slot(due) = index;
        if let Some(after) = self.at(next) {
            after.previous = index;
        }
        self.waiting += 1;
        self.busy = true;
        match &self.driver {
            Driver::None => {
                self.driver = Driver::Ticks;
                tokio::spawn(drive());
            }
            Driver::Rests(until, _) if due < *until => {
                if let Driver::Rests(_, driver) = std::mem::replace(&mut self.driver, Driver::Ticks)
                {
                    driver.wake();
                }
            }
            Driver::Rests(..) | Driver::Ticks => {}
        }
        Place {
            lists: self.id,
            index,
            generation,
            due,
        }
    }

    fn remove(&mut self, place: Place) -> Option<Waker> {
        if place.lists != self.id {
            return None;
        }
        self.entry(place)?;
        self.release(place.index)
    }

    /// Frees a place that is taken.
    fn release(&mut self, index: u32) -> Option<Waker> {
        let free = self.free;
        let entry = self.at(index)?;
        let waker = entry.waker.take();
        entry.generation = entry.generation.wrapping_add(1);
        entry.listens = false;
        let (due, next, previous) = (entry.due, entry.next, entry.previous);
        entry.next = free;
        self.free = index;
        match self.at(previous) {
            Some(before) => before.next = next,
            None => *self.slot(due) = next,
        }
        if let Some(after) = self.at(next) {
            after.previous = previous;
        }
        self.waiting -= 1;
        if self.waiting == 0 && self.entries.len() > KEPT {
            // Generations start again: the lists are others.
            let driver = std::mem::replace(&mut self.driver, Driver::None);
            let (epoch, tick) = (self.epoch, self.tick);
            *self = Self {
                driver,
                epoch,
                tick,
                ..Self::new()
            };
        }
        waker
    }

    /// Ends the ticks that have passed at `now`; the wakers of the waits that are over go to `over`.
    fn turn(&mut self, now: Instant, over: &mut Vec<Waker>) {
        let Some(epoch) = self.epoch else { return };
        let passed = ticks(now.saturating_duration_since(epoch));
        let lists = passed.saturating_sub(self.tick).min(SLOTS);
        for number in 0..lists {
            if self.slots.is_empty() {
                break;
            }
            let mut index = *self.slot(passed - number);
            while let Some(entry) = self.at(index) {
                let (next, due) = (entry.next, entry.due);
                if due <= passed {
                    over.extend(self.release(index));
                }
                if self.slots.is_empty() {
                    break;
                }
                index = next;
            }
        }
        self.tick = self.tick.max(passed);
    }

    /// The tick until which the driver may sleep; none if nothing waits.
    fn next(&mut self) -> u32 {
        if self.waiting == 0 {
            return END;
        }
        let tick = self.tick;
        let mut due = (1..SLOTS).map(|ahead| tick.saturating_add(ahead));
        let taken = due.find(|due| *self.slot(*due) != END);
        taken.unwrap_or_else(|| tick.saturating_add(SLOTS))
    }
}

/// Whole ticks in a span.
fn ticks(span: Duration) -> u32 {
    let begun = u64::from(span.subsec_nanos()) / (1_000_000_000 / PER_SECOND);
    let ticks = span.as_secs().saturating_mul(PER_SECOND) + begun;
    u32::try_from(ticks).unwrap_or(END - 1)
}

/// Ends the ticks of this thread. While nothing is begun it sleeps until the next wait ends.
async fn drive() {
    /// A task that is dropped with its runtime leaves new lists to the next.
    struct Driving;
    impl Drop for Driving {
        fn drop(&mut self) {
            // The thread may be ending, and its lists gone.
            let old = LISTS.try_with(|lists| {
                let mut lists = lists.try_borrow_mut().ok()?;
                Some(std::mem::replace(&mut *lists, Lists::new()))
            });
            drop(old);
        }
    }
    let _driving = Driving;
    let mut over = Vec::new();
    loop {
        let (epoch, until) = LISTS.with_borrow_mut(|lists| {
            let epoch = *lists.epoch.get_or_insert_with(Instant::now);
            let busy = std::mem::take(&mut lists.busy);
            let until = if busy { lists.tick + 1 } else { lists.next() };
            (epoch, until)
        });
        let mut sleep = pin!(sleep_until(epoch + TICK.saturating_mul(until)));
        poll_fn(|context| {
            LISTS.with_borrow_mut(|lists| {
                if lists.busy && until > lists.tick.saturating_add(1) {
                    // A wait was begun that ends earlier, or may be.
                    lists.driver = Driver::Ticks;
                    return Poll::Ready(());
                }
                lists.driver = if until > lists.tick.saturating_add(1) {
                    Driver::Rests(until, context.waker().clone())
                } else {
                    Driver::Ticks
                };
                if until == END {
                    return Poll::Pending;
                }
                sleep.as_mut().poll(context)
            })
        })
        .await;
        LISTS.with_borrow_mut(|lists| {
            lists.driver = Driver::Ticks;
            lists.turn(Instant::now(), &mut over);
        });
        over.drain(..).for_each(Waker::wake);
        over.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests;
