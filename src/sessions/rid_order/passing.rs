//! What two processes know of the order of one session's requests, while one takes over from the other.

use super::RidOrder;

impl RidOrder {
    /// The node has read the request `rid` from another process.
    pub(in super::super) fn sent_elsewhere(&mut self, rid: u64) {
        self.next = self.next.max(rid.saturating_add(1));
        self.let_go();
    }
}
