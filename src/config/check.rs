//! Rules for text that is more than text: names, `host:port`, paths, origins. Pure; a refusal is
//! the end of the sentence that begins "must".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `[A-Za-z0-9._-]`, 1 to 64 characters.
pub(super) fn is_node_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// What an address must do of which [`is_bare_ipv6`] is true. Without quotes its brackets would begin a
/// list in YAML.
pub(super) const BARE_IPV6: &str =
    "have the IPv6 address in brackets and the whole in quotes, such as `'[2001:db8::1]:5280'`";

/// What an address must do of which [`has_large_port`] is true.
pub(super) const LARGE_PORT: &str = "have a port that is not above 65535";

/// True for what ends in a number that is too large for a port.
pub(super) fn has_large_port(text: &str) -> bool {
    let (_, port) = text.rsplit_once(':').unwrap_or_default();
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    digits && port.parse::<u16>().is_err()
}

/// True for what looks like an IPv6 address with a port and has no brackets.
pub(super) fn is_bare_ipv6(text: &str) -> bool {
    let (host, _) = text.rsplit_once(':').unwrap_or_default();
    let fits = |b: u8| b.is_ascii_hexdigit() || b":.".contains(&b);
    host.contains(':') && host.bytes().all(fits)
}

/// Checks `host:port`; an IPv6 address stands in brackets, the port is 1 to 65535.
pub(super) fn host_port(text: &str) -> Result<(), &'static str> {
    if text.contains("://") {
        return Err("be host:port without a scheme");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("be host:port such as `t1.example.com:5280`");
    };
    if is_bare_ipv6(text) {
        return Err(BARE_IPV6);
    }
    if !is_host(host) {
        return Err("name a host or an IP address before its port");
    }
    if has_large_port(text) {
        return Err(LARGE_PORT);
    }
    if port_number(port).is_none() {
        return Err("end in a port from 1 to 65535");
    }
    Ok(())
}

/// What the address of a Unix socket begins with.
pub(super) const UNIX: &str = "unix:";

/// The longest path of a Unix socket, in bytes (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// Checks the path of a Unix socket.
pub(super) fn unix_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("be `unix:` and an absolute path such as `unix:/run/prosody/http.sock`");
    }
    if path.len() > MAX_UNIX_PATH {
        return Err("have a path of at most 107 bytes");
    }
    Ok(())
}

/// Checks the address of a node: `host:port`, or a Unix socket.
pub(super) fn node_address(text: &str) -> Result<(), &'static str> {
    match text.strip_prefix(UNIX) {
        Some(path) => unix_path(path),
        None => host_port(text),
    }
}

/// Checks a host with or without a port, as `Host` has it (RFC 9110 §7.2).
pub(super) fn authority(text: &str) -> Result<(), &'static str> {
    if text.len() > 255 {
        return Err("be at most 255 characters");
    }
    if is_host(text) {
        return Ok(());
    }
    if text.contains("://") || !text.contains(':') {
        return Err("be a host such as `chat.example.com`, with or without a port");
    }
    host_port(text)
}

/// A form in which two addresses that mean the same are equal.
pub(super) fn canonical_host_port(text: &str) -> String {
    if text.starts_with(UNIX) {
        return text.to_owned();
    }
    let lower = text.to_ascii_lowercase();
    match lower.rsplit_once(':') {
        Some((host, port)) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let host = bare.parse::<Ipv6Addr>().map_or_else(
                |_| bare.trim_end_matches('.').to_owned(),
                |v6| v6.to_string(),
            );
            format!("{host} {}", port_number(port).unwrap_or(0))
        }
        None => lower,
    }
}

/// Digits only, no sign, 1 to 65535.
fn port_number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0)
}

/// Checks a host name as a browser sends it: no port, lower case.
pub(super) fn host_name(text: &str) -> Result<(), &'static str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("be in lower case, as browsers write names");
    }
    if text.contains([':', '[']) || !is_host(text) {
        return Err("be a host name such as `bowline.example.com`, without a port");
    }
    Ok(())
}

/// A rule for names in the DNS.
pub(super) fn dns_name(text: &str) -> Result<(), &'static str> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if text.starts_with('[') || bare.parse::<Ipv4Addr>().is_ok() || !is_host(text) {
        return Err("be a name in the DNS, such as _xmpp-bosh._tcp.example.com");
    }
    Ok(())
}

/// A DNS name (underscores are taken too: container networks use them), an IPv4 address, or an IPv6
/// address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let looks_like_ipv4 = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if looks_like_ipv4 {
        return name.parse::<Ipv4Addr>().is_ok() && name == host;
    }
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Checks a path as it stands in a request line, without its query: RFC 3986's `path-absolute`.
/// A node of Tigase reads request heads as XML, so `<` must never get there.
pub(super) fn path(text: &str) -> Result<(), &'static str> {
    if !text.starts_with('/') {
        return Err("start with `/`");
    }
    if text.len() > 1024 {
        return Err("be at most 1024 characters");
    }
    if text.contains(['?', '#']) {
        return Err("be a path alone, without `?` or `#`");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
    if !text.bytes().all(allowed) {
        return Err("have letters, digits and /-._~!$&'()*+,;=:@% only");
    }
    Ok(())
}

/// Checks a name that a certificate may have: a DNS name, or an IP address without brackets.
pub(super) fn server_name(text: &str) -> Result<(), &'static str> {
    let ip = text.parse::<IpAddr>().is_ok();
    if !ip && (!is_host(text) || text.starts_with('[')) {
        return Err("be a host name such as `chat.example.com`, or an IP address, without a port");
    }
    Ok(())
}

/// Checks the URL at which a node takes WebSocket, and says whether it is `wss`, and its `host:port` and
/// its path.
pub(super) fn websocket_url(text: &str) -> Result<(bool, &str, &str), &'static str> {
    const FORM: &str = "be a URL such as `ws://10.0.0.5:5290/xmpp-websocket`";
    let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
    let tls = match scheme {
        "ws" => false,
        "wss" => true,
        _ => return Err(FORM),
    };
    let (authority, path) = rest.split_at(rest.find('/').ok_or(FORM)?);
    host_port(authority)?;
    self::path(path)?;
    if path.contains(['&', '\'']) {
        return Err("have no `&` and no `'`");
    }
    Ok((tls, authority, path))
}

/// Checks the URL of a collector, and gives it the usual path if it has none.
pub(super) fn collector(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "be a URL such as `http://127.0.0.1:4318/v1/traces`";
    if text.starts_with("https://") {
        return Err("be a URL with `http`: there is no TLS towards a collector");
    }
    let rest = text.strip_prefix("http://").ok_or(FORM)?;
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/v1/traces"),
    };
    host_port(authority)?;
    self::path(path)?;
    Ok(format!("http://{authority}{path}"))
}

/// Checks the URL at which clients reach a node: `http` or `https`, a host with or without a port,
/// and a path if there is one.
pub(super) fn public_url(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "be a URL such as `https://t1.example.com/http-bind`";
    if text.len() > 1024 {
        return Err("be at most 1024 characters");
    }
    if text.contains(['?', '#']) {
        return Err("be a URL without `?` and `#`");
    }
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or(FORM)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("be a URL without a user: everyone can read it");
    }
    let (host, port) = split_port(authority);
    if !is_host(host) {
        return Err(FORM);
    }
    if port.is_some_and(|port| port_number(port).is_none()) {
        return Err("have a port from 1 to 65535 or none");
    }
    if path.is_empty() {
        return Ok(());
    }
    self::path(path).map_err(|_| "have a path of letters, digits and /-._~!$&'()*+,;=:@% only")
}

/// The host of an authority and its port, if there is one.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !is_host(authority) => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Request headers that no page can set, since they are the browser's own (the Fetch standard's
/// "forbidden request-headers"); so are those that begin with `proxy-` and `sec-`.
const FORBIDDEN_HEADERS: &str = "accept-charset accept-encoding access-control-request-headers \
    access-control-request-method access-control-request-private-network connection \
    content-length cookie cookie2 date dnt expect host keep-alive origin referer set-cookie \
    te trailer transfer-encoding upgrade via";

/// Checks the name of a request header that pages of another origin may send: a token (RFC 9110
/// §5.6.2) of 1 to 64 characters that a page can set.
pub(super) fn request_header(name: &str) -> Result<(), &'static str> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(token) {
        return Err("be the name of a header such as `Authorization`");
    }
    let lower = name.to_ascii_lowercase();
    if lower == "*" {
        return Err("name one header: `*` does not stand for `Authorization`");
    }
    if lower == "content-type" {
        return Err("be another header than `Content-Type`, which is always allowed");
    }
    let own = lower.starts_with("proxy-") || lower.starts_with("sec-");
    if own || FORBIDDEN_HEADERS.split(' ').any(|name| name == lower) {
        return Err("be a header that a page can set: this one is the browser's own");
    }
    Ok(())
}

/// Fields of an answer that Bowline writes itself, or that concern one connection only; so do those that
/// begin with `access-control-`.
const OWN_ANSWER_HEADERS: &str = "allow cache-control connection content-encoding content-length \
    content-type date keep-alive proxy-authenticate proxy-connection retry-after te trailer \
    transfer-encoding upgrade vary";

/// Checks the name of a field of a node's answer that clients get: a token (RFC 9110 §5.6.2) of 1 to 64
/// characters in lower case, and none that Bowline writes itself.
pub(super) fn answer_header(name: &str) -> Result<(), &'static str> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(token) {
        return Err("be the name of a header such as `x-jitsi-shard`");
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("be in lower case");
    }
    let own = name.starts_with("access-control-");
    if own
        || OWN_ANSWER_HEADERS
            .split_ascii_whitespace()
            .any(|own| own == name)
    {
        return Err("be a header that Bowline does not write itself");
    }
    Ok(())
}

/// Checks the name of a query parameter.
pub(super) fn is_parameter_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
}

/// Checks an origin as a browser writes it: scheme, host, and the port unless it is the scheme's
/// own; lower case, nothing after it.
pub(super) fn origin(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "be an origin such as `https://chat.example.com`";
    if text.contains('*') {
        return Err("be one origin: `*` stands alone in its list, or not at all");
    }
    let (scheme, authority) = text.split_once("://").ok_or(FORM)?;
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("be in lower case, as browsers write origins");
    }
    if authority.ends_with('/') {
        return Err("end without `/`, as browsers write origins");
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (host, port) = split_port(authority);
    if !is_scheme || !is_host(host) {
        return Err(FORM);
    }
    match (scheme, port.map(port_number)) {
        (_, Some(None)) => Err("have a port from 1 to 65535 or none"),
        ("https", Some(Some(443))) | ("http", Some(Some(80))) => {
            Err("leave out the scheme's own port, as browsers do")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
