//! Every key that a file may have, by place, and the known word nearest to a mistyped one.

/// The keys of each place, in the order of the documentation. A place is the path of a mapping; `[]`
/// stands for the entries of a list.
const PLACES: &[(&str, &str)] = &[
    (
        "",
        "listen bosh host_attribute affinity affinity_ttl placement placement_wait zone trusted_proxies \
         cors node_list websocket nodes health upstream admin limits timeouts log reload_on_change snapshot \
         takeover traces threads",
    ),
    ("listen[]", "address mode h2c tls redirect proxy_protocol"),
    ("listen[].proxy_protocol", "from"),
    ("listen[].tls", "certificate key certificates client_ca"),
    ("listen[].tls.certificates[]", "certificate key"),
    (
        "bosh",
        "paths max_body max_answer creation_from query answer_headers",
    ),
    ("host_attribute", "rewrite"),
    ("cors", "owner origins credentials headers"),
    ("node_list", "path max_age host_meta"),
    ("websocket", "paths query idle pong max_frame"),
    ("nodes", "dns file"),
    ("nodes.dns", "name type port refresh server"),
    (
        "nodes[]",
        "name address weight max_sessions backup zone state public_url websocket tls send_proxy",
    ),
    ("nodes[].tls", "verify ca server_name"),
    (
        "health",
        "probe path host interval fast_interval timeout rise fall silence slow_start penalty \
         penalty_max",
    ),
    (
        "upstream",
        "connecting connects_per_second release tls send_proxy",
    ),
    ("upstream.tls", "verify ca server_name"),
    ("admin", "address token_file tokens hosts probes"),
    ("admin.tokens[]", "name file role"),
    ("admin.probes", "address"),
    (
        "limits",
        "connections handshakes connections_per_client streams body_memory answer_memory sessions \
         creations_per_client creations_burst unknown_sids_per_second unknown_sids_per_client landing exempt",
    ),
    (
        "timeouts",
        "head body write_stall idle connect retry drain_notice drain",
    ),
    ("log", "format filter access session_key"),
    ("log.access", "sample"),
    ("snapshot", "file interval"),
    ("traces", "endpoint sample"),
];

/// Longer words are not compared: no key is half as long.
const LONGEST: usize = 40;

/// Every key that a configuration file may have, as a path: `health`, `health.rise`,
/// `nodes[].name`.
pub fn keys() -> impl Iterator<Item = String> {
    let paths = |(place, keys): &(&str, &'static str)| {
        let place = (*place).to_owned();
        keys.split(' ').map(move |key| join(&place, key))
    };
    PLACES.iter().flat_map(paths)
}

/// The keys known at the path `key`; none where a file has no mapping.
pub(super) fn at(key: &str) -> Vec<&'static str> {
    let place: String = key.chars().filter(|c| !c.is_ascii_digit()).collect();
    let found = PLACES.iter().find(|(name, _)| *name == place);
    found.map_or_else(Vec::new, |(_, keys)| keys.split(' ').collect())
}

/// The path of the first place where a key of exactly this name is known.
pub(super) fn elsewhere(key: &str) -> Option<String> {
    let (place, _) = PLACES
        .iter()
        .find(|(_, keys)| keys.split(' ').any(|known| known == key))?;
    Some(join(place, key))
}

/// The path of `key` in the mapping at `place`.
pub(super) fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

/// The word of `known` that was probably meant by `word`: the nearest one, at most one edit for three
/// letters away and at most three.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let letters = word.chars().count();
    if letters > LONGEST {
        return None;
    }
    let edits = |known: &'k str| (strsim::osa_distance(word, known), known);
    let (edits, found) = known.iter().copied().map(edits).min_by_key(|near| near.0)?;
    let allowed = (letters.min(found.len()) / 3).clamp(1, 3);
    (edits <= allowed).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_paths_joined() {
        assert_eq!(
            at("upstream"),
            [
                "connecting",
                "connects_per_second",
                "release",
                "tls",
                "send_proxy"
            ]
        );
        assert_eq!(
            at("listen[17]"),
            [
                "address",
                "mode",
                "h2c",
                "tls",
                "redirect",
                "proxy_protocol"
            ]
        );
        assert!(at("proxies").is_empty());
        assert_eq!(elsewhere("max_body").as_deref(), Some("bosh.max_body"));
        assert_eq!(elsewhere("proxies"), None);
        assert!(keys().any(|key| key == "nodes[].weight"));
        assert!(keys().any(|key| key == "threads"));
    }

    #[test]
    fn a_slip_finds_its_word() {
        let known = ["health", "listen", "limits"];
        assert_eq!(nearest("heatlh", &known), Some("health"));
        assert_eq!(nearest("limit", &known), Some("limits"));
        assert_eq!(nearest("Listen", &known), Some("listen"));
        // Two neighbours that are swapped are one edit.
        assert_eq!(nearest("rsi", &["ris"]), Some("ris"));
    }

    #[test]
    fn another_word_finds_none() {
        assert_eq!(nearest("tls", &["rise", "fall"]), None);
        assert_eq!(nearest("", &["rise"]), None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(nearest(&"é".repeat(1000), &["rise"]), None);
    }
}
