//! Frames of both senders, good and bad, in pieces of any size.

use proptest::prelude::*;

use super::*;

/// A frame of a sender; a client masks it.
fn frame(sender: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if sender == Sender::Client { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(mask_bit | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            frame.push(mask_bit | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(mask_bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x92, 0xf3, 0x04];
    if sender == Sender::Client {
        frame.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend(payload);
    }
    frame
}

/// What `bytes` come to: in one piece, and the same in pieces of any size.
fn scanned(sender: Sender, longest: u64, bytes: &[u8]) -> (Option<(usize, Violation)>, Seen, bool) {
    let scan = |piece: usize| {
        let mut scanner = Scanner::new(sender, longest);
        let mut before = 0;
        for piece in bytes.chunks(piece.max(1)) {
            if let Err((good, violation)) = scanner.scan(piece) {
                return (Some((before + good, violation)), scanner.seen(), false);
            }
            before += piece.len();
        }
        (None, scanner.seen(), scanner.is_between_messages())
    };
    let whole = scan(bytes.len());
    for piece in [1, 2, 3, 5, 7, 13] {
        assert_eq!(scan(piece), whole, "in pieces of {piece}");
    }
    whole
}

fn violation(sender: Sender, bytes: &[u8]) -> (usize, Violation) {
    scanned(sender, 1 << 20, bytes).0.expect("a violation")
}

#[test]
fn a_stream_is_seen_from_its_opening_to_its_end() {
    for sender in [Sender::Client, Sender::Node] {
        let text = |payload: &str| frame(sender, 0x81, payload.as_bytes());
        let mut bytes = text("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/>");
        let (fault, seen, between) = scanned(sender, 1024, &bytes);
        assert!(fault.is_none() && seen.stream_opened && !seen.stream_closed && between);
        for other in [
            "<opening/>",
            "<closed/>",
            "<iq/>",
            "",
            "<",
            "<clos",
            " <close/>",
        ] {
            bytes.extend(text(other));
        }
        // A message in fragments, with a ping in the middle of it.
        bytes.extend(frame(sender, 0x01, b"<mess"));
        bytes.extend(frame(sender, 0x89, b"<close/>"));
        bytes.extend(frame(sender, 0x80, b"age/>"));
        let (fault, seen, between) = scanned(sender, 1024, &bytes);
        assert!(fault.is_none() && !seen.stream_closed && !seen.close_frame && between);
        let whole = bytes.clone();
        bytes.extend(text("<close/>"));
        assert!(scanned(sender, 1024, &bytes).1.stream_closed);
        bytes = whole;
        bytes.extend(frame(sender, 0x01, b"<cl"));
        bytes.extend(frame(sender, 0x00, b""));
        bytes.extend(frame(sender, 0x80, b"ose"));
        assert!(scanned(sender, 1024, &bytes).1.stream_closed);
        bytes.extend(frame(sender, 0x88, &[3, 0xe8]));
        assert!(scanned(sender, 1024, &bytes).1.close_frame);
        let good = bytes.len();
        bytes.extend(text("x"));
        let found = violation(sender, &bytes);
        assert_eq!(found, (good, Violation::AfterClose));
    }
}

#[test]
fn a_binary_message_is_not_looked_at() {
    let bytes = frame(Sender::Node, 0x82, b"<close/>");
    let (fault, seen, _) = scanned(Sender::Node, 1024, &bytes);
    assert!(fault.is_none() && !seen.stream_closed);
}

#[test]
fn each_rule_has_its_violation() {
    let client = |first, payload: &[u8]| frame(Sender::Client, first, payload);
    let long = [b'x'; 126];
    for (bytes, good, expected) in [
        (client(0xc1, b"x"), 0, Violation::Reserved),
        (client(0x91, b"x"), 0, Violation::Reserved),
        (client(0x83, b"x"), 0, Violation::Opcode),
        (client(0x8b, b"x"), 0, Violation::Opcode),
        (client(0x09, b"x"), 0, Violation::Control),
        (client(0x89, &long), 1, Violation::Control),
        (client(0x80, b"x"), 0, Violation::Fragment),
        (vec![0x81, 0x01, b'x'], 1, Violation::Mask),
        // 5 in two bytes, and 126 in eight.
        (vec![0x81, 0xfe, 0, 5], 3, Violation::Length),
        (
            vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 126],
            9,
            Violation::Length,
        ),
        (
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            2,
            Violation::Length,
        ),
        (
            vec![0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            9,
            Violation::TooBig,
        ),
    ] {
        assert_eq!(
            violation(Sender::Client, &bytes),
            (good, expected),
            "{bytes:x?}"
        );
    }
    let twice = [client(0x01, b"a"), client(0x81, b"b")].concat();
    assert_eq!(violation(Sender::Client, &twice).1, Violation::Fragment);
    let masked = frame(Sender::Client, 0x81, b"x");
    assert_eq!(violation(Sender::Node, &masked), (1, Violation::Mask));
}

#[test]
fn the_longest_frame_fits_and_one_byte_more_does_not() {
    for longest in [0, 125, 126, 65_535, 65_536] {
        let length = usize::try_from(longest).unwrap();
        let fits = frame(Sender::Client, 0x82, &vec![0; length]);
        assert_eq!(scanned(Sender::Client, longest, &fits).0, None);
        let more = frame(Sender::Client, 0x82, &vec![0; length + 1]);
        let found = scanned(Sender::Client, longest, &more).0;
        assert_eq!(
            found.map(|(_, violation)| violation),
            Some(Violation::TooBig)
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_end_the_same_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for sender in [Sender::Client, Sender::Node] {
            scanned(sender, 4096, &bytes);
        }
    }

    #[test]
    fn messages_of_any_length_are_passed_over(
        lengths in prop::collection::vec(0usize..70_000, 1..4),
    ) {
        for sender in [Sender::Client, Sender::Node] {
            let mut scanner = Scanner::new(sender, 1 << 20);
            for length in &lengths {
                let bytes = frame(sender, 0x81, &vec![b'x'; *length]);
                let (begin, end) = bytes.split_at(bytes.len() - 1);
                prop_assert!(scanner.scan(begin).is_ok());
                prop_assert!(!scanner.is_between_frames());
                prop_assert!(scanner.scan(end).is_ok());
                prop_assert!(scanner.is_between_messages());
            }
        }
    }
}
