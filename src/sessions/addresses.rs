//! The nodes of client addresses, for `affinity: client-ip`, and those of rooms, for a placement by a
//! query parameter.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use super::Time;
use crate::cluster::{NodeId, PlacementKey};
use crate::observe::metrics::TableSize;

/// Which node each client address or room is tied to. The hash only places the first request: once tied,
/// a node that comes back does not steal sessions that moved away, nor the newcomers of a room.
#[derive(Debug)]
pub struct Addresses {
    table: DashMap<PlacementKey, Tie, ahash::RandomState>,
    ttl: Duration,
    limit: AtomicUsize,
    /// Addresses have no ties.
    rooms_only: bool,
}

#[derive(Debug)]
struct Tie {
    node: NodeId,
    /// Seconds since the Unix epoch.
    expires: AtomicU32,
}

impl Addresses {
    /// An empty table for at most `limit` addresses, each kept `ttl` after its last request.
    pub fn new(ttl: Duration, limit: usize) -> Self {
        Self {
            table: DashMap::with_hasher(ahash::RandomState::new()),
            ttl,
            limit: AtomicUsize::new(limit),
            rooms_only: false,
        }
    }

    /// The same for rooms alone: no address has a tie in it.
    #[must_use]
    pub fn for_rooms(self) -> Self {
        Self {
            rooms_only: true,
            ..self
        }
    }

    fn has(&self, key: PlacementKey) -> bool {
        !self.rooms_only || matches!(key, PlacementKey::Query(_))
    }

    /// The node of `key`, kept for another time to live.
    pub fn find(&self, key: PlacementKey, now: Time) -> Option<NodeId> {
        let tie = self.has(key).then(|| self.table.get(&key))??;
        tie.expires
            .fetch_max((now + self.ttl).seconds(), Ordering::Relaxed);
        Some(tie.node)
    }

    /// A request of `key` came: its tie, if there is one, lives for another time to live.
    pub fn renew(&self, key: PlacementKey, now: Time) {
        self.find(key, now);
    }

    /// Ties `key` to `node`. When the table is full a new key stays untied: the hash then places it as
    /// it would have anyway.
    pub fn tie(&self, key: PlacementKey, node: NodeId, now: Time) {
        let expires = AtomicU32::new((now + self.ttl).seconds());
        if !self.has(key) {
            return;
        }
        if self.table.len() < self.limit() || self.table.contains_key(&key) {
            self.table.insert(key, Tie { node, expires });
        }
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets how many addresses it may hold. Those beyond a lower limit stay to their end.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How much the table holds, and may hold; the memory is reckoned from the sizes of its parts.
    pub fn size(&self) -> TableSize {
        let slot = size_of::<(PlacementKey, Tie)>() + 1;
        TableSize {
            table: "addresses",
            entries: self.table.len(),
            limit: self.limit(),
            bytes: self.table.capacity() * slot,
        }
    }

    /// Forgets the addresses whose time has passed.
    pub fn sweep(&self, now: Time) {
        let now = now.seconds();
        self.table
            .retain(|_, tie| tie.expires.load(Ordering::Relaxed) >= now);
    }
}
