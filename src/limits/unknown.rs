//! Requests with a sid that has no pin: made up, or made by somebody else.
//!
//! One that its node knows costs nothing, however many come, as after a restart. One that the node
//! does not know is paid for when that shows, by its client and by all together, and its sid is
//! remembered for a moment. Who has nothing left is told what the node would tell: no such session.

use std::time::Duration;

use super::fixed_table::FixedTable;
use super::rate::{Bucket, Rates, Total, micros};
use super::{Client, Clients};
use crate::config::Limits;

/// How long it is remembered that a node does not know a sid.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Sets of places for such sids, of eight each.
const SETS: usize = 1024;

/// How many seconds of a rate may come at once.
const BURST_SECONDS: u32 = 10;

/// A further node is asked for one sid in this many, in the long run. So a lasting flood of made-up sids
/// costs 1.01 requests each.
const SEARCH_PART: u32 = 100;

/// The part of a rate that may be searched for in vain at once. A search that finds the node costs nothing,
/// so a restart needs no more.
const SEARCH_BURST: u32 = 25;

/// Why no node is asked for a sid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// A node said a moment ago that there is no such session.
    Remembered,
    /// Too many sids that no node knows came lately, from this client or in all.
    Budget,
}

/// The budget, and what is remembered.
#[derive(Debug)]
pub struct UnknownSids {
    each: Option<Rates>,
    total: Option<Total>,
    /// The same for further nodes that are asked.
    search_each: Option<Rates>,
    search_total: Option<Total>,
    /// Until when a sid is remembered.
    remembered: FixedTable,
}

impl UnknownSids {
    /// The budget that `limits` set.
    pub fn new(limits: &Limits) -> Self {
        let (each, total) = (
            limits.unknown_sids_per_client,
            limits.unknown_sids_per_second,
        );
        let burst = |rate: u32| rate.saturating_mul(BURST_SECONDS);
        let searches = |rate: u32| rate.div_ceil(SEARCH_PART);
        let search_burst = |rate: u32| rate.div_ceil(SEARCH_BURST);
        Self {
            each: Rates::new(each, burst(each)),
            total: Bucket::new(total, burst(total)).map(Total::new),
            search_each: Rates::new(searches(each), search_burst(each)),
            search_total: Bucket::new(searches(total), search_burst(total)).map(Total::new),
            remembered: FixedTable::new(SETS),
        }
    }

    /// Whether a node may be asked for `sid`, which has no pin.
    ///
    /// # Errors
    /// Why not.
    pub fn ask(
        &self,
        clients: &Clients,
        sid: &str,
        client: Client,
        now: Duration,
    ) -> Result<(), Unasked> {
        if self.remembered.get(clients.sid(sid)) > micros(now) {
            return Err(Unasked::Remembered);
        }
        self.has(client, now).then_some(()).ok_or(Unasked::Budget)
    }

    /// Whether anything is left for a request of `client`.
    pub fn has(&self, client: Client, now: Duration) -> bool {
        self.each.as_ref().is_none_or(|each| each.has(client, now))
            && self.total.as_ref().is_none_or(|total| total.has(now))
    }

    /// Whether a further node may be asked for the sid of a request of `client`.
    pub fn may_search(&self, client: Client, now: Duration) -> bool {
        let (each, total) = (&self.search_each, &self.search_total);
        each.as_ref().is_none_or(|each| each.has(client, now))
            && total.as_ref().is_none_or(|total| total.has(now))
    }

    /// A further node was asked for the sid of a request of `client`, and no node knows it.
    pub fn count_search(&self, client: Client, now: Duration) {
        if let Some(each) = &self.search_each {
            each.count(client, now);
        }
        if let Some(total) = &self.search_total {
            total.count(now);
        }
    }

    /// A request of `client` has ended, and no node has shown that it knows its sid.
    pub fn count(&self, client: Client, now: Duration) {
        if let Some(each) = &self.each {
            each.count(client, now);
        }
        if let Some(total) = &self.total {
            total.count(now);
        }
    }

    /// A node has said that it does not know `sid`.
    pub fn remember(&self, clients: &Clients, sid: &str, now: Duration) {
        let until = micros(now + REMEMBERED);
        self.remembered.update(clients.sid(sid), |_| (until, ()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_budget_is_each_clients_and_everybodys() {
        let mut settings = Settings::for_nodes(Vec::new());
        settings.limits.unknown_sids_per_client = 1;
        settings.limits.unknown_sids_per_second = 2;
        let clients = Clients::new(&settings);
        let unknown = UnknownSids::new(&settings.limits);
        let client = |address: &str| clients.client(address.parse().unwrap());
        let ask = |sid: &str, from: &str, now| unknown.ask(&clients, sid, client(from), at(now));
        for number in 0..10 {
            let sid = number.to_string();
            assert_eq!(ask(&sid, "192.0.2.1", 0), Ok(()), "{number}");
            unknown.count(client("192.0.2.1"), at(0));
        }
        assert_eq!(ask("x", "192.0.2.1", 0), Err(Unasked::Budget));
        assert_eq!(
            ask("x", "192.0.2.2", 0),
            Ok(()),
            "another client has its own"
        );
        assert_eq!(ask("x", "127.0.0.1", 0), Ok(()));
        for _ in 0..10 {
            unknown.count(client("127.0.0.1"), at(0));
        }
        assert_eq!(
            ask("x", "192.0.2.2", 0),
            Err(Unasked::Budget),
            "of all together"
        );
        assert_eq!(ask("x", "192.0.2.1", 1), Ok(()));
    }

    #[test]
    fn a_sid_is_remembered_for_a_moment() {
        let settings = Settings::for_nodes(Vec::new());
        let clients = Clients::new(&settings);
        let unknown = UnknownSids::new(&settings.limits);
        let client = clients.client("192.0.2.1".parse().unwrap());
        unknown.remember(&clients, "made-up", at(100));
        let ask = |sid: &str, now| unknown.ask(&clients, sid, client, at(now));
        assert_eq!(ask("made-up", 104), Err(Unasked::Remembered));
        assert_eq!(ask("made-up", 105), Ok(()));
        assert_eq!(ask("other", 104), Ok(()));
    }

    #[test]
    fn a_million_sids_take_no_more_memory_than_a_few() {
        let settings = Settings::for_nodes(Vec::new());
        let clients = Clients::new(&settings);
        let unknown = UnknownSids::new(&settings.limits);
        for number in 0..100_000 {
            unknown.remember(&clients, &number.to_string(), at(1));
        }
        assert!(unknown.remembered.len() <= SETS * 8);
    }
}
