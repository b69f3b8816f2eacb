//! The demo's clients: each keeps a poll held, sends a ping now and then, and logs in again at once
//! when its session ends, as real clients do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::{Client, Error};

/// The wait that clients ask for, in seconds.
const WAIT: u32 = 5;

/// The pause before a client tries again when it got no answer that it can use, as wire.md's
/// clients do; a clean terminate needs none.
const RETRY: Duration = Duration::from_secs(1);

/// What happened to the clients so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Sessions alive now.
    pub(super) alive: usize,
    /// Answers that clients got.
    pub(super) answers: u64,
    /// Sessions that ended with a clean terminate.
    pub(super) ended: u64,
    /// Requests that got no answer, or an HTTP error.
    pub(super) errors: u64,
    /// How long each client was without a session, from the end of one to the next.
    pub(super) gaps: Vec<Duration>,
}

/// The clients.
pub(super) struct Crowd {
    tally: Arc<Mutex<Tally>>,
    /// They end when this is dropped.
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Starts `count` clients of the balancer at `address`.
    pub(super) fn start(count: usize, address: SocketAddr) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let mut clients = JoinSet::new();
        for _ in 0..count {
            clients.spawn(live(address, Arc::clone(&tally)));
        }
        Self {
            tally,
            _clients: clients,
        }
    }

    /// What happened so far.
    pub(super) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client, session after session.
async fn live(address: SocketAddr, tally: Arc<Mutex<Tally>>) {
    let mut lost: Option<Instant> = None;
    loop {
        let mut client = Client::to(address)
            .wait(WAIT)
            .deadline(Duration::from_secs(30));
        if client.create().await.is_err() {
            lock(&tally).errors += 1;
            sleep(RETRY).await;
            continue;
        }
        {
            let mut tally = lock(&tally);
            tally.alive += 1;
            tally.answers += 1;
            tally.gaps.extend(lost.map(|lost| lost.elapsed()));
        }
        let clean = session(&mut client, &tally).await.is_ok();
        lost = Some(Instant::now());
        let mut tally = lock(&tally);
        tally.alive -= 1;
        tally.ended += u64::from(clean);
        tally.errors += u64::from(!clean);
    }
}

/// One session, to its end: a clean terminate, or an error.
async fn session(client: &mut Client, tally: &Mutex<Tally>) -> Result<(), Error> {
    for round in 0_u64.. {
        let reply = if round % 3 == 2 {
            client.ping(&round.to_string()).await?
        } else {
            client.poll().await?
        };
        lock(tally).answers += 1;
        if reply.is_terminate() {
            return Ok(());
        }
        if reply.status != 200 {
            return Err(Error::NoSession);
        }
    }
    Ok(())
}
