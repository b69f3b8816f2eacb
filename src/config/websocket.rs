//! The section `websocket`, and where a node takes WebSocket.

use std::net::IpAddr;
use std::time::Duration;

use super::check;
use super::node_source;
use super::read::{Section, Value, quoted};
use super::sections::{KIB, MIB, MOST_ENTRIES, MOST_NODES, texts};
use super::settings::{QueryPolicy, WebSocket, WebSocketUrl};

const QUERIES: [(&str, QueryPolicy); 2] =
    [("drop", QueryPolicy::Drop), ("pass", QueryPolicy::Pass)];

/// The least of a duration.
const SHORTEST: Duration = Duration::from_millis(10);

/// WebSocket beside BOSH, whose paths are `bosh`.
pub(super) fn websocket(root: &Section<'_>, bosh: &[String]) -> Option<WebSocket> {
    let value = root.get("websocket");
    let Some(value) = value.filter(|value| !value.is_null() && !value.is_off()) else {
        let nodes = root
            .get("nodes")
            .filter(|nodes| !node_source::is_source(nodes))
            .map(|nodes| nodes.list(1..=MOST_NODES));
        let url = nodes.iter().flatten().find_map(url);
        return url?.refuse("has no effect without the section `websocket`");
    };
    let section = value.section_or("a mapping or `off`")?;
    let default = WebSocket::default();
    let paths = section.get("paths");
    let paths = paths.map_or(default.paths, |value| {
        texts(&value, 1..=MOST_ENTRIES, check::path)
    });
    let is_bosh = |path: &&String| {
        let bare = path.strip_suffix('/').unwrap_or(path);
        bosh.iter().any(|bosh| bosh == *path || bosh == bare)
    };
    if let Some(path) = paths.iter().find(is_bosh) {
        section.refuse(
            "paths",
            format!("{} is already in `bosh.paths`", quoted(path)),
        );
    }
    let list = root
        .get("node_list")
        .filter(|value| !value.is_null() && !value.is_off());
    let list = list.and_then(|value| value.section()?.get("path")?.word());
    if let Some(path) = paths.iter().find(|path| list == Some(path)) {
        section.refuse(
            "paths",
            format!("{} is already the path of `node_list`", quoted(path)),
        );
    }
    Some(WebSocket {
        paths,
        query: section.choice("query", default.query, &QUERIES),
        idle: section.duration("idle", default.idle, SHORTEST),
        pong: section.duration("pong", default.pong, SHORTEST),
        max_frame: section.size("max_frame", default.max_frame, KIB..=64 * MIB),
    })
}

/// The `websocket` of an entry of `nodes`.
fn url<'t>(entry: &Value<'t>) -> Option<Value<'t>> {
    entry.clone().section()?.get("websocket")
}

/// Where a node takes WebSocket, if its entry says so.
pub(super) fn node(section: &Section<'_>, encrypted: bool) -> Option<WebSocketUrl> {
    let value = section.get("websocket")?;
    let (tls, address, path) = match check::websocket_url(value.text()?) {
        Ok(url) => url,
        Err(must) => return value.must(must),
    };
    let host = host(address);
    let own = section.get("address").and_then(|value| value.word());
    let is_ip = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if !is_ip && own.is_some_and(|own| !self::host(own).eq_ignore_ascii_case(host)) {
        return value.must("have the host of the node's `address`, or an IP address");
    }
    if tls && !encrypted {
        return value.refuse("needs the node's `tls` for `wss`");
    }
    Some(WebSocketUrl {
        tls,
        address: address.to_owned(),
        path: path.to_owned(),
    })
}

/// The host of `host:port`.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
