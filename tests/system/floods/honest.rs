//! Honest clients: each has a session and asks its node something a few times a second, all the
//! time. What they see decides whether a flood did harm.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline::demo::client::Client;
use tokio::time::{Instant, sleep, sleep_until};

use super::balancer::apart;
use crate::Result;

/// From one request of a client to the next.
const EVERY: Duration = Duration::from_millis(200);

/// How long an answer may take to be one.
const DEADLINE: Duration = Duration::from_secs(10);

/// One request: when it began, and how long its answer took; none if there was no good one.
type Seen = (Instant, Option<Duration>);

/// The clients, on a thread of their own, until dropped.
pub(super) struct Honest {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the clients saw in some span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) asked: usize,
    pub(super) served: usize,
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) longest: Duration,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (median, p99, longest) = (ms(self.median), ms(self.p99), ms(self.longest));
        write!(
            f,
            "{} of {} served, median {median:.2} ms, p99 {p99:.2} ms, longest {longest:.1} ms",
            self.served, self.asked
        )
    }
}

impl Summary {
    /// Every request had its answer.
    pub(super) const fn all_served(&self) -> bool {
        self.asked > 0 && self.served == self.asked
    }
}

impl Honest {
    /// So many clients of whatever listens at `address`; each has a session when this returns.
    pub(super) async fn start(address: SocketAddr, clients: u32) -> Result<Self> {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (ready, started) = tokio::sync::oneshot::channel();
        let (kept, ending) = (Arc::clone(&seen), Arc::clone(&stop));
        apart(async move {
            let mut sessions = Vec::new();
            for number in 0..clients {
                let mut client = client(address, number);
                if client.create().await.is_err() {
                    return;
                }
                sessions.push(client);
            }
            // Whoever asked may have gone.
            let _ = ready.send(());
            for client in sessions {
                tokio::spawn(ask(client, Arc::clone(&kept)));
            }
            while !ending.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20)).await;
            }
        });
        started.await.map_err(|_| "honest clients cannot log in")?;
        Ok(Self { seen, stop })
    }

    /// What they saw of the requests that began in the `span` before now, less those that may
    /// still be answered.
    pub(super) fn since(&self, begin: Instant) -> Summary {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<_> = seen.iter().filter(|(at, _)| *at >= begin).collect();
        let mut took: Vec<Duration> = seen.iter().filter_map(|(_, took)| *took).collect();
        took.sort_unstable();
        let at = |part: usize| {
            took.get(took.len() * part / 100)
                .copied()
                .unwrap_or(DEADLINE)
        };
        Summary {
            asked: seen.len(),
            served: took.len(),
            median: at(50),
            p99: at(99),
            longest: took.last().copied().unwrap_or(DEADLINE),
        }
    }
}

/// An honest client at an address of its own.
pub(super) fn client(address: SocketAddr, number: u32) -> Client {
    let [.., c, d] = number.to_be_bytes();
    let from = format!("198.18.{c}.{d}");
    Client::to(address)
        .header("X-Forwarded-For", &from)
        .deadline(DEADLINE)
}

async fn ask(mut client: Client, seen: Arc<Mutex<Vec<Seen>>>) {
    sleep(EVERY.mul_f64(fastrand::f64())).await;
    loop {
        let begun = Instant::now();
        let answer = client.ping("p").await;
        let good = answer.is_ok_and(|answer| answer.status == 200 && !answer.is_terminate());
        let took = good.then(|| begun.elapsed());
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((begun, took));
        if !good {
            // As a real client would: log in again.
            let _ = client.create().await;
        }
        sleep_until(begun + EVERY).await;
    }
}
