//! What a client's address means to placement and to affinity: one IPv4 address, or one IPv6
//! /64, since a device behind IPv6 changes the lower half of its address as it likes.

use std::net::IpAddr;

/// A client's address as far as the balancer tells clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An IPv4 address (/32), also one that arrived as an IPv4-mapped IPv6 address.
    V4([u8; 4]),
    /// The upper 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl ClientKey {
    /// The bytes that are hashed, in network order: four for IPv4, eight for IPv6.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

/// The key of `ip`: IPv4 and IPv4-mapped IPv6 by the whole address, other IPv6 by its /64.
pub fn client_key(ip: IpAddr) -> ClientKey {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ClientKey::V4(ip.octets()),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            ClientKey::V6([a, b, c, d, e, f, g, h])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ip: &str) -> ClientKey {
        client_key(ip.parse().unwrap())
    }

    #[test]
    fn an_ipv4_address_is_a_client() {
        assert_eq!(key("192.0.2.7").as_bytes(), [192, 0, 2, 7]);
        assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_a_client() {
        assert_eq!(
            key("2001:db8:1:2::1"),
            key("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        let expected = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2];
        assert_eq!(key("2001:db8:1:2::1").as_bytes(), expected);
    }
}
