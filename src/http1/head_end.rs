//! Where a head ends. Looks at each byte once, however the bytes are cut up on their way, so a sender
//! of single bytes costs no more than any other.

use super::{Error, MAX_HEAD};

/// How many bytes the version of an answer has, with the space behind it.
const VERSION: usize = 9;

/// Looks for the end of a head.
#[derive(Debug)]
pub struct HeadEnd {
    start: Start,
    /// Bytes seen, up to [`MAX_HEAD`].
    seen: usize,
    /// Bytes of the current line.
    line: usize,
    /// The last byte seen.
    last: u8,
}

/// What the start of the head is checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A request: empty lines are passed over.
    Blank,
    /// The method of a request.
    Method,
    /// The version of an answer.
    Version,
    /// Nothing more.
    Over,
}

impl HeadEnd {
    /// Before the first byte of a request.
    pub const fn of_request() -> Self {
        Self::new(Start::Blank)
    }

    /// Before the first byte of an answer.
    pub const fn of_answer() -> Self {
        Self::new(Start::Version)
    }

    const fn new(start: Start) -> Self {
        Self {
            start,
            seen: 0,
            line: 0,
            last: 0,
        }
    }

    /// Whether no byte was seen yet.
    pub const fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Reads on, up to the end of the head; says where in `input` that is (the offset after it).
    ///
    /// # Errors
    /// `TooLarge` past [`MAX_HEAD`]; `Invalid` for a line that ends with LF alone. For an answer:
    /// `NotHttp` at the first byte that differs from `HTTP/`. `Invalid` for a version other than 1.0 and
    /// 1.1. For a request: `NotHttp` at the first byte that no method has.
    pub fn find(&mut self, input: &[u8]) -> Result<Option<usize>, Error> {
        let mut at = self.usual_start(input);
        while self.start != Start::Over
            && let Some(&byte) = input.get(at)
        {
            self.first_byte(byte)?;
            at += 1;
        }
        let rest = input.get(at..).unwrap_or_default();
        let mut line = 0;
        for end in memchr::memchr_iter(b'\n', rest) {
            self.take(rest.get(line..end).unwrap_or_default());
            if self.seen >= MAX_HEAD {
                return Err(Error::TooLarge);
            }
            self.end_line()?;
            if self.line == 1 {
                return Ok(Some(at + end + 1));
            }
            self.line = 0;
            line = end + 1;
        }
        self.take(rest.get(line..).unwrap_or_default());
        self.bound().map(|()| None)
    }

    /// Takes the start that nearly all heads have, without a look at each byte.
    fn usual_start(&mut self, input: &[u8]) -> usize {
        let usual: &[u8] = match self.start {
            Start::Blank => b"POST ",
            Start::Version => b"HTTP/1.1 ",
            Start::Method | Start::Over => return 0,
        };
        if !self.is_fresh() || !input.starts_with(usual) {
            return 0;
        }
        self.take(usual);
        self.start = Start::Over;
        usual.len()
    }

    /// Checks one byte where the start of a head is checked.
    fn first_byte(&mut self, byte: u8) -> Result<(), Error> {
        match (self.start, byte) {
            (Start::Version, _) => version_byte(self.seen, byte)?,
            (Start::Blank, b'\r') if self.last != b'\r' => {}
            (Start::Blank, b'\n') => {
                self.end_line()?;
                self.line = 0;
                return self.bound();
            }
            (Start::Blank, _) if self.last != b'\r' && is_token(byte) => {
                self.start = Start::Method;
            }
            (Start::Method, b' ') => self.start = Start::Over,
            (Start::Method, _) if is_token(byte) => {}
            _ => return Err(Error::NotHttp),
        }
        self.take(&[byte]);
        if self.start == Start::Version && self.seen == VERSION {
            self.start = Start::Over;
        }
        self.bound()
    }

    const fn bound(&self) -> Result<(), Error> {
        if self.seen > MAX_HEAD {
            return Err(Error::TooLarge);
        }
        Ok(())
    }

    /// Takes the LF of a line.
    fn end_line(&mut self) -> Result<(), Error> {
        if self.last != b'\r' {
            return Err(Error::Invalid("a line ends with LF alone"));
        }
        self.seen += 1;
        self.last = b'\n';
        Ok(())
    }

    /// Counts bytes of one line.
    fn take(&mut self, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        self.seen += bytes.len();
        self.line += bytes.len();
        self.last = last;
    }
}

/// Whether a byte may stand in a method or in the name of a field (RFC 9110 §5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
            | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the head of a request ends, the same in pieces of any size.
    fn end(bytes: &[u8]) -> Result<Option<usize>, Error> {
        let find = |piece: usize| {
            let mut end = HeadEnd::of_request();
            let mut before = 0;
            for piece in bytes.chunks(piece) {
                if let Some(at) = end.find(piece)? {
                    return Ok(Some(before + at));
                }
                before += piece.len();
            }
            Ok(None)
        };
        let whole = find(bytes.len());
        for piece in 1..bytes.len().min(64) {
            assert_eq!(find(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn a_request_ends_behind_its_empty_line() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\nGET", Some(18)),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nx", Some(31)),
            ("GET / HTTP/1.1\r\n\r", None),
            ("\r\n\r\n", None),
            ("GET", None),
        ] {
            assert_eq!(end(bytes.as_bytes()), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_no_request_begins_with_is_refused_at_once() {
        for bytes in [
            "\x16\x03\x01",
            "<body",
            " GET",
            "GE<T",
            "GET\t",
            "\rG",
            "\r\r",
        ] {
            assert_eq!(end(bytes.as_bytes()), Err(Error::NotHttp), "{bytes:?}");
        }
    }

    #[test]
    fn a_line_of_lf_alone_is_refused() {
        for bytes in [
            "\nGET",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost: a\n",
            "A /\r\n\n",
        ] {
            let refused = Err(Error::Invalid("a line ends with LF alone"));
            assert_eq!(end(bytes.as_bytes()), refused, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_wherever_it_is_large() {
        let exact =
            |bytes: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(bytes - 23));
        assert_eq!(end(exact(MAX_HEAD).as_bytes()), Ok(Some(MAX_HEAD)));
        for large in [
            exact(MAX_HEAD + 1),
            "G".repeat(MAX_HEAD + 1),
            "\r\n".repeat(MAX_HEAD),
            format!("GET /{}", "x".repeat(MAX_HEAD)),
        ] {
            assert_eq!(end(large.as_bytes()), Err(Error::TooLarge));
        }
    }
}
