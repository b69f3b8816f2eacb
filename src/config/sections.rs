//! The sections of the file, each read once into its settings: one line a key, with default and
//! range.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::admin_listener;
use super::bosh;
use super::check;
use super::defaults::{
    AFFINITY, AFFINITY_TTL, HOST_ATTRIBUTE, MOST_THREADS, PLACEMENT, PLACEMENT_WAIT, PROBE_PATH,
    threads,
};
use super::destinations;
use super::hints::unexpanded;
use super::keys::nearest;
use super::listen;
use super::node_opening;
use super::nodes;
use super::read::{Section, Value, quoted};
use super::settings::{
    AccessLog, Affinity, Health, LandingMode, Limits, Log, LogFormat, Placement, Probe, Release,
    Settings, Timeouts, Upstream,
};
use super::units::{show_duration, show_size};
use super::{web, websocket};

/// The most entries of any list but `nodes`.
pub(super) const MOST_ENTRIES: usize = 256;
/// The most sessions of which one is logged.
const MOST_SAMPLE: u32 = 1_000_000;
/// The most nodes.
pub(super) const MOST_NODES: usize = 1024;
/// The least of a duration that may not be nothing.
const SHORTEST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

pub(super) const AFFINITIES: [(&str, Affinity); 2] =
    [("sid", Affinity::Sid), ("client-ip", Affinity::ClientIp)];
pub(super) const PLACEMENTS: [(&str, Placement); 4] = [
    ("client-ip", Placement::ClientIp),
    ("least-sessions", Placement::LeastSessions),
    ("round-robin", Placement::RoundRobin),
    ("random", Placement::Random),
];
pub(super) const RELEASES: [(&str, Release); 2] =
    [("half-close", Release::HalfClose), ("keep", Release::Keep)];
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The whole file. What is refused has its default, for the rest to be read too.
pub(super) fn settings(root: &Section<'_>) -> Settings {
    let listen = root.need("listen").map(|value| listen::listen(&value));
    let listen = listen.unwrap_or_default();
    let bosh = bosh::bosh(&root.section("bosh"));
    let to_nodes = root.section("upstream");
    let tls = node_opening::default(&to_nodes);
    let opening = (tls.as_ref(), node_opening::send_proxy(&to_nodes, None));
    let (nodes, discovery) = nodes::nodes_or_discovery(root, opening);
    if discovery.is_some() && opening != (None, None) {
        // Nodes that are found would be reached without it.
        for key in ["tls", "send_proxy"] {
            to_nodes.refuse(key, "goes into the entries of a list of `nodes`");
        }
    }
    let attribute = bosh::host_attribute(root.get("host_attribute"));
    let trusted = root.get("trusted_proxies");
    Settings {
        host_attribute: attribute.unwrap_or(HOST_ATTRIBUTE),
        affinity: root.choice("affinity", AFFINITY, &AFFINITIES),
        affinity_ttl: root.duration("affinity_ttl", AFFINITY_TTL, SECOND),
        placement: placement(root),
        placement_wait: root.duration("placement_wait", PLACEMENT_WAIT, Duration::ZERO),
        zone: nodes::zone(root),
        trusted_proxies: trusted.map_or_else(Vec::new, |value| networks(&value, 0)),
        cors: web::cors(&root.section("cors")),
        node_list: web::node_list(root, &bosh.paths),
        websocket: websocket::websocket(root, &bosh.paths),
        health: health(&root.section("health")),
        upstream: upstream(&to_nodes),
        admin: admin_listener::admin(root.get("admin"), &listen),
        limits: limits(&root.section("limits"), bosh.max_body),
        timeouts: timeouts(&root.section("timeouts")),
        log: log(&root.section("log")),
        reload_on_change: root.flag("reload_on_change", false),
        snapshot: destinations::snapshot(root.get("snapshot")),
        takeover: destinations::takeover(root.get("takeover"), &listen),
        traces: destinations::traces(root.get("traces")),
        threads: root.count("threads", threads(), 1..=MOST_THREADS),
        listen,
        bosh,
        nodes,
        discovery,
    }
}

fn placement(root: &Section<'_>) -> Placement {
    let value = root.get("placement");
    let word = value.as_ref().and_then(Value::word).unwrap_or_default();
    let (Some(value), Some((scheme, name))) = (&value, word.split_once(':')) else {
        return root.choice("placement", PLACEMENT, &PLACEMENTS);
    };
    if scheme == "query" && check::is_parameter_name(name) {
        if root
            .get("affinity")
            .is_some_and(|value| value.is_word("client-ip"))
        {
            value.refuse::<()>(
                "needs `affinity: sid`: an address has one node, whatever its rooms are",
            );
        }
        return Placement::Query(name.into());
    }
    let refused = if scheme == "query" {
        value.must_be("`query:` and the name of a parameter, of A-Z a-z 0-9 . _ ~ - only")
    } else {
        value.must_be("one of client-ip, least-sessions, round-robin, random, query:NAME")
    };
    refused.unwrap_or(PLACEMENT)
}

/// An IP address with a port.
pub(super) fn socket_address(value: &Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) if check::is_bare_ipv6(text) => value.must(check::BARE_IPV6),
        Err(_) if check::has_large_port(text) => value.must(check::LARGE_PORT),
        Err(_) => value.must_be("an IP address and a port such as `0.0.0.0:5280`"),
    }
}

/// A list of texts that a rule accepts, none of them twice.
pub(super) fn texts(
    value: &Value<'_>,
    entries: RangeInclusive<usize>,
    rule: fn(&str) -> Result<(), &'static str>,
) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for item in value.list(entries) {
        let Some(text) = item.ruled(rule) else {
            continue;
        };
        if texts.iter().any(|other| other == text) {
            item.refuse::<()>(format!("{} is listed twice", quoted(text)));
        }
        texts.push(text.to_owned());
    }
    texts
}

/// Addresses and networks, `least` of them or more.
pub(super) fn networks(value: &Value<'_>, least: usize) -> Vec<IpNet> {
    let network = |item: Value<'_>| {
        let text = item.text()?;
        let network = text.parse::<IpNet>().ok();
        network
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .map(|network| network.trunc())
            .or_else(|| item.must_be("an IP address or a network such as `10.0.0.0/8`"))
    };
    let items = value.list(least..=MOST_ENTRIES);
    items.into_iter().filter_map(network).collect()
}

fn health(section: &Section<'_>) -> Health {
    let default = Health::default();
    let interval = section.duration("interval", default.interval, SHORTEST);
    let at_most_interval = |key, default: Duration| {
        let duration = section.duration(key, default.min(interval), SHORTEST);
        at_most(section, (key, duration), ("interval", interval));
        duration
    };
    let timeout = at_most_interval("timeout", default.timeout);
    let fast_interval = at_most_interval("fast_interval", default.fast_interval);
    // A silent node keeps its sessions for no less than one probe may take.
    let silence = section.duration("silence", default.silence.max(timeout), SHORTEST);
    if silence < timeout && section.is_sound("timeout") {
        let (least, is) = (show_duration(timeout), show_duration(silence));
        let reason = format!("must be at least `timeout`, which is {least}, is {is}");
        section.refuse("silence", reason);
    }
    let penalty_max = section.duration("penalty_max", default.penalty_max, SHORTEST);
    let penalty = default.penalty.min(penalty_max);
    let penalty = section.duration("penalty", penalty, Duration::ZERO);
    at_most(section, ("penalty", penalty), ("penalty_max", penalty_max));
    let probe = probe(section);
    Health {
        host: probe_host(section, &probe),
        probe,
        interval,
        fast_interval,
        timeout,
        silence,
        rise: section.count("rise", default.rise, 1..=100),
        fall: section.count("fall", default.fall, 1..=100),
        slow_start: section.duration("slow_start", default.slow_start, Duration::ZERO),
        penalty,
        penalty_max,
    }
}

/// Refuses a duration that is longer than another of its section.
fn at_most(
    section: &Section<'_>,
    (key, duration): (&'static str, Duration),
    (limit, most): (&'static str, Duration),
) {
    if duration > most && section.is_sound(limit) {
        let (most, is) = (show_duration(most), show_duration(duration));
        let reason = format!("must be at most `{limit}`, which is {most}, is {is}");
        section.refuse(key, reason);
    }
}

fn probe(section: &Section<'_>) -> Probe {
    let http = Probe::Http {
        path: PROBE_PATH.to_owned(),
    };
    let words = [
        ("bosh", &Probe::Bosh),
        ("http", &http),
        ("tcp", &Probe::Tcp),
    ];
    let probe = section.choice("probe", &Probe::Bosh, &words);
    let Some(value) = section.get("path") else {
        return probe.clone();
    };
    if *probe != http && section.is_sound("probe") {
        section.refuse("path", "has no effect without `probe: http`");
        return probe.clone();
    }
    let path = value.ruled(check::path).unwrap_or(PROBE_PATH);
    Probe::Http {
        path: path.to_owned(),
    }
}

/// The `Host` of probes, which a bare connect has none of.
fn probe_host(section: &Section<'_>, probe: &Probe) -> Option<String> {
    let value = section.get("host")?;
    if *probe == Probe::Tcp {
        return value.refuse("has no effect with `probe: tcp`");
    }
    value.ruled(check::authority).map(str::to_owned)
}

fn upstream(section: &Section<'_>) -> Upstream {
    let default = Upstream::default();
    let per_second = default.connects_per_second;
    Upstream {
        connecting: section.count("connecting", default.connecting, 1..=10_000),
        connects_per_second: section.count("connects_per_second", per_second, 0..=100_000),
        release: section.choice("release", default.release, &RELEASES),
    }
}

/// The path of a file.
pub(super) fn file(value: &Value<'_>) -> Option<PathBuf> {
    match value.text()? {
        "" => value.must_be("a file's path"),
        path if unexpanded(path).is_some() => value.must_be("a file's path"),
        path => Some(PathBuf::from(path)),
    }
}

fn limits(section: &Section<'_>, max_body: usize) -> Limits {
    let default = Limits::default();
    let rate = |key, default| section.count(key, default, 0..=1_000_000);
    let client = default.connections_per_client;
    let exempt = section.get("exempt");
    let limits = Limits {
        connections: section.count("connections", default.connections, 1..=10_000_000),
        handshakes: section.count("handshakes", default.handshakes, 1..=100_000),
        connections_per_client: section.count("connections_per_client", client, 0..=10_000_000),
        streams: section.count("streams", default.streams, 1..=1000),
        body_memory: section.size("body_memory", default.body_memory, MIB..=65_536 * MIB),
        answer_memory: section.size("answer_memory", default.answer_memory, 0..=65_536 * MIB),
        sessions: section.count("sessions", default.sessions, 1..=100_000_000),
        creations_per_client: rate("creations_per_client", default.creations_per_client),
        creations_burst: section.count("creations_burst", default.creations_burst, 1..=10_000_000),
        unknown_sids_per_second: rate("unknown_sids_per_second", default.unknown_sids_per_second),
        unknown_sids_per_client: rate("unknown_sids_per_client", default.unknown_sids_per_client),
        landing: landing(section, default.landing),
        exempt: exempt.map_or(default.exempt, |value| networks(&value, 0)),
    };
    if limits.body_memory < max_body {
        let least = show_size(max_body as u64);
        let is = show_size(limits.body_memory as u64);
        let reason = format!("must be at least `bosh.max_body`, which is {least}, is {is}");
        section.refuse("body_memory", reason);
    }
    if limits.creations_per_client == 0 {
        let reason = "has no effect with `creations_per_client: 0`";
        section.refuse("creations_burst", reason);
    }
    limits
}

fn landing(section: &Section<'_>, default: LandingMode) -> LandingMode {
    let Some(value) = section.get("landing") else {
        return default;
    };
    if value.is_off() {
        return LandingMode::Off;
    }
    if value.is_word("auto") {
        return LandingMode::Auto;
    }
    if value.word().is_some() || value.is_null() || value.is_on() {
        return value
            .must_be("auto, off, or sessions per second")
            .unwrap_or(default);
    }
    let rate = section.count("landing", 1, 1..=100_000);
    NonZeroU32::new(rate).map_or(default, LandingMode::PerSecond)
}

fn timeouts(section: &Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let duration = |key, default, least| section.duration(key, default, least);
    Timeouts {
        head: duration("head", default.head, SHORTEST),
        body: duration("body", default.body, SHORTEST),
        write_stall: duration("write_stall", default.write_stall, SHORTEST),
        idle: duration("idle", default.idle, SHORTEST),
        connect: duration("connect", default.connect, SHORTEST),
        retry: duration("retry", default.retry, Duration::ZERO),
        drain_notice: duration("drain_notice", default.drain_notice, Duration::ZERO),
        drain: duration("drain", default.drain, Duration::ZERO),
    }
}

fn log(section: &Section<'_>) -> Log {
    let default = Log::default();
    let filter = section.get("filter").and_then(|value| filter(&value));
    let access = section.get("access").and_then(access_log);
    let session_key = section.get("session_key");
    Log {
        format: section.choice("format", default.format, &LOG_FORMATS),
        filter: filter.unwrap_or(default.filter),
        access: access.unwrap_or(default.access),
        session_key: session_key.and_then(|value| self::session_key(&value)),
    }
}

fn access_log(value: Value<'_>) -> Option<AccessLog> {
    if value.is_off() {
        return Some(AccessLog::Off);
    }
    if value.is_on() {
        return Some(AccessLog::On);
    }
    if value.is_word("failures") {
        return Some(AccessLog::Failures);
    }
    if value.is_null() {
        return value.refuse("has no value");
    }
    let section = value.section_or("one of off, on, failures, or a mapping with `sample`")?;
    section.need("sample")?;
    let sample = section.count("sample", NonZeroU32::MIN.get(), 2..=MOST_SAMPLE);
    NonZeroU32::new(sample).map(AccessLog::Sample)
}

/// A key in hexadecimal. It is a secret, so that no message shows it.
fn session_key(value: &Value<'_>) -> Option<u128> {
    value
        .word()
        .filter(|text| text.len() == 32 && text.bytes().all(|letter| letter.is_ascii_hexdigit()))
        .and_then(|text| u128::from_str_radix(text, 16).ok())
        .or_else(|| {
            let fix = value.word().and_then(unexpanded).unwrap_or_default();
            value.refuse(format!("must be 32 hexadecimal digits in quotes{fix}"))
        })
}

/// A log filter. A mistyped level alone would be taken for the name of a module and then log
/// everything of it, so it is refused here.
fn filter(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    for directive in text.split(',').map(str::trim) {
        let lower = directive.to_ascii_lowercase();
        if let Some(near) = nearest(&lower, &LEVELS)
            && near != lower
        {
            let directive = quoted(directive);
            return value.refuse(format!("unknown level {directive}, did you mean `{near}`?"));
        }
    }
    // Its parser takes bytes for characters, and panics on the latter.
    if !text.is_ascii() || text.trim().is_empty() || EnvFilter::builder().parse(text).is_err() {
        return value.must_be("a filter such as `info` or `info,bowline::proxy=debug`");
    }
    Some(text.to_owned())
}
