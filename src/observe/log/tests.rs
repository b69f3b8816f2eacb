//! What becomes of lines whose way out is slow, broken or shut.

use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

/// A way out where each write waits for what becomes of it.
struct Gate {
    /// How many bytes the next write takes, or why none.
    verdicts: Receiver<Result<usize, ErrorKind>>,
    /// What was taken.
    taken: Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let verdict = self.verdicts.recv().unwrap_or(Ok(bytes.len()));
        let some = verdict.map_err(io::Error::from)?.min(bytes.len());
        let taken = String::from_utf8(bytes[..some].to_vec()).unwrap();
        self.taken.send(taken).unwrap();
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Held {
    lines: Lines,
    flush: Flush,
    verdicts: Sender<Result<usize, ErrorKind>>,
    taken: Receiver<String>,
}

fn held(most: usize) -> Held {
    let (verdicts, verdict) = mpsc::channel();
    let (take, taken) = mpsc::channel();
    let gate = Gate {
        verdicts: verdict,
        taken: take,
    };
    let (lines, flush) = spawn(gate, most).unwrap();
    Held {
        lines,
        flush,
        verdicts,
        taken,
    }
}

impl Held {
    fn log(&self, line: &str) {
        self.lines.make_writer().write_all(line.as_bytes()).unwrap();
    }

    fn taken(&self) -> String {
        self.taken.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Ends the queue, and says what was written until then.
    fn end(self) -> (String, u64) {
        let queue = Arc::clone(&self.lines.0);
        drop(self.verdicts);
        drop(self.flush);
        (self.taken.try_iter().collect(), queue.dropped())
    }
}

const ALL: Result<usize, ErrorKind> = Ok(usize::MAX);

#[test]
fn lines_come_out_whole_and_in_order() {
    let log = held(MOST);
    log.verdicts.send(ALL).unwrap();
    log.log("one\n");
    let mut seen = log.taken();
    for number in 0..1000 {
        log.log(&format!("line {number}\n"));
    }
    drop(log.verdicts);
    drop(log.flush);
    seen.extend(log.taken.try_iter());
    let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(seen, format!("one\n{expected}"));
    assert_eq!(log.lines.0.dropped(), 0);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let log = held(100);
    log.log("first\n");
    // Once the thread holds it in its write, nothing else moves.
    while !log.lines.0.state().writing {
        thread::yield_now();
    }
    for _ in 0..30 {
        log.log("123456789\n");
    }
    assert_eq!(log.lines.0.dropped(), 20);
    let (written, dropped) = log.end();
    assert_eq!(written, format!("first\n{}", "123456789\n".repeat(10)));
    assert_eq!(dropped, 20);
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted() {
    let log = held(MOST);
    log.verdicts.send(Err(ErrorKind::StorageFull)).unwrap();
    log.log("one\ntwo\n");
    while log.lines.0.dropped() < 2 {
        thread::yield_now();
    }
    log.verdicts.send(ALL).unwrap();
    log.log("three\n");
    assert_eq!(log.taken(), "three\n");
    assert_eq!(log.end(), (String::new(), 2));
}

#[test]
fn a_torn_line_is_dropped_and_does_not_swallow_the_next() {
    let log = held(MOST);
    for verdict in [Ok(6), Err(ErrorKind::StorageFull), Ok(1)] {
        log.verdicts.send(verdict).unwrap();
    }
    log.log("one\ntwo\nthree\n");
    assert_eq!(log.taken(), "one\ntw");
    while log.lines.0.dropped() < 2 {
        thread::yield_now();
    }
    log.log("four\n");
    assert_eq!(log.taken(), "\n");
    assert_eq!(log.end(), ("four\n".to_owned(), 2));
}

#[test]
fn a_pipe_that_is_not_ready_is_tried_again() {
    let log = held(MOST);
    log.verdicts.send(Err(ErrorKind::WouldBlock)).unwrap();
    log.verdicts.send(Err(ErrorKind::Interrupted)).unwrap();
    log.log("one\n");
    assert_eq!(log.end(), ("one\n".to_owned(), 0));
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let log = held(MOST);
    log.log("one\n");
    log.lines.0.end(Duration::from_millis(1));
    assert!(log.taken.try_recv().is_err(), "nothing came out");
}
