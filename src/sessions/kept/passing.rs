//! Kept answers on their way to another process.

use bytes::Bytes;

use super::{HashKey, KEY, KeptAnswer, KeptAnswers, Slot};

impl KeptAnswers {
    pub(super) fn key(&self) -> &HashKey {
        self.passed_key.get().unwrap_or(&self.key)
    }

    /// What hashes depend on.
    pub(in crate::sessions) fn passed_key(&self) -> &[u8; KEY] {
        &self.key().0
    }

    /// Takes the key of another process, the first one for good. What was kept by another key is not found
    /// any more.
    pub(in crate::sessions) fn take_key(&self, key: [u8; KEY]) {
        let _ = self.passed_key.set(HashKey(key));
    }

    /// The rid, the hash and the body of each answer of `owner` that has nothing else.
    pub(in crate::sessions) fn passed(&self, owner: usize, slot: Slot) -> Vec<(u64, u64, Bytes)> {
        let mut shard = self.shard(owner);
        let Some(entry) = shard.of(owner, slot) else {
            return Vec::new();
        };
        let answers = entry.answers.iter().flatten();
        answers
            .filter_map(|one| Some((one.rid, one.hash, one.answer.plain()?.clone())))
            .collect()
    }
}

impl KeptAnswer {
    /// The body, if there is nothing else.
    pub(in crate::sessions) fn plain(&self) -> Option<&Bytes> {
        self.head.is_none().then_some(&self.body)
    }

    /// An answer with this body and nothing else.
    pub(in crate::sessions) fn of_body(body: &[u8]) -> Self {
        Self {
            body: Bytes::copy_from_slice(body),
            head: None,
        }
    }
}
