//! A pin as plain data: what ties a sid to its node, and what of it outlives the process.
//!
//! It has no lock, no socket and no waker, so it can be saved, and sent to another process. What is in
//! progress belongs to [`Session`](super::Session), which is made from a pin and gives it back.

use std::fmt;
use std::time::Duration;

use super::Time;
use crate::cluster::{NodeId, QueryGroup};

/// Added to `inactivity` before a pin expires: the node counts from when it wrote the answer, the
/// balancer from when it passed it on.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How long the pin of a terminated session is kept, so that a late request of it reaches the node
/// that can answer it.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(10);

/// How long after its creation a session without a second request is kept when the table is nearly
/// full: a client goes on at once.
pub(super) const FRESH: Duration = Duration::from_secs(10);

/// What the node said of the session when it made it (XEP-0124 §7.2), in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The longest that the node holds a request.
    pub wait: u16,
    /// How long the client may stay away.
    pub inactivity: u16,
    /// How long the client may pause.
    pub maxpause: u16,
    /// How many requests the node holds.
    pub hold: u8,
    /// The client named no `ver`: it expects HTTP status codes in place of conditions
    /// (XEP-0124 §5).
    pub legacy: bool,
}

impl Terms {
    /// What is assumed of a session whose creation was not seen. The wait is long, since to cut a
    /// request that the node still holds would lose what it answers.
    ///
    /// Its node may have granted a long absence or a long pause, so the pin is kept for both.
    pub const UNSEEN: Self = Self {
        wait: 300,
        inactivity: 300,
        maxpause: 600,
        hold: 1,
        legacy: false,
    };

    /// When a pin expires whose session was last answered at `answered`, with a pause of `pause`
    /// seconds in force; 0 is no pause.
    pub(super) fn expiry(self, pause: u16, answered: Time) -> Time {
        let away = pause.min(self.maxpause).max(self.inactivity);
        answered + Duration::from_secs(away.into()) + GRACE
    }
}

/// A pause that a client asked for (XEP-0124 §10). It holds until a request with a higher rid begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Its length as asked for, in seconds; [`Terms::maxpause`] bounds it.
    pub seconds: u16,
    /// The rid of the request that asked for it.
    pub rid: u64,
}

/// What is known of a pin's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// Its node made it, or has shown that it knows it.
    Live,
    /// It was terminated. The pin is kept for late requests.
    Ended,
    /// Its node has lost it. The pin is kept so that its client need not ask the node to learn that.
    Lost,
}

/// The pin of a session, as plain data. `{:?}` leaves its sid out.
///
/// What only this process can use is not in it: the requests under way, the idle connection, and the
/// [`Epoch`](crate::cluster::Epoch) in which the node made the session.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin {
    /// The sid. A credential: never whole in a log, never in a label.
    pub sid: Box<str>,
    /// The node that the session is pinned to. The number is valid in this process only; another
    /// process knows the node by its name ([`Node::name`](crate::cluster::Node::name)).
    pub node: NodeId,
    /// The node that made the session, or that last answered it as one that it knows. It differs
    /// from `node` while the session has moved to a node that has not answered yet.
    pub owner: Option<NodeId>,
    /// What the node said of the session.
    pub terms: Terms,
    /// The group that its creation was placed by, if it was a query parameter. The session moves by it
    /// when its node fails.
    pub group: Option<QueryGroup>,
    /// What is known of the session.
    pub state: PinState,
    /// No request has come since the session's creation. Such pins go early when the table is
    /// nearly full.
    pub fresh: bool,
    /// The highest rid that was written to a node. A session that is made from the pin has requests
    /// with higher rids wait for those in between, so it must be exact: from a pin that was saved
    /// while its session went on, take it out. None: no request waits.
    pub last_rid: Option<u64>,
    /// The pause in force.
    pub pause: Option<Pause>,
    /// The pin may be forgotten after this time, in wall-clock seconds since the Unix epoch.
    pub expires: u32,
}

impl Pin {
    /// The pin of a session that `node` has just made in answer to the request `rid`.
    pub(super) fn made(
        sid: &str,
        node: NodeId,
        terms: Terms,
        (rid, group): (u64, Option<QueryGroup>),
        now: Time,
    ) -> Self {
        Self {
            owner: Some(node),
            terms,
            group,
            fresh: true,
            last_rid: Some(rid),
            expires: terms.expiry(0, now).seconds(),
            ..Self::unseen(sid, node, now)
        }
    }

    /// The pin of a session whose creation was not seen, at the node that is asked for it.
    pub(super) fn unseen(sid: &str, node: NodeId, now: Time) -> Self {
        let terms = Terms::UNSEEN;
        Self {
            sid: sid.into(),
            node,
            owner: None,
            terms,
            group: None,
            state: PinState::Live,
            fresh: false,
            last_rid: None,
            pause: None,
            expires: terms.expiry(0, now).seconds(),
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("node", &self.node)
            .field("owner", &self.owner)
            .field("terms", &self.terms)
            .field("group", &self.group)
            .field("state", &self.state)
            .field("fresh", &self.fresh)
            .field("last_rid", &self.last_rid)
            .field("pause", &self.pause)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
