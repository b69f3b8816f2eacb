//! The invariants: what the clients and the nodes wrote down, held against what really happened.

use std::time::Duration;

use ahash::AHashMap;

use super::INACTIVITY;
use super::clients::{End, Mishap, Notebook, Story, Trouble};
use super::fault_log::{FaultLog, name};
use crate::Result;
use crate::support::log::micros;
use crate::world::World;
use crate::world::node::Noted;

/// Judges a run; each broken invariant is one line.
pub(crate) fn judge(book: &Notebook, world: &World, fault_log: &FaultLog) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for mishap in &book.mishaps {
        broken.extend(judge_mishap(mishap, fault_log));
    }
    for (node, _) in world.nodes.iter().enumerate() {
        let wrong = fault_log.wrong_verdicts(node).into_iter();
        broken.extend(wrong.map(|verdict| {
            let (node, when) = (name(node), fault_log.moment(verdict.at));
            let said = verdict.said;
            format!("{node} was called {said:?}, and it should not have been, at {when}")
        }));
    }
    let requests = Requests::read(world)?;
    for story in &book.stories {
        let Some(owner) = requests.owner(story) else {
            let when = fault_log.moment(story.born);
            broken.push(format!(
                "client {}: a session that no node made, at {when}",
                story.client
            ));
            continue;
        };
        if !requests.forgotten(story, owner, fault_log) {
            broken.extend(judge_end(story, owner, fault_log));
        }
        broken.extend(requests.judge_route(story, owner, fault_log));
    }
    Ok(broken)
}

/// No client gets a bare error, a reset, or nothing; none is refused while a node is well.
fn judge_mishap(mishap: &Mishap, fault_log: &FaultLog) -> Option<String> {
    let well = fault_log.some_well(mishap.asked, mishap.seen);
    let what = match &mishap.trouble {
        Trouble::Bare(status) => format!("a bare {status}"),
        Trouble::Cut(how) => format!("no answer but an end: {how}"),
        Trouble::Silence => "no answer at all".to_owned(),
        Trouble::Wrapped(status) if well => format!("{status} though a node was well all the time"),
        Trouble::Refused(why) if well => format!("'{why}' though a node was well all the time"),
        // All nodes were ailing for part of the time.
        Trouble::Wrapped(_) | Trouble::Refused(_) => return None,
    };
    let request = match &mishap.sid {
        Some(_) => "a request of a session",
        None => "a creation",
    };
    let took = (mishap.seen - mishap.asked) / 1000;
    let when = fault_log.moment(mishap.seen);
    Some(format!(
        "client {}: {request} got {what}, after {took} ms, at {when}",
        mishap.client
    ))
}

/// A session ends by a terminate, and only where its node failed.
fn judge_end(story: &Story, owner: usize, fault_log: &FaultLog) -> Option<String> {
    let (at, End::Told(condition)) = story.end.as_ref()? else {
        return None;
    };
    if fault_log.excused(owner, *at) || fault_log.died(owner, story.born, *at) {
        return None;
    }
    let (owner, when, sid) = (name(owner), fault_log.moment(*at), &story.sid);
    Some(format!(
        "client {}: a session of {owner}, {sid}, was ended ('{condition}'), and {owner} had not failed, at {when}",
        story.client
    ))
}

/// Which node got which request.
struct Requests {
    /// By the rid of the creation: the nodes that were asked, in order.
    creations: AHashMap<u64, Vec<(u64, usize)>>,
    /// By the sid.
    others: AHashMap<String, Vec<(u64, usize)>>,
}

impl Requests {
    fn read(world: &World) -> Result<Self> {
        let mut requests = Self {
            creations: AHashMap::default(),
            others: AHashMap::default(),
        };
        for (node, process) in world.nodes.iter().enumerate() {
            for Noted {
                at,
                creation,
                sid,
                rid,
            } in process.notes()?
            {
                if creation {
                    requests.creations.entry(rid).or_default().push((at, node));
                } else {
                    requests.others.entry(sid).or_default().push((at, node));
                }
            }
        }
        requests
            .creations
            .values_mut()
            .for_each(|list| list.sort_unstable());
        requests
            .others
            .values_mut()
            .for_each(|list| list.sort_unstable());
        Ok(requests)
    }

    /// The node that made a session: the last one that was asked to, before the client knew.
    fn owner(&self, story: &Story) -> Option<usize> {
        let asked = self.creations.get(&story.rid)?;
        let before = asked.iter().rfind(|(at, _)| *at <= story.born);
        before.map(|(_, node)| *node)
    }

    /// Whether the session's own node ended it because it heard nothing of it for its inactivity:
    /// while it was cut off, its answer did not reach the balancer, and it counted from that answer.
    fn forgotten(&self, story: &Story, owner: usize, fault_log: &FaultLog) -> bool {
        let Some((end, End::Told(_))) = &story.end else {
            return false;
        };
        let creations = self.creations.get(&story.rid).into_iter().flatten();
        let others = self.others.get(&story.sid).into_iter().flatten();
        let asked = creations.chain(others).filter(|(at, _)| at <= end);
        let mut asked: Vec<_> = asked.copied().collect();
        asked.sort_unstable();
        let [.., (before, _), (last, node)] = asked[..] else {
            return false;
        };
        node == owner
            && last - before >= micros(Duration::from_secs(INACTIVITY.into()))
            && fault_log.was_cut(owner, before, last)
    }

    /// No request of a session reaches a second node while its own is well.
    fn judge_route(&self, story: &Story, owner: usize, fault_log: &FaultLog) -> Option<String> {
        let requests = self.others.get(&story.sid)?;
        let (at, node) = requests.iter().find(|(_, node)| *node != owner)?;
        if fault_log.excused(owner, *at) || fault_log.died(owner, story.born, *at) {
            return None;
        }
        let (owner, other, when) = (name(owner), name(*node), fault_log.moment(*at));
        Some(format!(
            "client {}: a request of a session of {owner} went to {other} while {owner} was up, at {when}",
            story.client
        ))
    }
}
