//! What must hold for any bytes: bounds, no panic, and a result that no cut changes.

use proptest::prelude::*;

use super::tests::{MAX, check, outcome, read};
use super::{Error, Reader};
use crate::http1::{MAX_FIELDS, MAX_HEAD};

#[test]
fn heads_are_bounded() {
    let start = "HTTP/1.1 204 x\r\nX: ";
    let room = MAX_HEAD - start.len() - 4;
    check(
        format!("{start}{}\r\n\r\n", "y".repeat(room)).as_bytes(),
        "204 keep -",
    );
    check(
        format!("{start}{}\r\n\r\n", "y".repeat(room + 1)).as_bytes(),
        "too_large",
    );
    check(
        format!("{start}{}", "y".repeat(MAX_HEAD)).as_bytes(),
        "too_large",
    );
    for (count, expected) in [
        (MAX_FIELDS, "204 keep -"),
        (MAX_FIELDS + 1, "invalid: more than 100 header fields"),
    ] {
        let fields = "X: y\r\n".repeat(count);
        check(
            format!("HTTP/1.1 204 x\r\n{fields}\r\n").as_bytes(),
            expected,
        );
    }
}

#[test]
fn bodies_are_bounded_before_they_are_read() {
    let mut reader = Reader::new(MAX);
    let result = reader.push(b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n");
    assert!(matches!(result, Err(Error::TooLarge)));
}

/// Parts of answers, right and wrong, so that what is put together comes far.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 204 x\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 70\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Content-Type: text/xml\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "hello",
        "5\r\nhello\r\n",
        "3;x=y\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n",
    ]);
    prop_oneof![
        12 => known.prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

/// `bytes`, cut at places that `cuts` says.
fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

proptest! {
    #[test]
    fn cutting_arbitrary_bytes_changes_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        prop_assert_eq!(outcome([&bytes[..]]), outcome(cut(&bytes, &cuts)));
    }

    #[test]
    fn cutting_what_looks_like_an_answer_changes_nothing(
        parts in prop::collection::vec(part(), 0..10),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = [b"HTTP/1.1 200 OK\r\n".to_vec(), parts.concat()].concat();
        prop_assert_eq!(outcome([&bytes[..]]), outcome(cut(&bytes, &cuts)));
        prop_assert_eq!(outcome([&bytes[..]]), outcome(bytes.chunks(1)));
    }

    #[test]
    fn an_arbitrary_body_comes_through(body in prop::collection::vec(any::<u8>(), 0..=MAX)) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = [head.as_bytes(), &body].concat();
        let answer = read([&bytes[..]]).expect("a valid answer");
        prop_assert_eq!(&answer.body[..], &body[..]);
        prop_assert!(answer.reusable);
    }
}
