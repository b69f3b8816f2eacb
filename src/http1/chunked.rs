//! The chunked transfer coding (RFC 9112 §7.1), decoded as it arrives. No I/O.
//!
//! Strict where lenience has let one reader see another framing than its neighbour: every line
//! ends with CRLF, a size is 1 to 16 hexadecimal digits, only `;` begins an extension, and a trailer
//! is a field with a name. Extensions and trailers are read over and dropped, each within
//! [`MAX_OVERHEAD`].

use super::head_end::is_token;
use super::{Error, MAX_FIELDS};

/// The most bytes that all extensions, and again all trailers, of one body may take.
const MAX_OVERHEAD: usize = 16 * 1024;

/// What the next byte is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A chunk size of which this many digits were read.
    Size(u8),
    /// Blanks after a size, before `;` or CR.
    Blank,
    /// A chunk extension.
    Extension,
    /// The LF that ends a size line.
    SizeEnd,
    /// Bytes of the body.
    Data,
    /// The CR, then the LF, after a chunk's data.
    DataEnd(u8),
    /// The first byte of a trailer line, or the CR of the last line.
    TrailerStart,
    /// Within the name of a trailer field.
    TrailerName,
    /// Within its value.
    Trailer,
    /// The LF of a trailer line.
    TrailerEnd,
    /// The LF of the last line.
    LastEnd,
    /// The body is complete.
    Done,
}

/// A decoder for one body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// While a size is read: the size so far; while data is read: what is left of it. Bytes.
    chunk: u64,
    extensions: usize,
    trailers: usize,
    trailer_fields: u8,
}

impl Chunked {
    /// A decoder before the first byte of a body.
    #[expect(
        clippy::new_without_default,
        reason = "there is no ordinary body to begin with"
    )]
    pub const fn new() -> Self {
        Self {
            state: State::Size(0),
            chunk: 0,
            extensions: 0,
            trailers: 0,
            trailer_fields: 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads `input`, appends to `body` what belongs there, and says how many bytes it took: all
    /// of them, unless the body was complete before.
    ///
    /// # Errors
    /// `Invalid` at the first byte that breaks the coding; `TooLarge` as soon as a chunk's size
    /// says that `body` would pass `max` bytes, or when extensions or trailers pass their bound;
    /// `TooManyTrailers`.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>, max: usize) -> Result<usize, Error> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let rest = &input[at..];
                    // The smaller of the two is at most `rest.len()`, so it fits.
                    let take = self.chunk.min(rest.len() as u64) as usize;
                    body.extend_from_slice(&rest[..take]);
                    self.chunk -= take as u64;
                    at += take;
                    if self.chunk == 0 {
                        self.state = State::DataEnd(b'\r');
                    }
                }
                _ => {
                    self.state = self.framing(byte, body.len(), max)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    /// The state after `byte`, which is no byte of the body.
    fn framing(&mut self, byte: u8, body: usize, max: usize) -> Result<State, Error> {
        Ok(match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => self.digit(digits, byte)?,
            (State::Size(1..) | State::Blank, b' ' | b'\t') => {
                count(&mut self.extensions)?;
                State::Blank
            }
            (State::Size(1..) | State::Blank, b';') => State::Extension,
            (State::Size(1..) | State::Blank | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                count(&mut self.extensions)?;
                State::Extension
            }
            (State::SizeEnd, b'\n') => self.data(body, max)?,
            (State::DataEnd(b'\r'), b'\r') => State::DataEnd(b'\n'),
            (State::DataEnd(b'\n'), b'\n') => {
                self.chunk = 0;
                State::Size(0)
            }
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerStart, _) if is_token(byte) => {
                self.trailer_fields += 1;
                if usize::from(self.trailer_fields) > MAX_FIELDS {
                    return Err(Error::TooManyTrailers);
                }
                count(&mut self.trailers)?;
                State::TrailerName
            }
            (State::TrailerName, _) if is_token(byte) => {
                count(&mut self.trailers)?;
                State::TrailerName
            }
            (State::TrailerName, b':') | (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                count(&mut self.trailers)?;
                State::Trailer
            }
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastEnd, b'\n') => State::Done,
            (State::Size(_) | State::Blank, _) => return Err(Error::Invalid("chunk size")),
            (State::Extension | State::SizeEnd, _) => {
                return Err(Error::Invalid("chunk extension"));
            }
            (State::DataEnd(_), _) => return Err(Error::Invalid("end of a chunk")),
            (
                State::TrailerStart
                | State::TrailerName
                | State::Trailer
                | State::TrailerEnd
                | State::LastEnd,
                _,
            ) => return Err(Error::Invalid("trailer")),
            (state @ (State::Data | State::Done), _) => state,
        })
    }

    /// Takes one digit of a size; 16 of them fill the 64 bits.
    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, Error> {
        if digits == 16 {
            return Err(Error::Invalid("chunk size"));
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.chunk = self.chunk << 4 | u64::from(value);
        Ok(State::Size(digits + 1))
    }

    /// What follows a size line: data that fits, or the trailers.
    fn data(&self, body: usize, max: usize) -> Result<State, Error> {
        if self.chunk == 0 {
            return Ok(State::TrailerStart);
        }
        if self.chunk > max.saturating_sub(body) as u64 {
            return Err(Error::TooLarge);
        }
        Ok(State::Data)
    }
}

/// Counts one byte against [`MAX_OVERHEAD`].
fn count(bytes: &mut usize) -> Result<(), Error> {
    *bytes += 1;
    if *bytes > MAX_OVERHEAD {
        return Err(Error::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `input` as a whole; the body, and how many bytes followed it.
    fn decode(input: &[u8], max: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
        let (mut chunked, mut body) = (Chunked::new(), Vec::new());
        let taken = chunked.decode(input, &mut body, max)?;
        Ok(chunked.is_done().then(|| (body, input.len() - taken)))
    }

    fn encode(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            out.extend_from_slice(format!("{:x};n=v\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\nDigest: none\r\n\r\n");
        out
    }

    #[test]
    fn extensions_are_bounded_over_all_chunks() {
        let mut input = Vec::new();
        for _ in 0..=64 {
            input.extend_from_slice(b"1;");
            input.resize(input.len() + 256, b'x');
            input.extend_from_slice(b"\r\nA\r\n");
        }
        assert!(matches!(decode(&input, 1000), Err(Error::TooLarge)));
    }

    #[test]
    fn trailers_are_fields() {
        let with = |trailers: &str| decode(format!("0\r\n{trailers}\r\n").as_bytes(), 0).is_ok();
        assert!(with("X: y\r\nZ:\r\n"));
        assert!(with(&"X: y\r\n".repeat(100)));
        for bad in [
            "no colon\r\n",
            "x\r\n",
            ":y\r\n",
            "X: y\r\n z\r\n",
            "X : y\r\n",
            "X: \0\r\n",
        ] {
            assert!(!with(bad), "{bad:?}");
        }
        assert!(!with(&"X: y\r\n".repeat(101)));
    }

    #[test]
    fn trailers_are_bounded() {
        let mut input = b"0\r\nA: ".to_vec();
        input.resize(input.len() + MAX_OVERHEAD - 3, b'x');
        let mut whole = input.clone();
        whole.extend_from_slice(b"\r\n\r\n");
        assert!(matches!(decode(&whole, 0), Ok(Some(_))));
        input.push(b'x');
        assert!(matches!(decode(&input, 0), Err(Error::TooLarge)));
    }

    #[test]
    fn the_largest_size_is_too_large_and_a_longer_one_invalid() {
        assert!(matches!(
            decode(b"ffffffffffffffff\r\n", usize::MAX - 1),
            Err(Error::TooLarge)
        ));
        assert!(matches!(
            decode(b"00000000000000001", 100),
            Err(Error::Invalid(_))
        ));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            surplus in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let mut input = encode(&pieces);
            input.extend_from_slice(&surplus);
            let decoded = decode(&input, 1000).expect("a valid coding");
            prop_assert_eq!(decoded, Some((pieces.concat(), surplus.len())));
        }

        #[test]
        fn any_cut_leaves_it_incomplete(
            piece in prop::collection::vec(any::<u8>(), 1..50),
            cut in any::<prop::sample::Index>(),
        ) {
            let input = encode(&[piece]);
            let decoded = decode(&input[..cut.index(input.len())], 1000).expect("no fault in it");
            prop_assert_eq!(decoded, None);
        }
    }
}
