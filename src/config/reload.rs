//! What a new configuration changes in a running balancer, and what of it waits for a restart.

use super::settings::{
    Bosh, Health, Limits, Listen, Log, NodeSettings, NodeState, Placement, Settings, Timeouts,
    Upstream,
};

/// The step from one configuration to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// The settings from now on: the new ones, with the old values of what waits for a restart.
    pub settings: Settings,
    /// What changes at once, in words; empty if nothing does.
    pub changed: Vec<String>,
    /// The keys that differ and wait for a restart.
    pub needs_restart: Vec<&'static str>,
    /// Connections with clients are served by other settings from now on.
    pub client_side: bool,
    /// The limits change, or who is exempt from those of one client.
    pub limits: bool,
}

impl Reload {
    /// The step from the settings in force to those of a file.
    pub fn new(old: &Settings, new: &Settings) -> Self {
        let mut new = new.clone();
        if new.discovery.is_some() {
            // Until the next look they are what was found last.
            new.nodes.clone_from(&old.nodes);
        }
        let new = &new;
        let mut step = Self {
            settings: new.clone(),
            changed: Vec::new(),
            needs_restart: Vec::new(),
            client_side: false,
            limits: old.limits != new.limits || old.trusted_proxies != new.trusted_proxies,
        };
        macro_rules! waits {
            ($($key:literal: $($field:ident).+;)+) => {$(
                if old.$($field).+ != new.$($field).+ {
                    step.needs_restart.push($key);
                    step.settings.$($field).+.clone_from(&old.$($field).+);
                }
            )+};
        }
        macro_rules! live {
            ($($key:literal: $($field:ident).+;)+) => {$(
                if old.$($field).+ != new.$($field).+ {
                    step.changed.push($key.to_owned());
                }
            )+};
        }
        macro_rules! client_side {
            ($($key:literal: $($field:ident).+;)+) => {$(
                if old.$($field).+ != new.$($field).+ {
                    step.changed.push($key.to_owned());
                    step.client_side = true;
                }
            )+};
        }
        // A new setting has to be named here, and then below.
        let Settings {
            listen: _,
            bosh:
                Bosh {
                    paths: _,
                    max_body: _,
                    max_answer: _,
                    creation_from: _,
                    query: _,
                    answer_headers: _,
                },
            host_attribute: _,
            affinity: _,
            affinity_ttl: _,
            placement: _,
            placement_wait: _,
            zone: _,
            trusted_proxies: _,
            cors: _,
            node_list: _,
            websocket: _,
            nodes: _,
            discovery: _,
            health: _,
            upstream:
                Upstream {
                    connecting: _,
                    connects_per_second: _,
                    release: _,
                },
            admin: _,
            limits:
                Limits {
                    connections: _,
                    handshakes: _,
                    connections_per_client: _,
                    streams: _,
                    body_memory: _,
                    answer_memory: _,
                    sessions: _,
                    creations_per_client: _,
                    creations_burst: _,
                    unknown_sids_per_second: _,
                    unknown_sids_per_client: _,
                    landing: _,
                    exempt: _,
                },
            timeouts:
                Timeouts {
                    head: _,
                    body: _,
                    write_stall: _,
                    idle: _,
                    connect: _,
                    retry: _,
                    drain_notice: _,
                    drain: _,
                },
            log:
                Log {
                    format: _,
                    filter: _,
                    access: _,
                    session_key: _,
                },
            reload_on_change: _,
            snapshot: _,
            takeover: _,
            traces: _,
            threads: _,
        } = new;
        nodes(&old.nodes, &new.nodes, &mut step.changed);
        // What a query places is kept in a table that is made at the start.
        let by_query = |placement: &Placement| matches!(placement, Placement::Query(_));
        if by_query(&old.placement) || by_query(&new.placement) {
            waits! { "placement": placement; }
        } else {
            live! { "placement": placement; }
        }
        health(&old.health, &new.health, &mut step.changed);
        live! {
            "nodes": discovery;
            "placement_wait": placement_wait;
            "zone": zone;
            "bosh.max_answer": bosh.max_answer;
            "bosh.creation_from": bosh.creation_from;
            "host_attribute": host_attribute;
            "upstream.connecting": upstream.connecting;
            "upstream.connects_per_second": upstream.connects_per_second;
            "timeouts.connect": timeouts.connect;
            "timeouts.drain_notice": timeouts.drain_notice;
            "timeouts.drain": timeouts.drain;
            "timeouts.retry": timeouts.retry;
            "log.filter": log.filter;
            "log.access": log.access;
            "reload_on_change": reload_on_change;
        }
        step.client_side |= listeners(&old.listen, &new.listen, &mut step.changed);
        client_side! {
            "bosh.paths": bosh.paths;
            "bosh.max_body": bosh.max_body;
            "bosh.query": bosh.query;
            "bosh.answer_headers": bosh.answer_headers;
            "trusted_proxies": trusted_proxies;
            "cors": cors;
            "node_list": node_list;
            "websocket": websocket;
            "upstream.release": upstream.release;
            "limits.connections": limits.connections;
            "limits.handshakes": limits.handshakes;
            "limits.connections_per_client": limits.connections_per_client;
            "limits.streams": limits.streams;
            "limits.body_memory": limits.body_memory;
            "limits.exempt": limits.exempt;
            "timeouts.head": timeouts.head;
            "timeouts.body": timeouts.body;
            "timeouts.write_stall": timeouts.write_stall;
            "timeouts.idle": timeouts.idle;
        }
        live! {
            "limits.sessions": limits.sessions;
            "limits.creations_per_client": limits.creations_per_client;
            "limits.creations_burst": limits.creations_burst;
            "limits.unknown_sids_per_second": limits.unknown_sids_per_second;
            "limits.unknown_sids_per_client": limits.unknown_sids_per_client;
            "limits.landing": limits.landing;
        }
        waits! {
            "affinity": affinity;
            "affinity_ttl": affinity_ttl;
            "admin": admin;
            "limits.answer_memory": limits.answer_memory;
            "log.format": log.format;
            "log.session_key": log.session_key;
            "snapshot": snapshot;
            "takeover": takeover;
            "traces": traces;
            "threads": threads;
        }
        step
    }

    /// How the nodes of one configuration became those of another, in words.
    pub fn changed_nodes(old: &Settings, new: &Settings) -> Vec<String> {
        let mut changed = Vec::new();
        nodes(&old.nodes, &new.nodes, &mut changed);
        changed
    }

    /// The step in one line.
    pub fn words(&self) -> String {
        let changed = match self.changed.as_slice() {
            [] => "nothing changes".to_owned(),
            changed => changed.join(", "),
        };
        match self.needs_restart.as_slice() {
            [] => changed,
            keys => format!("{changed}; needs a restart: {}", keys.join(", ")),
        }
    }
}

fn nodes(old: &[NodeSettings], new: &[NodeSettings], changed: &mut Vec<String>) {
    fn find<'a>(nodes: &'a [NodeSettings], name: &str) -> Option<&'a NodeSettings> {
        nodes.iter().find(|node| node.name == name)
    }
    for node in new {
        let name = &node.name;
        let Some(before) = find(old, name) else {
            changed.push(format!("node {name} joins"));
            continue;
        };
        let NodeSettings {
            name: _,
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
        } = before;
        if *address != node.address {
            changed.push(format!(
                "node {name}: address {address} -> {}",
                node.address
            ));
        }
        if *weight != node.weight {
            changed.push(format!("node {name}: weight {weight} -> {}", node.weight));
        }
        if *max_sessions != node.max_sessions {
            let to = node.max_sessions;
            changed.push(format!("node {name}: max_sessions {max_sessions} -> {to}"));
        }
        if *state != node.state {
            let to = node.state.unwrap_or(NodeState::Ready).word();
            changed.push(format!("node {name}: state {to}"));
        }
        if *backup != node.backup {
            changed.push(format!("node {name}: backup"));
        }
        if *zone != node.zone {
            changed.push(format!("node {name}: zone"));
        }
        if *public_url != node.public_url {
            changed.push(format!("node {name}: public_url"));
        }
        if *send_proxy != node.send_proxy {
            changed.push(format!("node {name}: send_proxy"));
        }
        if *tls != node.tls {
            changed.push(format!("node {name}: tls"));
        }
        if *websocket != node.websocket {
            changed.push(format!("node {name}: websocket"));
        }
    }
    let left = old.iter().filter(|node| find(new, &node.name).is_none());
    changed.extend(left.map(|node| format!("node {} leaves", node.name)));
}

/// Says whether those that are open change, or close.
fn listeners(old: &[Listen], new: &[Listen], changed: &mut Vec<String>) -> bool {
    let mut differ = false;
    for listen in new {
        let address = &listen.address;
        match old.iter().find(|one| one.address == *address) {
            None => changed.push(format!("listener {address} opens")),
            Some(before) if before != listen => {
                differ = true;
                changed.push(format!("listener {address}"));
            }
            Some(_) => {}
        }
    }
    for closed in old {
        if new.iter().all(|one| one.address != closed.address) {
            differ = true;
            changed.push(format!("listener {} closes", closed.address));
        }
    }
    differ
}

fn health(old: &Health, new: &Health, changed: &mut Vec<String>) {
    if old.probe != new.probe {
        changed.push("health.probe".to_owned());
    } else if old != new {
        changed.push("health".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> Settings {
        let node = |name: &str| NodeSettings::new(name, format!("{name}.example.com:5280"));
        Settings::for_nodes(vec![node("t1"), node("t2")])
    }

    #[test]
    fn the_same_settings_change_nothing() {
        let step = Reload::new(&settings(), &settings());
        assert_eq!(step.words(), "nothing changes");
        assert_eq!(step.settings, settings());
    }

    #[test]
    fn nodes_join_leave_and_change() {
        let mut new = settings();
        new.nodes.remove(0);
        new.nodes[0].weight = 5;
        new.nodes[0].address = "t2:1".to_owned();
        new.nodes.push(NodeSettings::new("t3", "t3:1"));
        let step = Reload::new(&settings(), &new);
        assert_eq!(
            step.words(),
            "node t2: address t2.example.com:5280 -> t2:1, node t2: weight 1 -> 5, node t3 joins, node t1 leaves"
        );
        assert_eq!(step.settings, new);
    }

    #[test]
    fn a_placement_by_a_query_waits_for_a_restart() {
        let mut new = settings();
        new.placement = Placement::RoundRobin;
        assert_eq!(Reload::new(&settings(), &new).words(), "placement");
        new.placement = Placement::Query("room".into());
        for (old, new) in [(settings(), new.clone()), (new, settings())] {
            let step = Reload::new(&old, &new);
            assert_eq!(step.words(), "nothing changes; needs a restart: placement");
            assert_eq!(step.settings, old);
        }
    }

    #[test]
    fn what_waits_for_a_restart_keeps_its_value() {
        let mut new = settings();
        new.threads += 1;
        new.affinity_ttl = Duration::from_secs(3);
        new.timeouts.connect = Duration::from_secs(3);
        let step = Reload::new(&settings(), &new);
        assert_eq!(
            step.words(),
            "timeouts.connect; needs a restart: affinity_ttl, threads"
        );
        let mut expected = settings();
        expected.timeouts.connect = Duration::from_secs(3);
        assert_eq!(step.settings, expected);
        // Named each time until the restart.
        let again = Reload::new(&step.settings, &new);
        assert_eq!(
            again.words(),
            "nothing changes; needs a restart: affinity_ttl, threads"
        );
    }
}
