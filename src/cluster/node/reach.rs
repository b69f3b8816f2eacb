//! How a node is reached: its addresses, and what connections to it begin with.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Node;
use crate::upstream::{Candidates, Opening};

impl Node {
    /// The addresses that its host name stands for; empty until resolved.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        self.told().addresses.all()
    }

    /// The same addresses in the order to try, and how many of them rest since they failed.
    pub fn candidates(&self, now: Instant) -> Candidates {
        let told = self.told();
        told.addresses.candidates(told.opening.clone(), now)
    }

    /// What connections to it begin with.
    pub fn opening(&self) -> Opening {
        self.told().opening.clone()
    }

    /// Sets what its host name stands for (the probe task only).
    pub fn resolved(&self, addresses: Arc<[SocketAddr]>) {
        self.told().addresses.set(addresses);
    }

    /// Notes whether a connect to one of several addresses opened.
    pub fn connected(&self, address: SocketAddr, opened: bool, now: Instant) {
        let addresses = &mut self.told().addresses;
        if opened {
            addresses.connected(address);
        } else {
            addresses.failed(address, now);
        }
    }

    /// Notes whether a probe of one of several addresses passed (the probe task only).
    pub fn probed(&self, address: SocketAddr, passed: bool, now: Instant) {
        let addresses = &mut self.told().addresses;
        if passed {
            addresses.passed(address);
        } else {
            addresses.failed(address, now);
        }
    }

    /// Of several addresses the one that worked last; none if none has worked yet.
    pub fn worked_last(&self) -> Option<SocketAddr> {
        self.told().addresses.worked_last()
    }
}
