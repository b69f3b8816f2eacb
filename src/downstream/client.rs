//! Who the client is: the peer, or what trusted proxies say of it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::http1::Fields;
use crate::observe::traces::Parent;
use crate::proxy::{HttpVersion, Protocol};
use crate::sessions::Time;

const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Addresses looked at in one chain of proxies; a longer chain is not believed further.
const LONGEST_CHAIN: usize = 32;

/// The other end of a connection, and how it speaks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    /// When its connection opened.
    pub(super) connected: Time,
}

impl Peer {
    /// Whether it speaks TLS.
    pub(super) const fn is_encrypted(self) -> bool {
        self.protocol.tls.is_some()
    }

    /// When its connection opened, as far as that says something of the client: a proxy has connections of
    /// its own.
    pub(super) fn connected(self, trusted: &[IpNet]) -> Time {
        if is_trusted(self.address.to_canonical(), trusted) {
            Time::default()
        } else {
            self.connected
        }
    }

    /// The same with the version of HTTP of a request.
    pub(super) const fn with_version(mut self, version: HttpVersion) -> Self {
        self.protocol.http = version;
        self
    }
}

/// The client behind `peer`: the right-most address in `X-Forwarded-For`, or where there is none
/// in `Forwarded` (RFC 7239), that no trusted proxy has. `X-Forwarded-For` goes first, since that
/// is what proxies rebuild; a `Forwarded` beside it may have passed through from the client.
pub fn client_address(peer: IpAddr, fields: Fields<'_>, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let named: Vec<&str> = if fields.first(X_FORWARDED_FOR).is_some() {
        listed(fields, X_FORWARDED_FOR).collect()
    } else {
        fields.all(FORWARDED).flat_map(forwarded).collect()
    };
    let mut client = peer;
    for address in named.into_iter().rev().take(LONGEST_CHAIN) {
        let Some(address) = parse(address) else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Whether a trusted peer says that the client's side is encrypted.
pub(super) fn is_secure(peer: IpAddr, fields: Fields<'_>, trusted: &[IpNet]) -> bool {
    is_trusted(peer.to_canonical(), trusted)
        && fields
            .first(X_FORWARDED_PROTO)
            .is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

/// The span that a trusted peer says the request belongs to.
pub(super) fn parent(peer: IpAddr, fields: Fields<'_>, trusted: &[IpNet]) -> Parent {
    if cfg!(feature = "otlp") && is_trusted(peer.to_canonical(), trusted) {
        Parent::of(fields)
    } else {
        Parent::default()
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The elements of a field's comma-separated lists, in order.
fn listed<'a>(fields: Fields<'a>, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = fields.all(name);
    values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(text)
}

/// One element or value, `?` if it is no text: that must not hide what a proxy put behind it.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes.trim_ascii()).unwrap_or("?")
}

/// The `for` of each element of one `Forwarded` (RFC 7239 §4), `?` where it has none.
fn forwarded(value: &[u8]) -> Vec<&str> {
    let elements = split_outside_quotes(value, b',');
    elements.into_iter().map(forwarded_for).collect()
}

/// The `for` of one element.
fn forwarded_for(element: &[u8]) -> &str {
    let pairs = split_outside_quotes(element, b';');
    let mut named = pairs.into_iter().filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        let named = name.trim_ascii().eq_ignore_ascii_case(b"for");
        named.then(|| text(value))
    });
    let value = named.next().unwrap_or("?");
    let bare = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    bare.unwrap_or(value)
}

/// The parts of `text` between the `separator`s that do not stand in quotes: a `Host` that a proxy
/// passes on as `host="a,for=b"` must not name a client. Read from the right, where the proxies
/// write, so that a quote which a client leaves open takes in nothing of theirs; the part in which
/// it stands says nothing.
fn split_outside_quotes(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for (at, &byte) in text.iter().enumerate().rev() {
        if byte == separator && !quoted {
            parts.push(&text[at + 1..end]);
            end = at;
        } else if byte == b'"' {
            let slashes = text[..at].iter().rev().take_while(|&&one| one == b'\\');
            let begins = quoted && slashes.count().is_multiple_of(2);
            quoted = !begins;
        }
    }
    parts.push(if quoted { b"?" } else { &text[..end] });
    parts.reverse();
    parts
}

/// An address, with or without a port, an IPv6 one with or without brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| {
        text.parse::<SocketAddr>()
            .ok()
            .map(|with_port| with_port.ip())
    });
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Field;

    fn client(peer: &str, fields: &[(&str, &str)]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let fields = fields.iter().map(|(name, value)| Field {
            name,
            value: value.as_bytes(),
        });
        let fields: Vec<_> = fields.collect();
        client_address(peer.parse().unwrap(), Fields::of(&fields), &trusted).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(
            client("192.0.2.1", &[("x-forwarded-for", "198.51.100.7")]),
            "192.0.2.1"
        );
        assert_eq!(
            client("192.0.2.1", &[("forwarded", "for=198.51.100.7")]),
            "192.0.2.1"
        );
    }

    #[test]
    fn behind_trusted_proxies_it_is_the_right_most_untrusted_address() {
        let chain = [("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.1.1.1")];
        assert_eq!(client("10.0.0.1", &chain), "198.51.100.7");
        let two = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "198.51.100.7"),
        ];
        assert_eq!(client("10.0.0.1", &two), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "10.2.2.2")]),
            "10.2.2.2"
        );
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            client(
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "::ffff:192.0.2.3")]
            ),
            "192.0.2.3"
        );
    }

    #[test]
    fn a_chain_is_believed_for_32_entries() {
        let proxies = (1..=40).map(|number| format!(", 10.0.0.{number}"));
        let chain = "203.0.113.9".to_owned() + &proxies.collect::<String>();
        let fields = [("x-forwarded-for", chain.as_str())];
        assert_eq!(client("10.0.0.41", &fields), "10.0.0.9");
    }

    #[test]
    fn the_chain_ends_at_what_is_no_address() {
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, unknown")]),
            "10.0.0.1"
        );
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "")]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_hides_nothing_that_a_proxy_put_behind_it() {
        for (name, value) in [
            ("x-forwarded-for", "\u{e9}, 198.51.100.7"),
            ("x-forwarded-for", "a \u{e9},198.51.100.7, 10.1.1.1"),
            ("forwarded", "for=\u{e9}, for=198.51.100.7"),
            ("forwarded", "x=\", for=198.51.100.7"),
            ("forwarded", "x=\"\\\", for=198.51.100.7"),
            ("forwarded", "x=\", for=198.51.100.7;host=\"a,\\\"b;c\\\\\""),
        ] {
            assert_eq!(
                client("10.0.0.1", &[(name, value)]),
                "198.51.100.7",
                "{value}"
            );
        }
    }

    #[test]
    fn what_stands_in_quotes_names_no_client() {
        let forwarded = |value: &str| client("10.0.0.1", &[("forwarded", value)]);
        for host in [
            "a,for=6.6.6.6",
            "a, for=6.6.6.6;",
            "a\\\",for=6.6.6.6",
            ";for=6.6.6.6",
        ] {
            let value = format!("host=\"{host}\";for=198.51.100.7");
            assert_eq!(forwarded(&value), "198.51.100.7", "{value}");
        }
        assert_eq!(forwarded("for=\"198.51.100.7"), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_x_forwarded_for() {
        let plain = [(
            "forwarded",
            "for=203.0.113.9;proto=https, For=\"[2001:db8::7]:4711\"",
        )];
        assert_eq!(client("10.0.0.1", &plain), "2001:db8::7");
        let both = [
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-for", "198.51.100.7"),
        ];
        assert_eq!(client("10.0.0.1", &both), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &[("forwarded", "proto=https")]),
            "10.0.0.1"
        );
        assert_eq!(
            client("10.0.0.1", &[("forwarded", "for=198.51.100.7:80")]),
            "198.51.100.7"
        );
    }
}
