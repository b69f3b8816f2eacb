//! The figures of the failover benchmark: counted from the clients' diaries, as a table and JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::{Diary, What};
use super::{Case, Kind};
use crate::world::node::Noted;

/// The first lines of the table.
pub(super) const HEAD: &str = "\
case      balancer  sessions  ended  broken  5xx  back after median     p99     max  not back  disturbed
--------  --------  --------  -----  ------  ---  -----------------  ------  ------  --------  ---------";

/// What the columns mean.
pub(super) const LEGEND: &str = "\
sessions: of the node that failed. ended: by a terminate, over all clients. broken: connections reset or ended without an answer, 5xx: HTTP
errors, both over all clients. back after: seconds from the fault until a new session is held.
not back: sessions of the failed node that were ended or broken, and had no successor within 15 s. disturbed: sessions of the other
nodes to which anything happened.";

/// What one fault did.
pub(super) struct Figures {
    case: Case,
    kind: Kind,
    sessions: usize,
    ended: usize,
    broken: usize,
    /// Sessions of the node that were ended or broken, with no new one after it.
    not_back: usize,
    errors: usize,
    /// Sorted.
    back: Vec<Duration>,
    disturbed: usize,
}

impl Figures {
    /// Counts what happened after the fault.
    pub(super) fn read(
        kind: Kind,
        case: Case,
        fault: u64,
        diaries: &[Diary],
        victim: &[Noted],
    ) -> Self {
        let mut figures = Self {
            case,
            kind,
            sessions: 0,
            ended: 0,
            broken: 0,
            not_back: 0,
            errors: 0,
            back: Vec::new(),
            disturbed: 0,
        };
        for diary in diaries {
            let at = diary.partition_point(|(when, _)| *when < fault);
            let (before, after) = diary.split_at(at);
            let count = |wanted: What| after.iter().filter(|(_, what)| *what == wanted).count();
            figures.ended += count(What::Ended);
            figures.broken += count(What::Broken);
            figures.errors += count(What::Error);
            let lived_there = session(before).is_some_and(|rid| {
                victim
                    .iter()
                    .any(|noted| noted.creation && noted.rid == rid)
            });
            if !lived_there {
                figures.disturbed += usize::from(!after.is_empty());
                continue;
            }
            figures.sessions += 1;
            let back = after
                .iter()
                .find(|(_, what)| matches!(what, What::Held { .. }));
            let took = back.map(|(when, _)| Duration::from_micros(when - fault));
            let lost = count(What::Ended) + count(What::Broken) + count(What::Error);
            figures.not_back += usize::from(lost > 0 && took.is_none());
            figures.back.extend(took);
        }
        figures.back.sort_unstable();
        figures
    }

    fn back_at(&self, part: f64) -> Option<f64> {
        let last = self.back.len().checked_sub(1)?;
        let at = (last as f64 * part).ceil() as usize;
        Some(self.back[at].as_secs_f64())
    }

    fn as_json(&self) -> Value {
        json!({
            "case": format!("{:?}", self.case).to_lowercase(),
            "balancer": format!("{:?}", self.kind).to_lowercase(),
            "sessions_of_the_node": self.sessions,
            "ended_sessions": self.ended,
            "broken_connections": self.broken,
            "http_5xx": self.errors,
            "back_after_seconds": {
                "median": self.back_at(0.5),
                "p99": self.back_at(0.99),
                "max": self.back_at(1.0),
            },
            "not_back": self.not_back,
            "disturbed_sessions_of_other_nodes": self.disturbed,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |part| {
            self.back_at(part)
                .map_or("-".to_owned(), |seconds| format!("{seconds:.3}"))
        };
        write!(
            f,
            "{:<8}  {:<8}  {:>8}  {:>5}  {:>6}  {:>3}  {:>17}  {:>6}  {:>6}  {:>8}  {:>9}",
            format!("{:?}", self.case).to_lowercase(),
            format!("{:?}", self.kind).to_lowercase(),
            self.sessions,
            self.ended,
            self.broken,
            self.errors,
            seconds(0.5),
            seconds(0.99),
            seconds(1.0),
            self.not_back,
            self.disturbed,
        )
    }
}

/// The figures as JSON.
pub(super) fn json(all: &[Figures]) -> String {
    let all: Vec<Value> = all.iter().map(Figures::as_json).collect();
    format!("{:#}", Value::Array(all))
}

/// The session that a client has at the end of a diary, by the rid of its creation.
fn session(diary: &[(u64, What)]) -> Option<u64> {
    diary.iter().rev().find_map(|(_, what)| match what {
        What::Held { rid } => Some(*rid),
        What::Answered | What::Ended | What::Broken | What::Error => None,
    })
}
