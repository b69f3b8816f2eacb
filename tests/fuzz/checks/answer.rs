//! The reader of nodes' answers: the same result however the bytes are cut, within its bounds, and
//! the one that a second reading of the whole comes to.

use bowline::bosh::{read_response, with, without};
use bowline::upstream::{Error, Reader, Response};

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
        check_host(answer);
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

/// Without its `host`, or with another, an answer is byte for byte what it was but for that.
fn check_host(answer: &Response) {
    let Ok(wrapper) = read_response(&answer.body) else {
        return;
    };
    let Some(host) = wrapper.host else { return };
    let (front, back) = (
        &answer.body[..host.whole.start],
        &answer.body[host.whole.end..],
    );
    let named = &answer.body[host.whole.start..host.value.start];
    let quote = &answer.body[host.value.end..host.whole.end];
    assert_eq!(named.trim_ascii_start().get(..4), Some(&b"host"[..]));
    assert_eq!(named.get(named.len() - 1..), Some(quote), "the same quotes");
    let stripped = without(answer.body.clone(), &host.whole);
    assert_eq!(stripped, [front, back].concat());
    let left = read_response(&stripped).expect("a wrapper still");
    assert_eq!(left.host, None);
    assert_eq!(left.sid, wrapper.sid);
    assert_eq!(left.end, wrapper.end - host.whole.len());
    let rewritten = with(&answer.body, &host.value, b"chat.example.com");
    let expected = [front, named, b"chat.example.com", quote, back].concat();
    assert_eq!(rewritten, expected);
    let place = read_response(&rewritten).ok().and_then(|again| again.host);
    let place = place.expect("a wrapper with a host still");
    assert_eq!(&rewritten[place.value], b"chat.example.com");
}

/// Reads `pieces` and the end of the connection behind them.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Result<Response, Error> {
    let mut reader = Reader::new(max);
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        if let Some(answer) = reader.push(piece)? {
            let surplus = pieces.any(|piece| !piece.is_empty());
            return Ok(Response {
                reusable: answer.reusable && !surplus,
                ..answer
            });
        }
    }
    reader.end()
}

/// The result in words, so that errors can be compared.
fn told(result: &Result<Response, Error>) -> Result<&Response, String> {
    result.as_ref().map_err(|error| format!("{error:?}"))
}
