//! What a process says of its sessions to the one that takes over.

use super::Session;
use crate::sessions::Time;

impl Session {
    /// The node has read the request `rid` from another process.
    pub fn sent_elsewhere(&self, rid: u64) {
        self.state().order.sent_elsewhere(rid);
    }

    /// The requests whose clients went away before the answer, since when, and until when the rid above waits
    /// for them.
    pub fn away(&self) -> Vec<(u64, Time, Time)> {
        self.state().order.away()
    }

    /// The same of another process.
    pub fn went_away_elsewhere(&self, away: (u64, Time, Time)) {
        self.state().order.went_away_elsewhere(away);
    }
}
