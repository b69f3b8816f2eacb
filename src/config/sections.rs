//! The sections of the file, each read once into its settings: one line a key, with default and
//! range.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::bosh;
use super::check;
use super::defaults::{
    AFFINITY, AFFINITY_TTL, MAX_SESSIONS, MOST_THREADS, PLACEMENT, PLACEMENT_WAIT, PROBE_PATH,
    WEIGHT, threads,
};
use super::nearest::nearest;
use super::read::{Fault, Section, Value, quoted};
use super::settings::{
    AccessLog, Admin, Affinity, Health, Limits, Listen, Log, LogFormat, NodeSettings, Placement,
    Probe, Release, Settings, Timeouts, Traces, Upstream,
};
use super::units::{show_duration, show_size};
use super::web;

/// The most entries of any list but `nodes`.
pub(super) const MOST_ENTRIES: usize = 256;
/// The most sessions of which one is logged.
const MOST_SAMPLE: u32 = 1_000_000;
/// The most nodes.
const MOST_NODES: usize = 1024;
/// The least of a duration that may not be nothing.
const SHORTEST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

const AFFINITIES: [(&str, Affinity); 2] =
    [("sid", Affinity::Sid), ("client-ip", Affinity::ClientIp)];
const PLACEMENTS: [(&str, Placement); 4] = [
    ("client-ip", Placement::ClientIp),
    ("least-sessions", Placement::LeastSessions),
    ("round-robin", Placement::RoundRobin),
    ("random", Placement::Random),
];
const RELEASES: [(&str, Release); 2] =
    [("half-close", Release::HalfClose), ("keep", Release::Keep)];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The whole file.
pub(super) fn settings(root: &Section<'_>) -> Result<Settings, Fault> {
    let listen = listen(&root.need("listen")?)?;
    let bosh = bosh::bosh(&root.section("bosh")?)?;
    let nodes = nodes(&root.need("nodes")?)?;
    Ok(Settings {
        host_attribute: bosh::host_attribute(root.get("host_attribute"))?,
        affinity: root.choice("affinity", AFFINITY, &AFFINITIES)?,
        affinity_ttl: root.duration("affinity_ttl", AFFINITY_TTL, SECOND)?,
        placement: root.choice("placement", PLACEMENT, &PLACEMENTS)?,
        placement_wait: root.duration("placement_wait", PLACEMENT_WAIT, Duration::ZERO)?,
        trusted_proxies: networks(root.get("trusted_proxies"), Vec::new())?,
        cors: web::cors(&root.section("cors")?)?,
        node_list: web::node_list(root, &nodes, &bosh.paths)?,
        health: health(&root.section("health")?)?,
        upstream: upstream(&root.section("upstream")?)?,
        admin: admin(root.get("admin"), &listen)?,
        limits: limits(&root.section("limits")?, bosh.max_body)?,
        timeouts: timeouts(&root.section("timeouts")?)?,
        log: log(&root.section("log")?)?,
        traces: traces(root.get("traces"))?,
        threads: root.count("threads", threads(), 1..=MOST_THREADS)?,
        listen,
        bosh,
        nodes,
    })
}

fn listen(value: &Value<'_>) -> Result<Vec<Listen>, Fault> {
    let mut listen: Vec<Listen> = Vec::new();
    for item in value.list(MOST_ENTRIES)? {
        let address_value = item.section()?.need("address")?;
        let address = socket_address(&address_value)?;
        let taken = listen.iter().any(|other| other.address == address);
        if taken && address.port() != 0 {
            return Err(address_value.fault(format!("{address} is listed twice")));
        }
        listen.push(Listen { address });
    }
    if listen.is_empty() {
        return Err(value.fault("must have at least one entry"));
    }
    Ok(listen)
}

fn socket_address(value: &Value<'_>) -> Result<SocketAddr, Fault> {
    value
        .text()?
        .parse()
        .map_err(|_| value.must_be("an IP address and a port such as `0.0.0.0:5280`"))
}

/// A list of texts that a rule accepts, none of them twice.
pub(super) fn texts(
    value: &Value<'_>,
    rule: fn(&str) -> Result<(), &'static str>,
) -> Result<Vec<String>, Fault> {
    let mut texts: Vec<String> = Vec::new();
    for item in value.list(MOST_ENTRIES)? {
        let text = item.text()?;
        rule(text).map_err(|must| item.must(must))?;
        if texts.iter().any(|other| other == text) {
            return Err(item.fault(format!("{} is listed twice", quoted(text))));
        }
        texts.push(text.to_owned());
    }
    Ok(texts)
}

fn networks(value: Option<Value<'_>>, default: Vec<IpNet>) -> Result<Vec<IpNet>, Fault> {
    let Some(value) = value else {
        return Ok(default);
    };
    value
        .list(MOST_ENTRIES)?
        .iter()
        .map(|item| {
            let text = item.text()?;
            let network = text.parse::<IpNet>().ok();
            network
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
                .map(|network| network.trunc())
                .ok_or_else(|| item.must_be("an IP address or a network such as `10.0.0.0/8`"))
        })
        .collect()
}

fn nodes(value: &Value<'_>) -> Result<Vec<NodeSettings>, Fault> {
    let mut nodes: Vec<NodeSettings> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for item in value.list(MOST_NODES)? {
        let section = item.section()?;
        let (name, address) = (section.need("name")?, section.need("address")?);
        let node = NodeSettings {
            name: name.text()?.to_owned(),
            address: address.text()?.to_owned(),
            weight: section.count("weight", WEIGHT, 1..=256)?,
            max_sessions: section.count("max_sessions", MAX_SESSIONS, 0..=100_000_000)?,
            public_url: web::public_url(&section, &nodes)?,
        };
        if !check::is_node_name(&node.name) {
            return Err(name.must_be("1 to 64 of the characters A-Z a-z 0-9 . _ -"));
        }
        check::host_port(&node.address).map_err(|must| address.must(must))?;
        if nodes.iter().any(|other| other.name == node.name) {
            return Err(name.fault(format!("two nodes have the name `{}`", node.name)));
        }
        let canonical = check::canonical_host_port(&node.address);
        if let Some(index) = seen.iter().position(|other| *other == canonical) {
            let (other, address_text) = (&nodes[index].name, &node.address);
            let reason = format!("`{address_text}` is already the address of `{other}`");
            return Err(address.fault(reason));
        }
        seen.push(canonical);
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err(value.fault("must have at least one entry"));
    }
    Ok(nodes)
}

fn health(section: &Section<'_>) -> Result<Health, Fault> {
    let default = Health::default();
    let interval = section.duration("interval", default.interval, SHORTEST)?;
    let within = |key, default: Duration| {
        let duration = section.duration(key, default.min(interval), SHORTEST)?;
        if duration > interval {
            let (at_most, is) = (show_duration(interval), show_duration(duration));
            let reason = format!("must be at most `interval`, which is {at_most}, is {is}");
            return Err(section.need(key)?.fault(reason));
        }
        Ok(duration)
    };
    let (penalty, penalty_max) = penalties(section, &default)?;
    let probe = probe(section)?;
    let timeout = within("timeout", default.timeout)?;
    Ok(Health {
        host: probe_host(section, &probe)?,
        probe,
        interval,
        fast_interval: within("fast_interval", default.fast_interval)?,
        timeout,
        silence: silence(section, timeout, default.silence)?,
        rise: section.count("rise", default.rise, 1..=100)?,
        fall: section.count("fall", default.fall, 1..=100)?,
        slow_start: section.duration("slow_start", default.slow_start, Duration::ZERO)?,
        penalty,
        penalty_max,
    })
}

/// How long a silent node keeps its sessions: no less than one probe may take.
fn silence(section: &Section<'_>, timeout: Duration, default: Duration) -> Result<Duration, Fault> {
    let silence = section.duration("silence", default.max(timeout), SHORTEST)?;
    if silence < timeout {
        let (least, is) = (show_duration(timeout), show_duration(silence));
        let reason = format!("must be at least `timeout`, which is {least}, is {is}");
        return Err(section.need("silence")?.fault(reason));
    }
    Ok(silence)
}

/// The first penalty and the longest one.
fn penalties(section: &Section<'_>, default: &Health) -> Result<(Duration, Duration), Fault> {
    let most = section.duration("penalty_max", default.penalty_max, SHORTEST)?;
    let penalty = section.duration("penalty", default.penalty.min(most), Duration::ZERO)?;
    if penalty > most {
        let (at_most, is) = (show_duration(most), show_duration(penalty));
        let reason = format!("must be at most `penalty_max`, which is {at_most}, is {is}");
        return Err(section.need("penalty")?.fault(reason));
    }
    Ok((penalty, most))
}

fn probe(section: &Section<'_>) -> Result<Probe, Fault> {
    let http = Probe::Http {
        path: PROBE_PATH.to_owned(),
    };
    let words = [
        ("bosh", &Probe::Bosh),
        ("http", &http),
        ("tcp", &Probe::Tcp),
    ];
    let probe = section.choice("probe", &Probe::Bosh, &words)?;
    let Some(value) = section.get("path") else {
        return Ok(probe.clone());
    };
    if *probe != http {
        return Err(value.fault("has no effect without `probe: http`"));
    }
    let path = value.text()?;
    check::path(path).map_err(|must| value.must(must))?;
    Ok(Probe::Http {
        path: path.to_owned(),
    })
}

/// The `Host` of probes, which a bare connect has none of.
fn probe_host(section: &Section<'_>, probe: &Probe) -> Result<Option<String>, Fault> {
    let Some(value) = section.get("host") else {
        return Ok(None);
    };
    if *probe == Probe::Tcp {
        return Err(value.fault("has no effect with `probe: tcp`"));
    }
    let host = value.text()?;
    check::authority(host).map_err(|must| value.must(must))?;
    Ok(Some(host.to_owned()))
}

fn upstream(section: &Section<'_>) -> Result<Upstream, Fault> {
    let default = Upstream::default();
    let per_second = default.connects_per_second;
    Ok(Upstream {
        connecting: section.count("connecting", default.connecting, 1..=10_000)?,
        connects_per_second: section.count("connects_per_second", per_second, 0..=100_000)?,
        release: section.choice("release", default.release, &RELEASES)?,
    })
}

fn admin(value: Option<Value<'_>>, listen: &[Listen]) -> Result<Option<Admin>, Fault> {
    let Some(value) = value else {
        return Ok(Some(Admin::default()));
    };
    if value.is_off() {
        return Ok(None);
    }
    if value.is_null() {
        return Err(value.fault("has no value: give an `address`, or `off`"));
    }
    let section = value.section_or("a mapping or `off`")?;
    let default = Admin::default();
    let token_file = match section.get("token_file") {
        Some(value) if value.text()?.is_empty() => return Err(value.must_be("a file's path")),
        Some(value) => Some(PathBuf::from(value.text()?)),
        None => None,
    };
    let hosts = match section.get("hosts") {
        Some(value) => texts(&value, check::host_name)?,
        None => default.hosts,
    };
    let address = match section.get("address") {
        Some(value) => admin_address(&value, token_file.is_some(), listen)?,
        None => default.address,
    };
    Ok(Some(Admin {
        address,
        token_file,
        hosts,
    }))
}

fn admin_address(
    value: &Value<'_>,
    protected: bool,
    listen: &[Listen],
) -> Result<SocketAddr, Fault> {
    let address = socket_address(value)?;
    if !protected && !address.ip().to_canonical().is_loopback() {
        let what = "a loopback address such as `127.0.0.1:9280` while no `admin.token_file` \
            protects it";
        return Err(value.must_be(what));
    }
    let shared = listen.iter().any(|other| other.address == address);
    if shared && address.port() != 0 {
        return Err(value.fault(format!("{address} is already in `listen`")));
    }
    Ok(address)
}

fn limits(section: &Section<'_>, max_body: usize) -> Result<Limits, Fault> {
    let default = Limits::default();
    let rate = |key, default| section.count(key, default, 0..=1_000_000);
    let limits = Limits {
        connections: section.count("connections", default.connections, 1..=10_000_000)?,
        connections_per_client: section.count(
            "connections_per_client",
            default.connections_per_client,
            0..=10_000_000,
        )?,
        body_memory: section.size("body_memory", default.body_memory, MIB..=65_536 * MIB)?,
        sessions: section.count("sessions", default.sessions, 1..=100_000_000)?,
        creations_per_client: rate("creations_per_client", default.creations_per_client)?,
        creations_burst: section.count(
            "creations_burst",
            default.creations_burst,
            1..=10_000_000,
        )?,
        unknown_sids_per_second: rate("unknown_sids_per_second", default.unknown_sids_per_second)?,
        unknown_sids_per_client: rate("unknown_sids_per_client", default.unknown_sids_per_client)?,
        exempt: networks(section.get("exempt"), default.exempt)?,
    };
    if limits.body_memory < max_body
        && let Some(value) = section.get("body_memory")
    {
        let (least, is) = (
            show_size(max_body as u64),
            show_size(limits.body_memory as u64),
        );
        let reason = format!("must be at least `bosh.max_body`, which is {least}, is {is}");
        return Err(value.fault(reason));
    }
    if limits.creations_per_client == 0
        && let Some(value) = section.get("creations_burst")
    {
        return Err(value.fault("has no effect with `creations_per_client: 0`"));
    }
    Ok(limits)
}

fn timeouts(section: &Section<'_>) -> Result<Timeouts, Fault> {
    let default = Timeouts::default();
    let duration = |key, default, least| section.duration(key, default, least);
    Ok(Timeouts {
        head: duration("head", default.head, SHORTEST)?,
        body: duration("body", default.body, SHORTEST)?,
        write_stall: duration("write_stall", default.write_stall, SHORTEST)?,
        idle: duration("idle", default.idle, SHORTEST)?,
        connect: duration("connect", default.connect, SHORTEST)?,
        drain_notice: duration("drain_notice", default.drain_notice, Duration::ZERO)?,
        drain: duration("drain", default.drain, Duration::ZERO)?,
    })
}

fn log(section: &Section<'_>) -> Result<Log, Fault> {
    let default = Log::default();
    let filter = match section.get("filter") {
        Some(value) => filter(&value)?,
        None => default.filter,
    };
    let access = match section.get("access") {
        Some(value) => access_log(value)?,
        None => default.access,
    };
    let session_key = section.get("session_key").map(|value| session_key(&value));
    Ok(Log {
        format: section.choice("format", default.format, &LOG_FORMATS)?,
        filter,
        access,
        session_key: session_key.transpose()?,
    })
}

fn access_log(value: Value<'_>) -> Result<AccessLog, Fault> {
    if value.is_off() {
        return Ok(AccessLog::Off);
    }
    if value.is_on() {
        return Ok(AccessLog::On);
    }
    if value.text().is_ok_and(|text| text == "failures") {
        return Ok(AccessLog::Failures);
    }
    if value.is_null() {
        return Err(value.fault("has no value"));
    }
    let section = value.section_or("one of off, on, failures, or a mapping with `sample`")?;
    section.need("sample")?;
    let sample = section.count("sample", NonZeroU32::MIN.get(), 2..=MOST_SAMPLE)?;
    NonZeroU32::new(sample).map_or(Ok(AccessLog::On), |sample| Ok(AccessLog::Sample(sample)))
}

fn traces(value: Option<Value<'_>>) -> Result<Option<Traces>, Fault> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let section = value.clone().section()?;
    let sample = section.count("sample", 1, 1..=MOST_SAMPLE)?;
    let endpoint_value = section.need("endpoint")?;
    let endpoint = check::collector(endpoint_value.text()?);
    let endpoint = endpoint.map_err(|must| endpoint_value.must(must))?;
    if !cfg!(feature = "otlp") {
        return Err(value.fault("needs a Bowline that was built with `--features otlp`"));
    }
    Ok(Some(Traces { endpoint, sample }))
}

/// A key in hexadecimal. It is a secret, so that no message shows it.
fn session_key(value: &Value<'_>) -> Result<u128, Fault> {
    let text = value
        .text()
        .ok()
        .filter(|text| text.len() == 32 && text.bytes().all(|letter| letter.is_ascii_hexdigit()));
    text.and_then(|text| u128::from_str_radix(text, 16).ok())
        .ok_or_else(|| value.fault("must be 32 hexadecimal digits in quotes"))
}

/// A log filter. A mistyped level alone would be taken for the name of a module and then log
/// everything of it, so it is refused here.
fn filter(value: &Value<'_>) -> Result<String, Fault> {
    let text = value.text()?;
    for directive in text.split(',').map(str::trim) {
        let lower = directive.to_ascii_lowercase();
        if let Some(near) = nearest(&lower, &LEVELS)
            && near != lower
        {
            let reason = format!(
                "unknown level {}, did you mean `{near}`?",
                quoted(directive)
            );
            return Err(value.fault(reason));
        }
    }
    // Its parser takes bytes for characters, and panics on the latter.
    if !text.is_ascii() || text.trim().is_empty() || EnvFilter::builder().parse(text).is_err() {
        return Err(value.must_be("a filter such as `info` or `info,bowline::proxy=debug`"));
    }
    Ok(text.to_owned())
}
