//! WebSocket as bytes (RFC 6455), as far as a tunnel needs it: the opening handshake, the boundaries of
//! frames, and the few frames that the balancer writes itself. No I/O and no clock.
//!
//! The subprotocol is `xmpp` (RFC 7395): each text message is one element of the XMPP stream. The
//! scanner looks at the first bytes of a message to see the two elements that open and close the stream.

mod frames;
mod handshake;

pub use frames::{Scanner, Seen, Sender, Violation};
pub use handshake::{
    AnswerFault, SUBPROTOCOL, Upgrade, UpgradeFault, accept_key, check_answer, check_upgrade,
};

/// A ping without a payload (RFC 6455 §5.5.2), as a server sends it.
pub const PING: [u8; 2] = [0x89, 0];

/// The element that ends an XMPP stream (RFC 7395 §3.6), in a text frame as a server sends it.
pub const STREAM_CLOSE: &[u8] = b"\x81\x34<close xmlns=\"urn:ietf:params:xml:ns:xmpp-framing\"/>";

/// Why a close frame ends a connection (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The endpoint goes away: its node failed, or the balancer stops.
    GoingAway = 1001,
    /// The client broke a rule of the protocol.
    ProtocolError = 1002,
    /// The client sent a frame that is too large.
    TooBig = 1009,
    /// The node broke a rule of the protocol.
    InternalError = 1011,
}

/// A close frame (RFC 6455 §5.5.1), as a server sends it.
pub const fn close_frame(code: CloseCode) -> [u8; 4] {
    let [high, low] = (code as u16).to_be_bytes();
    [0x88, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balancers_own_frames_are_good_frames_of_a_node() {
        let mut scanner = Scanner::new(Sender::Node, u64::MAX);
        scanner.scan(&PING).unwrap();
        assert!(!scanner.seen().stream_closed && scanner.is_between_messages());
        scanner.scan(STREAM_CLOSE).unwrap();
        assert!(scanner.seen().stream_closed && !scanner.seen().close_frame);
        assert!(scanner.is_between_messages());
        scanner.scan(&close_frame(CloseCode::GoingAway)).unwrap();
        assert!(scanner.seen().close_frame && scanner.is_between_frames());
        assert_eq!(close_frame(CloseCode::TooBig), [0x88, 2, 0x03, 0xf1]);
    }
}
