//! Properties of the reader, on generated bodies.

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;

use super::bare;
use crate::bosh::{HTTPBIND, Request, read_request, read_response, with, without};

/// One attribute: name, value, and how to write it.
#[derive(Clone, Debug)]
struct Written {
    name: &'static str,
    value: String,
    double: bool,
    /// Which characters to write as references, by place: bit 0 for all that may be, bit 1 for hex.
    references: Vec<u8>,
    space: &'static str,
}

impl Written {
    fn write(&self, double: bool) -> String {
        let quote = if double { '"' } else { '\'' };
        let mut text = format!("{}{}={quote}", self.space, self.name);
        let ways = self.references.iter().cycle();
        for (c, way) in self.value.chars().zip(ways) {
            let must = matches!(c, '<' | '>' | '&' | '"' | '\'' | '\t' | '\n' | '\r');
            match (must || way & 1 == 1, way & 2 == 2) {
                (false, _) => text.push(c),
                (true, true) => write!(text, "&#x{:x};", u32::from(c)).expect("a string"),
                (true, false) => write!(text, "&#{};", u32::from(c)).expect("a string"),
            }
        }
        text.push(quote);
        text
    }
}

fn written(
    name: &'static str,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = Written> {
    let space = prop::sample::select(vec![" ", "\n", "\t \r\n"]);
    let references = prop::collection::vec(0_u8..4, 1..8);
    (value, any::<bool>(), references, space).prop_map(move |(value, double, references, space)| {
        Written {
            name,
            value,
            double,
            references,
            space,
        }
    })
}

/// The same without references, which a sid and a rid may not have.
fn literal(
    name: &'static str,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = Written> {
    written(name, value).prop_map(|attribute| Written {
        references: vec![0],
        ..attribute
    })
}

/// The attributes of a request, in any order, and a payload.
fn request() -> impl Strategy<Value = (Vec<Written>, &'static str)> {
    let attributes = (
        literal("sid", "[!#-%(-;=?-~]{1,256}"),
        literal("rid", (0_u64..1 << 53).prop_map(|rid| rid.to_string())),
        written(
            "to",
            "[\t\n\r -\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]{0,40}",
        ),
        written("wait", any::<u32>().prop_map(|wait| wait.to_string())),
        written("xmlns", Just(HTTPBIND.to_owned())),
        written("x:sid", "[a-z]{0,9}"),
        written("xmlns:x", "urn:[a-z]{1,9}"),
        written("xmpp:restart", Just("true".to_owned())),
        written("xmlns:xmpp", Just("urn:xmpp:xbosh".to_owned())),
    );
    let attributes = attributes
        .prop_map(|(a, b, c, d, e, f, g, h, i)| vec![a, b, c, d, e, f, g, h, i])
        .prop_shuffle();
    let payload = prop::sample::select(vec![
        "/>",
        "></body>",
        "> \n</body >",
        "><x:y x:z='1' z='2'>é&amp;<![CDATA[&a;]]></x:y></body>",
    ]);
    (attributes, payload)
}

fn document(attributes: &[Written], payload: &str, double: impl Fn(&Written) -> bool) -> String {
    let attributes: String = attributes.iter().map(|a| a.write(double(a))).collect();
    format!("<body{attributes}{payload}")
}

fn value<'a>(attributes: &'a [Written], name: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.name == name);
    &found.expect("every attribute is there").value
}

/// Bytes that come close to a document.
fn near_xml() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "<body",
        " xmlns='http://jabber.org/protocol/httpbind'",
        " rid='1'",
        " sid='a'",
        ">",
        "/>",
        "</body>",
        "<a",
        "</a>",
        "<",
        "&",
        ";",
        "&amp;",
        "&#",
        "x41",
        "'",
        "\"",
        "=",
        " ",
        "<!",
        "<!--",
        "-->",
        "--",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE",
        "[",
        "]",
        "<?",
        "?>",
        "<?xml",
        " version='1.0'",
        "é",
        "\u{FEFF}",
        "\0",
        "\u{FFFE}",
        ":",
        "xmlns:a='u'",
        "a:b",
        "!",
        "-",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn what_is_written_is_read((attributes, payload) in request()) {
        let document = document(&attributes, payload, |attribute| attribute.double);
        let expected = Request {
            sid: Some(value(&attributes, "sid").into()),
            rid: value(&attributes, "rid").parse().expect("a number"),
            to: Some(value(&attributes, "to").into()),
            wait: value(&attributes, "wait").parse().ok(),
            restart: true,
            empty: !payload.contains("CDATA"),
            ..bare()
        };
        prop_assert_eq!(read_request(document.as_bytes()), Ok(expected));
        // The same reading of an answer.
        let answer = read_response(document.as_bytes()).expect("a good tag");
        prop_assert_eq!(answer.sid.as_deref(), Some(value(&attributes, "sid")));
        prop_assert_eq!(answer.wait, value(&attributes, "wait").parse().ok());
    }

    #[test]
    fn either_quote_reads_the_same((attributes, payload) in request()) {
        let double = document(&attributes, payload, |_| true);
        let single = document(&attributes, payload, |_| false);
        prop_assert_eq!(read_request(double.as_bytes()), read_request(single.as_bytes()));
    }

    #[test]
    fn a_strict_prefix_is_refused((attributes, payload) in request(), cut in any::<prop::sample::Index>()) {
        let document = document(&attributes, payload, |attribute| attribute.double);
        let (prefix, _) = document.as_bytes().split_at(cut.index(document.len()));
        prop_assert!(read_request(prefix).is_err());
    }

    #[test]
    fn an_answer_needs_its_start_tag_only((attributes, payload) in request(), tail: Vec<u8>) {
        let document = document(&attributes, payload, |attribute| attribute.double);
        let whole = read_response(document.as_bytes()).expect("a good tag");
        let (tag, _) = document.as_bytes().split_at(whole.end);
        let other = [tag, &tail].concat();
        let again = read_response(&other).expect("a good tag");
        prop_assert_eq!(&again, &whole);
        let (cut, _) = tag.split_at(whole.end - 1);
        prop_assert!(read_response(cut).is_err());
    }

    #[test]
    fn only_host_leaves_an_answer(
        (mut attributes, payload) in request(),
        host in written("host", "[ -~é]{0,40}"),
        at in any::<prop::sample::Index>(),
        tail: Vec<u8>,
    ) {
        let expected = document(&attributes, payload, |a| a.double);
        attributes.insert(at.index(attributes.len() + 1), host);
        let body = document(&attributes, payload, |a| a.double);
        let bytes = |text: &str| Bytes::from([text.as_bytes(), &tail].concat());
        let place = read_response(body.as_bytes()).expect("a good tag").host.expect("a host");
        prop_assert_eq!(without(bytes(&body), &place.whole), bytes(&expected));
        let renamed = with(&bytes(&body), &place.value, b"chat.example.com");
        let again = read_response(&renamed).expect("a good tag").host.expect("a host");
        prop_assert_eq!(&again.whole.start, &place.whole.start);
        prop_assert_eq!(without(renamed, &again.whole), bytes(&expected));
    }

    #[test]
    fn only_from_leaves_a_creation(
        (mut attributes, payload) in request(),
        from in written("from", "[ -<?-~é]{0,40}"),
        at in any::<prop::sample::Index>(),
    ) {
        attributes.retain(|a| a.name != "sid");
        let expected = document(&attributes, payload, |a| a.double);
        attributes.insert(at.index(attributes.len() + 1), from);
        let body = document(&attributes, payload, |a| a.double);
        let Ok(read) = read_request(body.as_bytes()) else {
            // It hides another attribute.
            return Err(TestCaseError::reject("refused"));
        };
        let from = read.from.expect("a place");
        prop_assert_eq!([&body[..from.start], &body[from.end..]].concat(), expected);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = read_request(&bytes);
        let _ = read_response(&bytes);
    }

    #[test]
    fn no_near_document_panics(bytes in near_xml()) {
        let whole = read_request(&bytes);
        let tag = read_response(&bytes);
        if let Ok(request) = whole {
            prop_assert_eq!(tag.expect("the same reader").sid, request.sid);
        }
    }

    #[test]
    fn a_broken_byte_never_panics(
        (attributes, payload) in request(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut bytes = document(&attributes, payload, |a| a.double).into_bytes();
        let at = at.index(bytes.len());
        *bytes.get_mut(at).expect("an index of it") = byte;
        let _ = read_request(&bytes);
        let _ = read_response(&bytes);
    }
}
