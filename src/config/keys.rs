//! Every key that a file may have: one table, by place.

/// The keys of each place, in the order in which the documents show them. A place is the path of a
/// mapping, `[]` standing for the entries of a list.
const PLACES: [(&str, &[&str]); 15] = [
    (
        "",
        &[
            "listen",
            "bosh",
            "host_attribute",
            "affinity",
            "affinity_ttl",
            "placement",
            "placement_wait",
            "trusted_proxies",
            "cors",
            "node_list",
            "nodes",
            "health",
            "upstream",
            "admin",
            "limits",
            "timeouts",
            "log",
            "traces",
            "threads",
        ],
    ),
    ("listen[]", &["address"]),
    (
        "bosh",
        &["paths", "max_body", "max_answer", "creation_from"],
    ),
    ("host_attribute", &["rewrite"]),
    ("cors", &["origins", "credentials", "headers"]),
    ("node_list", &["path", "max_age", "host_meta"]),
    (
        "nodes[]",
        &["name", "address", "weight", "max_sessions", "public_url"],
    ),
    (
        "health",
        &[
            "probe",
            "path",
            "host",
            "interval",
            "fast_interval",
            "timeout",
            "rise",
            "fall",
            "silence",
            "slow_start",
            "penalty",
            "penalty_max",
        ],
    ),
    (
        "upstream",
        &["connecting", "connects_per_second", "release"],
    ),
    ("admin", &["address", "token_file", "hosts"]),
    (
        "limits",
        &[
            "connections",
            "connections_per_client",
            "body_memory",
            "sessions",
            "creations_per_client",
            "creations_burst",
            "unknown_sids_per_second",
            "unknown_sids_per_client",
            "exempt",
        ],
    ),
    (
        "timeouts",
        &[
            "head",
            "body",
            "write_stall",
            "idle",
            "connect",
            "drain_notice",
            "drain",
        ],
    ),
    ("log", &["format", "filter", "access", "session_key"]),
    ("log.access", &["sample"]),
    ("traces", &["endpoint", "sample"]),
];

/// Every key that a configuration file may have, as a path: `health`, `health.rise`,
/// `nodes[].name`.
pub fn keys() -> impl Iterator<Item = String> {
    PLACES
        .iter()
        .flat_map(|(place, keys)| keys.iter().map(|key| join(place, key)))
}

/// The keys known at a place; none where a place has no keys.
pub(super) fn at(place: &str) -> &'static [&'static str] {
    PLACES
        .iter()
        .find(|(name, _)| *name == place)
        .map_or(&[], |(_, keys)| keys)
}

/// The path of a key that is known by exactly this name at another place than the one it was found.
pub(super) fn elsewhere(key: &str) -> Option<String> {
    PLACES
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(place, _)| join(place, key))
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_paths_joined() {
        assert_eq!(
            at("upstream"),
            ["connecting", "connects_per_second", "release"]
        );
        assert!(at("tls").is_empty());
        assert_eq!(elsewhere("max_body").as_deref(), Some("bosh.max_body"));
        assert_eq!(elsewhere("tls"), None);
        assert!(keys().any(|key| key == "nodes[].weight"));
        assert!(keys().any(|key| key == "threads"));
    }
}
