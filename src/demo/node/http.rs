//! Cuts a byte stream into HTTP/1.1 requests, for the simulated servers that have an HTTP parser.
//! Lenient; it does no I/O.

use bytes::Bytes;

/// Longer heads and bodies than this end the connection.
const LONGEST: usize = 4 * 1024 * 1024;

/// One request, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A whole request; its body begins at `body`.
    Request {
        method: String,
        raw: Bytes,
        body: usize,
    },
    /// A chunked request, whose body is not read.
    Chunked { raw: Bytes },
    /// A head that asks for `100 Continue`; the rest is still to come.
    Expecting,
    /// No HTTP.
    Unreadable { raw: Bytes },
}

/// Cuts requests out of what was read.
#[derive(Debug, Default)]
pub(super) struct Requests {
    buffer: Vec<u8>,
    continued: bool,
}

impl Requests {
    /// Adds what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether there are bytes that are not part of a request that was taken.
    pub(super) fn has_rest(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next request, if one is complete.
    pub(super) fn next(&mut self) -> Option<Asked> {
        if self.buffer.is_empty() {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(&self.buffer) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if self.buffer.len() < LONGEST => return None,
            Ok(httparse::Status::Partial) | Err(_) => {
                return Some(Asked::Unreadable {
                    raw: self.take(self.buffer.len()),
                });
            }
        };
        let value = |name: &str| {
            let header = request
                .headers
                .iter()
                .find(|one| one.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        let chunked = value("transfer-encoding").is_some();
        let expecting = value("expect").is_some();
        let length = value("content-length").and_then(|value| value.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        let method = request.method.unwrap_or_default().to_owned();
        if chunked || length > LONGEST {
            return Some(Asked::Chunked {
                raw: self.take(self.buffer.len()),
            });
        }
        if self.buffer.len() < head + length {
            let first = expecting && !std::mem::replace(&mut self.continued, true);
            return first.then_some(Asked::Expecting);
        }
        self.continued = false;
        Some(Asked::Request {
            method,
            raw: self.take(head + length),
            body: head,
        })
    }

    fn take(&mut self, end: usize) -> Bytes {
        let rest = self.buffer.split_off(end);
        let raw = std::mem::replace(&mut self.buffer, rest);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Bytes::from(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_where_their_length_says() {
        let mut requests = Requests::default();
        requests.feed(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab");
        assert_eq!(requests.next(), None);
        requests.feed(b"cdGET / HTTP/1.1\r\n\r\n");
        let Some(Asked::Request { raw, body, .. }) = requests.next() else {
            panic!("a POST")
        };
        assert_eq!(&raw[body..], b"abcd");
        assert!(matches!(requests.next(), Some(Asked::Request { method, .. }) if method == "GET"));
        assert_eq!(requests.next(), None);
    }

    #[test]
    fn an_expectation_is_told_once() {
        let mut requests = Requests::default();
        requests.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(requests.next(), Some(Asked::Expecting));
        assert_eq!(requests.next(), None);
        requests.feed(b"abcd");
        assert!(matches!(requests.next(), Some(Asked::Request { .. })));
    }
}
