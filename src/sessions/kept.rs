//! The last answers of each session, kept for a client whose connection broke while it read them
//! (XEP-0124 §14.3): it asks again with the same rid and the same body.
//!
//! An answer goes when a request shows that it has arrived ([`Asked::arrived`]), and when its session has
//! two later ones.
//!
//! An answer is found by its session, its rid and a hash of the request's body, so a request with another
//! body never gets it. The hash is XXH3 with a secret drawn at the start. A client never sees a hash, and a
//! collision could only give it an answer of its own session: a slower hash would protect nothing more.
//!
//! All sessions share one budget of memory, in shards. When a shard is full, the session that was served
//! least recently loses its answers. A session without answers has no entry here.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_secret;

use crate::bosh;
use crate::http1::KeptFields;
use crate::observe::metrics::KeptMetrics;

/// The largest body that is kept, in bytes.
const LARGEST: usize = 64 * 1024;

/// Answers of one session: as many requests as Tigase, Prosody and ejabberd grant (XEP-0124 §14).
const EACH: usize = 2;

const SHARDS: usize = 16;

/// The bytes of a key of XXH3, which calls it a secret.
pub(super) const KEY: usize = 192;

mod passing;

/// What an answer takes beside its body and its entry, in bytes: the heads of its allocations.
const OVERHEAD: usize = 48;

/// A node's answer, as its client got it. Its body may hold a sid, so that `{:?}` leaves it out.
#[derive(Clone)]
pub struct KeptAnswer {
    /// The body.
    pub body: Bytes,
    /// What the client gets of the node's head, where that is not the usual.
    pub head: Option<Box<KeptHead>>,
}

/// What a client gets of the head of a node's answer.
#[derive(Debug, Clone)]
pub struct KeptHead {
    /// The `Content-Type`, if it is not the usual one.
    pub content_type: Option<Bytes>,
    /// Fields of the node's head.
    pub fields: Option<Box<KeptFields>>,
}

impl fmt::Debug for KeptAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptAnswer")
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl KeptAnswer {
    /// An empty wrapper.
    pub(super) fn empty() -> Self {
        Self {
            body: bosh::empty(),
            head: None,
        }
    }

    fn bytes(&self) -> usize {
        OVERHEAD + self.body.len() + self.head.as_ref().map_or(0, |head| head.bytes())
    }
}

impl KeptHead {
    fn bytes(&self) -> usize {
        let fields = self.fields.as_ref().map_or(0, |fields| fields.bytes());
        let content_type = self.content_type.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + OVERHEAD + content_type + fields
    }
}

/// A request, as an answer is found by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its rid.
    pub rid: u64,
    /// The hash of its body, from `KeptAnswers::hash`.
    pub hash: u64,
    /// It asks for nothing.
    pub is_poll: bool,
    /// Its `ack`: its client has the answers up to this rid (XEP-0124 §9.2); 0 if it has none.
    pub ack: u64,
}

impl Asked {
    /// The highest rid whose answer has arrived when this request comes. With `ack` the client says so.
    /// Otherwise it has `requests` requests under way at most, and one more to pause or terminate
    /// (XEP-0124 §11). A request that is ahead of that, counted from the `last` one at the node, shows
    /// nothing.
    pub(super) fn arrived(self, requests: u64, last: Option<u64>) -> u64 {
        let ahead = self.rid.saturating_sub(last.unwrap_or(self.rid));
        match self.ack {
            1.. if self.ack < self.rid => self.ack,
            _ if ahead > requests + 1 => 0,
            _ => self.rid.saturating_sub(requests),
        }
    }
}

/// Where the answers of a session are: a place in its shard, counted from 1. 0 is none. It may be another
/// session's by now, so each use names the owner.
pub(super) type Slot = u32;

/// The answers of all sessions.
#[derive(Debug)]
pub(super) struct KeptAnswers {
    shards: [Mutex<Shard>; SHARDS],
    /// What one shard may take, in bytes; 0 keeps nothing.
    most: usize,
    key: HashKey,
    /// The key of another process, in place of its own.
    passed_key: OnceLock<HashKey>,
    metrics: KeptMetrics,
}

/// What hashes depend on. `{:?}` leaves it out.
struct HashKey([u8; KEY]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    /// How many answers there are.
    answers: usize,
    /// The first of the free entries, linked by `older`.
    free: Slot,
    newest: Slot,
    oldest: Slot,
    bytes: usize,
}

/// The answers of one session.
#[derive(Debug, Default)]
struct Entry {
    /// The address of the session; 0 for a free entry.
    owner: usize,
    newer: Slot,
    older: Slot,
    answers: [Option<Kept>; EACH],
}

/// An answer, and the request that it is to.
#[derive(Debug)]
struct Kept {
    rid: u64,
    hash: u64,
    answer: KeptAnswer,
}

impl Kept {
    fn is_to(&self, asked: (u64, u64)) -> bool {
        (self.rid, self.hash) == asked
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        let answers = self.answers.iter().flatten();
        size_of::<Self>() + answers.map(|kept| kept.answer.bytes()).sum::<usize>()
    }

    fn has_above(&self, rid: u64) -> bool {
        self.answers.iter().flatten().any(|kept| kept.rid > rid)
    }

    fn count(&self) -> usize {
        self.answers.iter().flatten().count()
    }

    /// The place for the answer to this request: that of an earlier one to it, a free one, or that of the
    /// lowest rid.
    fn place(&mut self, asked: (u64, u64)) -> &mut Option<Kept> {
        let rank = |one: &Option<Kept>| match one {
            Some(kept) if kept.is_to(asked) => 0,
            None => 1,
            Some(kept) => kept.rid.saturating_add(2),
        };
        let [first, second] = &mut self.answers;
        if rank(second) < rank(first) {
            second
        } else {
            first
        }
    }
}

impl KeptAnswers {
    /// Room for `budget` bytes; with 0 nothing is kept.
    pub(super) fn new(budget: usize, metrics: KeptMetrics) -> Self {
        metrics.limit(budget);
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            most: budget / SHARDS,
            key: HashKey(std::array::from_fn(|_| fastrand::u8(..))),
            passed_key: OnceLock::new(),
            metrics,
        }
    }

    /// Whether anything is kept.
    pub(super) const fn is_on(&self) -> bool {
        self.most > 0
    }

    /// Whether an answer with a body of this many bytes is kept. One that needs more than a shard has would
    /// only push out all others.
    pub(super) const fn may_keep(&self, bytes: usize) -> bool {
        bytes <= LARGEST && bytes + OVERHEAD + size_of::<Entry>() <= self.most
    }

    /// Copies the counts into the metrics.
    pub(super) fn measure(&self) {
        let (mut answers, mut bytes) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            answers += shard.answers;
            bytes += shard.bytes;
        }
        self.metrics.set(answers, bytes);
    }

    /// The hash of a request's body.
    pub(super) fn hash(&self, body: &[u8]) -> u64 {
        xxh3_64_with_secret(body, &self.key().0)
    }

    /// Keeps an answer of `owner`, in place of its oldest one if it has [`EACH`].
    pub(super) fn keep(
        &self,
        owner: usize,
        slot: &mut Slot,
        (rid, hash): (u64, u64),
        answer: KeptAnswer,
    ) {
        let mut shard = self.shard(owner);
        if shard.of(owner, *slot).is_none() {
            *slot = shard.add(owner);
        }
        let Some(entry) = shard.of(owner, *slot) else {
            return;
        };
        let size = answer.bytes();
        let old = entry.place((rid, hash)).replace(Kept { rid, hash, answer });
        shard.bytes += size;
        match &old {
            Some(old) => shard.bytes -= old.answer.bytes(),
            None => shard.answers += 1,
        }
        shard.renew(*slot);
        while shard.bytes > self.most {
            let oldest = shard.oldest;
            let dropped = shard.remove(oldest);
            self.metrics.evicted.inc_by(dropped as u64);
        }
        drop(shard);
        // The memory of the old one is given back without the lock.
        drop(old);
    }

    /// A request of `owner` has come. Answers up to the rid `arrived` are dropped; that to the request
    /// itself is returned; an empty one to a poll whose place a later request has taken.
    pub(super) fn ask(
        &self,
        owner: usize,
        slot: &mut Slot,
        (asked, arrived): (Asked, u64),
    ) -> Option<KeptAnswer> {
        let mut shard = self.shard(owner);
        shard.drop_some((owner, &mut *slot), |rid| rid <= arrived);
        let entry = shard.of(owner, *slot)?;
        let mut answers = entry.answers.iter().flatten();
        let found = match answers.find(|kept| kept.is_to((asked.rid, asked.hash))) {
            Some(kept) => kept.answer.clone(),
            // Its node has answered the next one in its place. What it would say now is younger than that.
            None if asked.is_poll && entry.has_above(asked.rid) => KeptAnswer::empty(),
            None => return None,
        };
        shard.renew(*slot);
        Some(found)
    }

    /// Drops the answers of `owner`.
    pub(super) fn release(&self, owner: usize, slot: &mut Slot) {
        if *slot != 0 {
            self.shard(owner).drop_some((owner, slot), |_| true);
        }
    }

    fn shard(&self, owner: usize) -> MutexGuard<'_, Shard> {
        // Addresses are multiples of a power of two; a product spreads them.
        let spread = (owner >> 4).wrapping_mul(0x9E37_79B9);
        let shard = &self.shards[(spread >> 16) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn at(&mut self, slot: Slot) -> Option<&mut Entry> {
        let index = usize::try_from(slot).unwrap_or(0).checked_sub(1)?;
        self.entries.get_mut(index)
    }

    /// The entry at `slot`, if it is that of `owner`.
    fn of(&mut self, owner: usize, slot: Slot) -> Option<&mut Entry> {
        self.at(slot).filter(|entry| entry.owner == owner)
    }

    /// Drops answers of `owner`, by their rids.
    fn drop_some(&mut self, (owner, slot): (usize, &mut Slot), drops: impl Fn(u64) -> bool) {
        let Some(entry) = self.of(owner, *slot) else {
            *slot = 0;
            return;
        };
        let (mut bytes, mut dropped) = (0, 0);
        for one in &mut entry.answers {
            if let Some(old) = one.take_if(|kept| drops(kept.rid)) {
                bytes += old.answer.bytes();
                dropped += 1;
            }
        }
        let empty = entry.count() == 0;
        self.bytes -= bytes;
        self.answers -= dropped;
        if empty {
            self.remove(*slot);
            *slot = 0;
        }
    }

    /// An entry for `owner`; 0 if there are as many as numbers.
    fn add(&mut self, owner: usize) -> Slot {
        let slot = if self.free == 0 {
            let Ok(slot) = Slot::try_from(self.entries.len() + 1) else {
                return 0;
            };
            self.entries.push(Entry::default());
            slot
        } else {
            self.free
        };
        let Some(entry) = self.at(slot) else { return 0 };
        entry.owner = owner;
        let next = std::mem::take(&mut entry.older);
        if slot == self.free {
            self.free = next;
        }
        self.bytes += size_of::<Entry>();
        self.link(slot);
        slot
    }

    /// Frees an entry. Says how many answers it had.
    fn remove(&mut self, slot: Slot) -> usize {
        self.unlink(slot);
        let free = self.free;
        let Some(entry) = self.at(slot) else { return 0 };
        let (bytes, count) = (entry.bytes(), entry.count());
        *entry = Entry {
            older: free,
            ..Entry::default()
        };
        self.free = slot;
        self.bytes -= bytes;
        self.answers -= count;
        count
    }

    /// Makes an entry the newest.
    fn renew(&mut self, slot: Slot) {
        if self.newest != slot && slot != 0 {
            self.unlink(slot);
            self.link(slot);
        }
    }

    fn link(&mut self, slot: Slot) {
        let newest = std::mem::replace(&mut self.newest, slot);
        if let Some(entry) = self.at(slot) {
            (entry.newer, entry.older) = (0, newest);
        }
        match self.at(newest) {
            Some(entry) => entry.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Some(entry) = self.at(slot) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match self.at(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.at(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests;
