//! Takes an attribute out of a wrapper's start tag, or gives it another value.
//!
//! Owns the bytes of an answer on their way to a client. Everything outside of the given range stays
//! as it is.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

/// `body` without the bytes in `range`.
///
/// A start tag is short and a payload may be long. So the bytes in front of the range move, in the
/// memory where they are, and the payload is not touched. A body that others share, which no answer
/// of a node is, is copied.
#[must_use]
pub fn without(body: Bytes, range: &Range<usize>) -> Bytes {
    let Range { start, end } = *range;
    if start >= end || end > body.len() {
        return body;
    }
    match body.try_into_mut() {
        Ok(mut body) => {
            body.copy_within(..start, end - start);
            body.advance(end - start);
            body.freeze()
        }
        Err(body) => with(&body, range, b""),
    }
}

/// `body` with `value` in place of the bytes in `range`, in memory of exactly its size. `value` is
/// written as it is: the caller sees to it that it may stand there.
#[must_use]
pub fn with(body: &Bytes, range: &Range<usize>, value: &[u8]) -> Bytes {
    let (Some(front), Some(rest)) = (body.get(..range.start), body.get(range.end..)) else {
        return body.clone();
    };
    let mut edited = BytesMut::with_capacity(front.len() + value.len() + rest.len());
    edited.extend_from_slice(front);
    edited.extend_from_slice(value);
    edited.extend_from_slice(rest);
    edited.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_out_where_it_is() {
        for (range, left) in [
            (0..2, "cdef"),
            (2..4, "abef"),
            (4..6, "abcd"),
            (0..6, ""),
            (3..3, "abcdef"),
            (4..7, "abcdef"),
        ] {
            assert_eq!(without(Bytes::from(b"abcdef".to_vec()), &range), left);
            let shared = Bytes::from(b"abcdef".to_vec());
            assert_eq!(without(shared.clone(), &range), left);
            assert_eq!(shared, "abcdef");
        }
    }

    #[test]
    fn a_payload_stays_where_it_is() {
        let body = Bytes::from(vec![b'x'; 1000]);
        let payload = body[600..].as_ptr();
        let body = without(body, &(100..200));
        assert_eq!(body.len(), 900);
        assert_eq!(body[500..].as_ptr(), payload);
    }

    #[test]
    fn a_range_gets_other_bytes() {
        let body = Bytes::from_static(b"abcdef");
        for (range, value, edited) in [
            (2..4, "", "abef"),
            (2..4, "longer", "ablongeref"),
            (2..2, "x", "abxcdef"),
            (4..7, "x", "abcdef"),
        ] {
            assert_eq!(with(&body, &range, value.as_bytes()), edited);
        }
    }
}
