//! Requests whose clients went away before the answer, and those that wait for them to come again.
//!
//! A client that lost its network sends its request again. A page that was loaded again sends the next rid
//! instead, and that request must not wait. After a lost network, the client has no older connection.

use std::time::Duration;

use super::{RidOrder, SPACING, Time};

/// Clients have two requests under way.
const MOST_AWAY: usize = 2;

/// A client that has sent nothing beside its poll for this long is idle. For a request beside the poll, a
/// browser opens a second connection, and keeps it for longer than this. A page that is loaded again then uses
/// that one. An idle client may have no other connection than that of its poll.
const IDLE: Duration = Duration::from_secs(60);

/// A connection that opened this long before another one was seen to be gone may have opened after it: ends
/// of connections are noticed late.
const NOTICED: Duration = Duration::from_millis(250);

/// A request whose client went away before its answer.
#[derive(Debug)]
pub(super) struct Away {
    rid: u64,
    since: Time,
    /// Until when the rid above waits for it.
    until: Time,
}

impl RidOrder {
    /// The client of the request `rid` went away before its answer. For the time `retry` the rid above waits
    /// for it to come again, unless the client was idle.
    pub(in super::super) fn went_away(&mut self, rid: u64, now: Time, retry: Option<Duration>) {
        // Its connection is about to be closed.
        self.clear_at = self.clear_at.max(now + SPACING);
        let is_idle = self.met_at + IDLE < now;
        let Some(retry) = retry.filter(|_| !is_idle) else {
            return;
        };
        let away = &mut self.crossing.get_or_insert_default().away;
        away.retain(|away| away.rid != rid);
        away.push(Away {
            rid,
            since: now,
            until: now + retry,
        });
        if away.len() > MOST_AWAY {
            away.remove(0);
        }
    }

    /// A request has come. Those below it are given up, unless it waits for the next below: one that may wait
    /// came on a connection that opened at the time `connected`, and a lost network leaves no older one. Says
    /// whether it was missed.
    pub(in super::super) fn came(&mut self, rid: u64, connected: Option<Time>) -> bool {
        let Some(crossing) = &mut self.crossing else {
            return false;
        };
        let was_away = crossing.away.iter().any(|away| away.rid == rid);
        let before = crossing.away.len();
        crossing.away.retain(|away| {
            let is_lost = connected.is_some_and(|at| away.since < at + NOTICED);
            away.rid > rid || (is_lost && away.rid.checked_add(1) == Some(rid))
        });
        if crossing.away.len() < before {
            if !was_away && self.at_node().count() < 2 {
                // It has one connection less.
                self.met_at = Time::default();
            }
            self.let_go();
        }
        was_away
    }

    /// Until when this rid waits for the one below it, whose client went away.
    pub(super) fn awaited_until(&self, rid: u64) -> Option<Time> {
        let mut away = self.crossing.iter().flat_map(|crossing| &crossing.away);
        away.find(|away| away.rid.checked_add(1) == Some(rid))
            .map(|away| away.until)
    }

    /// The requests whose clients went away, since when, and until when the rid above waits for them.
    pub(in super::super) fn away(&self) -> Vec<(u64, Time, Time)> {
        let away = self.crossing.iter().flat_map(|crossing| &crossing.away);
        away.map(|away| (away.rid, away.since, away.until))
            .collect()
    }

    /// The same of another process that this one has taken over from.
    pub(in super::super) fn went_away_elsewhere(&mut self, (rid, since, until): (u64, Time, Time)) {
        let away = &mut self.crossing.get_or_insert_default().away;
        if away.len() < MOST_AWAY {
            away.push(Away { rid, since, until });
        }
    }
}
