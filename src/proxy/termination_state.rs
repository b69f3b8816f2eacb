//! How a request ended, in two letters as HAProxy has them: who ended it, and in which phase.
//! `docs/log.md` explains each state; `tests/it/docs.rs` compares the two.

use super::reject::Cause;
use super::websocket::TunnelEnd;

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// It is being read.
    Request,
    /// It waits for its session's turn, or for a node.
    Queue,
    /// A connection to its node is being opened, or waits for its turn to be.
    Connect,
    /// It is at its node.
    Node,
    /// Its node has answered something.
    Answer,
    /// The balancer answers what its node should have.
    Stead,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Request,
        Self::Queue,
        Self::Connect,
        Self::Node,
        Self::Answer,
        Self::Stead,
    ];

    /// The phase with this number; the last one for a number that none has.
    pub(super) fn numbered(number: u8) -> Self {
        let phase = Self::ALL.get(usize::from(number));
        phase.copied().unwrap_or(Self::Stead)
    }
}

/// The state of an answered request. `cause` is why the balancer answered in a node's place,
/// `node` says whether there was a node.
pub(super) const fn answered(cause: Option<Cause>, phase: Phase, node: bool) -> &'static str {
    use Cause::{
        BadHead, BadUpgrade, BodyMemory, BodyTimeout, Coding, CreationFailed, CreationRate, Full,
        InvalidResponse, Malformed, Method, NoNode, NoUpgrade, NodeError, NodesFull, NotFound,
        Origin, Overloaded, RequestFailed, SessionClosed, SessionLost, SidConflict, Stopping,
        TooLarge, TooMany, UnknownBudget, UnknownSid,
    };
    match (cause, phase) {
        (None, Phase::Stead) => "LH",
        (None, _) if node => "--",
        (None, _) => "L-",
        (
            Some(
                Malformed | BadHead | Coding | TooLarge | NotFound | Method | NoUpgrade
                | BadUpgrade | Origin,
            ),
            _,
        ) => "PR",
        (Some(Stopping), _) => "KR",
        (Some(SessionClosed), _) => "KQ",
        (Some(BodyTimeout), _) => "cR",
        (Some(BodyMemory), _) => "RR",
        (Some(TooMany | CreationRate | UnknownSid | UnknownBudget), _) => "PQ",
        (Some(Full | NodesFull), _) => "RQ",
        (Some(Overloaded), _) => "RC",
        (Some(CreationFailed | SessionLost), Phase::Node) => "sH",
        (Some(RequestFailed), Phase::Answer) => "SD",
        (Some(RequestFailed), _) => "SH",
        (Some(CreationFailed | NodeError | InvalidResponse | SidConflict), _) => "SD",
        (Some(NoNode | SessionLost), _) => "sQ",
    }
}

/// The state of a request that was given up in `phase`: because its client went away, or because
/// the balancer ends (`cut`).
pub(super) const fn given_up(phase: Phase, cut: bool) -> &'static str {
    match (phase, cut) {
        // Only the client can end a request that is being read.
        (Phase::Request, _) => "CR",
        (Phase::Queue, false) => "CQ",
        (Phase::Queue, true) => "KQ",
        (Phase::Connect, false) => "CC",
        (Phase::Connect, true) => "KC",
        (Phase::Node | Phase::Answer | Phase::Stead, false) => "CH",
        (Phase::Node | Phase::Answer | Phase::Stead, true) => "KH",
    }
}

/// The state of an answer that the client took too slowly.
pub(super) const TOO_SLOW: &str = "cD";

/// The state of an answer whose connection ended while it was written: the client's doing, or the end
/// of the balancer (`cut`).
pub(super) const fn undelivered(cut: bool) -> &'static str {
    if cut { "KD" } else { "CD" }
}

/// The state of a WebSocket that has ended.
pub(super) const fn of_tunnel(end: TunnelEnd) -> &'static str {
    match end {
        TunnelEnd::ClientClosed | TunnelEnd::NodeClosed => "--",
        TunnelEnd::ClientGone => undelivered(false),
        TunnelEnd::ClientSilent | TunnelEnd::ClientSlow => TOO_SLOW,
        TunnelEnd::ClientInvalid => "PD",
        TunnelEnd::NodeGone | TunnelEnd::NodeInvalid => "SD",
        TunnelEnd::NodeDown | TunnelEnd::NodeSlow => "sD",
        TunnelEnd::Maint | TunnelEnd::Stop => "LD",
        TunnelEnd::Cut => undelivered(true),
    }
}

/// Whether a state is a failure whatever the status of the answer: one that was not written to its end, or
/// a WebSocket that did not end as it should.
pub(super) fn is_failure(state: &str) -> bool {
    let tunnels = ["PD", "SD", "sD"];
    [TOO_SLOW, undelivered(false), undelivered(true)].contains(&state) || tunnels.contains(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_their_numbers() {
        for (number, phase) in (0..).zip(Phase::ALL) {
            assert_eq!(phase as u8, number);
            assert_eq!(Phase::numbered(number), phase);
        }
        assert_eq!(Phase::numbered(200), Phase::Stead);
    }

    #[test]
    fn the_same_end_has_another_state_in_another_phase() {
        let lost = Some(Cause::SessionLost);
        assert_eq!(answered(lost, Phase::Node, true), "sH");
        assert_eq!(answered(lost, Phase::Queue, true), "sQ");
        let failed = Some(Cause::CreationFailed);
        assert_eq!(answered(failed, Phase::Node, true), "sH");
        assert_eq!(answered(failed, Phase::Answer, true), "SD");
        let failed_alone = Some(Cause::RequestFailed);
        assert_eq!(answered(failed_alone, Phase::Queue, true), "SH");
        assert_eq!(answered(failed_alone, Phase::Answer, true), "SD");
        assert_eq!(answered(None, Phase::Answer, true), "--");
        assert_eq!(answered(None, Phase::Request, false), "L-");
        for phase in &Phase::ALL[1..] {
            let (client, balancer) = (given_up(*phase, false), given_up(*phase, true));
            assert_eq!((&client[..1], &balancer[..1]), ("C", "K"));
            assert_eq!(client[1..], balancer[1..]);
        }
    }
}
