//! The JSON Schema (2020-12) of the file, for editors.
//!
//! Keys come from the table of the parser, words from its tables of words, defaults from the settings, and
//! descriptions from the documentation. What a value may be stands here, and tests compare that with the
//! parser. Rules between keys are the parser's alone.

use serde_json::{Map, Value, json};

use super::admin_listener::ROLES;
use super::bosh;
use super::defaults::MOST_THREADS;
use super::keys;
use super::node_opening::VERSIONS;
use super::node_source::RECORDS;
use super::nodes::NODE_STATES;
use super::parse::parse;
use super::sections::{
    AFFINITIES, KIB, LOG_FORMATS, MIB, MOST_ENTRIES, MOST_NODES, PLACEMENTS, RELEASES,
};
use super::show;
use super::web::OWNERS;

/// The page whose tables describe every key.
const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");

/// A whole number with a unit, or a size.
const DURATION: &str = "^[0-9]+(ms|s|m|h)$";
const SIZE: &str = "^[0-9]+(KiB|MiB)?$";

/// A file whose defaults are shown, and one with the sections that are off by default.
const PLAIN: &str =
    "listen: [{ address: '127.0.0.1:0' }]\nnodes: [{ name: t1, address: 't1:1' }]\n";
const MORE: &str = "\
listen: [{ address: '127.0.0.1:0' }]
nodes: [{ name: t1, address: 't1:1', public_url: 'http://t1' }]
node_list: { path: /n }
websocket: {}
snapshot: { file: f }
";

/// Keys whose value in those files is no default.
const REQUIRED: [&str; 17] = [
    "listen",
    "listen[].address",
    "listen[].tls.certificates[].certificate",
    "listen[].tls.certificates[].key",
    "listen[].proxy_protocol.from",
    "host_attribute.rewrite",
    "node_list.path",
    "nodes",
    "nodes.dns.name",
    "nodes[].name",
    "nodes[].address",
    "admin.tokens[].name",
    "admin.tokens[].file",
    "admin.probes.address",
    "log.access.sample",
    "snapshot.file",
    "traces.endpoint",
];

/// The schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let samples = [PLAIN, MORE].map(|text| {
        let settings = parse(text, "").ok();
        let tree = settings.and_then(|settings| serde_json::to_value(show::tree(&settings)).ok());
        tree.unwrap_or_default()
    });
    let mut schema = section("", &samples);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Configuration of Bowline".into();
    schema
}

/// The mapping at a place.
fn section(place: &str, samples: &[Value]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for key in keys::at(place) {
        let path = keys::join(place, key);
        let mut value = value(&path, samples).unwrap_or_else(|| json!({}));
        if let Some(text) = description(&path) {
            value["description"] = text.into();
        }
        let is_required = REQUIRED.contains(&path.as_str());
        let default = samples.iter().find_map(|sample| at(sample, &path));
        // The machine's, and what the second file has only so that its list of nodes may be there.
        let none = ["threads", "nodes[].public_url"].contains(&path.as_str());
        let default = default.filter(|value| !value.is_object() && !none);
        match default {
            _ if is_required => required.push(key),
            Some(default) => value["default"] = default.clone(),
            None => {}
        }
        properties.insert(key.to_owned(), value);
    }
    let mut section = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        section["required"] = required.into();
    }
    section
}

/// The value at a path of a tree; in a list its first entry.
fn at<'t>(tree: &'t Value, path: &str) -> Option<&'t Value> {
    path.split('.').try_fold(tree, |tree, part| {
        let key = part.trim_end_matches("[]");
        let value = tree.get(key)?;
        if key == part {
            Some(value)
        } else {
            value.get(0)
        }
    })
}

/// What the value of a key may be; none for a key that is not named here, which a test refuses.
fn value(path: &str, samples: &[Value]) -> Option<Value> {
    let section = |place: &str| section(place, samples);
    // A key with nothing after it means the defaults.
    let sections = || any([section(path), json!({ "type": "null" })]);
    let or_off = || any([section(path), json!({ "type": "null" }), off()]);
    let entries = |least, most| list(&section(&format!("{path}[]")), least, most);
    let million = |least: u64| count(least, 1_000_000);
    Some(match path {
        "listen" => entries(1, MOST_ENTRIES),
        "bosh" | "cors" | "health" | "upstream" | "limits" | "timeouts" | "log" | "traces" => {
            sections()
        }
        "node_list" | "websocket" | "snapshot" => or_off(),
        "listen[].proxy_protocol" | "admin" => any([section(path), off()]),
        "listen[].tls" | "admin.probes" => section(path),
        "takeover" => any([text(), off()]),
        "nodes" => any([entries(1, MOST_NODES), section(path)]),
        "nodes.dns" => section(path),
        "nodes[].tls" | "upstream.tls" => any([section(path), on(), off()]),
        "host_attribute" => any([section(path), json!({ "enum": ["strip", "pass"] })]),
        "affinity" => words(&AFFINITIES),
        "placement" => any([words(&PLACEMENTS), pattern("^query:[A-Za-z0-9._~-]{1,64}$")]),
        "listen[].h2c"
        | "cors.credentials"
        | "node_list.host_meta"
        | "nodes[].tls.verify"
        | "nodes[].backup"
        | "upstream.tls.verify"
        | "reload_on_change" => flag(),
        // Some readers of YAML take it for a number.
        "listen[].mode" => any([pattern("^0[0-7]{3}$"), count(0, 777)]),
        "listen[].redirect" => json!({ "enum": ["https"] }),
        "listen[].tls.certificates" | "admin.tokens" => entries(1, MOST_ENTRIES),
        "bosh.creation_from" => words(&bosh::CREATION_FROM),
        "bosh.query" | "websocket.query" => words(&bosh::QUERY),
        "bosh.max_body" => size(KIB, 16 * MIB),
        "bosh.max_answer" | "websocket.max_frame" => size(KIB, 64 * MIB),
        "limits.body_memory" => size(MIB, 65_536 * MIB),
        "limits.answer_memory" => size(0, 65_536 * MIB),
        "bosh.paths" | "websocket.paths" => list(&text(), 1, MOST_ENTRIES),
        "bosh.answer_headers" => list(&text(), 0, 16),
        "cors.owner" => words(&OWNERS),
        "cors.origins" | "trusted_proxies" | "admin.hosts" | "limits.exempt" => {
            list(&text(), 0, MOST_ENTRIES)
        }
        "cors.headers" => list(&text(), 0, 64),
        "listen[].proxy_protocol.from" => list(&text(), 1, MOST_ENTRIES),
        "nodes.dns.type" => words(&RECORDS),
        "nodes.dns.port" => count(1, u16::MAX.into()),
        "nodes[].weight" => count(1, 256),
        "nodes[].max_sessions" => count(0, 100_000_000),
        "nodes[].state" => words(&NODE_STATES),
        "nodes[].send_proxy" | "upstream.send_proxy" => words(&VERSIONS),
        "health.probe" => json!({ "enum": ["bosh", "http", "tcp"] }),
        "health.rise" | "health.fall" => count(1, 100),
        "upstream.connecting" => count(1, 10_000),
        "upstream.connects_per_second" => count(0, 100_000),
        "upstream.release" => words(&RELEASES),
        "admin.tokens[].role" => words(&ROLES),
        "limits.connections" => count(1, 10_000_000),
        "limits.handshakes" => count(1, 100_000),
        "limits.connections_per_client" => count(0, 10_000_000),
        "limits.streams" => count(1, 1000),
        "limits.sessions" => count(1, 100_000_000),
        "limits.creations_per_client"
        | "limits.unknown_sids_per_second"
        | "limits.unknown_sids_per_client" => million(0),
        "limits.creations_burst" => count(1, 10_000_000),
        "limits.landing" => any([json!({ "enum": ["auto"] }), off(), count(1, 100_000)]),
        "traces.sample" => million(1),
        "log.access.sample" => million(2),
        "log.format" => words(&LOG_FORMATS),
        "log.access" => any([section(path), on(), off(), json!({ "enum": ["failures"] })]),
        "log.session_key" => pattern("^[0-9A-Fa-f]{32}$"),
        "threads" => count(1, MOST_THREADS as u64),
        "affinity_ttl"
        | "placement_wait"
        | "node_list.max_age"
        | "websocket.idle"
        | "websocket.pong"
        | "nodes.dns.refresh"
        | "health.interval"
        | "health.fast_interval"
        | "health.timeout"
        | "health.silence"
        | "health.slow_start"
        | "health.penalty"
        | "health.penalty_max"
        | "snapshot.interval" => pattern(DURATION),
        _ if path.starts_with("timeouts.") => pattern(DURATION),
        "listen[].address"
        | "listen[].tls.certificate"
        | "listen[].tls.key"
        | "listen[].tls.client_ca"
        | "listen[].tls.certificates[].certificate"
        | "listen[].tls.certificates[].key"
        | "host_attribute.rewrite"
        | "node_list.path"
        | "nodes.dns.name"
        | "nodes.dns.server"
        | "nodes.file"
        | "zone"
        | "nodes[].zone"
        | "nodes[].name"
        | "nodes[].address"
        | "nodes[].public_url"
        | "nodes[].websocket"
        | "nodes[].tls.ca"
        | "nodes[].tls.server_name"
        | "health.path"
        | "health.host"
        | "upstream.tls.ca"
        | "upstream.tls.server_name"
        | "admin.address"
        | "admin.token_file"
        | "admin.tokens[].name"
        | "admin.tokens[].file"
        | "admin.probes.address"
        | "log.filter"
        | "snapshot.file"
        | "traces.endpoint" => text(),
        _ => return None,
    })
}

fn any<const N: usize>(kinds: [Value; N]) -> Value {
    let kinds = Vec::from(kinds);
    json!({ "anyOf": kinds })
}

/// YAML 1.1 and YAML 1.2 read the bare words differently.
fn on() -> Value {
    json!({ "enum": [true, "on"] })
}

fn off() -> Value {
    json!({ "enum": [false, "off"] })
}

fn flag() -> Value {
    json!({ "enum": [true, false, "on", "off"] })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn count(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn size(least: usize, most: usize) -> Value {
    any([count(least as u64, most as u64), pattern(SIZE)])
}

fn words<T>(table: &[(&'static str, T)]) -> Value {
    let words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
    json!({ "enum": words })
}

fn list(items: &Value, least: usize, most: usize) -> Value {
    json!({ "type": "array", "items": items, "minItems": least, "maxItems": most })
}

/// What the documentation says of a key, without its links.
fn description(path: &str) -> Option<String> {
    let start = format!("| `{path}` |");
    let row = DOCUMENTATION
        .lines()
        .find(|line| line.starts_with(&start))?;
    let effect = row.trim_end_matches(['|', ' ']).rsplit(" | ").next()?;
    let mut text = String::new();
    let mut parts = effect.split("](");
    text.push_str(parts.next()?);
    for part in parts {
        text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    Some(text.replace('[', ""))
}

#[cfg(test)]
mod tests;
