//! The section `nodes` where it is no list: a file, or a name in the DNS, says which nodes there are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::defaults::{DISCOVERY_REFRESH, DISCOVERY_TYPE};
use super::read::{Section, Value};

/// What says which nodes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// A YAML file with the list `nodes`, read again when its content changes.
    File(PathBuf),
    /// A name in the DNS.
    Dns(DnsDiscovery),
}

/// A name in the DNS whose records are the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// The name.
    pub name: String,
    /// The port of each node; 0 with [`DnsRecord::Srv`].
    pub port: u16,
    /// The type of its records; `srv` by default.
    pub record: DnsRecord,
    /// From one look-up to the next; 1 s to 24 h, 5 s by default. Records with a longer TTL are kept for that.
    pub refresh: Duration,
    /// The name server; those of `/etc/resolv.conf` by default.
    pub server: Option<SocketAddr>,
}

/// A type of records (RFC 1035 §3.4, RFC 3596, RFC 2782).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsRecord {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names with ports and weights.
    Srv,
}

pub(super) const RECORDS: [(&str, DnsRecord); 3] = [
    ("a", DnsRecord::A),
    ("aaaa", DnsRecord::Aaaa),
    ("srv", DnsRecord::Srv),
];

/// The shortest time from one look-up to the next.
const SECOND: Duration = Duration::from_secs(1);

/// Whether `nodes` is no list, but names a source.
pub(super) fn is_source(nodes: &Value<'_>) -> bool {
    nodes.has("dns") || nodes.has("file")
}

pub(super) fn discovery(value: &Value<'_>) -> Option<Discovery> {
    let section = value.clone().section()?;
    let (dns, file) = (section.get("dns"), section.get("file"));
    match (dns, file) {
        (Some(dns), None) => self::dns(&dns).map(Discovery::Dns),
        (None, Some(file)) => match file.text()? {
            "" => file.must_be("a file's path"),
            path => Some(Discovery::File(PathBuf::from(path))),
        },
        (Some(_), Some(_)) => value.refuse("takes `dns` or `file`, not both"),
        (None, None) => None,
    }
}

fn dns(value: &Value<'_>) -> Option<DnsDiscovery> {
    let section = value.clone().section()?;
    let record = section.choice("type", DISCOVERY_TYPE, &RECORDS);
    let refresh = section.duration("refresh", DISCOVERY_REFRESH, SECOND);
    let server = match section.get("server") {
        Some(value) => Some(server(&value)?),
        None => None,
    };
    let port = port(&section, record);
    let name = section.need("name")?.ruled(check::dns_name)?;
    if !cfg!(feature = "dns") {
        return value.refuse("needs a Bowline that was built with `--features dns`");
    }
    Some(DnsDiscovery {
        name: name.to_owned(),
        port: port?,
        record,
        refresh,
        server,
    })
}

/// The port of the nodes; 0 for SRV records, which have it.
fn port(section: &Section<'_>, record: DnsRecord) -> Option<u16> {
    match (record, section.get("port")) {
        (DnsRecord::Srv, Some(value)) => {
            value.refuse("is not for `type: srv`: the records have it")
        }
        (DnsRecord::Srv, None) => Some(0),
        (DnsRecord::A | DnsRecord::Aaaa, _) => {
            section.need("port")?;
            Some(section.count("port", 0, 1..=u16::MAX))
        }
    }
}

fn server(value: &Value<'_>) -> Option<SocketAddr> {
    match value.text()?.parse() {
        Ok(address) => Some(address),
        Err(_) => value.must_be("an IP address and a port, such as 127.0.0.1:8600"),
    }
}
