//! The header of the PROXY protocol (HAProxy's `proxy-protocol.txt`): it tells a node the client's
//! address, ahead of all other bytes of a connection.
//!
//! The port of the client is 0: behind a trusted proxy nothing else would be true. The destination is
//! the node itself.

use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyVersion;

/// The beginning of each header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, for a connection of the balancer's own.
const LOCAL: u8 = 0x20;
/// Version 2, for a client.
const PROXY: u8 = 0x21;

const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

/// What a connection to a node says of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The version.
    pub version: ProxyVersion,
    /// The client; none for a probe.
    pub client: Option<IpAddr>,
}

impl ProxyHeader {
    /// The header for a connection to `node`.
    pub(super) fn write(self, node: SocketAddr) -> Vec<u8> {
        match (self.version, self.client) {
            (ProxyVersion::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (ProxyVersion::V1, Some(client)) => {
                let (client, to, family) = match of_one_family(client, node.ip()) {
                    pair @ (IpAddr::V4(_), _) => (pair.0, pair.1, 4),
                    pair => (pair.0, pair.1, 6),
                };
                format!("PROXY TCP{family} {client} {to} 0 {}\r\n", node.port()).into_bytes()
            }
            (ProxyVersion::V2, None) => [&SIGNATURE[..], &[LOCAL, 0, 0, 0]].concat(),
            (ProxyVersion::V2, Some(client)) => v2(client, node),
        }
    }
}

fn v2(client: IpAddr, node: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match of_one_family(client, node.ip()) {
        (IpAddr::V4(client), IpAddr::V4(to)) => {
            header.extend_from_slice(&[PROXY, TCP_V4, 0, 12]);
            header.extend_from_slice(&client.octets());
            header.extend_from_slice(&to.octets());
        }
        (client, to) => {
            header.extend_from_slice(&[PROXY, TCP_V6, 0, 36]);
            header.extend_from_slice(&mapped(client));
            header.extend_from_slice(&mapped(to));
        }
    }
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(&node.port().to_be_bytes());
    header
}

/// Both as IPv4, or else both as IPv6: a header has one family.
fn of_one_family(client: IpAddr, node: IpAddr) -> (IpAddr, IpAddr) {
    match (client.to_canonical(), node.to_canonical()) {
        pair @ (IpAddr::V4(_), IpAddr::V4(_)) => pair,
        (client, node) => (mapped(client).into(), mapped(node).into()),
    }
}

/// The octets of an address as IPv6.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: ProxyVersion, client: Option<&str>, node: &str) -> Vec<u8> {
        let client = client.map(|client| client.parse().unwrap());
        ProxyHeader { version, client }.write(node.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let line =
            |client, node| String::from_utf8(written(ProxyVersion::V1, client, node)).unwrap();
        assert_eq!(
            line(Some("192.0.2.7"), "10.0.0.1:5280"),
            "PROXY TCP4 192.0.2.7 10.0.0.1 0 5280\r\n"
        );
        assert_eq!(
            line(Some("2001:db8::7"), "[::1]:5280"),
            "PROXY TCP6 2001:db8::7 ::1 0 5280\r\n"
        );
        assert_eq!(
            line(Some("2001:db8::7"), "10.0.0.1:5280"),
            "PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 0 5280\r\n"
        );
        assert_eq!(line(None, "10.0.0.1:5280"), "PROXY UNKNOWN\r\n");
        let (long, node) = (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535",
        );
        assert!(line(Some(long), node).len() <= 107);
    }

    #[test]
    fn version_2_is_binary() {
        let signature = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A";
        let tail = |client, node| {
            let header = written(ProxyVersion::V2, client, node);
            assert_eq!(header[..12], signature[..]);
            header[12..].to_vec()
        };
        assert_eq!(
            tail(Some("192.0.2.7"), "10.0.0.1:258"),
            [0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 0, 0, 1, 2]
        );
        let mixed = tail(Some("192.0.2.7"), "[2001:db8::1]:258");
        assert_eq!(mixed.len(), 4 + 36);
        assert_eq!(mixed[..4], [0x21, 0x21, 0, 36]);
        assert_eq!(mixed[14..20], [0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(mixed[36..], [0, 0, 1, 2]);
        assert_eq!(tail(None, "10.0.0.1:258"), [0x20, 0, 0, 0]);
    }
}
