//! The head of an answer (RFC 9112 §4 to §6): where it ends, and what it says. No I/O.
//!
//! Finding the end and reading the lines are two steps. The first looks at each byte once,
//! however the bytes are cut up on their way, and knows at the first wrong byte that something is
//! not HTTP. The second, by httparse, sees whole heads only.

use std::mem::MaybeUninit;

use bytes::Bytes;

use super::Error;

/// The largest head of an answer, in bytes, its empty line included.
pub const MAX_HEAD: usize = 32 * 1024;

/// The most header fields in one head.
pub const MAX_FIELDS: usize = 100;

/// How many bytes the version has, with the space behind it.
const VERSION: usize = 9;

/// What nodes send nearly always; such an answer's type takes no memory.
const USUAL_TYPE: &[u8] = b"text/xml; charset=utf-8";

/// Looks for the end of a head.
#[derive(Debug)]
pub(super) struct Scan {
    /// Bytes seen, up to [`MAX_HEAD`].
    seen: usize,
    /// Bytes of the current line.
    line: usize,
    /// The last byte seen.
    last: u8,
}

impl Scan {
    /// Before the first byte of a head.
    pub(super) const fn new() -> Self {
        Self {
            seen: 0,
            line: 0,
            last: 0,
        }
    }

    /// Whether no byte was seen yet.
    pub(super) const fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Reads on, up to the end of the head; says where in `input` that is (the offset after it).
    ///
    /// # Errors
    /// `NotHttp` at the first byte that is none of `HTTP/`; `Invalid` for a version other than
    /// 1.0 and 1.1, and for a line that ends with LF alone; `TooLarge` past [`MAX_HEAD`].
    pub(super) fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Error> {
        let mut at = 0;
        while let Some(&byte) = input.get(at)
            && self.seen < VERSION
        {
            version_byte(self.seen, byte)?;
            self.take(&[byte]);
            at += 1;
        }
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let line_end = memchr::memchr(b'\n', rest);
            let line = rest.get(..line_end.unwrap_or(rest.len())).unwrap_or(rest);
            self.take(line);
            if self.seen > MAX_HEAD || (line_end.is_some() && self.seen == MAX_HEAD) {
                return Err(Error::TooLarge);
            }
            let Some(end) = line_end else { break };
            if self.last != b'\r' {
                return Err(Error::Invalid("a line ends with LF alone"));
            }
            at += end + 1;
            if self.line == 1 {
                return Ok(Some(at));
            }
            self.seen += 1;
            self.line = 0;
            self.last = b'\n';
        }
        Ok(None)
    }

    /// Counts bytes of one line.
    fn take(&mut self, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        self.seen += bytes.len();
        self.line += bytes.len();
        self.last = last;
    }
}

/// Checks one of the first nine bytes of an answer: `HTTP/1.1 ` or `HTTP/1.0 `.
fn version_byte(at: usize, byte: u8) -> Result<(), Error> {
    let fits = match at {
        7 => matches!(byte, b'0' | b'1'),
        _ => byte == b"HTTP/1.1 "[at],
    };
    match (fits, at) {
        (true, _) => Ok(()),
        (false, 0..5) => Err(Error::NotHttp),
        (false, _) => Err(Error::Invalid("a version other than 1.0 and 1.1")),
    }
}

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// By its length in bytes; lengths past 64 bits are `u64::MAX`.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What is of interest in a head.
#[derive(Debug)]
pub(super) struct Head {
    /// 100 to 599.
    pub(super) status: u16,
    /// The first `Content-Type`.
    pub(super) content_type: Option<Bytes>,
    /// Where the body ends.
    pub(super) framing: Framing,
    /// Whether the node keeps the connection open, as far as the head says.
    pub(super) keep_alive: bool,
}

impl Head {
    /// Whether this is an interim answer (1xx), after which the real one comes.
    pub(super) const fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Reads a whole head, as [`Scan::find_end`] found it.
    ///
    /// # Errors
    /// `Invalid`, with the rule that it breaks: see [`Reader`](super::Reader).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        match parsed.map_err(rule)? {
            httparse::Status::Complete(length) if length == bytes.len() => {}
            _ => return Err(Error::Invalid("where the head ends")),
        }
        let status = response.code.unwrap_or_default();
        if !(100..600).contains(&status) {
            return Err(Error::Invalid("a status outside 100 to 599"));
        }
        if status == 101 {
            return Err(Error::Invalid("an upgrade that nobody asked for"));
        }
        let fields = Fields::read(response.headers)?;
        let is_1_1 = response.version == Some(1);
        Ok(Self {
            status,
            framing: fields.framing(status, is_1_1)?,
            content_type: fields.content_type.map(shared),
            keep_alive: is_1_1 && !fields.close,
        })
    }
}

/// The header fields that matter, as they came.
#[derive(Debug, Default)]
struct Fields<'a> {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    content_type: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(fields: &[httparse::Header<'a>]) -> Result<Self, Error> {
        let mut read = Self::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                if read.length.is_some() {
                    return Err(Error::Invalid("more than one Content-Length"));
                }
                read.length = Some(length(field.value)?);
            } else if is("transfer-encoding") {
                if read.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Error::Invalid("a Transfer-Encoding other than chunked"));
                }
                read.chunked = true;
            } else if is("content-encoding") {
                if !field.value.eq_ignore_ascii_case(b"identity") {
                    return Err(Error::Invalid("a Content-Encoding that nobody asked for"));
                }
            } else if is("connection") {
                read.close |= has_close(field.value);
            } else if is("content-type") {
                read.content_type.get_or_insert(field.value);
            }
        }
        Ok(read)
    }

    /// RFC 9112 §6.3 for a POST, without its lenience: doubtful framing is refused.
    fn framing(&self, status: u16, is_1_1: bool) -> Result<Framing, Error> {
        if self.chunked && self.length.is_some() {
            return Err(Error::Invalid("Transfer-Encoding and Content-Length"));
        }
        if self.chunked && !is_1_1 {
            return Err(Error::Invalid("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(match (status, self.length) {
            (100..200 | 204 | 304, _) => Framing::Empty,
            (_, Some(length)) => Framing::Length(length),
            (_, None) if self.chunked => Framing::Chunked,
            (_, None) => Framing::UntilClose,
        })
    }
}

/// The value of a `Content-Length`: digits only; past 64 bits it is `u64::MAX`.
fn length(value: &[u8]) -> Result<u64, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Error::Invalid("a Content-Length that is no number"));
    }
    let append = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Ok(value.iter().fold(0, append))
}

/// Whether a `Connection` field lists `close`.
fn has_close(value: &[u8]) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn shared(value: &[u8]) -> Bytes {
    if value == USUAL_TYPE {
        Bytes::from_static(USUAL_TYPE)
    } else {
        Bytes::copy_from_slice(value)
    }
}

/// The rule behind httparse's complaint.
fn rule(error: httparse::Error) -> Error {
    Error::Invalid(match error {
        httparse::Error::HeaderName => "the name of a header field",
        httparse::Error::HeaderValue => "the value of a header field",
        httparse::Error::TooManyHeaders => "more than 100 header fields",
        httparse::Error::NewLine => "the end of a line",
        httparse::Error::Status => "the status",
        httparse::Error::Token | httparse::Error::Version => "the status line",
    })
}
