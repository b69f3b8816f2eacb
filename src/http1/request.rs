//! The head of a request: one strict reading, so that no proxy in front of Bowline and no node behind
//! it can read another request in the same bytes.

use super::fields::{Fields, Room, is, length, lists};
use super::{Error, Framing};

/// A host name takes 253 bytes, an address in brackets less; the rest is for the port.
const LONGEST_HOST: usize = 261;

/// The version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The method of a request, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// `POST`.
    Post,
    /// Any other.
    Other,
}

impl Method {
    fn named(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "POST" => Self::Post,
            _ => Self::Other,
        }
    }
}

/// The head of a request, its lines read and nothing decided yet.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'a>,
    target: &'a str,
    framed: Framed,
}

/// What ends the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framed {
    /// What its fields say.
    ByFields,
    /// The end of its HTTP/2 stream.
    ByStream {
        /// The stream has ended with the head.
        ended: bool,
    },
}

/// What a request asks for, and where it ends.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without its `?`; empty if there is none. It has visible ASCII only, without `"`,
    /// `#`, `<` and `>`.
    pub query: &'a str,
    /// The `Host`: a name or an address, and maybe a port. It has at most 261 bytes.
    pub host: &'a str,
    /// How the body ends: `Empty`, `Length` or `Chunked`; over HTTP/2 `Empty`, `Length` or `UntilClose`.
    pub framing: Framing,
    /// It has a content coding other than `identity`.
    pub coded: bool,
    /// It waits for `100 Continue` with its body.
    pub expects_continue: bool,
}

impl<'a> RequestHead<'a> {
    /// Reads the lines of a whole head, as [`HeadEnd`](super::HeadEnd) found it.
    ///
    /// # Errors
    /// `Invalid` or `TooManyFields`.
    pub fn parse(bytes: &'a [u8], room: &'a mut Room<'a>) -> Result<Self, Error> {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut room.0)?;
        match parsed {
            httparse::Status::Complete(length) if length == bytes.len() => {}
            _ => return Err(Error::Invalid("where the head ends")),
        }
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(Error::Invalid("the first line"));
        };
        Ok(Self {
            method: Method::named(method),
            target,
            version: if version == 1 {
                Version::Http11
            } else {
                Version::Http10
            },
            fields: Fields(request.headers),
            framed: Framed::ByFields,
        })
    }

    /// The head of an HTTP/2 request: its `:method`, its `:path` as the target, and its fields, with
    /// `:authority` as the `Host`. `ended` says that its stream has ended with it.
    pub fn of_stream(method: &str, path: &'a str, fields: Fields<'a>, ended: bool) -> Self {
        Self {
            method: Method::named(method),
            version: Version::Http11,
            fields,
            target: path,
            framed: Framed::ByStream { ended },
        }
    }

    /// Whether the client keeps the connection open behind the answer (RFC 9112 §9.3).
    #[inline]
    pub fn stays(&self) -> bool {
        let mut stays = self.version == Version::Http11;
        for value in self.fields.all("connection") {
            if lists(value, b"close") {
                return false;
            }
            stays |= lists(value, b"keep-alive");
        }
        stays
    }

    /// The path and the query of the target. They hold what they may only if [`Self::request`] has found
    /// the target good.
    pub fn path_and_query(&self) -> &'a str {
        let after_scheme = self.target.split_once("://").filter(|(scheme, _)| {
            // A path may have `://` too.
            !scheme.starts_with('/')
        });
        match after_scheme {
            Some((_, rest)) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
            None if self.target == "*" => "/",
            None => self.target,
        }
    }

    /// Decides what the request is.
    ///
    /// # Errors
    /// `Invalid`, unless there is exactly one valid `Host` (RFC 9112 §3.2), the target is a path or
    /// names the same host, the framing is none or exactly one of `Content-Length` and
    /// `Transfer-Encoding: chunked` (§6), and only a `POST` has a body.
    pub fn request(&self) -> Result<Request<'a>, Error> {
        let (mut host, mut length_field, mut coding) = (Seen::Never, Seen::Never, Seen::Never);
        let (mut coded, mut expects_continue) = (false, false);
        for field in self.fields.0 {
            // The length of a name tells most fields apart.
            match field.name.len() {
                4 if is(field, "host") => host.see(field.value),
                6 if is(field, "expect") => {
                    expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
                }
                14 if is(field, "content-length") => length_field.see(field.value),
                16 if is(field, "content-encoding") => {
                    coded |= !field.value.eq_ignore_ascii_case(b"identity");
                }
                17 if is(field, "transfer-encoding") => coding.see(field.value),
                _ => {}
            }
        }
        let host = host.only().and_then(|host| std::str::from_utf8(host).ok());
        let host = host.filter(|host| is_host(host));
        let host = host.ok_or(Error::Invalid("not exactly one good Host"))?;
        let framing = self.framing(length_field, coding)?;
        if framing != Framing::Empty && self.method != Method::Post {
            return Err(Error::Invalid("a body of another method than POST"));
        }
        let (path, query) = path_and_query(self.target, host)?;
        Ok(Request {
            path,
            query,
            host,
            framing,
            coded,
            expects_continue: expects_continue && self.version == Version::Http11,
        })
    }

    fn framing(&self, length_field: Seen<'_>, coding: Seen<'_>) -> Result<Framing, Error> {
        let value = match (length_field, coding) {
            (Seen::Never, Seen::Never) if self.framed == Framed::ByStream { ended: false } => {
                // A stream of another method may end in a frame without bytes.
                let has_body = self.method == Method::Post;
                return Ok([Framing::Empty, Framing::UntilClose][usize::from(has_body)]);
            }
            (Seen::Never, Seen::Never) => return Ok(Framing::Empty),
            (Seen::Once(value), Seen::Never) => value,
            (Seen::Never, Seen::Once(coding))
                if coding.eq_ignore_ascii_case(b"chunked") && self.version == Version::Http11 =>
            {
                return Ok(Framing::Chunked);
            }
            (Seen::Never, _) => return Err(Error::Invalid("the Transfer-Encoding")),
            _ => return Err(Error::Invalid("more than one framing")),
        };
        match (value, length(value)?) {
            (b"0", _) => Ok(Framing::Empty),
            ([b'0', ..], _) => Err(Error::Invalid("a Content-Length with zeros in front")),
            (_, length) => Ok(Framing::Length(length)),
        }
    }
}

impl<'a> Request<'a> {
    /// The `Host` without its port.
    pub fn bare_host(&self) -> &'a str {
        let end = match self.host.find(']') {
            Some(bracket) => Some(bracket + 1),
            None => self.host.find(':'),
        };
        &self.host[..end.unwrap_or(self.host.len())]
    }
}

/// How often a field stands in a head.
#[derive(Debug, Clone, Copy)]
enum Seen<'a> {
    Never,
    Once(&'a [u8]),
    More,
}

impl<'a> Seen<'a> {
    const fn see(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Never => Self::Once(value),
            Self::Once(_) | Self::More => Self::More,
        };
    }

    /// The value of a field that stands exactly once.
    const fn only(self) -> Option<&'a [u8]> {
        match self {
            Self::Once(value) => Some(value),
            Self::Never | Self::More => None,
        }
    }
}

/// The path and the query of a target (RFC 9112 §3.2): of one that begins with the path, or with
/// `http://` or `https://` and the `host`, or of `*`.
fn path_and_query<'a>(target: &'a str, host: &str) -> Result<(&'a str, &'a str), Error> {
    let wrong = Error::Invalid("the target");
    let rest = if target.starts_with('/') || target == "*" {
        target
    } else {
        let rest = target
            .strip_prefix("http://")
            .or_else(|| target.strip_prefix("https://"))
            .ok_or(wrong)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !authority.eq_ignore_ascii_case(host) {
            return Err(wrong);
        }
        rest
    };
    let path_end = rest.bytes().position(|byte| byte == b'?');
    let (path, query) = rest.split_at(path_end.unwrap_or(rest.len()));
    // A fragment never leaves a client (RFC 9110 §7.1).
    if !is_all(path, OF_PATH) || !is_all(query, OF_QUERY) {
        return Err(wrong);
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok((path, query.strip_prefix('?').unwrap_or_default()))
}

/// Bits of [`CLASSES`].
const OF_PATH: u8 = 1;
const OF_QUERY: u8 = 2;
const OF_NAME: u8 = 4;
const OF_ADDRESS: u8 = 8;
const DIGIT: u8 = 16;

/// In which parts of a target or a host each byte may stand.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        let mut class = 0;
        if matches!(byte, b'!' | b'$'..=b';' | b'=' | b'@'..=b'_' | b'a'..=b'z' | b'|' | b'~') {
            class |= OF_PATH;
        }
        if matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'~') {
            class |= OF_QUERY;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            class |= OF_NAME;
        }
        if byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.') {
            class |= OF_ADDRESS;
        }
        if byte.is_ascii_digit() {
            class |= DIGIT;
        }
        classes[byte as usize] = class;
        byte += 1;
    }
    classes
};

/// `uri-host [ ":" port ]`, of what a registered name or an address can consist of.
fn is_host(host: &str) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let Some((address, behind)) = rest.split_once(']') else {
            return false;
        };
        if !is_all(address, OF_ADDRESS) {
            return false;
        }
        let empty = behind.is_empty().then_some("");
        (address, behind.strip_prefix(':').or(empty))
    } else {
        let colon = host.bytes().position(|byte| byte == b':');
        let (name, behind) = host.split_at(colon.unwrap_or(host.len()));
        let port = behind.strip_prefix(':').unwrap_or_default();
        (name, is_all(name, OF_NAME).then_some(port))
    };
    let port = port.is_some_and(|port| port.len() <= 5 && is_all(port, DIGIT));
    !name.is_empty() && host.len() <= LONGEST_HOST && port
}

fn is_all(text: &str, class: u8) -> bool {
    text.bytes()
        .all(|byte| CLASSES[usize::from(byte)] & class != 0)
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
