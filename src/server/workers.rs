//! The threads that serve clients, each with a runtime of its own.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::error::StartError;
use crate::downstream::{self, Drain, ListenerSlot, ListeningSocket};

/// An address and the socket by which a worker accepts there.
type Opened = (Arc<ListenerSlot>, ListeningSocket);

/// What is heard of a worker.
#[derive(Debug)]
struct Worker {
    /// It serves no client any more.
    drained: oneshot::Receiver<()>,
    /// Its thread has nothing left.
    gone: oneshot::Receiver<()>,
    opened: mpsc::UnboundedSender<Opened>,
    beats: Beats,
}

/// Asks a worker for a sign of life.
type Beats = mpsc::Sender<oneshot::Sender<()>>;

/// The workers. Each accepts from every listener; the kernel wakes one that is free.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    /// Starts this many threads, which wait for listeners.
    pub(super) fn start(
        threads: usize,
        cut: &Arc<Notify>,
        drain: &Arc<Drain>,
    ) -> Result<Self, StartError> {
        let mut workers = Vec::new();
        for number in 0..threads {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(StartError::Worker)?;
            let (drained, on_drained) = oneshot::channel();
            let (gone, on_gone) = oneshot::channel();
            let (opened, to_open) = mpsc::unbounded_channel();
            let (beats, asked) = mpsc::channel(1);
            let (cut, drain) = (Arc::clone(cut), Arc::clone(drain));
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    runtime.spawn(answer(asked));
                    runtime.block_on(work(to_open, &drain, &cut, drained));
                    drop(runtime);
                    // The receiver may be gone.
                    let _ = gone.send(());
                })
                .map_err(StartError::Worker)?;
            workers.push(Worker {
                drained: on_drained,
                gone: on_gone,
                opened,
                beats,
            });
        }
        Ok(Self(workers))
    }

    /// Has each worker accept at `slot`, by a socket of its own.
    pub(super) fn listen(&self, slot: &Arc<ListenerSlot>, sockets: Vec<ListeningSocket>) {
        for (worker, socket) in self.0.iter().zip(sockets) {
            // A worker that has ended accepts nothing.
            let _ = worker.opened.send((Arc::clone(slot), socket));
        }
    }

    /// Shows that each worker answers.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse(self.0.iter().map(|worker| worker.beats.clone()).collect())
    }

    /// Returns when one has ended without a drain.
    pub(super) async fn broken(&mut self) {
        for worker in &mut self.0 {
            if (&mut worker.drained).await.is_err() {
                return;
            }
        }
    }

    /// Returns when none serves a client any more.
    pub(super) async fn drained(&mut self) {
        for worker in &mut self.0 {
            // An error is a worker that died; it holds no client any more either.
            let _ = (&mut worker.drained).await;
        }
    }

    /// Returns when each thread has nothing left.
    pub(super) async fn gone(&mut self) {
        for worker in &mut self.0 {
            let _ = (&mut worker.gone).await;
        }
    }
}

/// Shows that each worker still runs its tasks: a thread that spins or hangs gives no answer.
#[derive(Debug, Clone)]
pub struct Pulse(Vec<Beats>);

impl Pulse {
    /// Returns when each worker has answered. One that has ended in order is left out.
    pub async fn beat(&self) {
        for worker in &self.0 {
            let (answer, answered) = oneshot::channel();
            if worker.send(answer).await.is_ok() {
                let _ = answered.await;
            }
        }
    }
}

/// Gives a sign of life each time that it is asked for one.
async fn answer(mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    while let Some(asker) = asked.recv().await {
        // The asker may have gone.
        let _ = asker.send(());
    }
}

/// Serves clients until the drain is complete, and stays until everything is cut: a session's
/// connections to its node belong to the runtime that opened them, whichever uses them.
async fn work(
    mut to_open: mpsc::UnboundedReceiver<Opened>,
    drain: &Drain,
    cut: &Notify,
    drained: oneshot::Sender<()>,
) {
    let mut cut = std::pin::pin!(cut.notified());
    let mut accepting = tokio::task::JoinSet::new();
    while !(drain.is_closing() && accepting.is_empty()) {
        tokio::select! {
            () = cut.as_mut() => return,
            Some((slot, socket)) = to_open.recv() => {
                accepting.spawn(downstream::accept(slot, socket));
            }
            Some(_) = accepting.join_next() => {}
            () = drain.begun(), if accepting.is_empty() => {}
        }
    }
    // The receiver may be gone.
    let _ = drained.send(());
    cut.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pulse_beats_when_every_worker_answers() {
        let (running, asked) = mpsc::channel(1);
        let (hanging, kept) = mpsc::channel(1);
        tokio::spawn(answer(asked));
        Pulse(vec![running.clone()]).beat().await;
        let pulse = Pulse(vec![running, hanging]);
        let mut beat = std::pin::pin!(pulse.beat());
        // The first has answered when the second is asked, which never answers.
        let mut kept = kept;
        let asker = tokio::select! {
            () = beat.as_mut() => None,
            asker = kept.recv() => asker,
        };
        let asker = asker.expect("the second is asked before the pulse beats");
        asker.send(()).expect("the pulse waits for it");
        beat.await;
    }
}
