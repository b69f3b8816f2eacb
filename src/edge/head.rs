//! What a request head may look like, after hyper has parsed it: the strict reading of RFC 9112,
//! so that no proxy in front of Bowline and no node behind it can read another request.

use hyper::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use crate::proxy::Cause;
use crate::upstream::Authority;

/// The largest head, in bytes.
pub(super) const LARGEST_HEAD: usize = 32 * 1024;

/// A host name takes 253 bytes, an address in brackets less; the rest is for the port.
const LONGEST_HOST: usize = 261;

/// How often a field stands in a head.
#[derive(Debug, Clone, Copy, Default)]
enum Seen<'a> {
    #[default]
    Never,
    Once(&'a HeaderValue),
    More,
}

impl<'a> Seen<'a> {
    const fn see(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::Never => Self::Once(value),
            Self::Once(_) | Self::More => Self::More,
        };
    }

    /// The value of a field that stands exactly once.
    const fn only(self) -> Option<&'a HeaderValue> {
        match self {
            Self::Once(value) => Some(value),
            Self::Never | Self::More => None,
        }
    }
}

/// What matters of a head's fields, found in one pass over them.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// Their bytes, as far as they are left after parsing; hyper's own bound is a loose one.
    size: usize,
    host: Seen<'a>,
    length: Seen<'a>,
    transfer_coding: Seen<'a>,
    /// There is a content coding other than `identity`.
    coded: bool,
    /// `Connection` lists `close`.
    close: bool,
    /// `Connection` of an old client lists `keep-alive`.
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    /// Looks through the fields of `head`.
    pub(super) fn of(head: &'a Parts) -> Self {
        let mut fields = Self::default();
        for (name, value) in &head.headers {
            fields.size += name.as_str().len() + value.len() + 4;
            match *name {
                HOST => fields.host.see(value),
                CONTENT_LENGTH => fields.length.see(value),
                TRANSFER_ENCODING => fields.transfer_coding.see(value),
                CONTENT_ENCODING => {
                    fields.coded |= !value.as_bytes().eq_ignore_ascii_case(b"identity");
                }
                CONNECTION => {
                    fields.close |= lists(value, b"close");
                    let old = head.version != Version::HTTP_11;
                    fields.keep_alive |= old && lists(value, b"keep-alive");
                }
                _ => {}
            }
        }
        fields
    }

    /// Whether the client's connection stays open behind the answer (RFC 9112 §9.3).
    pub(super) fn stays(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// Checks a head. The `Host` comes back. What hyper hides of it is for [`super::scan`] to see.
    ///
    /// # Errors
    ///
    /// [`Cause::BadHead`] and [`Cause::Coding`].
    pub(super) fn check(&self, head: &'a Parts) -> Result<Authority<'a>, Cause> {
        let target = head.uri.path_and_query();
        let target = target.map_or(0, |target| target.as_str().len());
        if self.size + target + head.method.as_str().len() > LARGEST_HEAD {
            return Err(Cause::BadHead);
        }
        let host = self.host(head).ok_or(Cause::BadHead)?;
        let framing = self.framing(head).ok_or(Cause::BadHead)?;
        if framing && head.method != Method::POST {
            return Err(Cause::BadHead);
        }
        if self.coded {
            return Err(Cause::Coding);
        }
        Ok(host)
    }

    /// Exactly one valid `Host` (RFC 9112 §3.2), and the same one in an absolute-form target, whose
    /// scheme is one of HTTP's.
    fn host(&self, head: &Parts) -> Option<Authority<'a>> {
        let host = self.host.only()?.to_str().ok()?;
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

    /// Whether the request has a body; none if its framing is not exactly one of `Content-Length`
    /// and `Transfer-Encoding: chunked` (RFC 9112 §6).
    fn framing(&self, head: &Parts) -> Option<bool> {
        if !matches!(self.transfer_coding, Seen::Never) {
            let coding = self.transfer_coding.only()?;
            let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            let alone = matches!(self.length, Seen::Never);
            return (chunked && alone && head.version == Version::HTTP_11).then_some(true);
        }
        if matches!(self.length, Seen::Never) {
            return Some(false);
        }
        let length = self.length.only()?.to_str().ok()?;
        let digits = !length.is_empty() && is_all(length, |byte| byte.is_ascii_digit());
        let shortest = length == "0" || !length.starts_with('0');
        (digits && shortest).then_some(length != "0")
    }
}

/// Whether a `Connection` field lists `option`.
fn lists(value: &HeaderValue, option: &[u8]) -> bool {
    let mut options = value.as_bytes().split(|&byte| byte == b',');
    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
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
        let host = Fields::of(&head).check(&head);
        host.map(|host| host.as_str().to_owned())
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
