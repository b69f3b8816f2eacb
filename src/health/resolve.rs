//! What a node's host name stands for, looked up before each probe.
//!
//! A name service that fails or stays silent must not take down nodes that work: the addresses of
//! the last good answer stay in use, and the failure is logged once.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::failure::Failure;
use crate::cluster::Node;
use crate::config::unix_path;

/// The most addresses of one node. A name service may answer with thousands, and each connect would
/// have to share its time among them.
const MOST: usize = 16;

type LookUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks one node's name up.
pub(super) struct Resolver {
    /// `host:port`; none if that is an address already and there is nothing to look up.
    name: Option<String>,
    /// A look-up that did not answer in time; the next probe waits for it rather than start
    /// another, since each one occupies a thread until the name service answers.
    under_way: Option<LookUp>,
    /// Whether the last look-up failed.
    failing: bool,
}

impl Resolver {
    /// A resolver of `address`, which is `host:port`.
    pub(super) fn new(address: &str) -> Self {
        let literal = address.parse::<SocketAddr>().is_ok() || unix_path(address).is_some();
        Self {
            name: (!literal).then(|| address.to_owned()),
            under_way: None,
            failing: false,
        }
    }

    /// Brings the node's addresses up to date. Takes half of what is left of the time when there
    /// are addresses to fall back on, and all of it (`limit` in the message) otherwise; an error
    /// only when there are none.
    pub(super) async fn refresh(
        &mut self,
        node: &Node,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), Failure> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let known = node.addresses();
        let until = if known.is_empty() {
            deadline
        } else {
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / 2
        };
        let look_up = self.under_way.get_or_insert_with(|| look_up(name.clone()));
        let failure = match timeout_at(until, look_up).await {
            Ok(answer) => {
                self.under_way = None;
                match answer {
                    Ok(addresses) => {
                        self.learn(node, &known, addresses);
                        return Ok(());
                    }
                    Err(error) => Failure::Unresolved(error),
                }
            }
            Err(_) => Failure::ResolverSilent(limit),
        };
        if known.is_empty() {
            return Err(failure);
        }
        node.note_failure(failure.to_string(), SystemTime::now());
        if !self.failing {
            self.failing = true;
            warn!(node = %node.name, address = %node.address(), %failure,
                "host name not resolved, its last addresses stay in use");
        }
        Ok(())
    }

    /// Takes a good answer. The order of the known addresses stays while the set does, so that a
    /// name service that rotates its answers does not move a node from address to address.
    fn learn(&mut self, node: &Node, known: &[SocketAddr], answer: Vec<SocketAddr>) {
        let addresses = few_of(answer, known);
        if self.failing {
            self.failing = false;
            info!(node = %node.name, address = %node.address(), "host name resolved again");
        }
        let same = addresses.len() == known.len() && addresses.iter().all(|a| known.contains(a));
        if !same {
            if !known.is_empty() {
                info!(node = %node.name, address = %node.address(), before = ?known,
                    now = ?addresses, "host name has other addresses now");
            }
            node.resolved(addresses.into());
        }
    }
}

/// Asks the system's resolver; an answer of no address is an error.
fn look_up(name: String) -> LookUp {
    Box::pin(async move {
        let addresses: Vec<SocketAddr> = lookup_host(name).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        Ok(addresses)
    })
}

/// The addresses of an answer, each once, in its order. Of more than [`MOST`] those that are known stay,
/// or an answer that rotates would be another set each time.
fn few_of(mut answer: Vec<SocketAddr>, known: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    answer.retain(|address| seen.insert(*address));
    if answer.len() > MOST {
        answer.sort_by_key(|address| !known.contains(address));
        answer.truncate(MOST);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::cluster::tests::settings;
    use crate::cluster::{Cluster, NodeId};
    use crate::config::Placement;
    use crate::observe::metrics::Metrics;

    fn addresses(numbers: impl IntoIterator<Item = u32>) -> Vec<SocketAddr> {
        let address = |number| (Ipv4Addr::from(number), 5280).into();
        numbers.into_iter().map(address).collect()
    }

    #[test]
    fn an_answer_is_taken_in_its_order_and_each_address_once() {
        let answer = addresses([3, 1, 3, 2, 1]);
        assert_eq!(few_of(answer, &addresses([2, 9])), addresses([3, 1, 2]));
    }

    #[test]
    fn an_answer_of_thousands_is_a_few_and_the_same_however_it_rotates() {
        let first = few_of(addresses(0..4_000), &[]);
        assert_eq!(first, addresses(0..16));
        let rotated = addresses((500..4_000).chain(0..500));
        assert_eq!(few_of(rotated, &first), first);
        // What is gone makes room.
        let without = few_of(addresses(8..4_000), &first);
        assert_eq!(without, addresses(8..24));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_service_is_asked_once_however_often_the_node_is_probed() {
        let cluster = Cluster::new(&settings(1, Placement::Random), &Metrics::new());
        let asked = Arc::new(());
        let thread = Arc::clone(&asked);
        let mut resolver = Resolver::new("t1.invalid:5280");
        resolver.under_way = Some(Box::pin(async move {
            let answer = std::future::pending().await;
            drop(thread);
            answer
        }));
        let limit = Duration::from_secs(1);
        for _ in 0..3 {
            let deadline = Instant::now() + limit;
            let known = resolver.refresh(cluster.node(NodeId(0)), deadline, limit);
            assert!(known.await.is_ok(), "its last addresses serve");
        }
        assert_eq!(
            Arc::strong_count(&asked),
            2,
            "the first look-up is waited for"
        );
    }
}
