//! The frames of a WebSocket (`websocket::Scanner`) against a second, simple reading of the same bytes: it
//! finds the same boundaries, and refuses at the same byte.

use bowline::websocket::{Scanner, Sender};

/// The longest payload of a frame.
const LONGEST: u64 = 300;

/// How far the bytes are good, and whether the next one begins a frame.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    refused: Option<usize>,
    at_boundary: bool,
}

/// Holds it for one input: a byte that says who sends and how the bytes are cut, and the bytes.
pub fn check(input: &[u8]) {
    let Some((&how, bytes)) = input.split_first() else {
        return;
    };
    let masks = how & 1 == 1;
    let piece = usize::from(how >> 1).max(1);
    let sender = if masks { Sender::Client } else { Sender::Node };
    let mut scanner = Scanner::new(sender, LONGEST);
    let mut refused = None;
    let mut before = 0;
    for piece in bytes.chunks(piece) {
        if let Err((good, _)) = scanner.scan(piece) {
            refused = Some(before + good);
            break;
        }
        before += piece.len();
    }
    let found = Read {
        refused,
        at_boundary: refused.is_none() && scanner.is_between_frames(),
    };
    assert_eq!(found, read(masks, bytes), "{bytes:x?}");
}

/// The second reading, frame by frame over the whole input.
fn read(masks: bool, bytes: &[u8]) -> Read {
    let (mut at, mut in_message, mut closed) = (0, false, false);
    let refuse = |at| Read {
        refused: Some(at),
        at_boundary: false,
    };
    let unfinished = Read {
        refused: None,
        at_boundary: false,
    };
    while at < bytes.len() {
        let first = bytes[at];
        let (last, opcode) = (first >> 7 == 1, first & 15);
        let control = opcode >= 8;
        let known = matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10);
        let in_order = control || (opcode == 0) == in_message;
        if closed || first & 0x70 != 0 || !known || !in_order || (control && !last) {
            return refuse(at);
        }
        let Some(&second) = bytes.get(at + 1) else {
            return unfinished;
        };
        let short = second & 0x7f;
        if (second >> 7 == 1) != masks || (control && short > 125) {
            return refuse(at + 1);
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = 0;
        for byte in 0..wide {
            let place = at + 2 + byte;
            let Some(&value) = bytes.get(place) else {
                return unfinished;
            };
            if wide == 8 && byte == 0 && value > 127 {
                return refuse(place);
            }
            length = length * 256 + u64::from(value);
        }
        let least = [0, 126, 65_536][[0, 2, 8].iter().position(|of| *of == wide).unwrap()];
        if wide == 0 {
            length = short.into();
        }
        if length < least || length > LONGEST {
            return refuse(at + 1 + wide);
        }
        at += 2 + wide + if masks { 4 } else { 0 } + usize::try_from(length).unwrap();
        if at > bytes.len() {
            return unfinished;
        }
        closed |= opcode == 8;
        if !control {
            in_message = !last;
        }
    }
    Read {
        refused: None,
        at_boundary: true,
    }
}
