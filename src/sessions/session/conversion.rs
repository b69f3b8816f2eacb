//! A session from its pin, and its pin from a session.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use super::{NO_NODE, Session, Stage, State, low_half};
use crate::cluster::{Epoch, NodeId};
use crate::sessions::Time;
use crate::sessions::pin::{Pause, Pin, PinState};
use crate::sessions::rid_order::RidOrder;

impl Session {
    /// The live session of `pin`, with nothing under way. `made` is the epoch in which the pin's node made
    /// it, if that is known and in the life of this process.
    pub(in crate::sessions) fn from_pin(pin: Pin, made: Option<Epoch>) -> Self {
        let stage = match pin.state {
            PinState::Live => Stage::Pinned,
            PinState::Ended => Stage::Ended,
            PinState::Lost => Stage::Lost,
        };
        Self::at_stage(stage, pin, made)
    }

    /// A session whose creation was not seen. It is no pin until `node` has shown that it knows it.
    pub(in crate::sessions) fn provisional(sid: &str, node: NodeId, now: Time) -> Self {
        Self::at_stage(Stage::Provisional, Pin::unseen(sid, node, now), None)
    }

    fn at_stage(stage: Stage, pin: Pin, made: Option<Epoch>) -> Self {
        let (paused, paused_by) = pin.pause.map_or((0, 0), |pause| (pause.seconds, pause.rid));
        let state = State {
            order: RidOrder::after(pin.last_rid),
            stage,
            under_way: 0,
            owner: pin.owner.unwrap_or(NO_NODE),
            fresh: pin.fresh,
            leaving: false,
            paused,
            paused_by: low_half(paused_by),
            kept: 0,
            idle: None,
        };
        Self {
            sid: pin.sid,
            terms: pin.terms,
            group: pin.group,
            node: AtomicU16::new(pin.node.0),
            made: AtomicU32::new(made.map_or(0, Epoch::number)),
            expires: AtomicU32::new(pin.expires),
            asked: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    /// Its pin at the time `now`, to be saved or sent to another process; none if no node is known to
    /// have it, or if it is out of the table.
    ///
    /// The node may hold a request under way for the whole of `wait`, and the client may stay away after
    /// that. So the pin of a session with requests under way expires later by `wait`.
    pub fn pin(&self, now: Time) -> Option<Pin> {
        let state = self.state();
        let mut expires = self.expires.load(Ordering::Relaxed);
        let kept_as = match state.stage {
            Stage::Provisional | Stage::Gone => return None,
            Stage::Ended => PinState::Ended,
            Stage::Lost | Stage::Closed => PinState::Lost,
            Stage::Pinned => {
                if state.under_way > 0 {
                    let answered = now + Duration::from_secs(self.terms.wait.into());
                    expires = self.terms.expiry(state.paused, answered).seconds();
                }
                PinState::Live
            }
        };
        Some(Pin {
            sid: self.sid.clone(),
            node: self.node(),
            owner: state.owner(),
            terms: self.terms,
            group: self.group,
            state: kept_as,
            fresh: state.fresh,
            last_rid: state.order.last(),
            pause: (state.paused > 0).then_some(Pause {
                seconds: state.paused,
                rid: state.paused_by(),
            }),
            expires,
        })
    }
}
