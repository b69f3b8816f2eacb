//! What the operator sees of a session, and how the operator ends it.

use std::sync::atomic::Ordering;

use super::{Session, Stage};
use crate::cluster::NodeId;
use crate::sessions::Time;

/// What a list of sessions shows of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The node that it is pinned to.
    pub node: NodeId,
    /// Requests under way.
    pub under_way: u8,
    /// Seconds since its last answer; 0 while a request is under way.
    pub idle: u32,
    /// Its client has asked for a pause.
    pub paused: bool,
    /// When it is forgotten if its client stays away, in seconds since the Unix epoch; none while a
    /// request is under way.
    pub expires: Option<u32>,
}

impl Session {
    /// The operator ends the session: its next request is refused, and those under way run to their
    /// answers. Says where it was a pin, if it was one.
    pub(in crate::sessions) fn close(&self, now: Time) -> Option<NodeId> {
        let mut state = self.state();
        if state.stage != Stage::Pinned {
            return None;
        }
        state.idle = None;
        state.order.let_go();
        state.stage = Stage::Closed;
        let until = self.terms.expiry(u16::MAX, now);
        self.expires.store(until.seconds(), Ordering::Relaxed);
        Some(self.node())
    }

    /// What a list of sessions shows of it; none if it is no pin.
    pub fn summary(&self, now: Time) -> Option<Summary> {
        let state = self.state();
        if state.stage != Stage::Pinned {
            return None;
        }
        let under_way = state.under_way;
        let answered = self.terms.expiry(state.paused, Time::default()).seconds();
        let expires = self.expires.load(Ordering::Relaxed);
        let idle = if under_way > 0 {
            0
        } else {
            now.seconds()
                .saturating_sub(expires.saturating_sub(answered))
        };
        Some(Summary {
            node: self.node(),
            under_way,
            idle,
            paused: state.paused > 0,
            expires: (under_way == 0).then_some(expires),
        })
    }
}
