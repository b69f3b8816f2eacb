//! What holds where a file says nothing. `docs/configuration.md` shows the same values, and a test
//! compares them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::available_parallelism;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::admin_listener::Admin;
use super::node_source::DnsRecord;
use super::settings::{
    AccessLog, Affinity, Bosh, Cors, CorsOwner, CreationFrom, Health, HostAttribute, LandingMode,
    Limits, Listen, Log, LogFormat, NodeSettings, Origins, Placement, Probe, QueryPolicy, Release,
    Settings, Timeouts, Upstream, WebSocket,
};

/// The most worker threads.
pub(super) const MOST_THREADS: usize = 256;

pub(super) const HOST_ATTRIBUTE: HostAttribute = HostAttribute::Strip;
pub(super) const AFFINITY: Affinity = Affinity::Sid;
pub(super) const AFFINITY_TTL: Duration = Duration::from_secs(30 * 60);
pub(super) const PLACEMENT: Placement = Placement::ClientIp;
pub(super) const PLACEMENT_WAIT: Duration = Duration::from_secs(5);
pub(super) const WEIGHT: u32 = 1;
pub(super) const NODE_LIST_MAX_AGE: Duration = Duration::from_secs(5);
pub(super) const HOST_META: bool = true;
pub(super) const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(5);
/// Any number.
pub(super) const MAX_SESSIONS: u32 = 0;
pub(super) const DISCOVERY_TYPE: DnsRecord = DnsRecord::Srv;
pub(super) const DISCOVERY_REFRESH: Duration = Duration::from_secs(5);
pub(super) const PROBE_PATH: &str = "/";

impl Settings {
    /// Settings with every default, before these nodes: clients and the admin listener on free
    /// ports of 127.0.0.1. Nothing is checked; for tests and the demo.
    #[must_use]
    pub fn for_nodes(nodes: Vec<NodeSettings>) -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            listen: vec![Listen::new(free)],
            bosh: Bosh::default(),
            host_attribute: HOST_ATTRIBUTE,
            affinity: AFFINITY,
            affinity_ttl: AFFINITY_TTL,
            placement: PLACEMENT,
            placement_wait: PLACEMENT_WAIT,
            zone: None,
            trusted_proxies: Vec::new(),
            cors: Cors::default(),
            node_list: None,
            websocket: None,
            nodes,
            discovery: None,
            health: Health::default(),
            upstream: Upstream::default(),
            admin: Some(Admin {
                address: free,
                ..Admin::default()
            }),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            log: Log::default(),
            reload_on_change: false,
            snapshot: None,
            takeover: None,
            traces: None,
            threads: threads(),
        }
    }
}

/// The number of cores that this process may use, 1 to [`MOST_THREADS`].
pub(super) fn threads() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS))
}

/// 127.0.0.0/8 and ::1: what comes from there is a terminator or a tool on this machine.
fn loopback() -> Vec<IpNet> {
    let four = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8);
    let four = four.expect("a prefix of 8 bits is a valid one");
    vec![four.into(), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]
}

impl Default for Bosh {
    fn default() -> Self {
        Self {
            paths: vec!["/http-bind".to_owned(), "/bosh".to_owned()],
            // The most that a Tigase node reads.
            max_body: 1024 * 1024,
            max_answer: 4 * 1024 * 1024,
            creation_from: CreationFrom::Strip,
            query: QueryPolicy::Drop,
            answer_headers: Vec::new(),
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            owner: CorsOwner::Own,
            origins: Origins::Any,
            credentials: false,
            headers: Vec::new(),
        }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            paths: vec!["/xmpp-websocket".to_owned()],
            query: QueryPolicy::Drop,
            // Proxies and mobile networks forget a connection that is silent for longer.
            idle: Duration::from_secs(60),
            pong: Duration::from_secs(20),
            // As much as one request of BOSH may have.
            max_frame: 1024 * 1024,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe: Probe::Bosh,
            host: None,
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            silence: Duration::from_secs(5),
            slow_start: Duration::from_secs(30),
            penalty: Duration::from_secs(5),
            penalty_max: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            // As many as may wait to be accepted at an ejabberd.
            connecting: 5,
            // A Tigase closes what exceeds 1000, and others connect there as well.
            connects_per_second: 900,
            release: Release::HalfClose,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9280),
            token_file: None,
            tokens: Vec::new(),
            hosts: Vec::new(),
            probes: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            handshakes: 256,
            connections_per_client: 5_000,
            streams: 128,
            body_memory: 64 * 1024 * 1024,
            answer_memory: 64 * 1024 * 1024,
            sessions: 1_000_000,
            // An office behind one address that loses its node logs in again within a second.
            creations_per_client: 100,
            creations_burst: 2_500,
            unknown_sids_per_second: 500,
            unknown_sids_per_client: 50,
            landing: LandingMode::Auto,
            exempt: loopback(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            write_stall: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(2),
            // Strophe.js tries again after 8 s. Tigase ends a session 10 s after its last answer.
            retry: Duration::from_secs(9),
            drain_notice: Duration::ZERO,
            drain: Duration::from_secs(75),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
            access: AccessLog::Off,
            session_key: None,
        }
    }
}
