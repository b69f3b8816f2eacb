//! Who a client is to the limits: its address, unless that stands for many.

use std::net::IpAddr;
use std::num::NonZeroU64;

use ipnet::IpNet;

use crate::cluster::client_key;
use crate::config::Settings;

/// A client as the tables here know it: IPv4 by the whole address, IPv6 by its /64; or nobody in
/// particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(NonZeroU64);

impl Client {
    /// One to whom the limits of a single client do not apply.
    const EXEMPT: Self = Self(NonZeroU64::MIN);

    /// What the tables know it by; none if the limits of a single client are not for it.
    pub(super) fn hash(self) -> Option<u64> {
        (self != Self::EXEMPT).then_some(self.0.get())
    }
}

/// Tells clients apart.
#[derive(Debug)]
pub struct Clients {
    exempt: Box<[IpNet]>,
    hasher: ahash::RandomState,
}

impl Clients {
    /// Clients by the settings `limits.exempt` and `trusted_proxies`.
    pub fn new(settings: &Settings) -> Self {
        let exempt = settings.limits.exempt.iter();
        Self {
            exempt: exempt.chain(&settings.trusted_proxies).copied().collect(),
            hasher: ahash::RandomState::new(),
        }
    }

    /// The same clients with the exemptions of other settings: what the tables know them by stays.
    #[must_use]
    pub fn with_settings(&self, settings: &Settings) -> Self {
        Self {
            hasher: self.hasher.clone(),
            ..Self::new(settings)
        }
    }

    /// The client with this address.
    pub fn client(&self, address: IpAddr) -> Client {
        let address = address.to_canonical();
        if self.exempt.iter().any(|net| net.contains(&address)) {
            return Client::EXEMPT;
        }
        let hash = NonZeroU64::new(self.hasher.hash_one(client_key(address)));
        // One hash of 2^64 stands for nobody in particular; that client has luck.
        hash.map_or(Client::EXEMPT, Client)
    }

    /// A hash of a sid, for the same tables.
    pub(super) fn sid(&self, sid: &str) -> u64 {
        self.hasher.hash_one(sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_and_proxies_stand_for_many() {
        let mut settings = Settings::for_nodes(Vec::new());
        settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let clients = Clients::new(&settings);
        let client = |address: &str| clients.client(address.parse().unwrap());
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        for many in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "10.1.2.3",
            "::ffff:10.1.2.3",
        ] {
            assert_eq!(client(many).hash(), None, "{many}");
        }
        settings.limits.exempt = Vec::new();
        let address = "127.0.0.1".parse().unwrap();
        assert!(Clients::new(&settings).client(address).hash().is_some());
    }
}
