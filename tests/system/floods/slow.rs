//! Slow connections of every kind, each with the time in which the balancer has to be rid of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

/// What a connection is slow at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// A head that never ends, one line a second (slowloris).
    Head,
    /// A body that comes a byte a second.
    Body,
    /// Answers that nobody reads.
    Read,
    /// Nothing is ever said.
    Nothing,
    /// A head that is as large as may be and never ends.
    LargeHead,
    /// A body that is nearly as large as may be and never ends.
    LargeBody,
}

/// The balancer's deadlines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) write_stall: Duration,
    pub(super) idle: Duration,
}

impl Deadlines {
    /// How long a connection of this manner may live.
    fn of(&self, manner: Manner) -> Duration {
        // A refused body is read away for two seconds before the connection is closed.
        match manner {
            Manner::Head | Manner::LargeHead => self.head,
            Manner::Body | Manner::LargeBody => self.body + Duration::from_secs(2),
            Manner::Read => self.write_stall + Duration::from_secs(2),
            Manner::Nothing => self.idle,
        }
    }
}

/// What became of the connections.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) begun: AtomicU64,
    pub(super) ended: AtomicU64,
    /// Ended later than they had to, or not yet.
    pub(super) late: AtomicU64,
    /// The longest life beyond the deadline, in milliseconds, and of which manner.
    pub(super) beyond: Mutex<(u128, Option<Manner>)>,
}

/// How much later than its deadline a connection may end on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// From one piece to the next.
const DRIP: Duration = Duration::from_secs(1);

/// The same of requests whose answers are not read, and before a connection is made anew.
const QUICK: Duration = Duration::from_millis(200);

/// Keeps one connection of this manner, and another when it has ended, until told to stop.
pub(super) async fn keep(
    address: SocketAddr,
    manner: Manner,
    deadlines: Deadlines,
    (ends, stop): (Arc<Ends>, Arc<AtomicBool>),
) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = super::balancer::connect(address).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        ends.begun.fetch_add(1, Ordering::Relaxed);
        let moved = Mutex::new(Instant::now());
        let ended = be_slow(&mut stream, manner, (&stop, &moved));
        let late = async {
            loop {
                // An answer that is not read counts from the last byte that was taken.
                let until = *lock(&moved) + deadlines.of(manner) + SLACK;
                if Instant::now() > until {
                    return;
                }
                sleep_until(until + Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::select! {
            () = ended => true,
            () = late => false,
        };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let beyond = lock(&moved).elapsed().saturating_sub(deadlines.of(manner));
        {
            let mut longest = lock(&ends.beyond);
            if beyond.as_millis() > longest.0 {
                *longest = (beyond.as_millis(), Some(manner));
            }
        }
        ends.ended.fetch_add(1, Ordering::Relaxed);
        if !in_time {
            ends.late.fetch_add(1, Ordering::Relaxed);
        }
        sleep(QUICK).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns when the other side has ended the connection.
async fn be_slow(
    stream: &mut TcpStream,
    manner: Manner,
    (stop, moved): (&AtomicBool, &Mutex<Instant>),
) {
    let (mut reader, mut writer) = stream.split();
    let line = "POST /http-bind HTTP/1.1\r\nHost: a\r\n";
    let mut first = line.to_owned();
    let drip: &[u8] = match manner {
        Manner::Nothing => b"",
        Manner::Head => b"X-a: b\r\n",
        Manner::LargeHead => {
            for _ in 0..60 {
                first.push_str("X-a: ");
                first.push_str(&"b".repeat(500));
                first.push_str("\r\n");
            }
            b"X"
        }
        Manner::Body | Manner::LargeBody => {
            first.push_str("Content-Length: 262144\r\n\r\n");
            b" "
        }
        Manner::Read => {
            first = "GET /http-bind HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
            first.as_bytes()
        }
    };
    let large = if manner == Manner::LargeBody {
        262_000
    } else {
        0
    };
    let write = async {
        if manner != Manner::Nothing && writer.write_all(first.as_bytes()).await.is_err() {
            return;
        }
        if writer.write_all(&vec![b' '; large]).await.is_err() {
            return;
        }
        // Not all at the same moment of each second.
        sleep(DRIP.mul_f64(fastrand::f64())).await;
        loop {
            // Whoever does not read writes until nothing goes out any more.
            let pause = if manner == Manner::Read { QUICK } else { DRIP };
            sleep(pause).await;
            if stop.load(Ordering::Relaxed) || writer.write_all(drip).await.is_err() {
                return;
            }
            if manner == Manner::Read {
                *lock(moved) = Instant::now();
            }
        }
    };
    if manner == Manner::Read {
        write.await;
        return;
    }
    let read = async {
        let mut away = [0; 1024];
        while matches!(reader.read(&mut away).await, Ok(1..)) {}
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
