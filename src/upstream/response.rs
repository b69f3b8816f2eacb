//! An answer, read as it arrives: bytes in, an answer or a fault out. No I/O, no clock.

use std::fmt;

use bytes::Bytes;

use super::Error;
use crate::http1::{Chunked, Framing, HeadEnd, KeptFields, ResponseHead, WantedFields};

/// The most interim answers (1xx) before the real one.
const MAX_INTERIM: u8 = 8;

/// What is reserved at once for a body, in bytes, whatever length a head claims.
const RESERVE: usize = 64 * 1024;

/// What a node answered. The body may hold a sid, so that `{:?}` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// The first `Content-Type`, without blanks around it; may hold bytes past ASCII.
    pub content_type: Option<Bytes>,
    /// The body, decoded, in memory of exactly its size.
    pub body: Bytes,
    /// Whether the connection can carry another exchange: HTTP/1.1 without `Connection: close`, a
    /// body that ended by itself, and no byte behind it.
    pub reusable: bool,
    /// The fields of its head that were wanted; none if no field was.
    pub fields: Option<Box<KeptFields>>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .field("reusable", &self.reusable)
            .finish_non_exhaustive()
    }
}

/// Reads one answer to a POST (RFC 9112 §4 to §7); the result does not depend on how the bytes
/// were cut up on their way.
///
/// Accepted: HTTP/1.1 and 1.0; a body framed by `Content-Length`, by `chunked`, or by the end of
/// the connection; none with 204 and 304; up to eight interim answers, skipped.
///
/// Refused: anything before `HTTP/`; LF without CR; folded lines, blanks before a colon, control
/// characters; a `Content-Length` that is repeated or not plain digits; any `Transfer-Encoding`
/// but a single `chunked`, and that one beside a `Content-Length` or in HTTP/1.0; a
/// `Content-Encoding` other than `identity`; 101; statuses outside 100 to 599.
///
/// Bounds: a head of [`MAX_HEAD`](crate::http1::MAX_HEAD) bytes and
/// [`MAX_FIELDS`](crate::http1::MAX_FIELDS) fields, a body as the caller says, 16 KiB each of chunk
/// extensions and of trailers.
#[derive(Debug)]
pub struct Reader {
    max_body: usize,
    interim: u8,
    phase: ReadState,
}

/// Where in the answer the reader is.
#[derive(Debug)]
enum ReadState {
    /// In a head: its bytes so far.
    Head(HeadEnd, Vec<u8>),
    /// In a body that ends by its length.
    Length(ResponseHead, Vec<u8>, usize),
    /// In a chunked body.
    Chunked(ResponseHead, Vec<u8>, Chunked),
    /// In a body that the end of the connection ends.
    UntilClose(ResponseHead, Vec<u8>),
    /// The answer was handed out, or a fault was found.
    Over,
}

impl Reader {
    /// A reader before the first byte of an answer whose body may have up to `max_body` bytes.
    pub const fn new(max_body: usize) -> Self {
        Self {
            max_body,
            interim: 0,
            phase: ReadState::Head(HeadEnd::of_answer(), Vec::new()),
        }
    }

    /// Whether a part of the answer has arrived; a whole interim answer is no part of it.
    pub const fn has_begun(&self) -> bool {
        !matches!(&self.phase, ReadState::Head(end, _) if end.is_fresh())
    }

    /// Takes what has arrived; says the answer if it is complete now. Bytes behind the answer
    /// make it not reusable.
    ///
    /// # Errors
    /// `NotHttp`, `Invalid` or `TooLarge`, as soon as it is certain. The reader is then of no
    /// more use, as after an answer; it says `Invalid` to whatever follows.
    pub fn push(&mut self, input: &[u8]) -> Result<Option<Response>, Error> {
        self.push_for(input, WantedFields::NONE)
    }

    /// The same, and the answer keeps the fields `wanted`.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub fn push_for(
        &mut self,
        mut input: &[u8],
        wanted: &WantedFields,
    ) -> Result<Option<Response>, Error> {
        loop {
            match std::mem::replace(&mut self.phase, ReadState::Over) {
                ReadState::Head(end, kept) => {
                    let Some((head, rest)) = self.head(end, kept, input, wanted)? else {
                        return Ok(None);
                    };
                    input = rest;
                    if head.is_interim() {
                        self.skip()?;
                    } else if let Some(answer) = self.begin(head, &mut input)? {
                        return Ok(Some(answer.followed_by(input)));
                    }
                    if input.is_empty() {
                        return Ok(None);
                    }
                }
                ReadState::Over => return Err(Error::Invalid("it goes on after its end")),
                body => return Ok(self.body(body, &mut input)?.map(|a| a.followed_by(input))),
            }
        }
    }

    /// Takes the end of the connection; says the answer if that is what completes it.
    ///
    /// # Errors
    /// `Closed` before any byte, `Cut` in the middle (and after an interim answer alone).
    pub fn end(self) -> Result<Response, Error> {
        match self.phase {
            ReadState::UntilClose(head, body) => {
                Ok(Response::of(head, body.into_boxed_slice().into()))
            }
            ReadState::Head(end, _) if end.is_fresh() && self.interim == 0 => {
                Err(Error::Closed(None))
            }
            _ => Err(Error::Cut(None)),
        }
    }

    /// Reads a head; what follows it is the second part. A head that arrives at once is not
    /// copied.
    fn head<'a>(
        &mut self,
        mut end: HeadEnd,
        mut kept: Vec<u8>,
        input: &'a [u8],
        wanted: &WantedFields,
    ) -> Result<Option<(ResponseHead, &'a [u8])>, Error> {
        let Some(at) = end.find(input)? else {
            kept.extend_from_slice(input);
            self.phase = ReadState::Head(end, kept);
            return Ok(None);
        };
        let (last, rest) = input.split_at(at);
        let head = if kept.is_empty() {
            ResponseHead::parse(last, wanted)?
        } else {
            kept.extend_from_slice(last);
            ResponseHead::parse(&kept, wanted)?
        };
        Ok(Some((head, rest)))
    }

    /// Leaves an interim answer behind.
    fn skip(&mut self) -> Result<(), Error> {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Error::Invalid("too many interim answers"));
        }
        self.phase = ReadState::Head(HeadEnd::of_answer(), Vec::new());
        Ok(())
    }

    /// Enters the body that `head` announces; says the answer if the body is all there, and takes
    /// it off `input`.
    fn begin(&mut self, head: ResponseHead, input: &mut &[u8]) -> Result<Option<Response>, Error> {
        let length = match head.framing {
            Framing::Empty => 0,
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Chunked => {
                self.phase = ReadState::Chunked(head, Vec::new(), Chunked::new());
                return Ok(None);
            }
            Framing::UntilClose => {
                self.phase = ReadState::UntilClose(head, Vec::new());
                return Ok(None);
            }
        };
        if length > self.max_body {
            return Err(Error::TooLarge);
        }
        if let Some((body, rest)) = input.split_at_checked(length) {
            *input = rest;
            return Ok(Some(Response::of(head, Bytes::copy_from_slice(body))));
        }
        self.phase = ReadState::Length(head, Vec::with_capacity(length.min(RESERVE)), length);
        Ok(None)
    }

    /// Reads on in a body; takes what belongs to it off `input`.
    fn body(&mut self, phase: ReadState, input: &mut &[u8]) -> Result<Option<Response>, Error> {
        let (head, body) = match phase {
            ReadState::Length(head, mut body, length) => {
                let (part, rest) = input.split_at(input.len().min(length - body.len()));
                body.extend_from_slice(part);
                *input = rest;
                if body.len() < length {
                    self.phase = ReadState::Length(head, body, length);
                    return Ok(None);
                }
                (head, body)
            }
            ReadState::Chunked(head, mut body, mut chunked) => {
                let taken = chunked.decode(input, &mut body, self.max_body)?;
                *input = &input[taken..];
                if !chunked.is_done() {
                    self.phase = ReadState::Chunked(head, body, chunked);
                    return Ok(None);
                }
                (head, body)
            }
            ReadState::UntilClose(head, mut body) => {
                if input.len() > self.max_body - body.len() {
                    return Err(Error::TooLarge);
                }
                body.extend_from_slice(input);
                self.phase = ReadState::UntilClose(head, body);
                return Ok(None);
            }
            phase @ (ReadState::Head(..) | ReadState::Over) => {
                self.phase = phase;
                return Ok(None);
            }
        };
        Ok(Some(Response::of(head, body.into_boxed_slice().into())))
    }
}

impl Response {
    fn of(head: ResponseHead, body: Bytes) -> Self {
        Self {
            status: head.status,
            content_type: head.content_type,
            body,
            reusable: head.keep_alive && head.framing != Framing::UntilClose,
            fields: head.fields,
        }
    }

    /// The answer, with what is left of the bytes in which its end was found.
    fn followed_by(self, surplus: &[u8]) -> Self {
        Self {
            reusable: self.reusable && surplus.is_empty(),
            ..self
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
