//! Every counter, gauge and histogram of the program, and their exposition as Prometheus text.
//!
//! Handles are made once and held by whoever counts: a count on the request path is one relaxed
//! atomic addition, never a look-up by label. Labels have few and fixed values, listed in
//! `labels.rs`; a sid or a client address is never one.

mod by_name;
mod kept;
mod labels;
mod landing;
mod limit;
mod nodes;
mod process;
mod text;
mod timing;
mod tls;

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub use by_name::ByName;
pub use kept::KeptMetrics;
pub use labels::{CAUSES, CONDITIONS, Kind, Outcome, PROBE_FAILURES, TUNNEL_ENDS};
pub use landing::LandingMetrics;
pub use limit::Limit;
pub use nodes::{Fraction, NodeMetrics};
pub use process::Process;
pub use timing::{Times, Timing};
pub use tls::TlsMetrics;

use labels::{
    ADMIN_REFUSALS, CauseLabels, ConditionLabels, FixedLabel, PROXY_HEADERS, ReasonLabels,
    RequestLabels, ResultLabels, TABLES, TableLabels,
};
use nodes::NodePages;
use process::ProcessMetrics;

/// The size of a table, as told when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Which: one of the tables `sessions` and `addresses`.
    pub table: &'static str,
    /// How many entries it has.
    pub entries: usize,
    /// How many it may have.
    pub limit: usize,
    /// About how much memory it takes, what hangs on its entries included.
    pub bytes: usize,
}

/// Every metric of one balancer.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: [[Counter; Outcome::ALL.len()]; Kind::ALL.len()],
    rejects: ByName,
    /// What the balancer adds to the time of a request.
    pub overhead_seconds: Timing,
    /// Bytes of request bodies that clients sent.
    pub client_received_bytes: Counter,
    /// Bytes of answers' bodies that clients were sent.
    pub client_sent_bytes: Counter,
    /// Sessions that ended with a terminate, by its condition.
    pub sessions_terminated: ByName,
    /// Sessions that were forgotten because their client stayed away.
    pub sessions_expired: Counter,
    /// Configurations that a reload applied.
    pub reloads: Counter,
    /// Configurations that a reload refused.
    pub reload_failures: Counter,
    /// 1 unless the last reload was refused.
    pub reload_ok: Gauge,
    /// 1 unless the last look-up of nodes failed.
    pub discovery_ok: Gauge,
    /// Sessions that the snapshot of an earlier process brought.
    pub sessions_restored: Counter,
    /// Snapshots that could not be written, or read.
    pub snapshot_failures: Counter,
    snapshot_timestamp: Gauge,
    snapshot_sessions: Gauge,
    /// Requests with a sid that had no pin.
    pub unknown_sids: Counter,
    /// Further nodes that were asked for a sid without a pin.
    pub unknown_sid_searches: Counter,
    /// Client connections open now.
    pub connections: Gauge,
    /// How many client connections there may be.
    pub connections_limit: Gauge,
    /// Times that accepting had to wait for a place (`limits.connections`) or for an open file.
    pub accept_waits: Counter,
    /// Connections that were closed because their client had `limits.connections_per_client`.
    pub connections_refused: Counter,
    /// HTTP/2 connections open now.
    pub http2_connections: Gauge,
    /// HTTP/2 connections that were cut because their client gave up too many requests.
    pub http2_floods: Counter,
    /// Idle connections that were closed because there were too few places or open files.
    pub connections_given_up: Counter,
    /// 1 while the balancer suspects its own network, since most nodes fell silent at once.
    pub network_suspected: Gauge,
    /// Requests that the admin listener refused, by reason.
    pub admin_refusals: ByName,
    /// TLS with clients.
    pub tls: TlsMetrics,
    /// PROXY headers, by what became of them.
    pub proxy_headers: ByName,
    /// Answers that are kept for clients whose connection broke.
    pub kept: KeptMetrics,
    /// Sessions whose node is gone, and that wait to log in elsewhere.
    pub landing: LandingMetrics,
    log_dropped_lines: Counter,
    tables: [Family<TableLabels, Gauge>; 3],
    process: ProcessMetrics,
    nodes: NodePages,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let process = ProcessMetrics::register(&mut registry);
        let r = registry.sub_registry_with_prefix("bowline");
        process::register_build(r);
        let overhead_seconds = Timing::new(timing::OVERHEAD);
        let what = "What the balancer adds to a request: its time less the node's";
        r.register_with_unit("overhead", what, Unit::Seconds, overhead_seconds.clone());
        let nodes = NodePages::default();
        r.register_collector(Box::new(nodes.clone()));
        Self {
            requests: requests(r),
            rejects: by_name::<CauseLabels>(
                r,
                "rejects",
                "Answers of the balancer's own, by cause",
                CAUSES,
            ),
            overhead_seconds,
            client_received_bytes: bytes(r, "client_received", "Bodies of clients' requests"),
            client_sent_bytes: bytes(r, "client_sent", "Bodies of answers to clients"),
            sessions_terminated: by_name::<ConditionLabels>(
                r,
                "sessions_terminated",
                "Sessions that ended with a terminate, by its condition",
                CONDITIONS,
            ),
            sessions_expired: counter(
                r,
                "sessions_expired",
                "Sessions forgotten because their client stayed away",
            ),
            reloads: counter(r, "reloads", "Configurations that a reload applied"),
            reload_failures: counter(r, "reload_failures", "Configurations that a reload refused"),
            reload_ok: gauge(
                r,
                "config_last_reload_successful",
                "1 unless the last reload was refused",
            ),
            discovery_ok: gauge(
                r,
                "discovery_successful",
                "1 unless the last look-up of the nodes failed",
            ),
            sessions_restored: counter(
                r,
                "sessions_restored",
                "Sessions that the snapshot of an earlier process brought",
            ),
            snapshot_failures: counter(
                r,
                "snapshot_failures",
                "Snapshots that could not be written, or read",
            ),
            snapshot_timestamp: gauge(
                r,
                "snapshot_timestamp_seconds",
                "When the last snapshot was written, in seconds since 1970",
            ),
            snapshot_sessions: gauge(r, "snapshot_sessions", "Sessions in the last snapshot"),
            unknown_sids: counter(r, "unknown_sids", "Requests with a sid that had no pin"),
            unknown_sid_searches: counter(
                r,
                "unknown_sid_searches",
                "Further nodes that were asked for a sid without a pin",
            ),
            connections: gauge(r, "connections", "Client connections open now"),
            connections_limit: gauge(
                r,
                "connections_limit",
                "Client connections that there may be",
            ),
            accept_waits: counter(
                r,
                "accept_waits",
                "Times that accepting had to wait for a place or for an open file",
            ),
            connections_refused: counter(
                r,
                "connections_refused",
                "Connections closed because of limits.connections_per_client",
            ),
            http2_connections: gauge(
                r,
                "http2_connections",
                "Client connections open now that speak HTTP/2",
            ),
            http2_floods: counter(
                r,
                "http2_floods",
                "HTTP/2 connections cut because their client gave up too many requests",
            ),
            connections_given_up: counter(
                r,
                "connections_given_up",
                "Idle connections closed because places or open files were short",
            ),
            network_suspected: gauge(
                r,
                "network_suspected",
                "1 while most nodes are silent at once and all sessions are kept where they are",
            ),
            admin_refusals: by_name::<ReasonLabels>(
                r,
                "admin_refusals",
                "Requests that the admin listener refused, by reason",
                ADMIN_REFUSALS,
            ),
            tls: TlsMetrics::register(r),
            proxy_headers: by_name::<ResultLabels>(
                r,
                "proxy_headers",
                "Headers of the PROXY protocol, by what became of them",
                PROXY_HEADERS,
            ),
            kept: KeptMetrics::register(r),
            landing: LandingMetrics::register(r),
            log_dropped_lines: counter(
                r,
                "log_dropped_lines",
                "Lines of the log that found no room, or could not be written",
            ),
            tables: tables(r),
            process,
            nodes,
            registry,
        }
    }

    /// Counts one request.
    pub fn count_request(&self, kind: Kind, outcome: Outcome) {
        self.requests[kind as usize][outcome as usize].inc();
    }

    /// How many requests have ended.
    pub fn requests(&self) -> u64 {
        self.requests.iter().flatten().map(Counter::get).sum()
    }

    /// Notes that a snapshot of `sessions` sessions was written, at `at` seconds since the Unix epoch.
    pub fn snapshot_written(&self, at: u32, sessions: u64) {
        self.snapshot_timestamp.set(at.into());
        let sessions = i64::try_from(sessions).unwrap_or(i64::MAX);
        self.snapshot_sessions.set(sessions);
    }

    /// Counts one answer of the balancer's own.
    pub fn count_reject(&self, cause: &'static str) {
        self.rejects.inc(cause);
    }

    /// How many answers of the balancer's own there were, by cause, in a fixed order.
    pub fn rejects(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.rejects.each()
    }

    /// The handles for the node called `name`, which is on the page from now on.
    pub fn node(&self, name: &str) -> NodeMetrics {
        self.nodes.node(name)
    }

    /// Puts a node that was taken off the page on it again, with the counts that it had.
    pub fn show_node(&self, name: &str, metrics: &NodeMetrics) {
        self.nodes.show(name, metrics);
    }

    /// Takes a node off the page.
    pub fn hide_node(&self, name: &str) {
        self.nodes.hide(name);
    }

    /// Tells the size of a table.
    pub fn set_table(&self, size: TableSize) {
        let labels = TableLabels::from(size.table);
        let values = [size.entries, size.limit, size.bytes];
        for (family, value) in self.tables.iter().zip(values) {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
    }

    /// Tells how many lines of the log were dropped.
    pub fn set_log_dropped_lines(&self, lines: u64) {
        let counter = self.log_dropped_lines.inner();
        counter.store(lines, Ordering::Relaxed);
    }

    /// Sets the process metrics.
    pub fn set_process(&self, process: &Process) {
        self.process.set(process);
    }

    /// Resident memory in bytes and open files, as last read.
    pub fn memory_and_files(&self) -> (u64, Limit) {
        (self.process.resident_bytes(), self.process.open_files())
    }

    /// What there may be only so much of, as last told.
    pub fn limits(&self) -> [Limit; 3] {
        let [entries, most, _] = &self.tables;
        let table = |family: &Family<TableLabels, Gauge>| {
            family.get_or_create(&TableLabels::from("sessions")).get()
        };
        let limit = |what, used, most| Limit { what, used, most };
        [
            limit("sessions", table(entries), table(most)),
            limit(
                "client connections",
                self.connections.get(),
                self.connections_limit.get(),
            ),
            self.process.open_files(),
        ]
    }

    /// Everything as OpenMetrics 1.0.
    pub fn exposition(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry)
            .expect("a String takes every write");
        out
    }

    /// Everything as Prometheus text 0.0.4.
    pub fn older_exposition(&self) -> String {
        text::older(&self.exposition())
    }
}

fn requests(registry: &mut Registry) -> [[Counter; Outcome::ALL.len()]; Kind::ALL.len()] {
    let requests = Family::<RequestLabels, Counter>::default();
    registry.register("requests", "Requests by kind and outcome", requests.clone());
    Kind::ALL.map(|kind| {
        Outcome::ALL.map(|outcome| {
            let labels = RequestLabels {
                kind: FixedLabel(kind.label()),
                outcome: FixedLabel(outcome.label()),
            };
            requests.get_or_create_owned(&labels)
        })
    })
}

fn tables(registry: &mut Registry) -> [Family<TableLabels, Gauge>; 3] {
    let tables: [Family<TableLabels, Gauge>; 3] = std::array::from_fn(|_| Family::default());
    for table in TABLES {
        for family in &tables {
            family.get_or_create(&TableLabels::from(*table)).set(0);
        }
    }
    let [entries, limit, bytes] = &tables;
    registry.register("table_entries", "Entries of a table", entries.clone());
    let most = "Entries that a table may have";
    registry.register("table_limit", most, limit.clone());
    let memory = "Memory of a table and of what hangs on its entries, about";
    registry.register_with_unit("table_memory", memory, Unit::Bytes, bytes.clone());
    tables
}

fn by_name<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    names: &'static [&'static str],
) -> ByName
where
    L: From<&'static str>
        + prometheus_client::encoding::EncodeLabelSet
        + std::fmt::Debug
        + Clone
        + std::hash::Hash
        + Eq
        + Send
        + Sync
        + 'static,
{
    let family = Family::<L, Counter>::default();
    registry.register(name, help, family.clone());
    ByName::new(names, |name| family.get_or_create_owned(&L::from(name)))
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

#[cfg(test)]
mod tests;
