//! Opens one connection to a node that has several addresses (RFC 8305, "Happy Eyeballs").
//!
//! The first address is tried at once, each further one when the last one has failed or has not
//! answered for a while. The first connection that opens wins, and the other attempts are dropped.
//! Which address comes first, and which ones rest, its caller decides.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Error;
use super::stream::{NodeStream, Opening, connect};

/// How long one attempt runs alone (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The addresses of a node in the order to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Each once.
    pub addresses: Arc<[SocketAddr]>,
    /// Whether the first one is known to have worked last. Then its failure is the node's: what
    /// another address does says nothing about a node that was never there.
    pub proven: bool,
    /// How many at the end have failed lately. Once all others have failed, these get
    /// no more than a quarter of a second.
    pub resting: usize,
    /// What a connection begins with, and what each of them has to get through.
    pub opening: Opening,
}

/// An attempt that has not ended.
struct Attempt {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = Result<NodeStream, Error>> + Send>>,
}

impl Attempt {
    fn begin(address: SocketAddr, opening: &Opening) -> Self {
        let opening = opening.clone();
        Self {
            address,
            connecting: Box::pin(async move { connect(address, &opening).await }),
        }
    }
}

/// Connects to the candidate that answers first. `note` hears of each address that
/// turned out to work or not, if there are several; a failure of this machine says nothing about one.
pub(super) async fn connect_any(
    candidates: &Candidates,
    limit: Duration,
    note: impl Fn(SocketAddr, bool) + Send,
) -> Result<NodeStream, Error> {
    match *candidates.addresses {
        [] => Err(Error::NoAddress),
        [address] => timeout(limit, connect(address, &candidates.opening))
            .await
            .unwrap_or(Err(Error::ConnectTimeout)),
        _ => race(candidates, limit, note).await,
    }
}

async fn race(
    candidates: &Candidates,
    limit: Duration,
    note: impl Fn(SocketAddr, bool) + Send,
) -> Result<NodeStream, Error> {
    let count = candidates.addresses.len();
    let awake = count - candidates.resting.min(count);
    // Each of many gets its chance within the limit.
    let head_start = HEAD_START.min(limit / u32::try_from(count).unwrap_or(u32::MAX));
    let mut next = candidates.addresses.iter();
    let mut attempts: Vec<Attempt> = Vec::with_capacity(count);
    let mut due = Instant::now();
    let mut give_up = due + limit;
    let mut failed = 0;
    let mut failure = WorstError::default();
    loop {
        if Instant::now() >= due
            && let Some(&address) = next.next()
        {
            attempts.push(Attempt::begin(address, &candidates.opening));
            due = Instant::now() + head_start;
        }
        if attempts.is_empty() {
            return Err(failure.error);
        }
        let (address, result) = tokio::select! {
            biased;
            ended = poll_fn(|context| poll_any(&mut attempts, context)) => ended,
            () = sleep_until(due), if next.len() > 0 => continue,
            () = sleep_until(give_up) => {
                for attempt in attempts {
                    note(attempt.address, false);
                    failure.take(candidates, attempt.address, Error::ConnectTimeout);
                }
                return Err(failure.error);
            }
        };
        let error = match result {
            Ok(stream) => {
                note(address, true);
                return Ok(stream);
            }
            Err(error) => error,
        };
        if says_no(&error) {
            note(address, false);
        }
        failure.take(candidates, address, error);
        due = Instant::now();
        failed += usize::from(!candidates.rests(address));
        if failed == awake {
            give_up = give_up.min(due + HEAD_START);
        }
    }
}

impl Candidates {
    /// Whether `address` is the one that worked last.
    fn is_proven(&self, address: SocketAddr) -> bool {
        self.proven && self.addresses.first() == Some(&address)
    }

    /// Whether `address` is one of those that rest.
    fn rests(&self, address: SocketAddr) -> bool {
        let resting = self.addresses.iter().rev().take(self.resting);
        resting.into_iter().any(|candidate| *candidate == address)
    }
}

impl From<&[SocketAddr]> for Candidates {
    fn from(addresses: &[SocketAddr]) -> Self {
        Self {
            addresses: addresses.into(),
            proven: false,
            resting: 0,
            opening: Opening::default(),
        }
    }
}

/// Polls every attempt; takes out one that has ended.
fn poll_any(
    attempts: &mut Vec<Attempt>,
    context: &mut Context<'_>,
) -> Poll<(SocketAddr, Result<NodeStream, Error>)> {
    for at in 0..attempts.len() {
        if let Poll::Ready(result) = attempts[at].connecting.as_mut().poll(context) {
            return Poll::Ready((attempts.swap_remove(at).address, result));
        }
    }
    Poll::Pending
}

/// Whether a failed connect says that its address is no good at the moment.
const fn says_no(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(_) | Error::Unreachable(_) | Error::ConnectTimeout | Error::Tls(_)
    )
}

/// The failure so far that says most about the node.
struct WorstError {
    error: Error,
    /// Whether the address is the one that worked last, and how much its error says.
    weight: (bool, u8),
}

impl Default for WorstError {
    fn default() -> Self {
        Self {
            error: Error::NoAddress,
            weight: (false, 0),
        }
    }
}

impl WorstError {
    fn take(&mut self, candidates: &Candidates, address: SocketAddr, error: Error) {
        let weight = (candidates.is_proven(address), telling(&error));
        if weight > self.weight {
            *self = Self { error, weight };
        }
    }
}

/// How much a failed connect says about the node; more is more.
const fn telling(error: &Error) -> u8 {
    match error {
        Error::Closed(_) => 6,
        Error::Tls(_) => 5,
        Error::Refused(_) => 4,
        Error::ConnectTimeout => 3,
        Error::Unreachable(_) => 2,
        Error::Local(_) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
