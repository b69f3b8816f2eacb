//! What a client's address means to placement and to affinity: one IPv4 address, or one IPv6
//! /64, since a device behind IPv6 changes the lower half of its address as it likes. And what the
//! value of a query parameter means to placement: one of 65,535 groups.

use std::net::IpAddr;
use std::num::NonZeroU16;

use xxhash_rust::xxh3::Xxh3Default;

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

/// The group of a value of the query parameter that placement looks at. All sessions of a group go to
/// one node. A pin keeps it, so it is small: values that share a group by chance share a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryGroup(NonZeroU16);

impl QueryGroup {
    /// The group of the first parameter called `name` in `query` that has a value; none if there is no
    /// such parameter. `+` is a space and `%XX` a byte, as in a form; a broken `%` stands for itself.
    ///
    /// The function is part of the program's interface and never changes: XXH3-64 with seed 0 of the
    /// decoded value, modulo 65,535, plus 1.
    pub fn of(query: &str, name: &str) -> Option<Self> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut named = pairs.filter(|(other, value)| *other == name && !value.is_empty());
        let (_, value) = named.next()?;
        let group = hash_of_decoded(value.as_bytes()) % u64::from(u16::MAX) + 1;
        NonZeroU16::new(u16::try_from(group).ok()?).map(Self)
    }

    /// Its number, 1 to 65,535: for another process.
    pub const fn number(self) -> u16 {
        self.0.get()
    }

    /// The group of this number; none of 0.
    pub fn of_number(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The bytes that are hashed together with a node's name.
    pub(super) const fn to_bytes(self) -> [u8; 2] {
        self.0.get().to_be_bytes()
    }
}

/// XXH3-64 of what an encoded value stands for.
fn hash_of_decoded(mut rest: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'+' | b'%')) {
        let (plain, coded) = rest.split_at(at);
        hasher.update(plain);
        let digit = |at: usize| char::from(*coded.get(at)?).to_digit(16);
        let pair = (digit(1), digit(2));
        rest = match pair {
            (Some(high), Some(low)) if coded.first() == Some(&b'%') => {
                hasher.update(&[u8::try_from(high * 16 + low).unwrap_or_default()]);
                coded.get(3..).unwrap_or_default()
            }
            _ => {
                let plus = coded.first() == Some(&b'+');
                hasher.update(if plus { b" " } else { b"%" });
                coded.get(1..).unwrap_or_default()
            }
        };
    }
    hasher.update(rest);
    hasher.digest()
}

/// What the rendezvous hash of a new session is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlacementKey {
    /// The client's address.
    Client(ClientKey),
    /// A query parameter.
    Query(QueryGroup),
}

impl From<IpAddr> for PlacementKey {
    fn from(client: IpAddr) -> Self {
        Self::Client(client_key(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(query: &str) -> Option<QueryGroup> {
        QueryGroup::of(query, "room")
    }

    /// Values that must never change: balancers of other versions rely on them.
    #[test]
    fn a_value_has_the_same_group_everywhere() {
        let groups = ["room=tea", "room=a%20b", "room=%C3%A9"].map(|query| group(query).unwrap());
        assert_eq!(groups.map(|group| group.0.get()), [17216, 51600, 31546]);
    }

    #[test]
    fn a_value_is_decoded_like_that_of_a_form() {
        for (one, other) in [
            ("room=tea", "a=b&room=tea&room=other"),
            ("room=tea", "room=%74e%61"),
            ("room=a+b", "room=a%20b"),
            ("room=%", "room=%25"),
            ("room=%4", "room=%254"),
            ("room=%zz", "room=%25zz"),
            ("room=a=b", "room=a%3Db"),
        ] {
            assert_eq!(group(one), group(other), "{one} {other}");
            assert!(group(one).is_some(), "{one}");
        }
        assert_ne!(group("room=tea"), group("room=Tea"));
    }

    #[test]
    fn a_query_without_the_parameter_has_no_group() {
        for query in [
            "",
            "room",
            "room=",
            "rooms=tea",
            "aroom=tea",
            "a=room=tea",
            "&&=",
        ] {
            assert_eq!(group(query), None, "{query}");
        }
        assert_eq!(group("room=&room=tea"), group("room=tea"));
    }

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
