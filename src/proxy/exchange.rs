//! An answer that is under way, and what becomes of it when its client goes away.
//!
//! Dropping an [`Exchange`] says that its client is gone. Most exchanges end with that. A request that is at
//! its node may outlive its client for a moment: to close its connection at once would lose an answer that
//! is on its way. So it is asked whether it goes on, and if so, its future goes on as a task of its own.
//!
//! A boxed future can be handed nothing but a poll, so the question is a flag of the thread during one poll.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use super::request_record::Reply;

type Boxed = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// An answer that is under way. Dropping it says that its client is gone.
pub struct Exchange(Option<Boxed>);

impl Exchange {
    /// The exchange that `future` is.
    pub fn new(future: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Future for Exchange {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let Some(future) = &mut self.0 else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(mut future) = self.0.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if goes_on(&mut future) {
            let count = Outliving;
            drop(runtime.spawn(async move {
                let _count = count;
                drop(future.await);
            }));
        }
    }
}

/// Exchanges of this process that go on without their clients.
static OUTLIVING: AtomicUsize = AtomicUsize::new(0);

/// The most of them: each has a connection to a node.
const MOST: usize = 16 * 1024;

/// One of them, until dropped.
struct Outliving;

impl Drop for Outliving {
    fn drop(&mut self) {
        OUTLIVING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a poll is, beside a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    None,
    /// The client is gone. Does the request go on?
    ClientGone,
    GoesOn,
}

thread_local! {
    static QUESTION: Cell<Question> = const { Cell::new(Question::None) };
}

/// Asks an exchange whether it goes on without its client. It ends for good if not.
fn goes_on(future: &mut Boxed) -> bool {
    let before = QUESTION.replace(Question::ClientGone);
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    let agreed = QUESTION.replace(before) == Question::GoesOn;
    if agreed && polled.is_ready() {
        drop(Outliving);
    }
    agreed && polled.is_pending()
}

/// Whether the client of the exchange that is polled now has just gone.
pub(super) fn is_client_gone() -> bool {
    QUESTION.get() == Question::ClientGone
}

/// The exchange that is polled now goes on without its client, if there are not too many that do.
pub(super) fn go_on() -> bool {
    if OUTLIVING.fetch_add(1, Ordering::Relaxed) >= MOST {
        drop(Outliving);
        return false;
    }
    QUESTION.set(Question::GoesOn);
    true
}
