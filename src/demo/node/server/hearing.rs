//! What a request turns out to be, by the parser of each simulated server.

use bytes::Bytes;

use super::super::connection::Connection;
use super::super::fault::{Ending, Manner, Step};
use super::super::http::Asked;
use super::super::profile::Software;
use super::super::record::Kind;
use super::super::words::{STREAM_ERROR, STREAM_OPENED};
use super::super::xml::{Element, Found};
use super::Server;

/// What a request turned out to be.
pub(super) enum Heard {
    Wrapper(Element),
    Get {
        head_only: bool,
    },
    Options,
    /// Nothing that a session could be asked; answered like this.
    Broken(Vec<Step>),
}

impl Heard {
    /// What the record says of it: kind, sid, rid.
    pub(super) fn classify(&self) -> (Kind, Option<String>, Option<u64>) {
        let element = match self {
            Self::Wrapper(element) => element,
            Self::Get { .. } => return (Kind::Get, None, None),
            Self::Options => return (Kind::Options, None, None),
            Self::Broken(_) => return (Kind::Unreadable, None, None),
        };
        let tag = &element.tag;
        let sid = tag.get("sid").map(str::to_owned);
        let rid = tag.get("rid").and_then(|rid| rid.parse().ok());
        let kind = if sid.is_none() {
            Kind::Create
        } else if tag.get("type") == Some("terminate") {
            Kind::Terminate
        } else if element.stanzas.is_empty() && tag.get("xmpp:restart").is_none() {
            Kind::Poll
        } else {
            Kind::Send
        };
        (kind, sid, rid)
    }
}

impl Server {
    /// Hears what a Tigase node's parser found.
    pub(in super::super) fn hear_xml(&self, connection: &Connection, read: u64, found: Found) {
        let error = |text: &'static str| {
            vec![
                Step::Bytes(Bytes::from_static(text.as_bytes())),
                Step::End(Ending::Eof),
            ]
        };
        let (raw, heard) = match found {
            Found::Element { raw, start } => {
                let text = std::str::from_utf8(&raw[start..]).unwrap_or_default();
                let element = Element::read(text);
                let heard =
                    element.map_or_else(|| Heard::Broken(error(STREAM_ERROR)), Heard::Wrapper);
                (raw, heard)
            }
            Found::Plain { raw } if raw.starts_with(b"OPTIONS") => (raw, Heard::Options),
            Found::Plain { raw } => (raw, Heard::Get { head_only: false }),
            Found::StreamOpened { raw } => (raw, Heard::Broken(error(STREAM_OPENED))),
            Found::Malformed { raw } => (raw, Heard::Broken(error(STREAM_ERROR))),
            Found::Undecodable { raw } => (raw, Heard::Broken(vec![Step::End(Ending::Eof)])),
        };
        self.hear(connection, read, raw, heard, false);
    }

    /// Hears a request of an HTTP server.
    pub(in super::super) fn hear_http(
        &self,
        connection: &Connection,
        read: u64,
        asked: Asked,
        followed: bool,
    ) {
        let voice = &connection.voice;
        let unreadable = || voice.write(&voice.unreadable(), &Manner::default()).into();
        let (raw, heard) = match asked {
            Asked::Expecting => {
                if voice.software == Software::Ejabberd {
                    let line = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                    connection.put([Step::Bytes(line)]);
                }
                return;
            }
            Asked::Request { method, raw, body } => {
                let text = std::str::from_utf8(&raw[body..]).unwrap_or_default();
                let heard = match method.as_str() {
                    "GET" => Heard::Get { head_only: false },
                    "HEAD" => Heard::Get { head_only: true },
                    "OPTIONS" => Heard::Options,
                    _ => match Element::read(text) {
                        Some(Element { tag, stanzas }) => Heard::Wrapper(Element {
                            tag: tag.decode(),
                            stanzas,
                        }),
                        None => Heard::Broken(unreadable()),
                    },
                };
                (raw, heard)
            }
            Asked::Chunked { raw } => {
                let answer = match voice.software {
                    Software::Ejabberd => voice.unreadable(),
                    Software::Tigase | Software::Prosody => voice.unknown_sid(),
                };
                let mut outs: Vec<Step> = voice.write(&answer, &Manner::default()).into();
                outs.push(Step::End(Ending::Eof));
                (raw, Heard::Broken(outs))
            }
            Asked::Unreadable { raw } => (raw, Heard::Broken(unreadable())),
        };
        self.hear(connection, read, raw, heard, followed);
    }
}
