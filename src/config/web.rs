//! The sections for web pages and other clients of HTTP: who may use the service from a page, and the
//! list of nodes.

use std::time::Duration;

use super::check;
use super::defaults::{HOST_META, NODE_LIST_MAX_AGE};
use super::read::{Fault, Section, Value, quoted};
use super::sections::{MOST_ENTRIES, texts};
use super::settings::{Cors, HOST_META_PATHS, NodeList, NodeSettings, Origins};
use super::units::show_duration;

/// The most names in `cors.headers`: each preflight carries all of them.
const MOST_HEADERS: usize = 64;

pub(super) fn cors(section: &Section<'_>) -> Result<Cors, Fault> {
    let default = Cors::default();
    let origins = match section.get("origins") {
        Some(value) => origins(&value)?,
        None => default.origins,
    };
    let credentials = section.flag("credentials", default.credentials)?;
    if credentials && let Some(value) = section.get("credentials") {
        match &origins {
            Origins::Any => {
                return Err(value.fault(
                    "needs a list in `cors.origins`: with `*` browsers refuse every answer to a \
                     request with credentials",
                ));
            }
            Origins::Only(list) if list.is_empty() => {
                return Err(value.fault("has no effect with `origins: []`"));
            }
            Origins::Only(_) => {}
        }
    }
    let headers = match section.get("headers") {
        Some(value) => headers(&value)?,
        None => default.headers,
    };
    Ok(Cors {
        origins,
        credentials,
        headers,
    })
}

fn origins(value: &Value<'_>) -> Result<Origins, Fault> {
    let items = value.list(MOST_ENTRIES)?;
    if let [only] = items.as_slice()
        && only.text()? == "*"
    {
        return Ok(Origins::Any);
    }
    Ok(Origins::Only(texts(value, check::origin)?))
}

/// Names of request headers, none of them twice in any spelling.
fn headers(value: &Value<'_>) -> Result<Vec<String>, Fault> {
    let mut headers: Vec<String> = Vec::new();
    for item in value.list(MOST_HEADERS)? {
        let name = item.text()?;
        check::request_header(name).map_err(|must| item.must(must))?;
        if headers.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(item.fault(format!("{} is listed twice", quoted(name))));
        }
        headers.push(name.to_owned());
    }
    Ok(headers)
}

/// Where clients reach a node, if its entry says so. `others` are the entries in front of it.
pub(super) fn public_url(
    section: &Section<'_>,
    others: &[NodeSettings],
) -> Result<Option<String>, Fault> {
    let Some(value) = section.get("public_url") else {
        return Ok(None);
    };
    let url = value.text()?;
    check::public_url(url).map_err(|must| value.must(must))?;
    let same = |other: &&NodeSettings| other.public_url.as_deref() == Some(url);
    if let Some(other) = others.iter().find(same) {
        let reason = format!("{} is already the URL of `{}`", quoted(url), other.name);
        return Err(value.fault(reason));
    }
    Ok(Some(url.to_owned()))
}

/// The list of `nodes` that clients are given.
pub(super) fn node_list(
    root: &Section<'_>,
    nodes: &[NodeSettings],
    bosh: &[String],
) -> Result<Option<NodeList>, Fault> {
    let listed = nodes.iter().any(|node| node.public_url.is_some());
    let value = root.get("node_list");
    let Some(value) = value.filter(|value| !value.is_null() && !value.is_off()) else {
        return match root.need("nodes")?.list(nodes.len())?.iter().find_map(url) {
            Some(url) => Err(url.fault("has no effect without `node_list`")),
            None => Ok(None),
        };
    };
    let section = value.clone().section_or("a mapping or `off`")?;
    let max_age = section.duration("max_age", NODE_LIST_MAX_AGE, Duration::ZERO)?;
    if max_age.subsec_nanos() > 0 {
        let is = show_duration(max_age);
        let reason = format!("must be a whole number of seconds, is {is}");
        return Err(section.need("max_age")?.fault(reason));
    }
    let host_meta = section.flag("host_meta", HOST_META)?;
    let path_value = section.need("path")?;
    let path = path_value.text()?;
    check::path(path).map_err(|must| path_value.must(must))?;
    if host_meta && HOST_META_PATHS.contains(&path) {
        return Err(path_value.fault(format!("{} is the path of `host_meta`", quoted(path))));
    }
    let taken = |path: &str| bosh.iter().any(|bosh| same_path(bosh, path));
    if taken(path) {
        return Err(path_value.fault(format!("{} is already in `bosh.paths`", quoted(path))));
    }
    if host_meta && let Some(path) = HOST_META_PATHS.iter().find(|path| taken(path)) {
        let reason = format!(
            "{} is already in `bosh.paths`: needs `host_meta: off`",
            quoted(path)
        );
        return Err(value.fault(reason));
    }
    if !listed {
        return Err(value.fault("lists no node: none of `nodes` has a `public_url`"));
    }
    Ok(Some(NodeList {
        path: path.to_owned(),
        max_age,
        host_meta,
    }))
}

/// The `public_url` of an entry of `nodes`.
fn url<'t>(entry: &Value<'t>) -> Option<Value<'t>> {
    entry.clone().section().ok()?.get("public_url")
}

/// Whether a request for `path` is one for the BOSH path `bosh`.
fn same_path(bosh: &str, path: &str) -> bool {
    path == bosh || path.strip_suffix('/') == Some(bosh)
}
