//! A second reading of HTTP/1.1, slow and simple: whole messages as RFC 9112 has them, line by line,
//! by nothing but this file. What is refused is `None`.

use std::net::IpAddr;

/// A header field: its name in lower case, its value without blanks around it.
type Field = (String, Vec<u8>);

/// The most header fields of one head.
const MOST_FIELDS: usize = 100;

/// What a node answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<Vec<u8>>,
    pub body: Vec<u8>,
    pub reusable: bool,
}

/// Reads the answer to a POST out of all that a node sent before it closed the connection.
pub fn answer(mut bytes: &[u8], max: usize) -> Option<Answer> {
    for _ in 0..9 {
        let (lines, rest) = head(bytes)?;
        let (first, fields) = lines.split_first()?;
        let (version, status) = status_line(first)?;
        let fields = read_fields(fields)?;
        let all = |name: &str| {
            let named = fields.iter().filter(move |(field, _)| field == name);
            named.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
        };
        let identity = |value: &&[u8]| value.eq_ignore_ascii_case(b"identity");
        if !all("content-encoding").iter().all(identity) {
            return None;
        }
        let length = match all("content-length")[..] {
            [] => None,
            [one] => Some(number(one)?),
            _ => return None,
        };
        let chunked = match all("transfer-encoding")[..] {
            [] => false,
            [one] if one.eq_ignore_ascii_case(b"chunked") => true,
            _ => return None,
        };
        if chunked && (length.is_some() || version == 0) || status == 101 {
            return None;
        }
        if status < 200 {
            bytes = rest;
            continue;
        }
        let closes = all("connection").iter().any(|value| {
            let mut options = value.split(|byte| *byte == b',');
            options.any(|option| blanks_off(option).eq_ignore_ascii_case(b"close"))
        });
        let none = status == 204 || status == 304;
        let (body, rest, ends) = if none {
            (Vec::new(), rest, true)
        } else if let Some(length) = length {
            let length = usize::try_from(length)
                .ok()
                .filter(|length| *length <= max)?;
            let (body, rest) = rest.split_at_checked(length)?;
            (body.to_vec(), rest, true)
        } else if chunked {
            let (body, rest) = chunks(rest, max)?;
            (body, rest, true)
        } else {
            (rest.to_vec(), &[][..], false)
        };
        return (body.len() <= max).then(|| Answer {
            status,
            content_type: all("content-type").first().map(|value| value.to_vec()),
            body,
            reusable: version == 1 && !closes && ends && rest.is_empty(),
        });
    }
    None
}

/// The lines of a head, and what stands behind it. Every line ends with CR LF, and so does the empty
/// one at the end.
fn head(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..end].strip_suffix(b"\r")?;
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Some((lines, rest));
        }
        lines.push(line);
    }
}

/// `HTTP/1.x SP status [SP reason]`: x, and the status.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let (version, rest) = line.split_at_checked(9)?;
    let version = match version {
        b"HTTP/1.0 " => 0,
        b"HTTP/1.1 " => 1,
        _ => return None,
    };
    let (status, reason) = rest.split_at_checked(3)?;
    if !(reason.is_empty() || reason[0] == b' ') || !is_text(reason) {
        return None;
    }
    let status = u16::try_from(number(status)?).ok()?;
    (100..600).contains(&status).then_some((version, status))
}

fn read_fields(lines: &[&[u8]]) -> Option<Vec<Field>> {
    if lines.len() > MOST_FIELDS {
        return None;
    }
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) || !is_text(value) {
            return None;
        }
        let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
        fields.push((name, blanks_off(value).to_vec()));
    }
    Some(fields)
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(letter)
}

/// Visible characters, blanks, and bytes past ASCII (RFC 9110 §5.5).
fn is_text(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F))
}

fn blanks_off(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Digits alone as a number, the largest where it is too large.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    Some(text.parse().unwrap_or(u64::MAX))
}

/// A chunked body (RFC 9112 §7.1), and what stands behind it.
fn chunks(mut bytes: &[u8], max: usize) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, rest) = line(bytes)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (size, extension) = line.split_at(digits);
        // Blanks may stand before an extension, or before the end of the line.
        let extension = extension.trim_ascii_start_of_blanks();
        let begun = extension.is_empty() || extension[0] == b';';
        if !(1..=16).contains(&digits) || !begun || !is_text(extension) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        bytes = rest;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        if size > max - body.len() {
            return None;
        }
        let (data, rest) = bytes.split_at_checked(size)?;
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    let mut trailers = Vec::new();
    loop {
        let (trailer, rest) = line(bytes)?;
        bytes = rest;
        if trailer.is_empty() {
            return read_fields(&trailers).map(|_| (body, bytes));
        }
        trailers.push(trailer);
    }
}

/// What stands before the next CR, which an LF must follow.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

trait Blanks {
    fn trim_ascii_start_of_blanks(&self) -> &Self;
}

impl Blanks for [u8] {
    fn trim_ascii_start_of_blanks(&self) -> &Self {
        let blanks = self.iter().take_while(|byte| b" \t".contains(byte)).count();
        &self[blanks..]
    }
}

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: String,
    /// The path without the query.
    pub path: String,
    pub host: String,
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    /// The bytes behind it.
    pub rest: &'a [u8],
}

/// Reads a request that arrived whole, strictly: what a proxy and a node that are stricter or laxer
/// than each other would read alike.
pub fn request(bytes: &[u8], max: usize) -> Option<Request<'_>> {
    let (lines, rest) = head(bytes)?;
    let (first, fields) = lines.split_first()?;
    let (method, path, authority, version) = request_line(first)?;
    let fields = read_fields(fields)?;
    let all = |name: &str| {
        let named = fields.iter().filter(move |(field, _)| field == name);
        named.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    let [host] = all("host")[..] else { return None };
    let host = String::from_utf8(host.to_vec()).ok()?;
    if !is_host(&host) || authority.is_some_and(|named| !named.eq_ignore_ascii_case(&host)) {
        return None;
    }
    let (body, rest) = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => (Vec::new(), rest),
        ([], [length]) if *length == b"0" || length.first() != Some(&b'0') => {
            let length = usize::try_from(number(length)?)
                .ok()
                .filter(|l| *l <= max)?;
            let (body, rest) = rest.split_at_checked(length)?;
            (body.to_vec(), rest)
        }
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && version == 1 => {
            chunks(rest, max)?
        }
        _ => return None,
    };
    Some(Request {
        method,
        path,
        host,
        fields,
        body,
        rest,
    })
}

type Line = (String, String, Option<String>, u8);

/// `method SP target SP HTTP/1.x`; of the target the path, and the authority of an absolute one.
fn request_line(line: &[u8]) -> Option<Line> {
    let line = std::str::from_utf8(line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let (target, version) = rest.rsplit_once(' ')?;
    let version = match version {
        "HTTP/1.0" => 0,
        "HTTP/1.1" => 1,
        _ => return None,
    };
    if !is_token(method.as_bytes()) || !target.bytes().all(|byte| byte > b' ' && byte != 0x7F) {
        return None;
    }
    let (authority, target) = match target.split_once("://") {
        Some((scheme, rest)) if !target.starts_with('/') => {
            if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
                return None;
            }
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(rest[..end].to_owned()), &rest[end..])
        }
        _ => (None, target),
    };
    let path = target.split(['?', '#']).next()?.to_owned();
    Some((method.to_owned(), path, authority, version))
}

/// A name or an address in brackets, and maybe a port (RFC 3986 §3.2.2, narrowed to what occurs).
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, behind)) = rest.split_once(']') else {
                return false;
            };
            let fits = address
                .chars()
                .all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
            if !fits {
                return false;
            }
            (address, behind)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, behind) = text.split_at(end);
            let fits = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
            if !fits {
                return false;
            }
            (name, behind)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let port_fits = digits.len() <= 5 && digits.chars().all(|c| c.is_ascii_digit());
    (1..=255).contains(&text.len())
        && !host.is_empty()
        && port_fits
        && (port.is_empty() || port.starts_with(':'))
}

/// The fields that go to a node, in their order.
pub fn expected_fields(host: &str, length: usize, client: IpAddr, secure: bool) -> Vec<Field> {
    let proto = if secure { "https" } else { "http" };
    [
        ("host", host.to_owned()),
        ("content-type", "text/xml; charset=utf-8".to_owned()),
        ("content-length", length.to_string()),
        ("x-forwarded-for", client.to_string()),
        ("x-forwarded-proto", proto.to_owned()),
        ("x-forwarded-host", host.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
    .into()
}
