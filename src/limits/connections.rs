//! How many connections each client has open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Client;

/// Open connections by client. It has an entry for those who have one, so that it is bounded by
/// the number of all connections.
#[derive(Debug)]
pub struct Connections {
    open: DashMap<u64, usize, ahash::RandomState>,
    most: AtomicUsize,
}

/// A connection of a client that is counted until this is dropped. The default counts for no client.
#[derive(Debug, Default)]
pub struct Counted(Option<(Arc<Connections>, u64)>);

impl Connections {
    /// Counts of connections, at most `most` for each client; 0 is any number.
    pub fn new(most: usize) -> Self {
        Self {
            open: DashMap::with_hasher(ahash::RandomState::new()),
            most: AtomicUsize::new(most),
        }
    }

    /// Sets how many each client may have from now on. Those that are open stay.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Counts one more of `client`; none if it has as many as it may.
    pub fn open(self: &Arc<Self>, client: Client) -> Option<Counted> {
        let most = self.most.load(Ordering::Relaxed);
        let Some(hash) = client.hash().filter(|_| most > 0) else {
            return Some(Counted(None));
        };
        let mut count = self.open.entry(hash).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted(Some((Arc::clone(self), hash))))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((connections, hash)) = &self.0 else {
            return;
        };
        if let Entry::Occupied(mut entry) = connections.open.entry(*hash) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Clients;
    use super::*;
    use crate::config::Settings;

    #[test]
    fn each_client_has_its_own_count_and_leaves_nothing_behind() {
        let clients = Clients::new(&Settings::for_nodes(Vec::new()));
        let client = |address: &str| clients.client(address.parse().unwrap());
        let connections = Arc::new(Connections::new(2));
        let first = connections.open(client("192.0.2.1")).unwrap();
        let _second = connections.open(client("192.0.2.1")).unwrap();
        assert!(connections.open(client("192.0.2.1")).is_none());
        let other = connections.open(client("192.0.2.2"));
        assert!(other.is_some());
        let many: Vec<_> = (0..9)
            .map(|_| connections.open(client("127.0.0.1")))
            .collect();
        assert!(many.iter().all(Option::is_some));
        assert_eq!(connections.open.len(), 2);
        drop((first, other));
        assert!(connections.open(client("192.0.2.1")).is_some());
        assert_eq!(connections.open.len(), 1);
        connections.set_most(3);
        let third = connections.open(client("192.0.2.1"));
        assert!(third.is_some(), "a higher limit applies at once");
        connections.set_most(1);
        assert!(connections.open(client("192.0.2.1")).is_none());
        let unbounded = Arc::new(Connections::new(0));
        assert!((0..99).all(|_| unbounded.open(client("192.0.2.1")).is_some()));
    }
}
