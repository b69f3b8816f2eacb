//! Rules for text that is more than text: names, `host:port`, paths, origins. Pure; a refusal is
//! the end of the sentence that begins "must".

use std::net::{Ipv4Addr, Ipv6Addr};

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
    if port_number(port).is_none() {
        return Err("end in a port from 1 to 65535");
    }
    Ok(())
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

/// Checks the URL at which a node takes WebSocket, and gives its `host:port` and its path.
pub(super) fn websocket_url(text: &str) -> Result<(&str, &str), &'static str> {
    const FORM: &str = "be a URL such as `ws://10.0.0.5:5290/xmpp-websocket`";
    if text.starts_with("wss://") {
        return Err("be a URL with `ws`: there is no TLS towards a node's WebSocket");
    }
    let rest = text.strip_prefix("ws://").ok_or(FORM)?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or(FORM)?);
    host_port(authority)?;
    self::path(path)?;
    if path.contains(['&', '\'']) {
        return Err("have no `&` and no `'`");
    }
    Ok((authority, path))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn node_names() {
        for good in ["t1", "T-1_a.b", "1", &"x".repeat(64)] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    #[test]
    fn authorities() {
        for good in [
            "chat.example.com",
            "chat.example.com:5280",
            "10.0.0.1",
            "[::1]",
            "[::1]:5280",
            "chat_1",
        ] {
            assert_eq!(authority(good), Ok(()), "{good}");
        }
        let long = vec!["x".repeat(61); 4].join(".") + ":65535";
        assert_eq!((long.len(), authority(&long)), (253, Ok(())));
        let longer = vec!["x".repeat(62); 4].join(".") + ":65535";
        for bad in [
            "",
            "a b",
            "chat<example>",
            "chat.example.com\r\nX: y",
            "https://chat.example.com",
            "chat.example.com/",
            "chat.example.com:0",
            "::1",
            "user@chat",
            &longer,
        ] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for good in [
            "t1:5280",
            "t1.example.com:5280",
            "t1.example.com.:1",
            "tigase_1:65535",
            "10.0.0.1:80",
            "[::1]:5280",
            "[2001:db8::1]:5280",
            "xn--bcher-kva.example:80",
        ] {
            assert_eq!(host_port(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "t1",
            "t1:",
            ":5280",
            "t1:0",
            "t1:65536",
            "t1:+80",
            "t1:80 ",
            "a b:80",
            "t1..x:80",
            "-a:80",
            "a-:80",
            "::1:5280",
            "[::1]",
            "[::1:80",
            "[t1]:80",
            "300.1.1.1:80",
            "1.2.3:80",
            "10.0.0.1.:80",
            "bücher.example:80",
            "http://t1:80",
            "t1:80/x",
            "user@t1:80",
            "[fe80::1%eth0]:80",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bare_ipv6_addresses() {
        for bare in [
            "::1:5280",
            ":::5280",
            "2001:db8::1:80",
            "::ffff:10.0.0.1:80",
        ] {
            assert!(is_bare_ipv6(bare), "{bare}");
            assert_eq!(host_port(bare), Err(BARE_IPV6), "{bare}");
        }
        for other in ["", "t1:80", "[::1]:80", "t1:80:90", "10.0.0.1:80"] {
            assert!(!is_bare_ipv6(other), "{other}");
        }
    }

    #[test]
    fn addresses_that_mean_the_same_are_equal() {
        let same = |a, b| canonical_host_port(a) == canonical_host_port(b);
        assert!(same("T1.example.com:80", "t1.example.com.:080"));
        assert!(same("[::1]:80", "[0:0::1]:80"));
        assert!(!same("t1:80", "t1:81"));
        assert!(!same("t1:80", "t2:80"));
    }

    #[test]
    fn paths() {
        for good in ["/", "/http-bind", "/a/b~c;d=1/", "/%20"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in [
            "", "x", "/a b", "/<", "/a?b", "/#", "/ä", "/\"", "/\n", "/{x}",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins() {
        for good in [
            "https://chat.example.com",
            "http://localhost:8080",
            "https://[::1]:8443",
            "https://[::1]",
            "capacitor://localhost",
            "http://10.0.0.1",
        ] {
            assert_eq!(origin(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "chat.example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://A",
            "https://a:443",
            "http://a:80",
            "https://a:0",
            "https://a:x",
            "https://*.a",
            "null",
            "://a",
            "https://a b",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn public_urls() {
        for good in [
            "https://t1.example.com/http-bind",
            "http://10.0.0.1:5280/bosh/",
            "https://[2001:db8::1]:8443/a&b'c",
            "https://t1.example.com",
            "https://T1.example.com:443/%20",
        ] {
            assert_eq!(public_url(good), Ok(()), "{good}");
        }
        let long = format!("https://t1.example.com/{}", "x".repeat(1024));
        for bad in [
            "",
            "t1.example.com",
            "//t1.example.com/http-bind",
            "/http-bind",
            "ws://t1.example.com/http-bind",
            "ftp://t1.example.com",
            "javascript:alert(1)",
            "https://",
            "https:///http-bind",
            "https://t1 x/",
            "https://user:secret@t1.example.com/",
            "https://t1.example.com:0/",
            "https://t1.example.com:65536/",
            "https://t1.example.com:x/",
            "https://t1.example.com/a b",
            "https://t1.example.com/\"><x",
            "https://t1.example.com/?a",
            "https://t1.example.com?a",
            "https://t1.example.com/#a",
            "https://b\u{fc}cher.example/",
            &long,
        ] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn request_headers() {
        for good in ["Authorization", "X-Foo", "x", "Accept", &"x".repeat(64)] {
            assert_eq!(request_header(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "X Foo",
            "X-Foo:",
            "X-Foo\r\nX-Bar",
            "X-F\u{f6}o",
            "X,Y",
            "*",
            "content-type",
            "Cookie",
            "HOST",
            "Sec-Fetch-Mode",
            "Proxy-Authorization",
            &"x".repeat(65),
        ] {
            assert!(request_header(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC*") {
            let _ = (is_node_name(&text), host_port(&text), path(&text), origin(&text), request_header(&text), public_url(&text));
            let _ = canonical_host_port(&text);
        }
    }
}
