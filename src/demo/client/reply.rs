//! An answer as the client reads it off its socket: head, framing, wrapper.

use bytes::{Bytes, BytesMut};
use quick_xml::events::{BytesStart, Event};
use tokio::io::AsyncReadExt;

use super::Error;
use crate::transport::Stream;

/// The longest answer that is read.
const LONGEST: usize = 16 * 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The reason after it.
    pub reason: String,
    /// The headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Bytes,
}

impl Reply {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// An attribute of the wrapper, entities decoded.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        let tag = self.start_tag()?;
        let mut attributes = tag.attributes();
        let mut attributes = attributes.with_checks(false).flatten();
        let found = attributes.find(|attribute| attribute.key.as_ref() == name)?;
        quick_xml::escape::unescape(&found.value)
            .ok()
            .map(std::borrow::Cow::into_owned)
    }

    /// Whether the wrapper ends the session.
    #[must_use]
    pub fn is_terminate(&self) -> bool {
        self.attribute("type").as_deref() == Some("terminate")
    }

    /// Why it ends.
    #[must_use]
    pub fn condition(&self) -> Option<String> {
        self.attribute("condition")
    }

    /// What is in the wrapper.
    #[must_use]
    pub fn payload(&self) -> &str {
        let text = self.text();
        let Some(tag) = self.start_tag() else {
            return "";
        };
        // `<` and `>` are not part of what the reader hands out.
        let start = text.find('<').unwrap_or(0) + tag.len() + 2;
        let end = text.rfind("</").unwrap_or(0);
        text.get(start..end).unwrap_or("")
    }

    /// Whether it is a wrapper with nothing in it, which goes on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start_tag().is_some() && self.payload().is_empty() && !self.is_terminate()
    }

    fn start_tag(&self) -> Option<BytesStart<'_>> {
        let mut reader = quick_xml::Reader::from_str(self.text());
        match reader.read_event().ok()? {
            Event::Start(tag) | Event::Empty(tag) => Some(tag),
            _ => None,
        }
    }
}

enum Framing {
    Length(usize),
    Chunked,
    Close,
}

struct Head {
    reply: Reply,
    length: usize,
    framing: Framing,
    keeps: bool,
}

/// Reads one answer, informational ones skipped; and whether the connection can be used again.
pub(super) async fn read_reply(stream: &mut Stream) -> Result<(Reply, bool), Error> {
    let mut buffer = BytesMut::new();
    let mut head = loop {
        match parse_head(&buffer)? {
            Some(head) if (100..200).contains(&head.reply.status) => {
                let _ = buffer.split_to(head.length);
            }
            Some(head) => break head,
            None => more(stream, &mut buffer).await?,
        }
    };
    let _ = buffer.split_to(head.length);
    head.reply.body = match head.framing {
        Framing::Length(length) => {
            while buffer.len() < length {
                more(stream, &mut buffer).await?;
            }
            buffer.split_to(length).freeze()
        }
        Framing::Chunked => read_chunks(stream, &mut buffer).await?,
        Framing::Close => loop {
            match more(stream, &mut buffer).await {
                Ok(()) => {}
                Err(Error::Closed(body)) => break body,
                Err(error) => return Err(error),
            }
        },
    };
    Ok((head.reply, head.keeps && buffer.is_empty()))
}

async fn more(stream: &mut Stream, buffer: &mut BytesMut) -> Result<(), Error> {
    if buffer.len() > LONGEST {
        return Err(Error::Malformed(buffer.split().freeze()));
    }
    match stream.read_buf(buffer).await? {
        0 => Err(Error::Closed(buffer.split().freeze())),
        _ => Ok(()),
    }
}

fn parse_head(buffer: &BytesMut) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let malformed = |_| Error::Malformed(Bytes::copy_from_slice(buffer));
    let httparse::Status::Complete(length) = response.parse(buffer).map_err(malformed)? else {
        return Ok(None);
    };
    let headers = response.headers.iter().map(|header| {
        (
            header.name.to_owned(),
            String::from_utf8_lossy(header.value).into_owned(),
        )
    });
    let reply = Reply {
        status: response.code.unwrap_or(0),
        reason: response.reason.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: Bytes::new(),
    };
    let says = |name: &str, value: &str| {
        reply
            .header(name)
            .is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    let framing = if says("transfer-encoding", "chunked") {
        Framing::Chunked
    } else {
        let length = reply
            .header("content-length")
            .and_then(|length| length.trim().parse().ok());
        length.map_or(Framing::Close, Framing::Length)
    };
    let keeps = !says("connection", "close") && !matches!(framing, Framing::Close);
    Ok(Some(Head {
        reply,
        length,
        framing,
        keeps,
    }))
}

async fn read_chunks(stream: &mut Stream, buffer: &mut BytesMut) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    loop {
        let (skip, size) = match httparse::parse_chunk_size(buffer) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => {
                more(stream, buffer).await?;
                continue;
            }
            Err(_) => return Err(Error::Malformed(buffer.split().freeze())),
        };
        let size = usize::try_from(size).unwrap_or(LONGEST).min(LONGEST);
        while buffer.len() < skip + size + 2 {
            more(stream, buffer).await?;
        }
        let _ = buffer.split_to(skip);
        body.extend_from_slice(&buffer.split_to(size));
        let _ = buffer.split_to(2);
        if size == 0 {
            return Ok(body.freeze());
        }
    }
}
