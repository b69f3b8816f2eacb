//! Who the client is, from `X-Forwarded-For` and `Forwarded`, against a second reading.

use std::net::{IpAddr, SocketAddr};

use bowline::downstream::client_address;
use bowline::http1::{Field, Fields};
use ipnet::IpNet;

/// The most addresses of a chain that are looked at.
const LONGEST: usize = 32;

/// The proxies that are believed.
pub fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "fd00::/8"]
        .map(|net| net.parse().expect("a network"))
        .into()
}

/// Holds it for one input: a byte that chooses the peer, and lines, those that begin with `f` being
/// values of `Forwarded`, the others of `X-Forwarded-For`.
pub fn check(input: &[u8]) {
    let Some((&choice, text)) = input.split_first() else {
        return;
    };
    let peers = [
        "10.0.0.1",
        "192.0.2.9",
        "fd00::1",
        "::ffff:10.1.2.3",
        "2001:db8::9",
    ];
    let peer: IpAddr = peers[usize::from(choice) % peers.len()]
        .parse()
        .expect("an address");
    let mut head = Vec::new();
    let mut fields = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let (name, value) = match line.strip_prefix(b"f") {
            Some(value) => ("forwarded", value),
            None => ("x-forwarded-for", line),
        };
        // What no head has.
        if value
            .iter()
            .any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7F)
        {
            continue;
        }
        fields.push((name.to_owned(), value.to_vec()));
        head.push(Field { name, value });
    }
    let trusted = trusted();
    let read = client_address(peer, Fields::of(&head), &trusted);
    assert_eq!(read, expected(peer, &fields, &trusted));
    assert_eq!(read, read.to_canonical());
}

/// The client as a second reading of the fields has it: from the right, as long as the one who says
/// it is trusted.
pub fn expected(peer: IpAddr, fields: &[(String, Vec<u8>)], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let values = |name: &str| {
        let named = fields.iter().filter(move |(field, _)| field == name);
        named.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    let chain: Vec<Option<IpAddr>> = match values("x-forwarded-for") {
        empty if empty.is_empty() => values("forwarded")
            .into_iter()
            .flat_map(forwarded)
            .collect(),
        values => values.into_iter().flat_map(listed).collect(),
    };
    let mut client = peer.to_canonical();
    for named in chain.into_iter().rev().take(LONGEST) {
        match named {
            Some(address) if is_trusted(client) => client = address,
            _ => break,
        }
    }
    client
}

/// Whether the first `X-Forwarded-Proto` says so.
pub fn says_https(fields: &[(String, Vec<u8>)]) -> bool {
    let first = fields.iter().find(|(name, _)| name == "x-forwarded-proto");
    first.is_some_and(|(_, value)| value.eq_ignore_ascii_case(b"https"))
}

/// The addresses of a comma-separated list.
fn listed(value: &[u8]) -> Vec<Option<IpAddr>> {
    latin(value)
        .split(',')
        .map(|one| parse(one.trim_ascii()))
        .collect()
}

/// A byte a character.
fn latin(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

/// The `for` of each element (RFC 7239 §4), none where it has none that is an address.
fn forwarded(value: &[u8]) -> Vec<Option<IpAddr>> {
    let address = |pairs: Vec<String>| {
        let mut named = pairs.iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim_ascii()
                .eq_ignore_ascii_case("for")
                .then_some(value.trim_ascii())
        });
        let value = named.next()?;
        let bare = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        parse(bare.unwrap_or(value))
    };
    elements(&latin(value)).into_iter().map(address).collect()
}

/// Elements, and in each its pairs. Read from the end: quoted text is one thing, no comma and no
/// semicolon in it divides anything; an element in which it does not end has no pairs.
fn elements(text: &str) -> Vec<Vec<String>> {
    let mut rest = text.to_owned();
    let (mut elements, mut pairs, mut pair) = (Vec::new(), Vec::new(), String::new());
    while let Some(c) = rest.pop() {
        match c {
            ',' | ';' => {
                pairs.insert(0, std::mem::take(&mut pair));
                if c == ',' {
                    elements.insert(0, std::mem::take(&mut pairs));
                }
            }
            '"' => {
                let begins = |quote: &usize| {
                    let before = &rest[..*quote];
                    let slashes = before.len() - before.trim_end_matches('\\').len();
                    slashes.is_multiple_of(2)
                };
                let mut quotes = rest.rmatch_indices('"').map(|(at, _)| at);
                let Some(begin) = quotes.find(begins) else {
                    elements.insert(0, Vec::new());
                    return elements;
                };
                let quoted = rest.split_off(begin);
                pair = format!("{quoted}\"{pair}");
            }
            _ => pair.insert(0, c),
        }
    }
    pairs.insert(0, pair);
    elements.insert(0, pairs);
    elements
}

/// An address, with a port or without one, an IPv6 address in brackets or bare.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    Some(address.or_else(with_port)?.to_canonical())
}
