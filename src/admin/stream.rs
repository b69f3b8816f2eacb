//! `/stream`: server-sent events. Each listener gets a snapshot of `/health` every second, which is
//! the heartbeat too, and each event as it happens with a snapshot behind it.
//!
//! A listener has a short queue. One that does not take what is sent is cut off, so that nothing
//! piles up for it; it may come back and ask for what it missed (`Last-Event-ID`). The number of an
//! event has the mark of this process before it: after a restart the same numbers mean others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{AdminState, report};
use crate::observe::events::Event;

/// Listeners at the same time.
pub(super) const MOST_LISTENERS: usize = 16;
/// From one snapshot to the next.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// A snapshot so young serves several listeners, unless something happened since.
const FRESH: Duration = Duration::from_millis(500);
/// The least from one batch of events to the next.
const GATHER: Duration = Duration::from_millis(100);
/// What may wait for a listener.
const QUEUE: usize = 4;

/// A snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    taken: Instant,
    /// The number of the newest event at that time.
    newest: u64,
    bytes: Bytes,
}

/// The number in `Last-Event-ID`, if it is one of this process; 0 otherwise, which is before all.
pub(super) fn last_seen(state: &AdminState, id: &str) -> u64 {
    let number = id.split_once('-').and_then(|(process, number)| {
        let ours = process.parse() == Ok(state.mark());
        ours.then(|| number.parse().ok()).flatten()
    });
    number.unwrap_or(0)
}

/// Starts a stream behind the event `last`; `cut` is told when the listener is too slow.
pub(super) fn start(
    state: Arc<AdminState>,
    last: u64,
    place: OwnedSemaphorePermit,
    cut: Arc<Notify>,
) -> mpsc::Receiver<Bytes> {
    let (listener, events) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = listener.closed() => {}
            () = feed(&state, last, &listener) => cut.notify_one(),
        }
    });
    events
}

/// Feeds a listener until it is too slow, or gone.
async fn feed(state: &AdminState, mut last: u64, listener: &mpsc::Sender<Bytes>) {
    let mut happened = state.cluster.events.watch();
    // What is there already counts as news.
    happened.mark_changed();
    let mut tick = interval(SNAPSHOT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Some(Bytes::from_static(b"retry: 1000\n\n"));
    let mut gathered = Instant::now();
    loop {
        if let Some(bytes) = next.take() {
            match listener.try_send(bytes) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => return,
            }
        }
        tokio::select! {
            biased;
            changed = async {
                sleep_until(gathered).await;
                happened.changed().await
            } => {
                if changed.is_err() {
                    return;
                }
                next = news(state, &mut last);
                gathered = Instant::now() + GATHER;
                tick.reset();
            }
            _ = tick.tick() => next = Some(snapshot(state)),
        }
    }
}

/// The events behind `last`, which moves on, and what the state is with them.
fn news(state: &AdminState, last: &mut u64) -> Option<Bytes> {
    let events = state.cluster.events.since(*last);
    *last = events.last()?.id;
    let mut text: String = events.iter().map(|event| told(state, event)).collect();
    text.push_str(std::str::from_utf8(&snapshot(state)).unwrap_or_default());
    Some(text.into())
}

fn told(state: &AdminState, event: &Event) -> String {
    let (mark, id, told) = (state.mark(), event.id, report::event(event));
    format!("id: {mark}-{id}\nevent: event\ndata: {told}\n\n")
}

/// `/health` of now, or of a moment ago if nothing has happened since.
fn snapshot(state: &AdminState) -> Bytes {
    let newest = state.cluster.events.newest();
    let mut kept = state.snapshot();
    if let Some(snapshot) = kept.as_ref()
        && snapshot.taken.elapsed() < FRESH
        && snapshot.newest == newest
    {
        return snapshot.bytes.clone();
    }
    let health = serde_json::to_string(&report::health(state)).unwrap_or_default();
    let bytes = Bytes::from(format!("event: health\ndata: {health}\n\n"));
    *kept = Some(Snapshot {
        taken: Instant::now(),
        newest,
        bytes: bytes.clone(),
    });
    bytes
}
