//! The sections for web pages and other clients of HTTP: who may use the service from a page, and the
//! list of nodes.

use std::time::Duration;

use super::check;
use super::defaults::{HOST_META, NODE_LIST_MAX_AGE};
use super::node_source;
use super::read::{Section, Value, quoted};
use super::sections::{MOST_ENTRIES, MOST_NODES, texts};
use super::settings::{Cors, CorsOwner, HOST_META_PATHS, NodeList, NodeSettings, Origins};
use super::units::show_duration;

/// The most names in `cors.headers`: each preflight carries all of them.
const MOST_HEADERS: usize = 64;

pub(super) const OWNERS: [(&str, CorsOwner); 2] =
    [("own", CorsOwner::Own), ("pass", CorsOwner::Pass)];

pub(super) fn cors(section: &Section<'_>) -> Cors {
    let default = Cors::default();
    let origins = section.get("origins");
    let origins = origins.map_or(default.origins, |value| origins_of(&value));
    let credentials = section.flag("credentials", default.credentials);
    if credentials && section.is_sound("origins") {
        match &origins {
            Origins::Any => section.refuse(
                "credentials",
                "needs a list in `cors.origins`: with `*` browsers refuse every answer to a request \
                 with credentials",
            ),
            Origins::Only(list) if list.is_empty() => {
                section.refuse("credentials", "has no effect with `origins: []`");
            }
            Origins::Only(_) => {}
        }
    }
    let headers = section.get("headers");
    Cors {
        owner: section.choice("owner", default.owner, &OWNERS),
        origins,
        credentials,
        headers: headers.map_or(default.headers, |value| headers_of(&value)),
    }
}

fn origins_of(value: &Value<'_>) -> Origins {
    if let [only] = value.list(0..=MOST_ENTRIES).as_slice()
        && only.is_word("*")
    {
        return Origins::Any;
    }
    Origins::Only(texts(value, 0..=MOST_ENTRIES, check::origin))
}

/// Names of request headers, none of them twice in any spelling.
fn headers_of(value: &Value<'_>) -> Vec<String> {
    let mut headers: Vec<String> = Vec::new();
    for item in value.list(0..=MOST_HEADERS) {
        let Some(name) = item.ruled(check::request_header) else {
            continue;
        };
        if headers.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            item.refuse::<()>(format!("{} is listed twice", quoted(name)));
        }
        headers.push(name.to_owned());
    }
    headers
}

/// Where clients reach a node, if its entry says so. `others` are the entries in front of it.
pub(super) fn public_url(section: &Section<'_>, others: &[NodeSettings]) -> Option<String> {
    let url = section.get("public_url")?.ruled(check::public_url)?;
    let same = |other: &&NodeSettings| other.public_url.as_deref() == Some(url);
    if let Some(other) = others.iter().find(same) {
        let reason = format!("{} is already the URL of `{}`", quoted(url), other.name);
        section.refuse("public_url", reason);
    }
    Some(url.to_owned())
}

/// The list of `nodes` that clients are given.
pub(super) fn node_list(root: &Section<'_>, bosh: &[String]) -> Option<NodeList> {
    let listed = root
        .get("nodes")
        .filter(|nodes| !node_source::is_source(nodes));
    let nodes = listed.map(|nodes| nodes.list(1..=MOST_NODES));
    let url = nodes.iter().flatten().find_map(url);
    let value = root.get("node_list");
    let Some(value) = value.filter(|value| !value.is_null() && !value.is_off()) else {
        return url?.refuse("has no effect without `node_list`");
    };
    let section = value.clone().section_or("a mapping or `off`")?;
    let max_age = section.duration("max_age", NODE_LIST_MAX_AGE, Duration::ZERO);
    if max_age.subsec_nanos() > 0 {
        let is = show_duration(max_age);
        section.refuse(
            "max_age",
            format!("must be a whole number of seconds, is {is}"),
        );
    }
    let host_meta = section.flag("host_meta", HOST_META);
    let taken = |path: &str| bosh.iter().any(|bosh| same_path(bosh, path));
    let meta = HOST_META_PATHS.iter().find(|path| host_meta && taken(path));
    if let Some(path) = meta.filter(|_| section.is_sound("host_meta")) {
        value.refuse::<()>(format!(
            "{} is already in `bosh.paths`: needs `host_meta: off`",
            quoted(path)
        ));
    }
    if url.is_none() && root.is_sound("nodes") && nodes.is_some() {
        value.refuse::<()>("lists no node: none of `nodes` has a `public_url`");
    }
    let path = section.need("path")?.ruled(check::path)?;
    if taken(path) {
        section.refuse(
            "path",
            format!("{} is already in `bosh.paths`", quoted(path)),
        );
    } else if host_meta && HOST_META_PATHS.contains(&path) {
        section.refuse(
            "path",
            format!("{} is the path of `host_meta`", quoted(path)),
        );
    }
    Some(NodeList {
        path: path.to_owned(),
        max_age,
        host_meta,
    })
}

/// The `public_url` of an entry of `nodes`.
fn url<'t>(entry: &Value<'t>) -> Option<Value<'t>> {
    entry.clone().section()?.get("public_url")
}

/// Whether a request for `path` is one for the BOSH path `bosh`.
fn same_path(bosh: &str, path: &str) -> bool {
    path == bosh || path.strip_suffix('/') == Some(bosh)
}
