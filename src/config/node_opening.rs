//! What a connection to a node begins with: the PROXY header, and TLS.

use super::check;
use super::read::{Section, Value};
use super::sections::file;
use super::settings::{NodeTls, ProxyVersion};

pub(super) const VERSIONS: [(&str, Option<ProxyVersion>); 3] = [
    ("off", None),
    ("v1", Some(ProxyVersion::V1)),
    ("v2", Some(ProxyVersion::V2)),
];

/// The `send_proxy` of a section, or else the `default`.
pub(super) fn send_proxy(
    section: &Section<'_>,
    default: Option<ProxyVersion>,
) -> Option<ProxyVersion> {
    section.choice("send_proxy", default, &VERSIONS)
}

/// The `tls` of nodes that have none of their own.
pub(super) fn default(upstream: &Section<'_>) -> Option<NodeTls> {
    tls(upstream)
}

/// The `tls` of an entry of `nodes`, or else the `default`.
pub(super) fn node(entry: &Section<'_>, default: Option<&NodeTls>) -> Option<NodeTls> {
    if entry.get("tls").is_some() {
        tls(entry)
    } else {
        default.cloned()
    }
}

fn tls(section: &Section<'_>) -> Option<NodeTls> {
    let value = section.get("tls")?;
    if value.is_off() {
        return None;
    }
    if value.is_on() {
        return Some(NodeTls {
            verify: true,
            ca: None,
            server_name: None,
        });
    }
    if value.is_null() {
        return value.refuse("has no value: give `on`, `off`, or a mapping such as `{ ca: FILE }`");
    }
    of(value)
}

fn of(value: Value<'_>) -> Option<NodeTls> {
    let section = value.section_or("`on`, `off` or a mapping")?;
    let verify = section.flag("verify", true);
    let ca = section.get("ca").and_then(|value| file(&value));
    if ca.is_some() && !verify {
        section.refuse("ca", "has no effect with `verify: false`");
    }
    let name = section.get("server_name");
    let name = name.and_then(|value| value.ruled(check::server_name).map(str::to_owned));
    Some(NodeTls {
        verify,
        ca,
        server_name: name,
    })
}
