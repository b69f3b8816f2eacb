//! A client's bytes through hyper, the check of heads and the writing of requests: what goes up is
//! what a second, strict reading of the same bytes finds, in the same order, and nothing else.
//!
//! Held one way: what Bowline sends on must be a good request at that very place. It may refuse more
//! than the second reading does (hyper's own bounds, methods, targets).

use std::net::{IpAddr, Ipv4Addr};

use bowline::edge::fuzzing::{MAX_BODY, PATHS, Seen, serve};

use super::{address, exchange};

/// Holds it for one input: a byte that says how it is cut, and what the client sends.
pub fn check(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let trusted = address::trusted();
    let piece = if piece == 0 {
        bytes.len().max(1)
    } else {
        usize::from(piece)
    };
    let pieces = bytes.chunks(piece).map(<[u8]>::to_vec);
    let mut rest = Some(bytes);
    for seen in serve(pieces.map(Into::into), peer, &trusted) {
        // What the client asked here, if that can be told.
        let asked = rest.and_then(|rest| exchange::request(rest, MAX_BODY, true));
        let Seen::Sent(sent) = &seen else {
            rest = asked.map(|asked| asked.rest);
            continue;
        };
        let asked =
            asked.unwrap_or_else(|| panic!("sent on, and no good request: {}", shown(sent)));
        let up = exchange::request(sent, MAX_BODY, false).expect("a strict request goes up");
        assert!(up.rest.is_empty(), "something behind it: {}", shown(sent));
        assert_eq!((&*asked.method, &*up.method), ("POST", "POST"));
        assert_eq!(asked.path, up.path);
        assert!(PATHS.contains(&&*up.path));
        assert_eq!(asked.host, up.host);
        assert_eq!(asked.body, up.body);
        let client = address::expected(peer, &asked.fields, &trusted);
        let secure = address::says_https(&asked.fields);
        let fields = exchange::expected_fields(&asked.host, asked.body.len(), client, secure);
        assert_eq!(up.fields, fields, "{}", shown(sent));
        let head = &sent[..sent.len() - up.body.len()];
        assert!(head.is_ascii() && !head.contains(&b'<'), "{}", shown(sent));
        rest = Some(asked.rest);
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
