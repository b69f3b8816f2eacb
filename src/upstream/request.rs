//! The request to a node: a fresh, minimal head, and the client's body behind it.
//!
//! Tigase parses the request head as XML text (`X-Foo: a<b` hangs its connection, a byte past
//! ASCII closes it), and no node needs to see what a client put into its head. So a head is
//! written from checked parts only and holds visible ASCII without `<`, `>` and `&`: the first
//! opens an element, the last an entity, and none has a place in a path or a host name. Only a query
//! has `&`, and it is passed on to nodes only where the operator says so.

use std::io::Write as _;
use std::net::IpAddr;

/// Which bytes may stand in a path.
const IN_PATH: [bool; 256] = {
    let mut all = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        all[byte as usize] = !matches!(
            byte,
            b'<' | b'>' | b'&' | b'#' | b'"' | b'\'' | b'\\' | b'`'
        );
        byte += 1;
    }
    all
};

/// Which bytes may stand in a query: those of RFC 3986 §3.4, and those that browsers leave as they are
/// (WHATWG URL, "query percent-encode set") and no server reads as markup.
const IN_QUERY: [bool; 256] = {
    let mut all = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        all[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'/'
                    | b'?'
                    | b'%'
                    | b'['
                    | b']'
                    | b'{'
                    | b'}'
                    | b'|'
                    | b'^'
            );
        byte += 1;
    }
    all
};

/// Which bytes may stand in an authority.
const IN_AUTHORITY: [bool; 256] = {
    let mut all = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        all[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'%' | b'[' | b']');
        byte += 1;
    }
    all
};

/// The path of a request: it begins with `/`, and holds visible ASCII without `#`, quotes, `\`,
/// `<`, `>` and `&`; 1 to 2048 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a>(&'a str);

impl<'a> Path<'a> {
    /// Checks a path; none if it is not of that form.
    pub fn new(path: &'a str) -> Option<Self> {
        let fits = path.starts_with('/')
            && path.len() <= 2048
            && path.bytes().all(|byte| IN_PATH[usize::from(byte)]);
        fits.then_some(Self(path))
    }

    /// The path as it was given.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// The query of a request, without its `?`: letters, digits and `-._~!$&'()*+,;=:@/?%[]{}|^`; up to
/// 4096 bytes, since a token (JWT) may stand in it. The empty one is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Checks a query; none if it is not of that form.
    pub fn new(query: &'a str) -> Option<Self> {
        let fits = query.len() <= 4096 && query.bytes().all(|byte| IN_QUERY[usize::from(byte)]);
        fits.then_some(Self(query))
    }

    /// The query as it was given.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The `?` in front of it; nothing in front of an empty one.
    const fn mark(self) -> &'static [u8] {
        if self.0.is_empty() { b"" } else { b"?" }
    }
}

/// A host with or without a port, as in `Host` (RFC 9110 §7.2): 1 to 255 bytes out of letters,
/// digits and `-._~:%[]`. Names with other characters do not occur and are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a>(&'a str);

impl<'a> Authority<'a> {
    /// Checks a host; none if it is not of that form.
    pub fn new(host: &'a str) -> Option<Self> {
        let fits = (1..=255).contains(&host.len())
            && host.bytes().all(|byte| IN_AUTHORITY[usize::from(byte)]);
        fits.then_some(Self(host))
    }

    /// The host as it was given.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// How the client came to the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Proto {
    /// The word for `X-Forwarded-Proto`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The value of `Origin`, or of a preflight's `Access-Control-Request-` field: visible ASCII and spaces
/// without `<`, `>` and `&`, 1 to 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginValue<'a>(&'a str);

impl<'a> OriginValue<'a> {
    /// Checks a value; none if it is not of that form.
    pub fn new(value: &'a [u8]) -> Option<Self> {
        let fits = (1..=512).contains(&value.len())
            && value
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~') && !b"<>&".contains(byte));
        let value = std::str::from_utf8(value).ok()?;
        fits.then_some(Self(value))
    }
}

/// A preflight, as it goes to a node.
#[derive(Debug, Clone, Copy)]
pub struct Preflight<'a> {
    /// The path asked for.
    pub path: Path<'a>,
    /// The query asked for.
    pub query: Query<'a>,
    /// The `Host`.
    pub host: Authority<'a>,
    /// `Origin`.
    pub origin: Option<OriginValue<'a>>,
    /// `Access-Control-Request-Method`.
    pub method: Option<OriginValue<'a>>,
    /// `Access-Control-Request-Headers`.
    pub headers: Option<OriginValue<'a>>,
}

impl Preflight<'_> {
    /// Writes the request.
    pub fn write(&self) -> Box<[u8]> {
        let mut head = format!("OPTIONS {}", self.path.0);
        if !self.query.0.is_empty() {
            head = head + "?" + self.query.0;
        }
        head = head + " HTTP/1.1\r\nHost: " + self.host.0 + "\r\n";
        for (name, value) in [
            ("Origin", self.origin),
            ("Access-Control-Request-Method", self.method),
            ("Access-Control-Request-Headers", self.headers),
        ] {
            if let Some(value) = value {
                head = head + name + ": " + value.0 + "\r\n";
            }
        }
        (head + "\r\n").into_bytes().into()
    }
}

/// What varies in the head of a request to a node.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The path asked for.
    pub path: Path<'a>,
    /// The query asked for.
    pub query: Query<'a>,
    /// The `Host`.
    pub host: Authority<'a>,
    /// The client, for `X-Forwarded-For`; an IPv4 address in IPv6 form is written as IPv4.
    pub forwarded_for: IpAddr,
    /// How the client came, for `X-Forwarded-Proto`.
    pub forwarded_proto: Proto,
    /// The host that the client asked for, for `X-Forwarded-Host`; left out if there is none.
    pub forwarded_host: Option<Authority<'a>>,
    /// The client's `Origin`; left out if there is none.
    pub origin: Option<OriginValue<'a>>,
}

/// Writes a whole POST request, head and body.
///
/// The fields: `Host`, `Content-Type: text/xml; charset=utf-8`, `Content-Length`,
/// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`. No `Connection`: HTTP/1.1 keeps
/// connections open (RFC 9112 §9.3). No `Accept-Encoding`, so that answers come uncoded.
pub fn write_request(head: &RequestHead<'_>, body: &[u8]) -> Box<[u8]> {
    let target = [
        head.path.0.as_bytes(),
        head.query.mark(),
        head.query.0.as_bytes(),
    ]
    .concat();
    let mut request = Vec::with_capacity(MOST_FIXED + target.len() + body.len());
    let parts = Parts {
        target: &target,
        host: head.host.0.as_bytes(),
        client: head.forwarded_for,
        proto: head.forwarded_proto,
        forwarded_host: head.forwarded_host.map(|host| host.0.as_bytes()),
        origin: head.origin.map_or(b"", |origin| origin.0.as_bytes()),
        body,
    };
    parts.write(&mut request);
    request.into_boxed_slice()
}

/// About what a head takes beside its path.
const MOST_FIXED: usize = 320;

/// A request as it is kept until it is answered: its body and what varies in its head. A held poll has
/// one in memory, so the head is written each time that the request is sent. Its body holds a sid: never
/// to be shown.
pub struct StoredRequest {
    /// Path with query, host, origin and body.
    text: Box<[u8]>,
    target: u16,
    /// Empty if nodes get no `Origin`.
    origin: u16,
    host: u8,
    proto: Proto,
}

impl StoredRequest {
    /// A request that names its own host in `X-Forwarded-Host`.
    pub fn new(
        (path, query): (Path<'_>, Query<'_>),
        host: Authority<'_>,
        (proto, origin): (Proto, Option<OriginValue<'_>>),
        body: &[u8],
    ) -> Self {
        let (mark, host_bytes) = (query.mark(), host.0.as_bytes());
        let origin = origin.map_or("", |origin| origin.0);
        let (query_bytes, origin_bytes) = (query.0.as_bytes(), origin.as_bytes());
        let path_bytes = path.0.as_bytes();
        let text = if query_bytes.is_empty() && origin_bytes.is_empty() {
            [path_bytes, host_bytes, body].concat()
        } else {
            let target = [path_bytes, mark, query_bytes];
            [&target[..], &[host_bytes, origin_bytes, body]]
                .concat()
                .concat()
        };
        let target = path.0.len() + mark.len() + query.0.len();
        Self {
            text: text.into(),
            // A path has 2048 bytes at most, a query 4096, a host 255, an origin 512.
            origin: u16::try_from(origin.len()).unwrap_or_default(),
            target: u16::try_from(target).unwrap_or_default(),
            host: u8::try_from(host.0.len()).unwrap_or_default(),
            proto,
        }
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        let head = usize::from(self.target) + usize::from(self.host) + usize::from(self.origin);
        self.text.get(head..).unwrap_or_default()
    }

    /// Writes it for a node, behind what is in `out`. `client` is the client's address.
    #[inline]
    pub fn write(&self, client: IpAddr, out: &mut Vec<u8>) {
        let (target, rest) = self.text.split_at(self.target.into());
        let (host, rest) = rest.split_at(self.host.into());
        let (origin, body) = rest.split_at(self.origin.into());
        let parts = Parts {
            target,
            host,
            client,
            proto: self.proto,
            forwarded_host: Some(host),
            origin,
            body,
        };
        parts.write(out);
    }
}

/// The parts of a request, all of them checked.
struct Parts<'a> {
    /// The path, and the query behind it.
    target: &'a [u8],
    host: &'a [u8],
    client: IpAddr,
    proto: Proto,
    forwarded_host: Option<&'a [u8]>,
    /// Empty if there is none.
    origin: &'a [u8],
    body: &'a [u8],
}

impl Parts<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let client = Small::of(self.client.to_canonical());
        let mut length = itoa::Buffer::new();
        let proto_and_host: &[u8] = match (self.proto, self.forwarded_host) {
            (Proto::Http, Some(_)) => b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: ",
            (Proto::Https, Some(_)) => b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: ",
            (Proto::Http, None) => b"\r\nX-Forwarded-Proto: http",
            (Proto::Https, None) => b"\r\nX-Forwarded-Proto: https",
        };
        let begin = out.len();
        for part in [
            b"POST ",
            self.target,
            b" HTTP/1.1\r\nHost: ",
            self.host,
            b"\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: ",
            length.format(self.body.len()).as_bytes(),
            b"\r\nX-Forwarded-For: ",
            client.as_bytes(),
            proto_and_host,
            self.forwarded_host.unwrap_or_default(),
        ] {
            out.extend_from_slice(part);
        }
        if !self.origin.is_empty() {
            out.extend_from_slice(b"\r\nOrigin: ");
            out.extend_from_slice(self.origin);
        }
        out.extend_from_slice(b"\r\n\r\n");
        debug_assert!(
            out[begin..]
                .iter()
                .all(|byte| byte.is_ascii() && !b"<>".contains(byte)),
            "a head is ASCII without markup, for its parts are"
        );
        out.extend_from_slice(self.body);
    }
}

/// The text of an address, without taking memory for it.
struct Small {
    /// An IPv6 address has at most 45 bytes.
    text: [u8; 48],
    len: usize,
}

impl Small {
    fn of(address: IpAddr) -> Self {
        let mut small = Self {
            text: [0; 48],
            len: 0,
        };
        match address {
            // By hand, since the formatting of std takes longer than all the rest of a head.
            IpAddr::V4(address) => {
                for (place, octet) in address.octets().into_iter().enumerate() {
                    if place > 0 {
                        small.append(b".");
                    }
                    small.append(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            IpAddr::V6(address) => {
                let mut room = &mut small.text[..];
                let written = write!(room, "{address}");
                small.len = 48 - room.len();
                debug_assert!(written.is_ok(), "an address fits");
            }
        }
        small
    }

    fn append(&mut self, text: &[u8]) {
        self.text[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

#[cfg(test)]
mod tests;
