//! The nodes: a list, or what says which there are.

use super::defaults::{MAX_SESSIONS, WEIGHT};
use super::node_source::{self, Discovery};
use super::read::{Section, Value};
use super::sections::MOST_NODES;
use super::settings::{NodeSettings, NodeState, NodeTls, ProxyVersion};
use super::{check, node_opening, web, websocket};

pub(super) const NODE_STATES: [(&str, Option<NodeState>); 3] = [
    ("ready", Some(NodeState::Ready)),
    ("drain", Some(NodeState::Drain)),
    ("maint", Some(NodeState::Maint)),
];

/// The nodes that are listed, or what says which there are.
pub(super) fn nodes_or_discovery(
    root: &Section<'_>,
    opening: (Option<&NodeTls>, Option<ProxyVersion>),
) -> (Vec<NodeSettings>, Option<Discovery>) {
    match root.need("nodes") {
        Some(value) if node_source::is_source(&value) => {
            (Vec::new(), node_source::discovery(&value))
        }
        Some(value) => (nodes(&value, opening), None),
        None => (Vec::new(), None),
    }
}

/// The nodes of a file that has nothing else.
pub(super) fn only_nodes(root: &Section<'_>) -> Vec<NodeSettings> {
    root.only("nodes", "a file of nodes has `nodes` alone");
    let value = root.need("nodes");
    value.map_or_else(Vec::new, |value| nodes(&value, (None, None)))
}

/// `tls` and `send_proxy` are those of nodes that have none of their own.
fn nodes(
    value: &Value<'_>,
    (tls, send_proxy): (Option<&NodeTls>, Option<ProxyVersion>),
) -> Vec<NodeSettings> {
    let mut nodes: Vec<NodeSettings> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for item in value.list(1..=MOST_NODES) {
        let place = item.key().to_owned();
        let Some(section) = item.section() else {
            continue;
        };
        let (name, address) = (section.need("name"), section.need("address"));
        let name = name.and_then(|value| node_name(&value, &nodes));
        let address = address.and_then(|value| node_address(&value, &nodes, &mut seen));
        let tls = node_opening::node(&section, tls);
        let is_unix = address
            .as_ref()
            .is_some_and(|address| address.starts_with(check::UNIX));
        if is_unix && tls.as_ref().is_some_and(|tls| tls.server_name.is_none()) {
            section.refuse("tls", "needs `server_name`: a Unix socket has no host");
        }
        let node = NodeSettings {
            // A place is no name, so that no other node has it.
            name: name.unwrap_or(place),
            address: address.unwrap_or_default(),
            weight: section.count("weight", WEIGHT, 1..=256),
            max_sessions: section.count("max_sessions", MAX_SESSIONS, 0..=100_000_000),
            backup: section.flag("backup", false),
            zone: zone(&section),
            state: section.choice("state", None, &NODE_STATES),
            public_url: web::public_url(&section, &nodes),
            websocket: websocket::node(&section, tls.is_some()),
            tls,
            send_proxy: node_opening::send_proxy(&section, send_proxy),
        };
        seen.resize(nodes.len() + 1, String::new());
        nodes.push(node);
    }
    nodes
}

/// The zone at this place.
pub(super) fn zone(section: &Section<'_>) -> Option<String> {
    let value = section.get("zone")?;
    let zone = value.text()?;
    if !check::is_node_name(zone) {
        return value.must_be("1 to 64 of the characters A-Z a-z 0-9 . _ -");
    }
    Some(zone.to_owned())
}

fn node_name(value: &Value<'_>, others: &[NodeSettings]) -> Option<String> {
    let name = value.text()?;
    if !check::is_node_name(name) {
        return value.must_be("1 to 64 of the characters A-Z a-z 0-9 . _ -");
    }
    if others.iter().any(|other| other.name == name) {
        return value.refuse(format!("two nodes have the name `{name}`"));
    }
    Some(name.to_owned())
}

/// `seen` are the canonical addresses of `others`, and gets this one.
fn node_address(
    value: &Value<'_>,
    others: &[NodeSettings],
    seen: &mut Vec<String>,
) -> Option<String> {
    let address = value.ruled(check::node_address)?;
    let canonical = check::canonical_host_port(address);
    if let Some(index) = seen.iter().position(|other| *other == canonical) {
        let other = &others[index].name;
        return value.refuse(format!("`{address}` is already the address of `{other}`"));
    }
    seen.push(canonical);
    Some(address.to_owned())
}
