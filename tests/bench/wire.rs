//! As much HTTP and BOSH as the load generator and the stub nodes need, and not a byte more.
//!
//! Both ends are the benchmark's own and what lies between is under test, so a message that is
//! not understood is a failed request, never a guess.

/// A complete message at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where the body begins.
    pub(crate) body: usize,
    /// Where the message ends.
    pub(crate) end: usize,
}

/// What the bytes that have been read come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Not all of it is there.
    Partial,
    /// A message.
    Whole(Message),
    /// No message that the benchmark understands.
    Broken,
}

/// Looks for a whole message with a `Content-Length`, or with none and no body.
pub(crate) fn read(bytes: &[u8]) -> Read {
    let Some(head) = find(bytes, b"\r\n\r\n") else {
        return Read::Partial;
    };
    let body = head + 4;
    let Some(length) = content_length(&bytes[..head]) else {
        return Read::Broken;
    };
    let end = body + length;
    if bytes.len() < end {
        return Read::Partial;
    }
    Read::Whole(Message { body, end })
}

/// The length that a head names; 0 if it names none, None if it is not to be understood.
fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    const CHUNKED: &[u8] = b"transfer-encoding:";
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n') {
        if starts(line, NAME) {
            let value = std::str::from_utf8(&line[NAME.len()..]).ok()?;
            length = value.trim().parse().ok()?;
        } else if starts(line, CHUNKED) {
            return None;
        }
    }
    Some(length)
}

fn starts(line: &[u8], name: &[u8]) -> bool {
    line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name)
}

/// Where `needle` first is.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The value of an attribute in a start tag whose form is known: ` name='value'`, either quote.
/// `name` carries the space before it and the equals sign behind it.
pub(crate) fn attribute<'a>(tag: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = &tag[find(tag, name)? + name.len()..];
    let (quote, rest) = rest.split_first()?;
    let end = rest.iter().position(|byte| byte == quote)?;
    Some(&rest[..end])
}

/// A wrapper in its two parts: the start tag, and what lies between the tags.
pub(crate) fn parts(body: &[u8]) -> Option<(&[u8], &[u8])> {
    const END: &[u8] = b"</body>";
    let close = body.iter().position(|byte| *byte == b'>')?;
    let (tag, rest) = body.split_at(close + 1);
    if tag.ends_with(b"/>") {
        return rest.is_empty().then_some((tag, rest));
    }
    Some((tag, rest.strip_suffix(END)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_its_last_byte_is_there() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let message = Message { body: 38, end: 41 };
        assert_eq!(read(whole), Read::Whole(message));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Read::Partial);
        }
    }

    #[test]
    fn a_chunked_message_is_broken() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(head), Read::Broken);
    }

    #[test]
    fn a_wrapper_has_a_tag_and_an_inside() {
        let body = b"<body sid='s' rid=\"7\"><message/></body>";
        let (tag, inside) = parts(body).expect("a wrapper");
        assert_eq!(attribute(tag, b" sid="), Some(&b"s"[..]));
        assert_eq!(attribute(tag, b" rid="), Some(&b"7"[..]));
        assert_eq!(attribute(tag, b" to="), None);
        assert_eq!(inside, b"<message/>");
        assert_eq!(parts(b"<body/>"), Some((&b"<body/>"[..], &b""[..])));
    }
}
