//! `/stream`: server-sent events. Each listener gets a snapshot of `/health` every second, which is
//! the heartbeat too, and each event as it happens.
//!
//! A listener has a short queue. One that does not take what is sent is cut off, so that nothing
//! piles up for it; it may come back and ask for what it missed (`Last-Event-ID`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{AdminState, report};

/// Listeners at the same time.
pub(super) const MOST_LISTENERS: usize = 16;
/// From one snapshot to the next.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// A snapshot so young serves several listeners.
const FRESH: Duration = Duration::from_millis(500);
/// What may wait for a listener.
const QUEUE: usize = 4;

/// The last snapshot, and when it was taken.
pub(super) type Snapshot = Option<(Instant, Bytes)>;

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
    loop {
        if let Some(bytes) = next.take() {
            match listener.try_send(bytes) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => return,
            }
        }
        tokio::select! {
            biased;
            changed = happened.changed() => {
                if changed.is_err() {
                    return;
                }
                next = events(state, &mut last);
            }
            _ = tick.tick() => next = Some(snapshot(state)),
        }
    }
}

/// The events behind `last`, which moves on.
fn events(state: &AdminState, last: &mut u64) -> Option<Bytes> {
    let events = state.cluster.events.since(*last);
    *last = events.last()?.id;
    let mut text = String::new();
    for event in &events {
        let told = report::event(event);
        text.push_str(&format!("id: {}\nevent: event\ndata: {told}\n\n", event.id));
    }
    Some(text.into())
}

/// `/health` of now, or of a moment ago.
fn snapshot(state: &AdminState) -> Bytes {
    let mut kept = state.snapshot();
    if let Some((at, bytes)) = kept.as_ref()
        && at.elapsed() < FRESH
    {
        return bytes.clone();
    }
    let health = serde_json::to_string(&report::health(state)).unwrap_or_default();
    let bytes = Bytes::from(format!("event: health\ndata: {health}\n\n"));
    *kept = Some((Instant::now(), bytes.clone()));
    bytes
}
