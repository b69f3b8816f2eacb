//! What one process says of single sessions to the one that takes over, as bytes: records one after the other.
//! All numbers are little-endian.
//!
//! ```text
//! record   kind u8 · length of the sid u16 · sid · rid u64, then by kind
//!          1, sent: nothing
//!          2, away: milliseconds since u32 · milliseconds left u32
//!          3, kept: hash u64 · length of the body u32 · body
//! ```

use std::time::Duration;

use super::format::Bytes;

const SENT: u8 = 1;
const AWAY: u8 = 2;
const KEPT: u8 = 3;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The session.
    pub sid: &'a str,
    /// The request.
    pub rid: u64,
    /// What is known of it.
    pub news: News<'a>,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// Its node has read it.
    Sent,
    /// Its client went away before the answer.
    Away {
        /// So long ago.
        ago: Duration,
        /// The rid above waits for it for this long.
        left: Duration,
    },
    /// It was answered.
    Kept {
        /// The hash of its body.
        hash: u64,
        /// The answer.
        body: &'a [u8],
    },
}

/// Adds a record. One of a sid beyond 65,535 bytes is left out.
pub fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    let Ok(length) = u16::try_from(record.sid.len()) else {
        return;
    };
    let kind = match record.news {
        News::Sent => SENT,
        News::Away { .. } => AWAY,
        News::Kept { .. } => KEPT,
    };
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(record.sid.as_bytes());
    out.extend_from_slice(&record.rid.to_le_bytes());
    match record.news {
        News::Sent => {}
        News::Away { ago, left } => {
            for time in [ago, left] {
                let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
                out.extend_from_slice(&millis.to_le_bytes());
            }
        }
        News::Kept { hash, body } => {
            let length = u32::try_from(body.len()).unwrap_or(0);
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&body[..usize::try_from(length).unwrap_or(0)]);
        }
    }
}

/// The records. It ends at the first one that is not whole.
pub fn read(bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = Bytes::new(bytes);
    std::iter::from_fn(move || one(&mut rest))
}

fn one<'a>(rest: &mut Bytes<'a>) -> Option<Record<'a>> {
    let [kind] = rest.take()?;
    let length = rest.u16()?;
    let sid = std::str::from_utf8(rest.slice(length.into())?).ok()?;
    let rid = rest.u64()?;
    let news = match kind {
        SENT => News::Sent,
        AWAY => News::Away {
            ago: Duration::from_millis(rest.u32()?.into()),
            left: Duration::from_millis(rest.u32()?.into()),
        },
        KEPT => {
            let hash = rest.u64()?;
            let length = usize::try_from(rest.u32()?).ok()?;
            let body = rest.slice(length)?;
            News::Kept { hash, body }
        }
        _ => return None,
    };
    Some(Record { sid, rid, news })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_come_out_as_they_went_in_and_a_cut_one_ends_them() {
        let all = [
            News::Sent,
            News::Away {
                ago: Duration::from_millis(1),
                left: Duration::from_millis(8999),
            },
            News::Kept {
                hash: u64::MAX,
                body: b"<body/>",
            },
            News::Kept { hash: 0, body: b"" },
        ];
        let records = all.map(|news| Record {
            sid: "a-ß",
            rid: 1 << 52,
            news,
        });
        let mut bytes = Vec::new();
        records.iter().for_each(|one| write(&mut bytes, one));
        assert_eq!(read(&bytes).collect::<Vec<_>>(), records);
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).count() < records.len());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sids: usize = read(&bytes).map(|one| one.sid.len()).sum();
            prop_assert!(sids <= bytes.len());
        }
    }
}
