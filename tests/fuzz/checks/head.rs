//! A client's bytes through a whole connection (`edge`, hyper, the check of heads) up to the request
//! that is written for a node: what goes up is what a second, strict reading of the same bytes finds, in
//! the same order, and nothing else.
//!
//! Held one way: what Bowline sends on must be a good request at that very place. It may refuse more
//! than the second reading does (hyper's own bounds, methods, targets).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use bowline::config::{NodeSettings, Settings};
use bowline::edge::fuzzing::serve;
use bowline::proxy::fuzzing::RECORDED;

use super::{address, exchange};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let mut settings = Settings::for_nodes(vec![NodeSettings {
        name: "t1".to_owned(),
        address: "192.0.2.1:5280".to_owned(),
        weight: 1,
        max_sessions: 0,
        public_url: None,
    }]);
    settings.trusted_proxies = address::trusted();
    settings.bosh.max_body = 1024;
    settings
});

/// Holds it for one input: a byte that says how it is cut, and what the client sends.
pub fn check(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let settings = &*SETTINGS;
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let piece = if piece == 0 {
        bytes.len().max(1)
    } else {
        usize::from(piece)
    };
    let pieces = bytes.chunks(piece).map(|piece| piece.to_vec().into());
    let served = serve(settings, pieces, peer);
    let mut requests = served.requests.iter();
    let mut rest = Some(bytes);
    for recorded in answers(&served.answers) {
        // What the client asked here, if that can be told.
        let asked = rest.and_then(|rest| asked(rest, settings.bosh.max_body));
        rest = asked.as_ref().map(|asked| asked.rest);
        if recorded {
            let sent = requests.next().expect("it was recorded");
            check_sent(sent, asked, peer, settings);
        }
    }
    // What was recorded is answered, unless the connection ended at just that.
    if let Some(sent) = requests.next() {
        let asked = rest.and_then(|rest| asked(rest, settings.bosh.max_body));
        check_sent(sent, asked, peer, settings);
    }
    assert!(
        requests.next().is_none(),
        "a second request without an answer"
    );
}

/// What a client asks at the start of `bytes`, empty lines aside: servers are to pass over one (RFC 9112
/// §2.2).
fn asked(mut bytes: &[u8], max: usize) -> Option<exchange::Request<'_>> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    exchange::request(bytes, max)
}

/// Holds what goes up against what the client asked.
fn check_sent(
    sent: &[u8],
    asked: Option<exchange::Request<'_>>,
    peer: IpAddr,
    settings: &Settings,
) {
    let shown = String::from_utf8_lossy(sent);
    let asked = asked.unwrap_or_else(|| panic!("sent on, and no good request: {shown}"));
    let up = exchange::request(sent, settings.bosh.max_body).expect("a strict request");
    assert!(up.rest.is_empty(), "something behind it: {shown}");
    assert_eq!((&*asked.method, &*up.method), ("POST", "POST"));
    assert_eq!(asked.path, up.path);
    assert!(settings.bosh.paths.contains(&up.path), "{shown}");
    assert_eq!(asked.host, up.host);
    assert_eq!(asked.body, up.body);
    let client = address::expected(peer, &asked.fields, &settings.trusted_proxies);
    let secure = address::says_https(&asked.fields);
    let fields = exchange::expected_fields(&asked.host, asked.body.len(), client, secure);
    assert_eq!(up.fields, fields, "{shown}");
    let head = &sent[..sent.len() - up.body.len()];
    assert!(head.is_ascii() && !head.contains(&b'<'), "{shown}");
}

/// The answers on a connection, interim ones aside: whether each is that of a recorded request.
fn answers(mut bytes: &[u8]) -> Vec<bool> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let (head, rest) = bytes.split_at(end + 4);
        bytes = rest;
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        if head.starts_with("http/1.1 1") {
            continue;
        }
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let body = bytes.get(..length.unwrap_or(0)).unwrap_or_default();
        // The answer to a HEAD has a length and no body.
        let body = if body.starts_with(b"HTTP/1.1 ") {
            &[]
        } else {
            body
        };
        answers.push(body == RECORDED);
        bytes = &bytes[body.len()..];
    }
    answers
}
