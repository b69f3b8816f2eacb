//! What a request head may look like, after hyper has parsed it: the strict reading of RFC 9112,
//! so that no proxy in front of Bowline and no node behind it can read another request.

use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use crate::proxy::Cause;
use crate::upstream::Authority;

/// The largest head, in bytes.
pub(super) const LARGEST_HEAD: usize = 32 * 1024;

/// A host name takes 253 bytes, an address in brackets less; the rest is for the port.
const LONGEST_HOST: usize = 261;

/// Checks a head in which `Content-Length` was seen `content_lengths` times: 0 too where a client
/// sent its request ahead, behind the one before. The `Host` comes back.
///
/// # Errors
///
/// [`Cause::BadHead`] and [`Cause::Coding`].
pub(super) fn check(head: &Parts, content_lengths: u8) -> Result<Authority<'_>, Cause> {
    if size(head) > LARGEST_HEAD {
        return Err(Cause::BadHead);
    }
    let host = host(head).ok_or(Cause::BadHead)?;
    let framing = framing(head, content_lengths).ok_or(Cause::BadHead)?;
    if framing && head.method != Method::POST {
        return Err(Cause::BadHead);
    }
    let codings = head.headers.get_all(CONTENT_ENCODING);
    if codings
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Cause::Coding);
    }
    Ok(host)
}

/// The head's bytes, as far as they are left after parsing; hyper's own bound is a loose one.
fn size(head: &Parts) -> usize {
    let fields = head.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    fields + target
}

/// Exactly one valid `Host` (RFC 9112 §3.2), and the same one in an absolute-form target, whose
/// scheme is one of HTTP's.
fn host(head: &Parts) -> Option<Authority<'_>> {
    let host = only(&head.headers, &HOST)?.to_str().ok()?;
    let same = head
        .uri
        .authority()
        .is_none_or(|target| target.as_str().eq_ignore_ascii_case(host));
    let scheme = head.uri.scheme_str();
    let http = scheme.is_none_or(|scheme| ["http", "https"].contains(&scheme));
    if same && http && is_host(host) {
        Authority::new(host)
    } else {
        None
    }
}

/// `uri-host [ ":" port ]`, of what a registered name or an address can consist of.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port))
            if is_all(address, |byte| {
                byte.is_ascii_hexdigit() || b":.".contains(&byte)
            }) =>
        {
            (
                address,
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        Some(_) => return false,
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            let valid = is_all(name, |byte| {
                byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
            });
            (name, valid.then_some(port))
        }
    };
    let port =
        port.is_some_and(|port| port.len() <= 5 && is_all(port, |byte| byte.is_ascii_digit()));
    !name.is_empty() && host.len() <= LONGEST_HOST && port
}

fn is_all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(allowed)
}

/// Whether the request has a body; none if its framing is not exactly one of `Content-Length` and
/// `Transfer-Encoding: chunked` (RFC 9112 §6).
fn framing(head: &Parts, content_lengths: u8) -> Option<bool> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        let coding = only(&head.headers, &TRANSFER_ENCODING)?;
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return (chunked && content_lengths == 0 && head.version == Version::HTTP_11)
            .then_some(true);
    }
    if !head.headers.contains_key(CONTENT_LENGTH) {
        return (content_lengths == 0).then_some(false);
    }
    let length = only(&head.headers, &CONTENT_LENGTH)?.to_str().ok()?;
    let digits = !length.is_empty() && is_all(length, |byte| byte.is_ascii_digit());
    let shortest = length == "0" || !length.starts_with('0');
    (digits && shortest && content_lengths <= 1).then_some(length != "0")
}

/// The value of a field that stands exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a hyper::header::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn checked(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<String, Cause> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let named = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case("content-length");
        let lengths = u8::try_from(fields.iter().filter(named).count()).unwrap();
        check(&head, lengths).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn hosts() {
        for good in [
            "a",
            "chat.example.com",
            "chat.example.com:5280",
            "10.0.0.1",
            "[::1]",
            "[::1]:80",
        ] {
            assert_eq!(checked("POST", "/", &[("host", good)]), Ok(good.to_owned()));
        }
        let long = "a".repeat(300);
        for bad in [
            "", "a b", "a/b", "a@b", "a<b", "[::1", "[::1]80", "a:b", "a:1:2", ":80", "a,b", "[x]",
            &long,
        ] {
            assert_eq!(
                checked("POST", "/", &[("host", bad)]),
                Err(Cause::BadHead),
                "{bad}"
            );
        }
    }

    #[test]
    fn exactly_one_host_that_agrees_with_the_target() {
        assert_eq!(checked("POST", "/", &[]), Err(Cause::BadHead));
        assert_eq!(
            checked("POST", "/", &[("host", "a"), ("host", "a")]),
            Err(Cause::BadHead)
        );
        assert_eq!(
            checked("POST", "http://a/x", &[("host", "A")]),
            Ok("A".to_owned())
        );
        for other in ["http://b/x", "ftp://a/x", "httpx://a/x"] {
            let refused = checked("POST", other, &[("host", "a")]);
            assert_eq!(refused, Err(Cause::BadHead), "{other}");
        }
    }

    #[test]
    fn exactly_one_framing() {
        let framed = |fields: &[(&str, &str)]| {
            let fields: Vec<_> = [("host", "a")].iter().chain(fields).copied().collect();
            checked("POST", "/", &fields).is_ok()
        };
        assert!(framed(&[]));
        assert!(framed(&[("content-length", "12")]));
        assert!(framed(&[("content-length", "0")]));
        assert!(framed(&[("transfer-encoding", "chunked")]));
        for odd in ["", "012", "+12", "-1", "1 2", "0x1", "12,12", "1e3"] {
            assert!(!framed(&[("content-length", odd)]), "{odd}");
        }
        assert!(!framed(&[
            ("content-length", "12"),
            ("content-length", "12")
        ]));
        assert!(!framed(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "12")
        ]));
        for odd in [
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "chunked;q=1",
            "xchunked",
        ] {
            assert!(!framed(&[("transfer-encoding", odd)]), "{odd}");
        }
        let twice = [
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ];
        assert!(!framed(&twice));
    }

    #[test]
    fn a_body_belongs_to_a_post() {
        assert_eq!(checked("GET", "/", &[("host", "a")]), Ok("a".to_owned()));
        let get = checked("GET", "/", &[("host", "a"), ("content-length", "3")]);
        assert_eq!(get, Err(Cause::BadHead));
    }

    #[test]
    fn no_content_coding() {
        let coded = |coding| checked("POST", "/", &[("host", "a"), ("content-encoding", coding)]);
        assert_eq!(coded("gzip"), Err(Cause::Coding));
        assert_eq!(coded("identity"), Ok("a".to_owned()));
    }
}
