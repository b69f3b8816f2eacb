//! HTTP/1.1 as bytes (RFC 9112): heads, framing, chunks. Both sides use it: `downstream` reads requests
//! and writes answers, `upstream` writes requests and reads answers. No I/O and no clock.
//!
//! One parse decides what a message is. In doubt it refuses: where a proxy in front or a node behind
//! could read the same bytes in another way (RFC 9112 §11.2), there is no reading at all.
//!
//! A head is read in two steps. [`HeadEnd`] looks for its end and sees each byte once, in whatever
//! pieces the bytes arrive. Then httparse reads the whole head.

mod chunked;
mod error;
mod fields;
mod head_end;
mod request;
mod response;
mod write;

pub use chunked::Chunked;
pub use error::Error;
pub use fields::{Field, Fields, KeptFields, Room, WantedFields};
pub use head_end::HeadEnd;
pub use request::{Method, Request, RequestHead, Version};
pub use response::ResponseHead;
pub use write::{AnswerHead, CONTINUE, FieldWriter, KnownField};

/// The largest head, in bytes: empty lines in front of it and the one at its end included.
pub const MAX_HEAD: usize = 32 * 1024;

/// The most header fields in one head.
pub const MAX_FIELDS: usize = 100;

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// By its length in bytes; lengths past 64 bits are `u64::MAX`.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection, which only answers have, or of the HTTP/2 stream.
    UntilClose,
}
