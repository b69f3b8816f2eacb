//! The head of an answer (RFC 9112 §4 to §6): what it says, once it is there as a whole.

use bytes::Bytes;

use super::fields::{KeptFields, Room, WantedFields, is, length, lists};
use super::{Error, Framing};

/// What nodes send nearly always; such an answer's type takes no memory.
const USUAL_TYPE: &[u8] = b"text/xml; charset=utf-8";

/// What is of interest in a head.
#[derive(Debug)]
pub struct ResponseHead {
    /// 100 to 599.
    pub status: u16,
    /// The first `Content-Type`, without blanks around it; may hold bytes past ASCII.
    pub content_type: Option<Bytes>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the node keeps the connection open, as far as the head says.
    pub keep_alive: bool,
    /// The fields that were wanted; none if no field was.
    pub fields: Option<Box<KeptFields>>,
}

impl ResponseHead {
    /// Whether this is an interim answer (1xx), after which the real one comes.
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Reads a whole head, as [`HeadEnd`](super::HeadEnd) found it, and keeps the fields `wanted`.
    ///
    /// # Errors
    /// `Invalid`, with the rule that it breaks, or `TooManyFields`.
    pub fn parse(bytes: &[u8], wanted: &WantedFields) -> Result<Self, Error> {
        let mut room = Room::new();
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut room.0,
        );
        match parsed? {
            httparse::Status::Complete(length) if length == bytes.len() => {}
            _ => return Err(Error::Invalid("where the head ends")),
        }
        let status = response.code.unwrap_or_default();
        if !(100..600).contains(&status) {
            return Err(Error::Invalid("a status outside 100 to 599"));
        }
        if status == 101 {
            return Err(Error::Invalid("an upgrade that was not requested"));
        }
        let kept = KeptFields::of(response.headers, wanted);
        let fields = ResponseFields::read(response.headers)?;
        let is_1_1 = response.version == Some(1);
        Ok(Self {
            status,
            framing: fields.framing(status, is_1_1)?,
            content_type: fields.content_type.map(shared),
            keep_alive: is_1_1 && !fields.close,
            fields: kept,
        })
    }
}

/// The header fields that matter, as they came.
#[derive(Debug, Default)]
struct ResponseFields<'a> {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    content_type: Option<&'a [u8]>,
}

impl<'a> ResponseFields<'a> {
    fn read(fields: &[httparse::Header<'a>]) -> Result<Self, Error> {
        let mut read = Self::default();
        for field in fields {
            // The length of a name tells most fields apart.
            match field.name.len() {
                10 if is(field, "connection") => read.close |= lists(field.value, b"close"),
                12 if is(field, "content-type") => {
                    read.content_type.get_or_insert(field.value);
                }
                14 if is(field, "content-length") => {
                    if read.length.is_some() {
                        return Err(Error::Invalid("more than one Content-Length"));
                    }
                    read.length = Some(length(field.value)?);
                }
                16 if is(field, "content-encoding")
                    && !field.value.eq_ignore_ascii_case(b"identity") =>
                {
                    return Err(Error::Invalid("a Content-Encoding that was not requested"));
                }
                17 if is(field, "transfer-encoding") => {
                    if read.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Error::Invalid("a Transfer-Encoding other than chunked"));
                    }
                    read.chunked = true;
                }
                _ => {}
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

fn shared(value: &[u8]) -> Bytes {
    if value == USUAL_TYPE {
        Bytes::from_static(USUAL_TYPE)
    } else {
        Bytes::copy_from_slice(value)
    }
}
