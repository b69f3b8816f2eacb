//! The boundaries of frames in one direction of a connection, and what the first bytes of messages say.
//!
//! Bytes come in pieces of any size. The scanner keeps no payload but the first bytes of the present
//! message, and changes nothing.

use std::fmt;

/// A control frame carries no more (RFC 6455 §5.5).
const MOST_CONTROL: u64 = 125;

/// Enough of a message to see `<close` and what follows the name.
const PEEK: usize = 7;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Who sends the frames: a client masks them, a node does not (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The node.
    Node,
}

/// A rule of RFC 6455 that a frame breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on (§5.2).
    Reserved,
    /// An opcode that has no meaning (§5.2).
    Opcode,
    /// A control frame that is a fragment, or has more than 125 bytes (§5.5).
    Control,
    /// A continuation of no message, or a message in the middle of another one (§5.4).
    Fragment,
    /// A client's frame without a mask, or a node's with one (§5.1).
    Mask,
    /// A length with its highest bit set, or in more bytes than it needs (§5.2).
    Length,
    /// A frame that is longer than allowed.
    TooBig,
    /// A frame behind a close frame (§5.5.1).
    AfterClose,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reserved => "a reserved bit is set",
            Self::Opcode => "an unknown opcode",
            Self::Control => "a control frame that is fragmented or too long",
            Self::Fragment => "fragments out of order",
            Self::Mask => "a wrong mask",
            Self::Length => "an invalid length",
            Self::TooBig => "a frame that is too large",
            Self::AfterClose => "a frame behind a close frame",
        })
    }
}

/// What was seen in one direction so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// A message that opens the XMPP stream (`<open`, RFC 7395 §3.4).
    pub stream_opened: bool,
    /// A message that closes the XMPP stream (`<close`, RFC 7395 §3.6).
    pub stream_closed: bool,
    /// A whole close frame (RFC 6455 §5.5.1).
    pub close_frame: bool,
}

/// The part of a frame that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Second,
    /// The bytes of the length that are still missing, and the smallest length that this encoding may have.
    Length(u8, u32),
    /// Bytes of the mask that were read.
    Mask(u8),
    Payload,
}

/// Reads the frames of one sender.
#[derive(Debug)]
pub struct Scanner {
    sender: Sender,
    /// The longest payload of a frame, in bytes.
    longest: u64,
    part: Part,
    /// The length as far as it was read; then the bytes of the payload that are left.
    left: u64,
    mask: [u8; 4],
    /// Where in the mask the next byte of the payload is.
    mask_at: u8,
    opcode: u8,
    is_final: bool,
    /// A message has begun and goes on in a later frame.
    in_message: bool,
    /// The first bytes of the present message.
    peek: [u8; PEEK],
    peeked: u8,
    seen: Seen,
}

impl Scanner {
    /// A scanner before the first frame of `sender`, whose frames may carry `longest` bytes each.
    pub const fn new(sender: Sender, longest: u64) -> Self {
        Self {
            sender,
            longest,
            part: Part::First,
            left: 0,
            mask: [0; 4],
            mask_at: 0,
            opcode: CONTINUATION,
            is_final: true,
            in_message: false,
            peek: [0; PEEK],
            peeked: 0,
            seen: Seen {
                stream_opened: false,
                stream_closed: false,
                close_frame: false,
            },
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// How many of `bytes` are good, and the rule that the next one breaks. The scanner is of no use
    /// then.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(), (usize, Violation)> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.part == Part::Payload {
                let rest = bytes.get(at..).unwrap_or_default();
                at += self.payload(rest);
            } else {
                self.header(byte).map_err(|violation| (at, violation))?;
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether the next byte begins a frame: a control frame may stand here.
    pub fn is_between_frames(&self) -> bool {
        self.part == Part::First
    }

    /// Whether the next byte begins a message: any frame may stand here.
    pub fn is_between_messages(&self) -> bool {
        self.is_between_frames() && !self.in_message
    }

    /// What was seen so far.
    pub const fn seen(&self) -> Seen {
        self.seen
    }

    /// Takes a byte of a frame's header.
    fn header(&mut self, byte: u8) -> Result<(), Violation> {
        match self.part {
            Part::First => self.first(byte)?,
            Part::Second => return self.second(byte),
            Part::Length(8, _) if byte & 0x80 != 0 => return Err(Violation::Length),
            Part::Length(missing, least) => {
                self.left = self.left << 8 | u64::from(byte);
                if missing > 1 {
                    self.part = Part::Length(missing - 1, least);
                } else if self.left < u64::from(least) {
                    return Err(Violation::Length);
                } else {
                    return self.length_is_known();
                }
            }
            Part::Mask(read) => {
                if let Some(place) = self.mask.get_mut(usize::from(read)) {
                    *place = byte;
                }
                self.part = Part::Mask(read + 1);
                if read == 3 {
                    self.begin_payload();
                }
            }
            Part::Payload => {}
        }
        Ok(())
    }

    /// Takes the byte with the opcode.
    fn first(&mut self, byte: u8) -> Result<(), Violation> {
        if self.seen.close_frame {
            return Err(Violation::AfterClose);
        }
        if byte & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        self.opcode = byte & 0x0f;
        self.is_final = byte & 0x80 != 0;
        match self.opcode {
            CONTINUATION if !self.in_message => return Err(Violation::Fragment),
            TEXT | BINARY if self.in_message => return Err(Violation::Fragment),
            TEXT => self.peeked = 0,
            // Nothing of it is looked at.
            BINARY => self.peeked = u8::MAX,
            CONTINUATION => {}
            CLOSE | PING | PONG if !self.is_final => return Err(Violation::Control),
            CLOSE | PING | PONG => {}
            _ => return Err(Violation::Opcode),
        }
        self.part = Part::Second;
        Ok(())
    }

    /// Takes the byte with the mask bit and the length.
    fn second(&mut self, byte: u8) -> Result<(), Violation> {
        if (byte & 0x80 != 0) != (self.sender == Sender::Client) {
            return Err(Violation::Mask);
        }
        let length = u64::from(byte & 0x7f);
        if self.is_control() && length > MOST_CONTROL {
            return Err(Violation::Control);
        }
        self.left = 0;
        match length {
            126 => self.part = Part::Length(2, 126),
            127 => self.part = Part::Length(8, 65_536),
            _ => {
                self.left = length;
                return self.length_is_known();
            }
        }
        Ok(())
    }

    fn length_is_known(&mut self) -> Result<(), Violation> {
        if self.left > self.longest {
            return Err(Violation::TooBig);
        }
        match self.sender {
            Sender::Client => self.part = Part::Mask(0),
            Sender::Node => self.begin_payload(),
        }
        Ok(())
    }

    fn begin_payload(&mut self) {
        self.mask_at = 0;
        self.part = Part::Payload;
        if self.left == 0 {
            self.end_frame();
        }
    }

    /// Takes bytes of a payload, and says how many.
    fn payload(&mut self, bytes: &[u8]) -> usize {
        let some = usize::try_from(self.left).unwrap_or(usize::MAX);
        let some = bytes.len().min(some);
        if !self.is_control() {
            self.look(bytes.get(..some).unwrap_or_default());
        }
        self.left -= some as u64;
        if self.left == 0 {
            self.end_frame();
        }
        some
    }

    /// Keeps the first bytes of a message, without their mask.
    fn look(&mut self, bytes: &[u8]) {
        let Some(places) = self.peek.get_mut(usize::from(self.peeked)..) else {
            return;
        };
        let masked = self.sender == Sender::Client;
        for (place, byte) in places.iter_mut().zip(bytes) {
            let mask = self.mask[usize::from(self.mask_at & 3)];
            *place = if masked { byte ^ mask } else { *byte };
            self.mask_at = self.mask_at.wrapping_add(1);
            self.peeked += 1;
        }
        if usize::from(self.peeked) == PEEK {
            self.judge();
        }
    }

    /// Looks what kind of message the present one is.
    fn judge(&mut self) {
        let Some(begin) = self.peek.get(..usize::from(self.peeked)) else {
            return;
        };
        let is = |name: &[u8]| {
            let behind = begin.strip_prefix(name);
            behind.is_some_and(|rest| rest.first().is_none_or(|byte| b" \t\r\n/>".contains(byte)))
        };
        let (opens, closes) = (is(b"<open"), is(b"<close"));
        self.seen.stream_opened |= opens;
        self.seen.stream_closed |= closes;
        self.peeked = u8::MAX;
    }

    fn end_frame(&mut self) {
        self.part = Part::First;
        if self.opcode == CLOSE {
            self.seen.close_frame = true;
        }
        if !self.is_control() {
            self.in_message = !self.is_final;
            if self.is_final {
                self.judge();
            }
        }
    }

    const fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

#[cfg(test)]
#[path = "frames/tests.rs"]
mod tests;
