//! The lines of the log on their way out: a bounded queue in memory, and one thread that writes it.
//!
//! Whoever logs copies a finished line into the queue and goes on, whatever becomes of the file,
//! pipe or terminal behind it. A line for which there is no room, or that could not be written, is
//! dropped and counted, and the log says how many once lines flow again. Knows nothing of what is
//! logged, or how a line looks.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes wait at most; as many again are being written.
pub const MOST: usize = 4 * 1024 * 1024;

/// How long lines gather before they are written: one write, and one wake-up of the thread, for
/// what comes within it.
const GATHER: Duration = Duration::from_millis(10);

/// How long the end of the process waits for lines that nobody takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// A batch that grew beyond this gives its memory back.
const USUAL: usize = 64 * 1024;

/// The queue of the process's log.
static PROCESS: OnceLock<Arc<Queue>> = OnceLock::new();

/// How many lines of the process's log were dropped since its start.
pub fn dropped_lines() -> u64 {
    PROCESS.get().map_or(0, |queue| queue.dropped())
}

/// Lines that wait to be written.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// There is something to write, or to end.
    changed: Condvar,
    /// Everything is written.
    emptied: Condvar,
    dropped: AtomicU64,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread waits for the first line.
    asleep: bool,
    /// The thread writes.
    writing: bool,
    ending: bool,
}

/// Hands lines to a [`Queue`].
#[derive(Debug, Clone)]
pub struct Lines(Arc<Queue>);

/// Ends the queue when it is dropped: waits until all lines are written, a second at most.
#[derive(Debug)]
pub struct Flush(Arc<Queue>);

/// Starts the process's log: a thread that writes to `out` what is handed to the first of the two.
/// The second one is to be kept until the end.
///
/// # Errors
/// If there can be no more threads.
pub fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, Flush)> {
    let (lines, flush) = spawn(out, MOST)?;
    // A second log of the same process is not counted; there is none but in tests.
    let _ = PROCESS.set(Arc::clone(&lines.0));
    Ok((lines, flush))
}

fn spawn(out: impl Write + Send + 'static, most: usize) -> io::Result<(Lines, Flush)> {
    let queue = Arc::new(Queue {
        state: Mutex::default(),
        changed: Condvar::new(),
        emptied: Condvar::new(),
        dropped: AtomicU64::new(0),
        most,
    });
    let writer = Arc::clone(&queue);
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || writer.write_all_batches(out))?;
    Ok((Lines(Arc::clone(&queue)), Flush(queue)))
}

impl Queue {
    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds whole lines. Never waits for anything but another thread's copying.
    fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + lines.len() > self.most {
            drop(state);
            self.drop_lines(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    fn drop_lines(&self, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything that waits, once there is something. False at the end.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        batch.shrink_to(USUAL);
        let mut state = self.state();
        state.writing = false;
        while state.waiting.is_empty() && !state.ending {
            state.asleep = true;
            state = wait(&self.changed, state, None);
        }
        if !state.ending {
            state = wait(&self.changed, state, Some(GATHER));
        }
        state.asleep = false;
        state.writing = !state.waiting.is_empty();
        if !state.writing {
            self.emptied.notify_all();
        }
        std::mem::swap(&mut state.waiting, batch);
        state.writing
    }

    /// The thread: writes until the end, and tells of lines that were dropped.
    fn write_all_batches(&self, mut out: impl Write) {
        let (mut batch, mut torn, mut told) = (Vec::new(), false, 0);
        while self.take(&mut batch) {
            let written = self.write(&mut out, &batch, torn);
            self.drop_lines(&batch[written..]);
            torn = match written {
                0 => torn,
                some => batch[some - 1] != b'\n',
            };
            let dropped = self.dropped();
            if dropped > told && written == batch.len() {
                tracing::warn!(lines = dropped - told, "log lines were dropped");
                told = dropped;
            }
        }
    }

    /// Writes a batch, behind the end of a line that was written in part, and says how much of it
    /// went out.
    fn write(&self, out: &mut impl Write, batch: &[u8], torn: bool) -> usize {
        if torn && self.write_some(out, b"\n").is_err() {
            return 0;
        }
        let mut written = 0;
        while written < batch.len() {
            match self.write_some(out, &batch[written..]) {
                Ok(0) | Err(_) => break,
                Ok(some) => written += some,
            }
        }
        written
    }

    /// One write; one that the other side is not ready for is tried again.
    fn write_some(&self, out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match out.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A pipe that somebody made non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    drop(wait(&self.emptied, self.state(), Some(GATHER)));
                }
                done => return done,
            }
        }
    }

    /// Waits until everything is written, or for `patience`.
    fn end(&self, patience: Duration) {
        let mut state = self.state();
        state.ending = true;
        self.changed.notify_one();
        let over = |state: &mut State| state.writing || !state.waiting.is_empty();
        // Whether it was in time: nobody is left to be told.
        let _ = self.emptied.wait_timeout_while(state, patience, over);
    }
}

/// Waits for a sign, `most` at most.
fn wait<'a>(
    sign: &Condvar,
    state: MutexGuard<'a, State>,
    most: Option<Duration>,
) -> MutexGuard<'a, State> {
    match most {
        Some(most) => {
            let woken = sign.wait_timeout(state, most);
            woken.unwrap_or_else(PoisonError::into_inner).0
        }
        None => sign.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.end(PATIENCE);
    }
}

/// One event's way into the queue.
#[derive(Debug)]
pub struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

#[cfg(test)]
mod tests;
