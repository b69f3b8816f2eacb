//! Reads XML as a simulated node does: leniently, and with no help from the balancer's own reader.
//!
//! [`Scanner`] cuts a byte stream into root elements the way Tigase does, which has no HTTP parser:
//! head and body go through it alike. [`Element`] is one root taken apart. Neither does I/O.

use std::borrow::Cow;

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

/// The longest text node that Tigase's parser takes.
const LONGEST_TEXT: usize = 1024 * 1024;
/// The longest attribute value that Tigase's parser takes.
const LONGEST_VALUE: usize = 10 * 1024;

/// One thing that the scanner found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A complete root element; `start` is where it begins in `raw`, after whatever came before.
    Element { raw: Bytes, start: usize },
    /// A request that is answered before any XML is looked for: `GET` or `OPTIONS`.
    Plain { raw: Bytes },
    /// A stream was opened, as on a c2s port.
    StreamOpened { raw: Bytes },
    /// Not well-formed.
    Malformed { raw: Bytes },
    /// No UTF-8.
    Undecodable { raw: Bytes },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Text,
    Opened,
    StartName,
    InTag,
    AfterEquals,
    Value(u8),
    Slash,
    EndName,
    Instruction,
    Declaration,
}

/// Cuts a stream of bytes into root elements. Keeps nothing between two requests.
#[derive(Debug)]
pub(super) struct Scanner {
    buffer: Vec<u8>,
    decoded: usize,
    position: usize,
    state: State,
    mark: usize,
    text_from: usize,
    root: usize,
    open: Vec<Vec<u8>>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            decoded: 0,
            position: 0,
            state: State::Text,
            mark: 0,
            text_from: 0,
            root: 0,
            open: Vec::new(),
        }
    }

    /// Adds what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete thing, if there is one.
    pub(super) fn next(&mut self) -> Option<Found> {
        if !self.decode() {
            return Some(Found::Undecodable {
                raw: self.take(self.buffer.len()),
            });
        }
        if self.position == 0
            && let Some(end) = self.plain()
        {
            return match end {
                0 => None,
                end => Some(Found::Plain {
                    raw: self.take(end),
                }),
            };
        }
        while self.position < self.decoded {
            let byte = self.buffer[self.position];
            self.position += 1;
            match self.step(byte) {
                Step::On => {}
                Step::Closed => {
                    let start = self.root;
                    let raw = self.take(self.position);
                    return Some(Found::Element { raw, start });
                }
                Step::Stream => {
                    return Some(Found::StreamOpened {
                        raw: self.take(self.buffer.len()),
                    });
                }
                Step::Malformed => {
                    return Some(Found::Malformed {
                        raw: self.take(self.buffer.len()),
                    });
                }
            }
        }
        None
    }

    /// Moves `decoded` on; false where the bytes cannot be UTF-8.
    fn decode(&mut self) -> bool {
        match std::str::from_utf8(&self.buffer[self.decoded..]) {
            Ok(_) => self.decoded = self.buffer.len(),
            Err(error) if error.error_len().is_none() => self.decoded += error.valid_up_to(),
            Err(_) => return false,
        }
        true
    }

    /// Where a `GET` or `OPTIONS` at the front ends; 0 while that cannot be said yet.
    fn plain(&self) -> Option<usize> {
        let method = [&b"GET "[..], b"OPTIONS "].into_iter().find(|method| {
            let length = method.len().min(self.buffer.len());
            length > 0 && self.buffer[..length] == method[..length]
        })?;
        let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(at) if self.buffer.len() >= method.len() => Some(at + 4),
            Some(_) | None => Some(0),
        }
    }

    fn take(&mut self, end: usize) -> Bytes {
        let rest = self.buffer.split_off(end);
        let raw = std::mem::replace(&mut self.buffer, rest);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        self.decoded = 0;
        self.position = 0;
        self.state = State::Text;
        self.text_from = 0;
        self.open = Vec::new();
        Bytes::from(raw)
    }

    fn step(&mut self, byte: u8) -> Step {
        let here = self.position - 1;
        if byte < 0x20 && !matches!(byte, b'\t' | b'\r' | b'\n') {
            return Step::Malformed;
        }
        match (self.state, byte) {
            (State::Text, b'<') => {
                self.mark = here;
                self.state = State::Opened;
            }
            (State::Text, _) if here - self.text_from > LONGEST_TEXT => return Step::Malformed,
            (State::Opened, b'/') => self.state = State::EndName,
            (State::Opened, b'?') => self.state = State::Instruction,
            (State::Opened, b'!') => self.state = State::Declaration,
            (State::Opened, b'<' | b'>' | b' ') | (State::StartName | State::InTag, b'<') => {
                return Step::Malformed;
            }
            (State::Opened, _) => self.state = State::StartName,
            (State::StartName, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>') => {
                return self.name_ended(here, byte);
            }
            (State::InTag, b'>') => return self.text(),
            (State::InTag, b'/') => self.state = State::Slash,
            (State::InTag, b'=') => self.state = State::AfterEquals,
            // Anything else is skipped until a quote comes: `rid=1` hangs for good.
            (State::AfterEquals, b'\'' | b'"') => {
                self.state = State::Value(byte);
                self.text_from = here;
            }
            (State::Value(quote), _) if byte == quote => self.state = State::InTag,
            (State::Value(_), _) if here - self.text_from > LONGEST_VALUE => {
                return Step::Malformed;
            }
            (State::Slash, b'>') => return self.close(),
            (State::Slash, _) => self.state = State::InTag,
            (State::EndName, b'>') => return self.end_tag(here),
            (State::Instruction, b'>') => return self.text(),
            (State::Declaration, b'>') if self.declaration_ended(here) => return self.text(),
            _ => {}
        }
        Step::On
    }

    fn text(&mut self) -> Step {
        self.state = State::Text;
        self.text_from = self.position;
        Step::On
    }

    fn name_ended(&mut self, here: usize, byte: u8) -> Step {
        let name = self.buffer[self.mark + 1..here].to_vec();
        if self.open.is_empty() {
            self.root = self.mark;
            if name == b"stream:stream" {
                return Step::Stream;
            }
        }
        self.open.push(name);
        match byte {
            b'>' => return self.text(),
            b'/' => self.state = State::Slash,
            _ => self.state = State::InTag,
        }
        Step::On
    }

    fn end_tag(&mut self, here: usize) -> Step {
        let name = self.buffer[self.mark + 2..here].trim_ascii_end();
        if self.open.last().is_none_or(|open| open != name) {
            return Step::Malformed;
        }
        self.close()
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        if self.open.is_empty() {
            Step::Closed
        } else {
            self.text()
        }
    }

    fn declaration_ended(&self, here: usize) -> bool {
        let seen = &self.buffer[self.mark..=here];
        if seen.starts_with(b"<!--") {
            seen.len() >= 7 && seen.ends_with(b"-->")
        } else if seen.starts_with(b"<![CDATA[") {
            seen.ends_with(b"]]>")
        } else {
            true
        }
    }
}

enum Step {
    On,
    Closed,
    Stream,
    Malformed,
}

/// A start tag: the name and the attributes as they were written, entities and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
}

impl Tag {
    fn of(start: &BytesStart<'_>) -> Self {
        let mut attributes = start.attributes();
        let attributes = attributes.with_checks(false).flatten();
        Self {
            name: start.name().as_ref().to_owned(),
            attributes: attributes
                .map(|attribute| {
                    (
                        attribute.key.as_ref().to_owned(),
                        attribute.value.into_owned(),
                    )
                })
                .collect(),
        }
    }

    /// Decodes entities and character references, as every server but Tigase does.
    pub(super) fn decode(mut self) -> Self {
        for (_, value) in &mut self.attributes {
            if let Ok(Cow::Owned(decoded)) = unescape(value) {
                *value = decoded;
            }
        }
        self
    }

    /// The value of an attribute.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A child of the root: its start tag, and the rest of it as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) tag: Tag,
    /// From the end of the start tag on: `/>`, or `>…</name>`.
    pub(super) rest: String,
}

impl Stanza {
    /// The stanza as it is sent on, with `from` in place of what the client said.
    pub(super) fn stamped(&self, from: &str) -> String {
        let mut out = format!("<{}", self.tag.name);
        for (key, value) in self.tag.attributes.iter().filter(|(key, _)| key != "from") {
            push_attribute(&mut out, key, value, '"');
        }
        push_attribute(&mut out, "from", from, '"');
        out.push_str(&self.rest);
        out
    }
}

/// One root element, taken apart as far as a node looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) tag: Tag,
    pub(super) stanzas: Vec<Stanza>,
}

impl Element {
    /// Reads one element. `None` where it is not well-formed.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        let mut root: Option<Self> = None;
        let mut depth = 0_usize;
        let mut child: Option<(Tag, usize)> = None;
        loop {
            let event = reader.read_event().ok()?;
            let end = usize::try_from(reader.buffer_position()).ok()?;
            match event {
                Event::Start(start) | Event::Empty(start) if root.is_none() => {
                    root = Some(Self {
                        tag: Tag::of(&start),
                        stanzas: Vec::new(),
                    });
                    depth = usize::from(!text[..end].ends_with("/>"));
                    if depth == 0 {
                        return root;
                    }
                }
                Event::Empty(start) if depth == 1 => {
                    let stanza = Stanza {
                        tag: Tag::of(&start),
                        rest: "/>".to_owned(),
                    };
                    root.as_mut()?.stanzas.push(stanza);
                }
                Event::Start(start) => {
                    if depth == 1 {
                        child = Some((Tag::of(&start), end - 1));
                    }
                    depth += 1;
                }
                Event::End(_) => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return root;
                    }
                    if depth == 1
                        && let Some((tag, from)) = child.take()
                    {
                        let rest = text[from..end].to_owned();
                        root.as_mut()?.stanzas.push(Stanza { tag, rest });
                    }
                }
                Event::Eof => return None,
                _ => {}
            }
        }
    }
}

/// Writes ` key="value"`.
pub(super) fn push_attribute(out: &mut String, key: &str, value: &str, quote: char) {
    out.push(' ');
    out.push_str(key);
    out.push('=');
    out.push(quote);
    for letter in value.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            other => out.push(other),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Vec<Found> {
        let mut scanner = Scanner::new();
        let mut found = Vec::new();
        for byte in bytes {
            scanner.feed(&[*byte]);
            while let Some(one) = scanner.next() {
                found.push(one);
            }
        }
        found
    }

    #[test]
    fn a_head_is_skipped_and_two_roots_are_two() {
        let found = scan(b"POST / HTTP/1.1\r\n\r\n<body a='1'/><body><a></a></body>");
        assert_eq!(found.len(), 2);
        let Found::Element { raw, start } = &found[0] else {
            panic!("{found:?}")
        };
        assert_eq!(&raw[*start..], b"<body a='1'/>");
    }

    #[test]
    fn markup_in_the_head_derails() {
        let body = "<body xmlns='x'></body>";
        assert!(scan(format!("X-Foo: a<b>c\r\n\r\n{body}").as_bytes()).is_empty());
        assert_eq!(
            scan(format!("X-Foo: <a/>\r\n\r\n{body}").as_bytes()).len(),
            2
        );
        assert!(scan(b"POST / HTTP/1.1\r\n\r\n<body xmlns='x' rid=1 <<>>").is_empty());
    }

    #[test]
    fn bad_bytes_and_bad_nesting_are_told_apart() {
        assert!(matches!(
            scan(b"caf\xe9 <a/>")[0],
            Found::Undecodable { .. }
        ));
        assert!(matches!(scan(b"<a><b></c>")[0], Found::Malformed { .. }));
        assert!(matches!(
            scan(b"SM\r\n\r\n\0\0")[0],
            Found::Malformed { .. }
        ));
        assert!(matches!(
            scan(b"<stream:stream a='1'>")[0],
            Found::StreamOpened { .. }
        ));
        assert!(scan("é<a/>".as_bytes()).len() == 1);
    }

    #[test]
    fn a_plain_request_ends_with_its_head() {
        assert!(matches!(
            scan(b"GET / HTTP/1.1\r\n\r\n")[..],
            [Found::Plain { .. }]
        ));
        assert_eq!(scan(b"OPTIONS / HTTP/1.1\r\n\r\n<a/>").len(), 2);
        assert!(scan(b"HEAD / HTTP/1.1\r\n\r\n").is_empty());
    }

    #[test]
    fn an_element_keeps_its_stanzas_as_they_came() {
        let text = "<body sid='1'><message to=\"a&amp;b\"><body>hi</body></message><r/></body>";
        let element = Element::read(text).expect("well-formed");
        assert_eq!(element.tag.get("sid"), Some("1"));
        assert_eq!(element.stanzas.len(), 2);
        assert_eq!(
            element.stanzas[0].stamped("c"),
            "<message to=\"a&amp;b\" from=\"c\"><body>hi</body></message>"
        );
        assert_eq!(element.stanzas[1].rest, "/>");
        assert_eq!(Element::read("<a><b></a>"), None);
        assert!(Element::read("<a x='1'/>").is_some());
    }
}
