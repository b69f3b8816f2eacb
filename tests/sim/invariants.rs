//! What must hold of every run, and the check of what only its end shows.
//!
//! `client.rs` checks each answer when it comes, `world.rs` the verdicts and what is left at the end.
//! They report here what they find.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Arrival, History, SessionHistory};
use super::stanzas::{self, Finding, Flow};

/// The least time between two requests of a session at a node (design §5).
const SPACING: Duration = Duration::from_millis(5);

/// A promise of the balancer. README.md lists what excuses each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invariant {
    /// A node was well, and a creation failed.
    Creation,
    /// A sid belongs to one client.
    SidIsUnique,
    /// A session is not forgotten while its client may stay away.
    NotForgotten,
    /// Every answer is a wrapper.
    Wrapper,
    /// A node was well, and a request got another status than 200.
    Status,
    /// An answer is that of the request.
    RightAnswer,
    /// A session ends only by its client, its node or its operator.
    NotEnded,
    /// Every request gets an answer.
    Answered,
    /// A node that is well is not called down.
    Verdict,
    /// Nothing is left when all clients are gone.
    NothingLeft,
    /// A session stays at its node.
    Pinned,
    /// Requests of a session are apart.
    Spacing,
    /// Requests of a session reach their node in rid order.
    Order,
    /// A node in `drain` gets no creation, one in `maint` nothing.
    OperatorState,
    /// A confirmed stanza arrives.
    StanzaLost,
    /// A stanza arrives once.
    StanzaDoubled,
    /// Stanzas arrive in order.
    StanzaSwapped,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) invariant: Invariant,
    pub(super) at: Duration,
    pub(super) text: String,
}

/// Judges what nodes and clients wrote down.
pub(super) fn judge(history: &History) {
    for (sid, session) in &history.sessions() {
        let owner = session.owner;
        let strayed = session.arrivals.iter().find(|a| a.node != owner);
        if let Some(Arrival { at, node, rid, .. }) = strayed
            && !history.excused(sid, *at)
        {
            let rid = rid.saturating_sub(session.rid);
            let text = format!(
                "{sid} +{rid} of t{owner} went to t{node} at {at:?}, and t{owner} was well"
            );
            history.broken(Invariant::Pinned, &text);
        }
        judge_spacing(history, sid, session);
        judge_order(history, sid, session);
        judge_stanzas(history, sid, session);
    }
}

/// A request comes at least 5 ms after each one that is unanswered at the same node.
fn judge_spacing(history: &History, sid: &str, session: &SessionHistory) {
    for (place, later) in session.arrivals.iter().enumerate() {
        let earlier = session.arrivals.get(..place).unwrap_or_default();
        let near = earlier.iter().rev();
        let near = near.take_while(|one| later.at.saturating_sub(one.at) < SPACING);
        let open = |one: &&Arrival| {
            one.node == later.node && one.answered.is_none_or(|answered| answered > later.at)
        };
        for one in near.filter(open) {
            let apart = later.at.saturating_sub(one.at);
            let [one, other] = [one.rid, later.rid].map(|rid| rid.saturating_sub(session.rid));
            let text = format!(
                "{sid}: +{one} and +{other} are {apart:?} apart at {:?}",
                later.at
            );
            history.broken(Invariant::Spacing, &text);
        }
    }
}

/// The first node that reads a rid has read no higher one before.
fn judge_order(history: &History, sid: &str, session: &SessionHistory) {
    let mut highest: BTreeMap<usize, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for Arrival { node, rid, at, .. } in &session.arrivals {
        if !seen.insert(*rid) {
            continue;
        }
        let top = highest.entry(*node).or_default();
        if rid < top {
            let [rid, top] = [*rid, *top].map(|rid| rid.saturating_sub(session.rid));
            let text = format!("{sid}: +{rid} came after +{top} at {at:?}");
            history.broken(Invariant::Order, &text);
        }
        *top = (*top).max(*rid);
    }
}

/// Every stanza arrives exactly once and in order, in both directions. A failed node excuses a loss,
/// and nothing excuses a double or a swap.
fn judge_stanzas(history: &History, sid: &str, session: &SessionHistory) {
    let all = |by_rid: &BTreeMap<u64, Vec<u64>>| by_rid.values().flatten().copied().collect();
    let answered = |rid: &u64| session.answered.contains(rid);
    let up = Flow {
        offered: all(&session.sent),
        confirmed: carried(&session.sent, answered),
        taken: session.taken.clone(),
    };
    // The client gave up a rid that has no answer.
    let read = |rid: &u64| session.heard.contains_key(rid);
    let down = Flow {
        offered: all(&session.said),
        confirmed: carried(&session.said, read),
        taken: all(&session.heard),
    };
    for (flow, way) in [(up, "to its node"), (down, "to its client")] {
        for finding in stanzas::check(&flow) {
            let (invariant, what) = match finding {
                Finding::Lost(_) if history.excused(sid, session.last) => continue,
                Finding::Lost(stanza) => {
                    (Invariant::StanzaLost, format!("stanza {stanza} is lost"))
                }
                Finding::Doubled(stanza) => (
                    Invariant::StanzaDoubled,
                    format!("stanza {stanza} came twice"),
                ),
                Finding::Invented(stanza) => (
                    Invariant::StanzaDoubled,
                    format!("stanza {stanza} was never sent"),
                ),
                Finding::Swapped(stanza, later) => (
                    Invariant::StanzaSwapped,
                    format!("stanza {stanza} came after {later}"),
                ),
            };
            history.broken(invariant, &format!("{sid}: {what}, on its way {way}"));
        }
    }
}

/// The stanzas of some rids.
fn carried(by_rid: &BTreeMap<u64, Vec<u64>>, of: impl Fn(&u64) -> bool) -> BTreeSet<u64> {
    let some = by_rid.iter().filter(|(rid, _)| of(rid));
    some.flat_map(|(_, stanzas)| stanzas).copied().collect()
}
