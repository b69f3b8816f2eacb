//! Weighted rendezvous hashing: which node an address or a room belongs to, with no table and no state,
//! so that every balancer of every version, on every machine and after every restart, agrees.
//!
//! The function is part of the program's interface and never changes:
//!
//! 1. The hash of a node and a key is XXH3-64 with seed 0 over the node's name (UTF-8), one
//!    zero byte (which no name contains), and the key in network order. The key of a client is its
//!    address: four bytes of IPv4, or the first eight of IPv6. The key of a query parameter is the
//!    two bytes of its group ([`super::QueryGroup`]).
//! 2. Its cost is `−log2((hash + 1) / 2^64)` as a fixed-point number with 48 fractional bits,
//!    computed in integers by repeated squaring (`neg_log2`), divided by the node's weight. The
//!    division is done by cross multiplication, so nothing is rounded.
//! 3. The node with the lowest cost wins; of equal costs the one whose name sorts first.
//!
//! The cost of a uniform hash is exponentially distributed with the weight as its rate, which
//! gives every node its share by weight, moves only a node's own clients when it leaves, and
//! moves clients only to a node whose weight grows.

use xxhash_rust::xxh3::Xxh3Default;

use super::PlacementKey;

/// Fractional bits of [`neg_log2`].
const FRACTION_BITS: u32 = 48;

/// What it costs to send a session to a node; the lowest wins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost<'a> {
    /// At most 64 × 2^48.
    cost: u64,
    weight: u32,
    name: &'a str,
}

impl<'a> Cost<'a> {
    /// The cost of the node called `name` for `key`.
    pub(super) fn of(name: &'a str, weight: u32, key: PlacementKey) -> Self {
        Self {
            cost: neg_log2(hash(name, key)),
            weight,
            name,
        }
    }

    /// Whether this node goes before `other`.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let ours = u128::from(self.cost) * u128::from(other.weight);
        let theirs = u128::from(other.cost) * u128::from(self.weight);
        (ours, self.name) < (theirs, other.name)
    }
}

fn hash(name: &str, key: PlacementKey) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(name.as_bytes());
    hasher.update(&[0]);
    match key {
        PlacementKey::Client(client) => hasher.update(client.as_bytes()),
        PlacementKey::Query(group) => hasher.update(&group.to_bytes()),
    }
    hasher.digest()
}

/// `−log2((hash + 1) / 2^64)` in units of 2^-48, from 0 (the highest hash) to 64 × 2^48 (zero).
///
/// The mantissa of `hash + 1` is squared once for each bit of the fraction; each time it reaches
/// 2 it is halved and the bit is 1. Bits below 2^-63 are cut off, the same everywhere.
const fn neg_log2(hash: u64) -> u64 {
    let Some(value) = hash.checked_add(1) else {
        return 0;
    };
    let zeros = value.leading_zeros();
    let mut log = (63 - zeros) as u64;
    // From 1 to below 2, with 63 fractional bits.
    let mut mantissa = value << zeros;
    let mut bit = 0;
    while bit < FRACTION_BITS {
        let square = (mantissa as u128) * (mantissa as u128);
        let carry = (square >> 127) as u32;
        mantissa = (square >> (63 + carry)) as u64;
        log = (log << 1) | carry as u64;
        bit += 1;
    }
    (64 << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::QueryGroup;
    use super::*;

    fn client(address: &str) -> PlacementKey {
        let address: IpAddr = address.parse().unwrap();
        address.into()
    }

    /// Values that must never change: balancers of other versions rely on them.
    #[test]
    fn the_hash_is_xxh3_of_name_zero_and_address() {
        let v4 = client("192.0.2.7");
        let v6 = client("2001:db8:1:2::1");
        let room = PlacementKey::Query(QueryGroup::of("room=tea", "room").unwrap());
        let golden = [
            hash("t1", v4),
            hash("t2", v4),
            hash("t1", v6),
            hash("t2", v6),
            hash("t1", room),
        ];
        let expected = [
            0xf5c1_f469_92af_df6f,
            0xa9c1_95e4_9669_253a,
            0xbd71_be2b_91b1_3124,
            0x0b35_b2aa_a6a1_2ea5,
            0xed1e_248a_4dd2_7cf0,
        ];
        assert_eq!(golden, expected);
    }

    #[test]
    fn the_logarithm_is_exact_at_powers_of_two() {
        assert_eq!(neg_log2(u64::MAX), 0);
        for power in 0..64_u64 {
            assert_eq!(neg_log2((1 << power) - 1), (64 - power) << FRACTION_BITS);
        }
    }

    /// Values that must never change.
    #[test]
    fn the_logarithm_is_the_same_everywhere() {
        let inputs = [
            u64::MAX - 1,
            u64::MAX / 3,
            1 << 40,
            12_345_678_901_234_567_890,
        ];
        let expected = [
            1,
            446_127_282_977_751,
            6_755_399_441_055_375,
            163_075_349_046_952,
        ];
        assert_eq!(inputs.map(neg_log2), expected);
    }

    #[test]
    fn the_logarithm_agrees_with_floating_point() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let hash = random.u64(..) >> random.u32(0..64);
            let float = 64.0 - ((hash as f64) + 1.0).log2();
            let fixed = neg_log2(hash) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((float - fixed).abs() < 1e-9, "{hash}: {float} {fixed}");
        }
    }

    #[test]
    fn the_logarithm_never_rises_with_the_hash() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..10_000 {
            let (a, b) = (random.u64(..), random.u64(..));
            assert!(neg_log2(a.min(b)) >= neg_log2(a.max(b)));
            assert!(neg_log2(a) >= neg_log2(a.saturating_add(1)));
        }
    }

    #[test]
    fn of_equal_costs_the_first_name_wins() {
        let cost = |cost, weight, name| Cost { cost, weight, name };
        assert!(cost(6, 2, "a").beats(&cost(3, 1, "b")));
        assert!(!cost(6, 2, "b").beats(&cost(3, 1, "a")));
        assert!(cost(5, 2, "b").beats(&cost(3, 1, "a")));
    }
}
