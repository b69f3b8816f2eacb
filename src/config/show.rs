//! Settings as the YAML that says the same: every default filled in, no secret.

mod map;

use serde_yaml::Value;

use super::admin_listener::{Admin, AdminToken, ROLES};
use super::bosh;
use super::listen::{Listen, ListenAddress};
use super::node_opening::VERSIONS;
use super::node_source::{Discovery, DnsDiscovery, DnsRecord, RECORDS};
use super::sections::{AFFINITIES, LOG_FORMATS, PLACEMENTS, RELEASES};
use super::settings::{
    AccessLog, Bosh, CertificateFiles, Cors, Health, HostAttribute, LandingMode, Limits, Log,
    NodeList, NodeSettings, NodeTls, Origins, Placement, Probe, Settings, Snapshot, Timeouts, Tls,
    Traces, Upstream, WebSocket, WebSocketUrl,
};
use super::web::OWNERS;
use map::{Map, duration, list, networks, or_off, path, size, text, texts, word};

/// What stands above the settings if they have a key that is not shown.
const REDACTED: &str = "# redacted: log.session_key. It is a secret: copy it from the file.\n";

/// The settings as a configuration file, which is read as the same settings. Secrets are missing: a
/// comment at the top names them. Files are named, not read.
#[must_use]
pub fn show(settings: &Settings) -> String {
    let note = match settings.log.session_key {
        Some(_) => REDACTED,
        None => "",
    };
    // Texts, numbers and truth values under texts can always be written.
    let yaml = serde_yaml::to_string(&tree(settings)).unwrap_or_default();
    format!("{note}{yaml}")
}

/// The same as a tree. A new setting has to be named here: the patterns are complete.
pub(super) fn tree(settings: &Settings) -> Value {
    let Settings {
        listen,
        bosh,
        host_attribute,
        affinity,
        affinity_ttl,
        placement,
        placement_wait,
        zone,
        trusted_proxies,
        cors,
        node_list,
        websocket,
        nodes,
        discovery,
        health,
        upstream,
        admin,
        limits,
        timeouts,
        log,
        reload_on_change,
        snapshot,
        takeover,
        traces,
        threads,
    } = settings;
    Map::new()
        .with("listen", list(listen, self::listen))
        .with("bosh", self::bosh(bosh))
        .with("host_attribute", self::host_attribute(host_attribute))
        .with("affinity", word(&AFFINITIES, affinity))
        .with("affinity_ttl", duration(*affinity_ttl))
        .with("placement", self::placement(placement))
        .with("placement_wait", duration(*placement_wait))
        .maybe("zone", zone.as_deref())
        .with("trusted_proxies", networks(trusted_proxies))
        .with("cors", self::cors(cors))
        .with("node_list", or_off(node_list.as_ref(), self::node_list))
        .with("websocket", or_off(websocket.as_ref(), self::websocket))
        .with(
            "nodes",
            match discovery {
                Some(discovery) => self::discovery(discovery),
                None => list(nodes, node),
            },
        )
        .with("health", self::health(health))
        .with("upstream", self::upstream(upstream))
        .with("admin", or_off(admin.as_ref(), self::admin))
        .with("limits", self::limits(limits))
        .with("timeouts", self::timeouts(timeouts))
        .with("log", self::log(log))
        .with("reload_on_change", *reload_on_change)
        .with("snapshot", or_off(snapshot.as_ref(), self::snapshot))
        .maybe("takeover", takeover.as_deref().map(path))
        .maybe("traces", traces.as_ref().map(self::traces))
        .with("threads", *threads as u64)
        .into()
}

fn listen(listen: &Listen) -> Map {
    let Listen {
        address,
        mode,
        h2c,
        tls,
        redirect_to_https,
        proxy_protocol,
    } = listen;
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let proxies = proxy_protocol.as_ref();
    Map::new()
        .with("address", text(address))
        .maybe("mode", is_unix.then(|| format!("{mode:04o}")))
        .with("h2c", *h2c)
        .maybe("tls", tls.as_ref().map(self::tls))
        .maybe("redirect", redirect_to_https.then_some("https"))
        .with(
            "proxy_protocol",
            or_off(proxies, |proxies| {
                Map::new().with("from", networks(&proxies.from))
            }),
        )
}

fn tls(tls: &Tls) -> Map {
    let Tls {
        certificates,
        client_ca,
    } = tls;
    let files = |files: &CertificateFiles| {
        Map::new()
            .with("certificate", path(&files.certificate))
            .with("key", path(&files.key))
    };
    Map::new()
        .with("certificates", list(certificates, files))
        .maybe("client_ca", client_ca.as_deref().map(path))
}

fn bosh(bosh: &Bosh) -> Map {
    let Bosh {
        paths,
        max_body,
        max_answer,
        creation_from,
        query,
        answer_headers,
    } = bosh;
    Map::new()
        .with("paths", texts(paths))
        .with("max_body", size(*max_body))
        .with("max_answer", size(*max_answer))
        .with("creation_from", word(&bosh::CREATION_FROM, creation_from))
        .with("query", word(&bosh::QUERY, query))
        .with("answer_headers", texts(answer_headers))
}

fn host_attribute(attribute: &HostAttribute) -> Value {
    match attribute {
        HostAttribute::Strip => "strip".into(),
        HostAttribute::Pass => "pass".into(),
        HostAttribute::Rewrite(name) => Map::new().with("rewrite", &**name).into(),
    }
}

fn placement(placement: &Placement) -> Value {
    match placement {
        Placement::Query(name) => format!("query:{name}").into(),
        other => word(&PLACEMENTS, other).into(),
    }
}

fn cors(cors: &Cors) -> Map {
    let Cors {
        owner,
        origins,
        credentials,
        headers,
    } = cors;
    Map::new()
        .with("owner", word(&OWNERS, owner))
        .with(
            "origins",
            match origins {
                Origins::Any => texts(&["*".to_owned()]),
                Origins::Only(origins) => texts(origins),
            },
        )
        .with("credentials", *credentials)
        .with("headers", texts(headers))
}

fn node_list(list: &NodeList) -> Map {
    let NodeList {
        path,
        max_age,
        host_meta,
    } = list;
    Map::new()
        .with("path", path.as_str())
        .with("max_age", duration(*max_age))
        .with("host_meta", *host_meta)
}

fn websocket(websocket: &WebSocket) -> Map {
    let WebSocket {
        paths,
        query,
        idle,
        pong,
        max_frame,
    } = websocket;
    Map::new()
        .with("paths", texts(paths))
        .with("query", word(&bosh::QUERY, query))
        .with("idle", duration(*idle))
        .with("pong", duration(*pong))
        .with("max_frame", size(*max_frame))
}

fn discovery(discovery: &Discovery) -> Value {
    let DnsDiscovery {
        name,
        port,
        record,
        refresh,
        server,
    } = match discovery {
        Discovery::File(file) => return Map::new().with("file", path(file)).into(),
        Discovery::Dns(dns) => dns,
    };
    let port = (*record != DnsRecord::Srv).then_some(u64::from(*port));
    let dns = Map::new()
        .with("name", name.as_str())
        .with("type", word(&RECORDS, record))
        .maybe("port", port)
        .with("refresh", duration(*refresh))
        .maybe("server", server.as_ref().map(text));
    Map::new().with("dns", dns).into()
}

fn node(node: &NodeSettings) -> Map {
    let NodeSettings {
        name,
        address,
        weight,
        max_sessions,
        backup,
        zone,
        state,
        public_url,
        websocket,
        tls,
        send_proxy,
    } = node;
    let url = |url: &WebSocketUrl| {
        let WebSocketUrl { tls, address, path } = url;
        let scheme = if *tls { "wss" } else { "ws" };
        format!("{scheme}://{address}{path}")
    };
    Map::new()
        .with("name", name.as_str())
        .with("address", address.as_str())
        .with("weight", u64::from(*weight))
        .with("max_sessions", u64::from(*max_sessions))
        .with("backup", *backup)
        .maybe("zone", zone.as_deref())
        .maybe("state", state.map(|state| state.word()))
        .maybe("public_url", public_url.as_deref())
        .maybe("websocket", websocket.as_ref().map(url))
        .with("tls", or_off(tls.as_ref(), node_tls))
        .with("send_proxy", word(&VERSIONS, send_proxy))
}

fn node_tls(tls: &NodeTls) -> Map {
    let NodeTls {
        verify,
        ca,
        server_name,
    } = tls;
    Map::new()
        .with("verify", *verify)
        .maybe("ca", ca.as_deref().map(path))
        .maybe("server_name", server_name.as_deref())
}

fn health(health: &Health) -> Map {
    let Health {
        probe,
        host,
        interval,
        fast_interval,
        timeout,
        rise,
        fall,
        silence,
        slow_start,
        penalty,
        penalty_max,
    } = health;
    let (probe, path) = match probe {
        Probe::Bosh => ("bosh", None),
        Probe::Http { path } => ("http", Some(path.as_str())),
        Probe::Tcp => ("tcp", None),
    };
    Map::new()
        .with("probe", probe)
        .maybe("path", path)
        .maybe("host", host.as_deref())
        .with("interval", duration(*interval))
        .with("fast_interval", duration(*fast_interval))
        .with("timeout", duration(*timeout))
        .with("rise", u64::from(*rise))
        .with("fall", u64::from(*fall))
        .with("silence", duration(*silence))
        .with("slow_start", duration(*slow_start))
        .with("penalty", duration(*penalty))
        .with("penalty_max", duration(*penalty_max))
}

/// Without `tls` and `send_proxy`: each node has its own.
fn upstream(upstream: &Upstream) -> Map {
    let Upstream {
        connecting,
        connects_per_second,
        release,
    } = upstream;
    Map::new()
        .with("connecting", *connecting as u64)
        .with("connects_per_second", *connects_per_second as u64)
        .with("release", word(&RELEASES, release))
}

fn admin(admin: &Admin) -> Map {
    let Admin {
        address,
        token_file,
        tokens,
        hosts,
        probes,
    } = admin;
    let token = |token: &AdminToken| {
        let AdminToken { name, file, role } = token;
        Map::new()
            .with("name", name.as_str())
            .with("file", path(file))
            .with("role", word(&ROLES, role))
    };
    let probes = probes
        .as_ref()
        .map(|address| Map::new().with("address", text(address)));
    Map::new()
        .with("address", text(address))
        .maybe("token_file", token_file.as_deref().map(path))
        .maybe("tokens", (!tokens.is_empty()).then(|| list(tokens, token)))
        .with("hosts", texts(hosts))
        .maybe("probes", probes)
}

fn limits(limits: &Limits) -> Map {
    let Limits {
        connections,
        handshakes,
        connections_per_client,
        streams,
        body_memory,
        answer_memory,
        sessions,
        creations_per_client,
        creations_burst,
        unknown_sids_per_second,
        unknown_sids_per_client,
        landing,
        exempt,
    } = limits;
    // Without a rate it has no effect, and is refused.
    let burst = (*creations_per_client > 0).then_some(u64::from(*creations_burst));
    Map::new()
        .with("connections", *connections as u64)
        .with("handshakes", *handshakes as u64)
        .with("connections_per_client", *connections_per_client as u64)
        .with("streams", *streams as u64)
        .with("body_memory", size(*body_memory))
        .with("answer_memory", size(*answer_memory))
        .with("sessions", *sessions as u64)
        .with("creations_per_client", u64::from(*creations_per_client))
        .maybe("creations_burst", burst)
        .with(
            "unknown_sids_per_second",
            u64::from(*unknown_sids_per_second),
        )
        .with(
            "unknown_sids_per_client",
            u64::from(*unknown_sids_per_client),
        )
        .with(
            "landing",
            match landing {
                LandingMode::Auto => "auto".into(),
                LandingMode::Off => "off".into(),
                LandingMode::PerSecond(rate) => Value::from(rate.get()),
            },
        )
        .with("exempt", networks(exempt))
}

fn timeouts(timeouts: &Timeouts) -> Map {
    let Timeouts {
        retry,
        head,
        body,
        write_stall,
        idle,
        connect,
        drain_notice,
        drain,
    } = timeouts;
    Map::new()
        .with("head", duration(*head))
        .with("body", duration(*body))
        .with("write_stall", duration(*write_stall))
        .with("idle", duration(*idle))
        .with("connect", duration(*connect))
        .with("retry", duration(*retry))
        .with("drain_notice", duration(*drain_notice))
        .with("drain", duration(*drain))
}

fn log(log: &Log) -> Map {
    let Log {
        format,
        filter,
        access,
        session_key: _,
    } = log;
    let access: Value = match access {
        AccessLog::Off => "off".into(),
        AccessLog::On => "on".into(),
        AccessLog::Failures => "failures".into(),
        AccessLog::Sample(sample) => Map::new().with("sample", u64::from(sample.get())).into(),
    };
    Map::new()
        .with("format", word(&LOG_FORMATS, format))
        .with("filter", filter.as_str())
        .with("access", access)
}

fn snapshot(snapshot: &Snapshot) -> Map {
    let Snapshot { file, interval } = snapshot;
    Map::new()
        .with("file", path(file))
        .with("interval", duration(*interval))
}

fn traces(traces: &Traces) -> Map {
    let Traces { endpoint, sample } = traces;
    Map::new()
        .with("endpoint", endpoint.as_str())
        .with("sample", u64::from(*sample))
}

#[cfg(test)]
pub(super) mod tests;
