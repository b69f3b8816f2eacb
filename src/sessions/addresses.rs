//! The nodes of client addresses, for `affinity: client-ip`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use super::Time;
use crate::cluster::{ClientKey, NodeId, client_key};
use crate::observe::metrics::TableSize;

/// Which node each client address is tied to. The hash only places an address's first request:
/// once tied, a node that comes back does not steal sessions that moved away.
#[derive(Debug)]
pub struct Addresses {
    table: DashMap<ClientKey, Tie, ahash::RandomState>,
    ttl: Duration,
    limit: usize,
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
            limit,
        }
    }

    /// The node of `client`, kept for another time to live.
    pub fn find(&self, client: IpAddr, now: Time) -> Option<NodeId> {
        let tie = self.table.get(&client_key(client))?;
        tie.expires
            .fetch_max((now + self.ttl).seconds(), Ordering::Relaxed);
        Some(tie.node)
    }

    /// A request of `client` came: its tie, if there is one, lives for another time to live.
    pub fn renew(&self, client: IpAddr, now: Time) {
        self.find(client, now);
    }

    /// Ties `client` to `node`. When the table is full a new address stays untied: the hash then
    /// places it as it would have anyway.
    pub fn tie(&self, client: IpAddr, node: NodeId, now: Time) {
        let key = client_key(client);
        let expires = AtomicU32::new((now + self.ttl).seconds());
        if self.table.len() < self.limit || self.table.contains_key(&key) {
            self.table.insert(key, Tie { node, expires });
        }
    }

    /// How much the table holds, and may hold; the memory is reckoned from the sizes of its parts.
    pub fn size(&self) -> TableSize {
        let slot = size_of::<(ClientKey, Tie)>() + 1;
        TableSize {
            table: "addresses",
            entries: self.table.len(),
            limit: self.limit,
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
