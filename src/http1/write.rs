//! Writing heads of answers. Names are in lower case, as HTTP/2 has them; that they have any case is
//! for readers to ignore.

use hyper::StatusCode;

use super::Version;

/// The interim answer to a client that waits for it with its body (RFC 9110 §10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What takes the fields of an answer's head: its bytes, or a map of fields for HTTP/2.
pub trait FieldWriter {
    /// Adds a field. Its name is in lower case; its value comes from a checked head or from Bowline.
    fn add(&mut self, name: &str, value: &[u8]);

    /// Adds a field that is always the same.
    fn add_known(&mut self, field: KnownField) {
        self.add(field.name, field.value.as_bytes());
    }
}

/// A field that is always the same: HTTP/1.1 writes its line in one piece.
#[derive(Debug, Clone, Copy)]
pub struct KnownField {
    name: &'static str,
    value: &'static str,
    /// `name: value`, and the end of the line.
    line: &'static str,
}

macro_rules! known {
    ($name:literal, $value:literal) => {
        Self {
            name: $name,
            value: $value,
            line: concat!($name, ": ", $value, "\r\n"),
        }
    };
}

impl KnownField {
    /// The usual type of an answer.
    pub const XML: Self = known!("content-type", "text/xml; charset=utf-8");
    /// What every answer says where all origins are allowed.
    pub const ANY_ORIGIN: Self = known!("access-control-allow-origin", "*");

    /// Its value.
    pub const fn value(self) -> &'static str {
        self.value
    }
}

impl FieldWriter for AnswerHead<'_> {
    #[inline]
    fn add(&mut self, name: &str, value: &[u8]) {
        self.field(name, value);
    }

    #[inline]
    fn add_known(&mut self, field: KnownField) {
        self.0.extend_from_slice(field.line.as_bytes());
    }
}

/// The head of an answer, written to memory that is used again.
#[derive(Debug)]
pub struct AnswerHead<'a>(&'a mut Vec<u8>);

impl<'a> AnswerHead<'a> {
    /// Writes the status line, behind what `out` has.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, version: Version, status: u16) -> Self {
        if status == 200 && version == Version::Http11 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            return Self(out);
        }
        out.extend_from_slice(match version {
            Version::Http10 => b"HTTP/1.0 ",
            Version::Http11 => b"HTTP/1.1 ",
        });
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        let reason = StatusCode::from_u16(status).ok();
        let reason = reason.and_then(|status| status.canonical_reason());
        out.extend_from_slice(reason.unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        Self(out)
    }

    /// Writes a field. Its value comes from a checked head or from Bowline itself.
    pub fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        debug_assert!(
            !value.iter().any(|byte| b"\r\n\0".contains(byte)),
            "a value ends no line"
        );
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Writes the length of the body, and ends the head. The body is the caller's to add.
    pub fn end(mut self, length: usize) {
        self.field(
            "content-length",
            itoa::Buffer::new().format(length).as_bytes(),
        );
        self.0.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_to_the_letter() {
        let mut out = Vec::new();
        let mut head = AnswerHead::begin(&mut out, Version::Http10, 404);
        head.field("a", b"b").field("c", b"\xe9");
        head.end(120);
        assert_eq!(
            out,
            b"HTTP/1.0 404 Not Found\r\na: b\r\nc: \xe9\r\ncontent-length: 120\r\n\r\n"
        );
        out.clear();
        AnswerHead::begin(&mut out, Version::Http11, 299).end(0);
        assert_eq!(out, b"HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
    }
}
