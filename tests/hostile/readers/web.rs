//! Readers that know HTTP, each with lenience of its own, and XML as expat reads it.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{Reading, Seen};

/// What a reader does where the standard is broken.
#[derive(Clone, Copy)]
struct Manners {
    /// Of several `Content-Length` fields the first counts, not the last.
    first_length: bool,
    /// `Transfer-Encoding` counts, whatever it says, if `chunked` is in it.
    chunked: bool,
    /// A line ends with LF, with a CR before it or not.
    bare_line_feed: bool,
    /// A body that calls itself JSON is no XML.
    json: bool,
}

pub(crate) fn prosody(bytes: &[u8]) -> Reading {
    read(
        bytes,
        Manners {
            first_length: false,
            chunked: false,
            bare_line_feed: false,
            json: false,
        },
    )
}

pub(crate) fn ejabberd(bytes: &[u8]) -> Reading {
    read(
        bytes,
        Manners {
            first_length: true,
            chunked: false,
            bare_line_feed: true,
            json: true,
        },
    )
}

pub(crate) fn chunked_first(bytes: &[u8]) -> Reading {
    read(
        bytes,
        Manners {
            first_length: false,
            chunked: true,
            bare_line_feed: true,
            json: false,
        },
    )
}

fn read(mut bytes: &[u8], manners: Manners) -> Reading {
    let mut reading = Reading::new();
    while let Some((lines, rest)) = head(bytes, manners) {
        let values = |name: &'static str| {
            lines.iter().skip(1).filter_map(move |line| {
                let (field, value) = line.split_once(':')?;
                let same = field.trim().eq_ignore_ascii_case(name);
                same.then(|| value.trim().to_owned())
            })
        };
        let length = if manners.first_length {
            values("content-length").next()
        } else {
            values("content-length").next_back()
        };
        let chunked = values("transfer-encoding").any(|value| value.contains("chunked"));
        let (body, after) = if manners.chunked && chunked {
            chunks(rest)
        } else {
            let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            let (body, after) = rest.split_at(rest.len().min(length));
            (body.to_vec(), after)
        };
        let json = values("content-type").any(|value| value.contains("json"));
        if !(manners.json && json) {
            reading.extend(roots(&body, manners.first_length));
        }
        bytes = after;
    }
    reading
}

/// The lines of a head, and what follows it.
fn head(mut bytes: &[u8], manners: Manners) -> Option<(Vec<String>, &[u8])> {
    let mut lines = Vec::new();
    loop {
        let end = bytes.iter().enumerate().find_map(|(at, byte)| {
            let ends = *byte == b'\n'
                && (manners.bare_line_feed || at.checked_sub(1).map(|cr| bytes[cr]) == Some(b'\r'));
            ends.then_some(at)
        })?;
        let line = String::from_utf8_lossy(&bytes[..end]);
        let line = line.trim_end_matches('\r').to_owned();
        bytes = &bytes[end + 1..];
        match (line.is_empty(), lines.is_empty()) {
            (true, true) => {}
            (true, false) => return Some((lines, bytes)),
            (false, _) => lines.push(line),
        }
    }
}

fn chunks(mut bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&bytes[..end]);
        let size = line.trim().split(';').next().unwrap_or_default().trim();
        bytes = &bytes[end + 1..];
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else {
            break;
        };
        let (chunk, rest) = bytes.split_at(bytes.len().min(size));
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    (body, bytes.strip_prefix(b"\r\n").unwrap_or(bytes))
}

/// The requests among the root elements of a body.
pub(super) fn roots(body: &[u8], first_wins: bool) -> Reading {
    let mut reading = Reading::new();
    let mut reader = Reader::from_reader(body);
    reader.config_mut().check_end_names = false;
    let mut depth = 0_usize;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                if depth == 0 {
                    reading.extend(seen(&tag, first_wins));
                }
                depth += 1;
            }
            Ok(Event::Empty(tag)) if depth == 0 => reading.extend(seen(&tag, first_wins)),
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Eof) | Err(_) => return reading,
            Ok(_) => {}
        }
    }
}

fn seen(tag: &BytesStart<'_>, first_wins: bool) -> Option<Seen> {
    if tag.local_name().as_ref() != "body" {
        return None;
    }
    let mut named = Seen {
        sid: None,
        rid: String::new(),
    };
    let (mut sid, mut rid) = (Vec::new(), Vec::new());
    for attribute in tag.attributes().with_checks(false).flatten() {
        let value = quick_xml::escape::unescape(&attribute.value)
            .ok()?
            .into_owned();
        match attribute.key.as_ref() {
            "sid" => sid.push(value),
            "rid" => rid.push(value),
            _ => {}
        }
    }
    let choose = |mut values: Vec<String>| {
        if first_wins {
            values.reverse();
        }
        values.pop()
    };
    named.sid = choose(sid);
    named.rid = choose(rid).unwrap_or_default();
    Some(named)
}
