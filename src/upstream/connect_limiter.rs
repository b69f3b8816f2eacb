//! How many connections to one node are opened at a time, and how many in a second. Without these
//! limits, the clients of a node that failed overrun the next one.
//!
//! A node takes connections at a bounded rate: Tigase closes what exceeds 1000 in a second, and
//! ejabberd lets five wait to be accepted. A connect that exceeds a limit waits for its permit. There
//! are three [`Priority`] classes. When a permit is free, the highest class that waits gets it; within
//! a class the order is that of arrival. No class starves: one that was passed over
//! [`MOST_PASSED_OVER`] times in a row is next. A wait ends early when its future is dropped.
//!
//! A connect that need not wait costs one uncontended lock and no timer.
//!
//! Each node has a limiter of its own. Nothing here opens a connection or knows a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};

/// The most that wait for their permit at one node; each takes a few hundred bytes.
const MOST_WAITING: usize = 65_536;

/// In any span of this length there are at most `per_second` connections.
const SPAN: Duration = Duration::from_secs(1);

/// How many permits in a row go to other classes while a class waits; then it is next, or next but
/// one if two are due. So where all three classes wait, they share eight permits as 6, 1 and 1.
const MOST_PASSED_OVER: u8 = 7;

/// Whose connect goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A session at the node that has it: while it waits, a session that works stands still.
    Pinned,
    /// A new session.
    Creation,
    /// A session at a node that most likely does not know it: it was moved there, or its
    /// node is not known.
    Moved,
}

impl Priority {
    /// Highest first.
    const ALL: [Self; 3] = [Self::Pinned, Self::Creation, Self::Moved];

    /// That of a session that is known to some node.
    pub const fn of_session(at_home: bool) -> Self {
        if at_home { Self::Pinned } else { Self::Moved }
    }
}

/// Limits the connections that are opened to one node.
#[derive(Debug)]
pub struct ConnectLimiter {
    line: Mutex<Line>,
    /// Its one permit is held by one of those who wait, the timekeeper. It sleeps while the span
    /// is full, and hands out permits when there is room again.
    timekeeper: Semaphore,
    /// Tells the timekeeper that the span has become full.
    full: Notify,
}

/// Who connects, who has connected, and who waits.
#[derive(Debug)]
struct Line {
    /// Connections that are being opened.
    opening: usize,
    most_opening: usize,
    /// None if any number may be opened in a second.
    window: Option<Window>,
    /// One map for each [`Priority`], by number of arrival.
    waiting: [BTreeMap<u64, oneshot::Sender<()>>; Priority::ALL.len()],
    most_waiting: usize,
    /// How many permits in a row have gone to other classes while this one waited.
    passed_over: [u8; Priority::ALL.len()],
    arrivals: u64,
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

impl Line {
    fn waiting(&self) -> usize {
        self.waiting.iter().map(BTreeMap::len).sum()
    }

    /// Takes a place among those that open a connection. False if there is none; then `Err` says
    /// when the span has room again, if that is what there is none of.
    fn take(&mut self, now: Instant) -> Result<bool, Instant> {
        if self.opening >= self.most_opening {
            return Ok(false);
        }
        if let Some(window) = &mut self.window {
            window.take(now)?;
        }
        self.opening += 1;
        Ok(true)
    }

    /// Gives a place back. A connect that cost the node nothing does not count in its second.
    fn give_back(&mut self, counts: bool) {
        self.opening -= 1;
        if let Some(window) = &mut self.window
            && !counts
        {
            window.begun.pop_back();
        }
    }

    /// Hands out permits as long as there are any and somebody waits. If the span is full, says when
    /// it has room again.
    fn hand_out(&mut self, now: Instant) -> Option<Instant> {
        while let Some(class) = self.next_class() {
            match self.take(now) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(at) => return Some(at),
            }
            let next = self.waiting[class].pop_first();
            if next.is_some_and(|(_, waiter)| waiter.send(()).is_ok()) {
                self.pass_over_others(class);
            } else {
                self.give_back(false);
            }
        }
        None
    }

    /// The class whose permit it is; none if no connect waits.
    fn next_class(&self) -> Option<usize> {
        let classes = || (0..self.waiting.len()).filter(|class| !self.waiting[*class].is_empty());
        let starved = classes().filter(|class| self.passed_over[*class] >= MOST_PASSED_OVER);
        starved
            .max_by_key(|class| self.passed_over[*class])
            .or_else(|| classes().next())
    }

    /// Notes that `class` has had a permit.
    fn pass_over_others(&mut self, class: usize) {
        for (other, passed_over) in self.passed_over.iter_mut().enumerate() {
            let waits = other != class && !self.waiting[other].is_empty();
            *passed_over = if waits {
                passed_over.saturating_add(1)
            } else {
                0
            };
        }
    }
}

/// The right to open one connection; to be kept until it is open.
#[derive(Debug)]
#[must_use = "the permit ends when this is dropped"]
pub struct ConnectPermit<'a> {
    limiter: &'a ConnectLimiter,
    counts: bool,
}

impl ConnectPermit<'_> {
    /// The connection was refused and cost the node nothing: it does not count in its second.
    pub fn forgive(mut self) {
        self.counts = false;
    }
}

impl Drop for ConnectPermit<'_> {
    fn drop(&mut self) {
        self.limiter.give_back(self.counts);
    }
}

/// A place in line.
struct QueuePlace<'a> {
    limiter: &'a ConnectLimiter,
    class: usize,
    number: u64,
    called: oneshot::Receiver<()>,
    /// Its permit was taken, so that there is nothing to give back.
    taken: bool,
}

impl<'a> QueuePlace<'a> {
    fn take(mut self) -> ConnectPermit<'a> {
        self.taken = true;
        ConnectPermit {
            limiter: self.limiter,
            counts: true,
        }
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let left = self.limiter.line().waiting[self.class].remove(&self.number);
        if left.is_none() {
            // It was called and does not come.
            self.limiter.give_back(false);
        }
    }
}

impl ConnectLimiter {
    /// At most `opening` connections being opened at a time and, unless that is 0, at most
    /// `per_second` in any second.
    pub fn new(opening: usize, per_second: usize) -> Self {
        Self {
            line: Mutex::new(Line {
                opening: 0,
                most_opening: opening,
                window: (per_second > 0).then(|| Window::new(per_second)),
                waiting: Default::default(),
                most_waiting: MOST_WAITING,
                passed_over: Default::default(),
                arrivals: 0,
            }),
            timekeeper: Semaphore::new(1),
            full: Notify::new(),
        }
    }

    /// Takes other limits. Connects that wait get the permits that these allow.
    pub fn configure(&self, opening: usize, per_second: usize) {
        let mut line = self.line();
        line.most_opening = opening;
        match &mut line.window {
            Some(window) if per_second > 0 => window.most = per_second,
            window => *window = (per_second > 0).then(|| Window::new(per_second)),
        }
        if line.waiting() > 0 && line.hand_out(Instant::now()).is_some() {
            self.full.notify_one();
        }
    }

    /// A permit, if one is free and no connect waits for it.
    pub fn try_permit(&self, now: Instant) -> Option<ConnectPermit<'_>> {
        let mut line = self.line();
        let free = line.waiting() == 0 && line.take(now).unwrap_or(false);
        free.then(|| ConnectPermit {
            limiter: self,
            counts: true,
        })
    }

    /// Waits for a permit, behind those of its class and of higher ones; none if
    /// too many wait.
    pub async fn permit(&self, priority: Priority) -> Option<ConnectPermit<'_>> {
        let mut place = self.get_in_line(priority)?;
        tokio::select! {
            biased;
            called = &mut place.called => called.ok()?,
            timekeeper = self.timekeeper.acquire() => {
                let _timekeeper = timekeeper.ok()?;
                self.keep_time(&mut place.called).await?;
            }
        }
        Some(place.take())
    }

    /// How many wait for their permit.
    pub fn waiting(&self) -> usize {
        self.line().waiting()
    }

    fn get_in_line(&self, priority: Priority) -> Option<QueuePlace<'_>> {
        let (caller, called) = oneshot::channel();
        let mut line = self.line();
        if line.waiting() >= line.most_waiting {
            return None;
        }
        let (class, number) = (priority as usize, line.arrivals);
        line.arrivals += 1;
        line.waiting[class].insert(number, caller);
        Some(QueuePlace {
            limiter: self,
            class,
            number,
            called,
            taken: false,
        })
    }

    /// Hands out permits whenever the span has room, until its own is among them.
    async fn keep_time(&self, called: &mut oneshot::Receiver<()>) -> Option<()> {
        loop {
            let room = self.line().hand_out(Instant::now());
            let room_again = async {
                match room {
                    Some(at) => sleep_until(at).await,
                    None => self.full.notified().await,
                }
            };
            tokio::select! {
                biased;
                called = &mut *called => return called.ok(),
                () = room_again => {}
            }
        }
    }

    /// Ends a permit, and hands out what that makes free.
    fn give_back(&self, counts: bool) {
        let mut line = self.line();
        line.give_back(counts);
        if line.waiting() > 0 && line.hand_out(Instant::now()).is_some() {
            self.full.notify_one();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
