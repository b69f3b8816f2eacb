//! The request to a node: a fresh, minimal head, and the client's body behind it.
//!
//! Tigase parses the request head as XML text (`X-Foo: a<b` hangs its connection, a byte past
//! ASCII closes it), and no node needs to see what a client put into its head. So a head is
//! written from checked parts only and holds visible ASCII without `<`, `>` and `&`: the first
//! opens an element, the last an entity, and none has a place in a path or a host name.

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

/// What varies in the head of a request to a node.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The path asked for.
    pub path: Path<'a>,
    /// The `Host`.
    pub host: Authority<'a>,
    /// The client, for `X-Forwarded-For`; an IPv4 address in IPv6 form is written as IPv4.
    pub forwarded_for: IpAddr,
    /// How the client came, for `X-Forwarded-Proto`.
    pub forwarded_proto: Proto,
    /// The host that the client asked for, for `X-Forwarded-Host`; left out if there is none.
    pub forwarded_host: Option<Authority<'a>>,
}

/// Writes a whole POST request, head and body.
///
/// The fields: `Host`, `Content-Type: text/xml; charset=utf-8`, `Content-Length`,
/// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`. No `Connection`: HTTP/1.1 keeps
/// connections open (RFC 9112 §9.3). No `Accept-Encoding`, so that answers come uncoded.
pub fn write_request(head: &RequestHead<'_>, body: &[u8]) -> Box<[u8]> {
    let mut request = Vec::with_capacity(MOST_FIXED + head.path.0.len() + body.len());
    let parts = Parts {
        path: head.path.0.as_bytes(),
        host: head.host.0.as_bytes(),
        client: head.forwarded_for,
        proto: head.forwarded_proto,
        forwarded_host: head.forwarded_host.map(|host| host.0.as_bytes()),
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
    /// Path, host and body.
    text: Box<[u8]>,
    path: u16,
    host: u8,
    proto: Proto,
}

impl StoredRequest {
    /// A request that names its own host in `X-Forwarded-Host`.
    pub fn new(path: Path<'_>, host: Authority<'_>, proto: Proto, body: &[u8]) -> Self {
        Self {
            text: [path.0.as_bytes(), host.0.as_bytes(), body].concat().into(),
            // A path has 2048 bytes at most, a host 255.
            path: u16::try_from(path.0.len()).unwrap_or_default(),
            host: u8::try_from(host.0.len()).unwrap_or_default(),
            proto,
        }
    }

    /// Writes it for a node, behind what is in `out`. `client` is the client's address.
    pub fn write(&self, client: IpAddr, out: &mut Vec<u8>) {
        let (path, rest) = self.text.split_at(self.path.into());
        let (host, body) = rest.split_at(self.host.into());
        let parts = Parts {
            path,
            host,
            client,
            proto: self.proto,
            forwarded_host: Some(host),
            body,
        };
        parts.write(out);
    }
}

/// The parts of a request, all of them checked.
struct Parts<'a> {
    path: &'a [u8],
    host: &'a [u8],
    client: IpAddr,
    proto: Proto,
    forwarded_host: Option<&'a [u8]>,
    body: &'a [u8],
}

impl Parts<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let client = Small::of(self.client.to_canonical());
        let mut length = itoa::Buffer::new();
        let (host_name, host): (&[u8], _) = match self.forwarded_host {
            Some(host) => (b"\r\nX-Forwarded-Host: ", host),
            None => (b"", &b""[..]),
        };
        let begin = out.len();
        for part in [
            b"POST ",
            self.path,
            b" HTTP/1.1\r\nHost: ",
            self.host,
            b"\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: ",
            length.format(self.body.len()).as_bytes(),
            b"\r\nX-Forwarded-For: ",
            client.as_bytes(),
            b"\r\nX-Forwarded-Proto: ",
            self.proto.as_str().as_bytes(),
            host_name,
            host,
            b"\r\n\r\n",
        ] {
            out.extend_from_slice(part);
        }
        debug_assert!(
            out[begin..]
                .iter()
                .all(|byte| byte.is_ascii() && !b"<>&".contains(byte)),
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
mod tests {
    use super::*;

    fn head(client: &str) -> RequestHead<'static> {
        RequestHead {
            path: Path::new("/http-bind").expect("a path"),
            host: Authority::new("t1.example.com:5280").expect("a host"),
            forwarded_for: client.parse().expect("an address"),
            forwarded_proto: Proto::Https,
            forwarded_host: Authority::new("chat.example.com"),
        }
    }

    #[test]
    fn a_request_to_the_letter() {
        let request = write_request(&head("192.0.2.7"), b"<body/>");
        assert_eq!(
            std::str::from_utf8(&request).unwrap(),
            "POST /http-bind HTTP/1.1\r\n\
             Host: t1.example.com:5280\r\n\
             Content-Type: text/xml; charset=utf-8\r\n\
             Content-Length: 7\r\n\
             X-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: chat.example.com\r\n\
             \r\n\
             <body/>"
        );
    }

    #[test]
    fn a_stored_request_is_written_as_it_would_have_been_at_once() {
        let head = RequestHead {
            forwarded_host: Authority::new("t1.example.com:5280"),
            ..head("2001:db8::1")
        };
        let stored = StoredRequest::new(head.path, head.host, head.forwarded_proto, b"<body/>");
        for _ in 0..2 {
            let mut written = b"before".to_vec();
            stored.write(head.forwarded_for, &mut written);
            assert_eq!(written[6..], write_request(&head, b"<body/>")[..]);
        }
    }

    #[test]
    fn a_client_without_a_host_has_no_forwarded_host() {
        let head = RequestHead {
            forwarded_host: None,
            forwarded_proto: Proto::Http,
            ..head("::1")
        };
        let request = write_request(&head, b"");
        assert!(request.ends_with(
            b"Content-Length: 0\r\nX-Forwarded-For: ::1\r\nX-Forwarded-Proto: http\r\n\r\n"
        ));
    }

    #[test]
    fn addresses_are_written_in_full() {
        for (client, written) in [
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            (
                "2001:db8:1111:2222:3333:4444:5555:6666",
                "2001:db8:1111:2222:3333:4444:5555:6666",
            ),
        ] {
            let request = write_request(&head(client), b"");
            let line = format!("\r\nX-Forwarded-For: {written}\r\n");
            assert!(String::from_utf8_lossy(&request).contains(&line), "{line}");
        }
    }

    #[test]
    fn any_body_is_passed_as_it_is() {
        let body: Vec<u8> = (0..=255).collect();
        let request = write_request(&head("::1"), &body);
        assert!(request.ends_with(&body));
        assert!(String::from_utf8_lossy(&request).contains("Content-Length: 256\r\n"));
    }

    #[test]
    fn paths_that_could_break_a_head_are_refused() {
        for path in ["/", "/http-bind", "/a/b-c_d.e~f", "/x?y=1;z=2", "/%3C"] {
            assert!(Path::new(path).is_some(), "{path}");
        }
        let long = format!("/{}", "x".repeat(2048));
        for path in [
            "",
            "bosh",
            "/a b",
            "/a\r\nX: y",
            "/<a/>",
            "/a&b",
            "/é",
            "/a#b",
            "/\"",
            "/\0",
            &long,
        ] {
            assert!(Path::new(path).is_none(), "{path:?}");
        }
        for alone in "<>&#\"'\\` \r\n\t\0\x7f".chars() {
            let path = format!("/a{alone}b");
            assert!(Path::new(&path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn hosts_that_could_break_a_head_are_refused() {
        for host in ["a", "t1.example.com:5280", "[2001:db8::1]:80", "192.0.2.7"] {
            assert!(Authority::new(host).is_some(), "{host}");
        }
        let long = "x".repeat(256);
        for host in [
            "",
            "a b",
            "a\r\nb",
            "<a>",
            "a&b",
            "user@host",
            "é",
            "a/b",
            "a,b",
            &long,
        ] {
            assert!(Authority::new(host).is_none(), "{host:?}");
        }
        for alone in "<>&#\"'\\`/@?=;,!$()*+{}|^ \r\n\t\0\x7f".chars() {
            let host = format!("a{alone}b");
            assert!(Authority::new(&host).is_none(), "{host:?}");
        }
    }
}
