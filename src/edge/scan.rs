//! A second reading of what a client sends, beside hyper's and stricter: where heads and bodies end.
//!
//! hyper drops a `Content-Length` beside a `Transfer-Encoding` and the second of two equal ones, takes
//! LF for the end of a line in heads and trailers, and any byte in a chunk extension, so that nobody
//! behind it can tell. RFC 9112 lets it; but a proxy in front may have read the same bytes otherwise
//! (§11.2). So every byte is looked at here as well, also those of requests that were sent ahead, and
//! a connection on which the two readings could part is done with. In a head all but the lines of two
//! fields are searched for their ends only; a body with a length is not looked at.

use crate::http1::Chunked;

/// What is read.
#[derive(Debug)]
enum Part {
    /// A head, or the empty lines before it.
    Head(Head),
    /// A body, and what is left of it.
    Length(u64),
    /// A chunked body.
    Chunked(Chunked),
    /// Nothing any more: what follows is in doubt.
    Lost,
}

/// What is read of a connection, in pieces of any size.
#[derive(Debug)]
pub(super) struct Scan(Part);

impl Default for Scan {
    fn default() -> Self {
        Self(Part::Head(Head::default()))
    }
}

/// Something that two readers may read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt;

impl Scan {
    /// Reads on; says how many heads end in `bytes`. After a [`Doubt`] there is nothing but doubt.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<u32, Doubt> {
        let mut heads = 0;
        while !bytes.is_empty() {
            let next = match &mut self.0 {
                Part::Head(head) => match head.read(&mut bytes) {
                    Ok(None) => continue,
                    Ok(Some(body)) => {
                        heads += 1;
                        Ok(body)
                    }
                    Err(doubt) => Err(doubt),
                },
                Part::Length(left) => {
                    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    let skipped = here.min(*left);
                    // No more than there is.
                    bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
                    *left -= skipped;
                    if *left > 0 {
                        continue;
                    }
                    Ok(Part::Head(Head::default()))
                }
                Part::Chunked(chunked) => match chunked.skip(bytes) {
                    Ok(taken) => {
                        bytes = &bytes[taken..];
                        if !chunked.is_done() {
                            continue;
                        }
                        Ok(Part::Head(Head::default()))
                    }
                    Err(_) => Err(Doubt),
                },
                Part::Lost => return Err(Doubt),
            };
            let doubt = next.as_ref().err().copied();
            self.0 = next.unwrap_or(Part::Lost);
            if let Some(doubt) = doubt {
                return Err(doubt);
            }
        }
        Ok(heads)
    }
}

/// Where in a line the next byte is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before its first byte.
    #[default]
    Start,
    /// So far into a name of interest.
    Name(&'static [u8], usize),
    /// In a length.
    Length,
    /// Behind its last digit.
    LengthEnd,
    /// Where nothing matters but the end of the line.
    Rest,
}

/// A head as it comes.
#[derive(Debug, Default)]
struct Head {
    place: Place,
    /// The last byte was a CR.
    cr: bool,
    /// There was a line with something in it.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    const CONTENT_LENGTH: &'static [u8] = b"content-length:";
    const TRANSFER_ENCODING: &'static [u8] = b"transfer-encoding:";

    /// Reads on, up to the end of the head, and takes that off `bytes`; says what follows.
    fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Part>, Doubt> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.place == Place::Rest {
                // Nearly all that a head consists of.
                let Some(end) = memchr::memchr(b'\n', bytes) else {
                    self.cr = bytes.ends_with(b"\r");
                    *bytes = &[];
                    break;
                };
                self.cr = end.checked_sub(1).map_or(self.cr, |at| bytes[at] == b'\r');
                *bytes = &bytes[end + 1..];
                self.end_line()?;
                continue;
            }
            *bytes = rest;
            if byte == b'\n' {
                let empty = self.place == Place::Start;
                self.end_line()?;
                if empty && self.begun {
                    return self.body().map(Some);
                }
                self.begun |= !empty;
                continue;
            }
            if self.cr && self.place == Place::Start {
                return Err(Doubt);
            }
            self.cr = byte == b'\r';
            if !self.cr || self.place != Place::Start {
                self.place = self.after(byte)?;
            }
        }
        Ok(None)
    }

    fn end_line(&mut self) -> Result<(), Doubt> {
        let number = !matches!(self.place, Place::Length) || self.length.is_some();
        if !self.cr || !number {
            return Err(Doubt);
        }
        self.begun |= self.place != Place::Start;
        self.cr = false;
        self.place = Place::Start;
        Ok(())
    }

    /// The place behind `byte`, which is no LF, nor a CR at the start of a line.
    fn after(&mut self, byte: u8) -> Result<Place, Doubt> {
        Ok(match self.place {
            Place::Start => match byte {
                b'c' | b'C' => Place::Name(Self::CONTENT_LENGTH, 1),
                b't' | b'T' => Place::Name(Self::TRANSFER_ENCODING, 1),
                _ => Place::Rest,
            },
            Place::Name(name, at) if byte.to_ascii_lowercase() == name[at] => {
                if at + 1 < name.len() {
                    Place::Name(name, at + 1)
                } else if name == Self::TRANSFER_ENCODING {
                    self.chunked = true;
                    Place::Rest
                } else if self.length.is_some() {
                    return Err(Doubt);
                } else {
                    Place::Length
                }
            }
            Place::Name(..) | Place::Rest => Place::Rest,
            Place::Length => match (byte, self.length) {
                (b'0'..=b'9', before) => {
                    let before = before.unwrap_or(0).saturating_mul(10);
                    self.length = Some(before.saturating_add(u64::from(byte - b'0')));
                    Place::Length
                }
                (b' ' | b'\t', None) => Place::Length,
                (b' ' | b'\t' | b'\r', Some(_)) => Place::LengthEnd,
                _ => return Err(Doubt),
            },
            Place::LengthEnd => match byte {
                b' ' | b'\t' | b'\r' => Place::LengthEnd,
                _ => return Err(Doubt),
            },
        })
    }

    fn body(&self) -> Result<Part, Doubt> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Doubt),
            (None, true) => Ok(Part::Chunked(Chunked::new())),
            (Some(length @ 1..), false) => Ok(Part::Length(length)),
            (Some(0) | None, false) => Ok(Part::Head(Self::default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads in `bytes`, whatever the pieces; none if there is a doubt.
    fn heads(bytes: &str) -> Option<u32> {
        let read = |piece: usize| {
            let mut scan = Scan::default();
            let pieces = bytes.as_bytes().chunks(piece);
            pieces.map(|piece| scan.read(piece).ok()).sum()
        };
        let whole = read(bytes.len());
        for piece in 1..bytes.len() {
            assert_eq!(read(piece), whole, "{bytes:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn heads_are_found_behind_bodies() {
        let chunks = "2\r\nab\r\n0\r\n\r\n";
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 1),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r".to_owned(), 0),
            (
                "\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_owned(),
                2,
            ),
            (
                "P\r\nContent-Length: 4\r\n\r\n\r\n\r\nP\r\n\r\n".to_owned(),
                2,
            ),
            (
                "P\r\ncONTENT-lENGTH:\t 4 \t\r\n\r\nP\nQ\nR\r\n\r\n".to_owned(),
                2,
            ),
            (
                format!("P\r\nTRANSFER-encoding: chunked\r\n\r\n{chunks}P\r\n\r\n"),
                2,
            ),
            (
                "P\r\nX-Content-Length: y\r\nContent-Lengthy: y\r\n\r\n".to_owned(),
                1,
            ),
            (
                "content-length\r\nX: content-length: 5\r\n\r\n".to_owned(),
                1,
            ),
        ] {
            assert_eq!(heads(&bytes), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_in_doubt() {
        for bytes in [
            "P\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "P\r\nContent-Length:1\r\nContent-Length:1\r\n\r\n",
            "\r\nP\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "P\r\n\r\nP\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "P\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "P\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "P\nHost: a\r\n\r\n",
            "P\r\nHost: a\n\r\n",
            "P\r\nHost: a\r\n\n",
            "\nP\r\n\r\n",
            "\rP\r\n\r\n",
            "P\r\n\rX: y\r\n\r\n",
            "P\r\nContent-Length:\r\n\r\n",
            "P\r\nContent-Length: \r\n\r\n",
            "P\r\nContent-Length: 1 1\r\n\r\n",
            "P\r\nContent-Length: +1\r\n\r\n",
            "P\r\nContent-Length: 1,1\r\n\r\n",
            "P\r\nContent-Length: 1\n\r\n",
            "P\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nP\r\n\r\n",
            "P\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\r\n",
            "P\r\nTransfer-Encoding: chunked\r\n\r\n1;\0\r\n",
        ] {
            assert_eq!(heads(bytes), None, "{bytes:?}");
        }
    }
}
