//! The nodes of a name in the DNS: one for each record.
//!
//! A node has the name of its record, so that it is the same node in each answer: the address of an A or
//! AAAA record, the target of an SRV record. The next look-up is made when the records have expired, and
//! after `refresh` at the earliest. An answer without a record counts as a failure: to drop all nodes at once
//! is never what the DNS was to say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver, system_conf};
use tokio::time::{sleep, timeout};

use super::Reports;
use crate::config::{DnsDiscovery, DnsRecord, NodeSettings};

/// The longest time from one look-up to the next, whatever the TTL of the records is.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How long one look-up may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The most nodes that are taken of an answer.
const MOST: usize = 1024;

/// The largest weight of a node.
const HEAVIEST: u32 = 256;

/// The look-ups of one name.
pub(super) struct LookUp {
    settings: DnsDiscovery,
    resolver: TokioResolver,
    nodes: Vec<NodeSettings>,
}

/// What an answer says, and for how long.
struct Answer {
    nodes: Vec<NodeSettings>,
    ttl: Duration,
}

impl LookUp {
    pub(super) fn new(settings: &DnsDiscovery) -> io::Result<Self> {
        Ok(Self {
            settings: settings.clone(),
            resolver: resolver(settings.server)?,
            nodes: Vec::new(),
        })
    }

    /// Reports the nodes, and again when they are others. Never returns.
    pub(super) async fn run(mut self, mut reports: Reports) {
        loop {
            let answer = timeout(WITHIN, self.look_up()).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")));
            let mut pause = self.settings.refresh;
            match answer {
                Ok(answer) => {
                    pause = pause.max(answer.ttl.min(LONGEST));
                    let others = answer.nodes != self.nodes;
                    self.nodes.clone_from(&answer.nodes);
                    reports.passed(others.then_some(answer.nodes)).await;
                }
                Err(why) => {
                    reports
                        .failed(format!("{}: {why}", self.settings.name))
                        .await
                }
            }
            sleep(pause).await;
        }
    }

    async fn look_up(&self) -> Result<Answer, String> {
        let record = match self.settings.record {
            DnsRecord::A => RecordType::A,
            DnsRecord::Aaaa => RecordType::AAAA,
            DnsRecord::Srv => RecordType::SRV,
        };
        let looked = self.resolver.lookup(&self.settings.name, record).await;
        let looked = looked.map_err(|error| error.to_string())?;
        let records = looked.answers();
        let data = || records.iter().map(|record| &record.data);
        let nodes = match self.settings.record {
            DnsRecord::A | DnsRecord::Aaaa => addresses(data(), self.settings.port),
            DnsRecord::Srv => self.targets(data()).await?,
        };
        if nodes.is_empty() {
            return Err("the answer has no such record".to_owned());
        }
        let ttl = records.iter().map(|record| record.ttl).min();
        Ok(Answer {
            nodes,
            ttl: Duration::from_secs(ttl.unwrap_or(0).into()),
        })
    }

    /// The nodes of SRV records. Of several priorities only the lowest number counts.
    async fn targets(
        &self,
        data: impl Iterator<Item = &RData>,
    ) -> Result<Vec<NodeSettings>, String> {
        let records: Vec<&SRV> = data
            .filter_map(|data| match data {
                RData::SRV(srv) if !srv.target.is_root() => Some(srv),
                _ => None,
            })
            .collect();
        let first = records.iter().map(|srv| srv.priority).min();
        let records = records
            .into_iter()
            .filter(|srv| Some(srv.priority) == first);
        let records: Vec<&SRV> = records.take(MOST).collect();
        let heaviest = records.iter().map(|srv| u32::from(srv.weight)).max();
        let mut nodes = BTreeMap::new();
        for srv in records {
            let target = srv.target.to_ascii();
            let target = target.trim_end_matches('.');
            // Of two nodes at one target the port tells them apart.
            let name = format!("{target}_{}", srv.port);
            let name: String = name.chars().skip(name.len().saturating_sub(64)).collect();
            let host = match self.settings.server {
                // The name server of the system may not know it.
                Some(_) => self.address_of(target).await?,
                None => target.to_owned(),
            };
            let mut node = NodeSettings::new(name.clone(), format!("{host}:{}", srv.port));
            node.weight = weight(srv.weight.into(), heaviest.unwrap_or(0));
            nodes.insert(name, node);
        }
        Ok(nodes.into_values().collect())
    }

    async fn address_of(&self, target: &str) -> Result<String, String> {
        let looked = self.resolver.lookup_ip(format!("{target}.")).await;
        let looked = looked.map_err(|error| format!("{target}: {error}"))?;
        match looked.iter().min() {
            Some(IpAddr::V6(address)) => Ok(format!("[{address}]")),
            Some(IpAddr::V4(address)) => Ok(address.to_string()),
            None => Err(format!("{target} has no address")),
        }
    }
}

/// The nodes of address records.
fn addresses<'a>(data: impl Iterator<Item = &'a RData>, port: u16) -> Vec<NodeSettings> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let addresses: std::collections::BTreeSet<IpAddr> = data.filter_map(address).collect();
    let node = |address: IpAddr| {
        let name = address.to_string().replace(':', "-");
        NodeSettings::new(name, SocketAddr::new(address, port).to_string())
    };
    addresses.into_iter().take(MOST).map(node).collect()
}

/// The weight of a node of which the record has this one. Records that have none share alike.
fn weight(weight: u32, heaviest: u32) -> u32 {
    if heaviest > HEAVIEST {
        (weight * HEAVIEST / heaviest).max(1)
    } else {
        weight.max(1)
    }
}

/// A resolver that keeps no answer: the look-ups are as far apart as their records live.
fn resolver(server: Option<SocketAddr>) -> io::Result<TokioResolver> {
    let (config, mut options) = match server {
        None => system_conf::read_system_conf().map_err(io::Error::other)?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
            (config, ResolverOpts::default())
        }
    };
    options.cache_size = 0;
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder
        .with_options(options)
        .build()
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_records_become_those_of_nodes() {
        for (of, heaviest, expected) in [
            (0, 0, 1),
            (5, 10, 5),
            (0, 10, 1),
            (256, 256, 256),
            (65_535, 65_535, 256),
            (1, 65_535, 1),
            (32_768, 65_535, 128),
        ] {
            assert_eq!(weight(of, heaviest), expected, "{of} of {heaviest}");
        }
    }

    #[test]
    fn each_address_is_a_node_once_and_in_order() {
        let data = ["192.0.2.2", "192.0.2.1", "192.0.2.2"]
            .map(|text| RData::A(hickory_resolver::proto::rr::rdata::A(text.parse().unwrap())));
        let nodes = addresses(data.iter(), 5280);
        let shown: Vec<_> = nodes
            .iter()
            .map(|node| (&*node.name, &*node.address))
            .collect();
        assert_eq!(
            shown,
            [
                ("192.0.2.1", "192.0.2.1:5280"),
                ("192.0.2.2", "192.0.2.2:5280")
            ]
        );
        let data = [RData::AAAA(hickory_resolver::proto::rr::rdata::AAAA(
            "2001:db8::1".parse().unwrap(),
        ))];
        let nodes = addresses(data.iter(), 80);
        assert_eq!(
            (&*nodes[0].name, &*nodes[0].address),
            ("2001-db8--1", "[2001:db8::1]:80")
        );
    }
}
