//! The wrapper reader against a second one (`xml.rs`): the same bodies accepted, and the same said of
//! each; and of an answer, the same start tags.
//!
//! Under the fuzzer a third reader stands beside them, roxmltree: what Bowline accepts, it accepts and
//! reads alike. roxmltree takes more than Bowline (comments, any root), so nothing is held the other
//! way round.

use bowline::bosh::{HTTPBIND, Request, XBOSH, read_request, read_response};

use super::xml::{self, Attribute, Document};

/// Holds it for one body.
pub fn check(input: &[u8]) {
    let read = read_request(input);
    let expected = xml::read(input).and_then(|document| said(&document));
    match (&read, &expected) {
        (Ok(read), Some(expected)) => {
            check_from(input, read);
            let read = Said::of(read);
            assert_eq!(&read, expected);
            #[cfg(fuzzing)]
            third(input, &read);
        }
        (Err(_), None) => {}
        (read, expected) => panic!("Bowline: {read:?}, the second reader: {expected:?}"),
    }
    check_answer(input);
}

/// Without its `from` a request says the same but for that.
fn check_from(input: &[u8], read: &Request<'_>) {
    let Some(from) = &read.from else { return };
    let cut = [&input[..from.start], &input[from.end..]].concat();
    let expected = Request {
        from: None,
        ..read.clone()
    };
    assert_eq!(read_request(&cut), Ok(expected));
}

/// What a request says, owned.
#[derive(Debug, PartialEq)]
struct Said {
    sid: Option<String>,
    rid: u64,
    to: Option<String>,
    wait: Option<u32>,
    hold: Option<u32>,
    ver: bool,
    pause: Option<u32>,
    ack: Option<u64>,
    terminate: bool,
    restart: bool,
    stream: Option<String>,
    empty: bool,
    from: bool,
    start: usize,
}

impl Said {
    fn of(request: &Request<'_>) -> Self {
        let Request {
            sid,
            rid,
            to,
            wait,
            hold,
            ver,
            pause,
            ack,
            terminate,
            restart,
            stream,
            empty,
            from,
            start,
        } = request.clone();
        Self {
            sid: sid.map(Into::into),
            rid,
            to: to.map(Into::into),
            wait,
            hold,
            ver,
            pause,
            ack,
            terminate,
            restart,
            stream: stream.map(Into::into),
            empty,
            from: from.is_some(),
            start,
        }
    }
}

/// What a document says as a request; none if it is no wrapper (XEP-0124 §7).
fn said(document: &Document) -> Option<Said> {
    is_wrapper(document).then_some(())?;
    let plain = |name: &str| {
        let named = |a: &&Attribute| a.namespace.is_none() && a.local == name;
        document.attributes.iter().find(named)
    };
    let value = |name: &str| plain(name).map(|attribute| attribute.value.clone());
    // The outer none: there, and no number.
    let number = |name: &str| match value(name) {
        None => Some(None),
        Some(text) => count(&text).map(Some),
    };
    // As they are written: not every node decodes them.
    let raw = |name: &str| plain(name).map(|attribute| attribute.raw.clone());
    let sid = raw("sid");
    if let Some(sid) = &sid {
        is_sid(sid).then_some(())?;
    }
    if let Some(content) = plain("content") {
        let clean = |text: &str| text.chars().all(|c| (' '..='~').contains(&c) && c != '<');
        (clean(&content.raw) && clean(&content.value)).then_some(())?;
    }
    let rid = rid_of(&raw("rid")?)?;
    let restart = document.attributes.iter().find(|attribute| {
        attribute.local == "restart" && attribute.namespace.as_deref() == Some(XBOSH)
    });
    Some(Said {
        sid,
        rid,
        to: value("to"),
        wait: number("wait")?,
        hold: number("hold")?,
        ver: plain("ver").is_some(),
        pause: number("pause")?,
        ack: raw("ack").as_deref().and_then(rid_of),
        terminate: value("type").as_deref() == Some("terminate"),
        restart: restart.is_some_and(|restart| ["true", "1"].contains(&&*restart.value)),
        stream: value("stream"),
        empty: document.empty,
        from: plain("from").is_some(),
        start: document.start,
    })
}

fn rid_of(text: &str) -> Option<u64> {
    (text.len() <= 16 && is_digits(text)).then_some(())?;
    text.parse().ok().filter(|rid| *rid < 1 << 53)
}

fn is_wrapper(document: &Document) -> bool {
    document.local == "body" && document.namespace == HTTPBIND
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// A number, the largest where it is too large.
fn count(text: &str) -> Option<u32> {
    is_digits(text).then(|| text.parse().unwrap_or(u32::MAX))
}

fn is_sid(text: &str) -> bool {
    let fits = |c: char| ('!'..='~').contains(&c) && !['"', '&', '\'', '<', '>'].contains(&c);
    (1..=256).contains(&text.chars().count()) && text.chars().all(fits)
}

/// The start tag, read as an answer's.
fn check_answer(input: &[u8]) {
    let read = read_response(input);
    let tag = xml::read_tag(input).filter(is_wrapper);
    let plain = |name: &str| {
        let tag = tag.as_ref()?;
        let named = |a: &&Attribute| a.namespace.is_none() && a.local == name;
        Some(tag.attributes.iter().find(named)?.value.clone())
    };
    let sid = tag.as_ref().and_then(|tag| {
        let named = |a: &&Attribute| a.namespace.is_none() && a.local == "sid";
        Some(tag.attributes.iter().find(named)?.raw.clone())
    });
    let expected = tag.as_ref().filter(|_| sid.as_deref().is_none_or(is_sid));
    let (read, expected) = match (read, expected) {
        (Ok(read), Some(expected)) => (read, expected),
        (Err(_), None) => return,
        (read, expected) => panic!("Bowline: {read:?}, the second reader: {expected:?}"),
    };
    let number = |name| plain(name).and_then(|text| count(&text));
    assert_eq!(read.sid, sid.map(Into::into));
    assert_eq!(read.condition.as_deref(), plain("condition").as_deref());
    assert_eq!(read.wait, number("wait"));
    assert_eq!(read.inactivity, number("inactivity"));
    assert_eq!(read.polling, number("polling"));
    assert_eq!(read.maxpause, number("maxpause"));
    assert_eq!(read.requests, number("requests"));
    assert_eq!(read.hold, number("hold"));
    assert_eq!(read.ver, plain("ver").is_some());
    assert_eq!(
        read.terminate,
        plain("type").as_deref() == Some("terminate")
    );
    assert_eq!(read.error, plain("type").as_deref() == Some("error"));
    assert_eq!(read.end, expected.tag_end);
    assert_eq!(read.accept.is_some(), plain("accept").is_some());
    assert_eq!(read.host.is_some(), plain("host").is_some());
    let whole = read.host.as_ref().map(|host| host.whole.clone());
    for (name, place) in [("accept", read.accept), ("host", whole)] {
        let Some(place) = place else { continue };
        // Without it the tag says the same but for that.
        let cut = [&input[..place.start], &input[place.end..read.end]].concat();
        let left = xml::read_tag(&cut).expect("a tag without the attribute");
        let mut others = expected.attributes.clone();
        others.retain(|a| !(a.namespace.is_none() && a.local == name));
        assert_eq!(left.attributes, others);
    }
}

/// roxmltree's reading of what Bowline accepted.
#[cfg(fuzzing)]
fn third(input: &[u8], said: &Said) {
    let text = std::str::from_utf8(input).expect("it was accepted");
    if text.contains(":xmlns") {
        // It takes an attribute `x:xmlns` for the declaration of a namespace.
        return;
    }
    let document = match roxmltree::Document::parse(text) {
        // It knows the prefix `xml` for attributes only, and Namespaces §3 for elements as well.
        Err(roxmltree::Error::UnknownNamespace(prefix, _)) if prefix == "xml" => return,
        document => document.expect("well-formed for the third reader"),
    };
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "body");
    assert_eq!(root.tag_name().namespace(), Some(HTTPBIND));
    let value = |namespace: Option<&str>, name: &str| {
        let named =
            |a: &roxmltree::Attribute<'_, '_>| (a.namespace(), a.name()) == (namespace, name);
        root.attributes()
            .find(named)
            .map(|attribute| attribute.value())
    };
    assert_eq!(value(None, "sid"), said.sid.as_deref());
    assert_eq!(value(None, "to"), said.to.as_deref());
    assert_eq!(value(None, "stream"), said.stream.as_deref());
    let rid = value(None, "rid").expect("a rid");
    assert_eq!(rid.parse(), Ok(said.rid));
    assert_eq!(value(None, "type") == Some("terminate"), said.terminate);
    let restart = value(Some(XBOSH), "restart");
    assert_eq!(matches!(restart, Some("true" | "1")), said.restart);
    let blank = |node: roxmltree::Node<'_, '_>| {
        node.is_text()
            && node
                .text()
                .is_some_and(|text| text.chars().all(|c| " \t\r\n".contains(c)))
    };
    assert_eq!(root.children().all(blank), said.empty);
    // It takes a declaration without a space behind `<?xml`, which is white space too, for another thing.
    let others = document.root().children().filter(|node| !node.is_pi());
    assert_eq!(others.count(), 1);
}
