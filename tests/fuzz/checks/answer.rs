//! The reader of nodes' answers: the same result however the bytes are cut, within its bounds, and
//! the one that a second reading of the whole comes to.

use bowline::upstream::{Answer, Error, Reader};

use super::exchange;

/// Holds it for one input: two bytes that say where to cut, one for the bound on the body, and what
/// the node sends before it closes the connection.
pub fn check(input: &[u8]) {
    let Some((&[first, second, bound], bytes)) = input.split_first_chunk() else {
        return;
    };
    let max = usize::from(bound) * 4;
    let whole = read([bytes], max);
    let places = [first, second].map(|place| usize::from(place) % (bytes.len() + 1));
    let (low, high) = (places[0].min(places[1]), places[0].max(places[1]));
    let cut = read([&bytes[..low], &bytes[low..high], &bytes[high..]], max);
    assert_eq!(told(&whole), told(&cut), "cut at {low} and {high}");
    if bytes.len() <= 256 {
        assert_eq!(told(&whole), told(&read(bytes.chunks(1), max)), "by bytes");
    }
    if let Ok(answer) = &whole {
        assert!(answer.body.len() <= max, "more body than allowed");
        assert!((200..600).contains(&answer.status));
    }
    let expected = exchange::answer(bytes, max);
    match (whole, expected) {
        (Ok(answer), Some(expected)) => {
            assert_eq!(answer.status, expected.status);
            assert_eq!(answer.body, expected.body);
            assert_eq!(
                answer.content_type.as_deref(),
                expected.content_type.as_deref()
            );
            assert_eq!(answer.reusable, expected.reusable);
        }
        (Err(Error::Closed(None)), None) => assert!(bytes.is_empty(), "not a clean end"),
        (Err(error), None) => assert!(!bytes.is_empty(), "{error} of nothing"),
        (Ok(answer), None) => panic!("Bowline accepts {answer:?}"),
        (Err(error), Some(expected)) => panic!("Bowline: {error}, the second: {expected:?}"),
    }
}

/// Reads `pieces` and the end of the connection behind them.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Result<Answer, Error> {
    let mut reader = Reader::new(max);
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        if let Some(answer) = reader.push(piece)? {
            let surplus = pieces.any(|piece| !piece.is_empty());
            return Ok(Answer {
                reusable: answer.reusable && !surplus,
                ..answer
            });
        }
    }
    reader.end()
}

/// The result in words, so that errors can be compared.
fn told(result: &Result<Answer, Error>) -> Result<&Answer, String> {
    result.as_ref().map_err(|error| format!("{error:?}"))
}
