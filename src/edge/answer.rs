//! An answer in HTTP. One function builds the head; hyper writes it while it has the connection,
//! [`bytes_of`] writes the same bytes when it has given the connection up.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::cors::Allowed;
use crate::proxy::Answer;

const XML: HeaderValue = HeaderValue::from_static("text/xml; charset=utf-8");
pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The answer with everything that its head says but the length, which whoever writes it adds. It
/// closes the connection if `close` says so, or the answer itself does.
pub(super) fn response(answer: Answer, allowed: Allowed, close: bool) -> Response<Full<Bytes>> {
    response_in(HeaderMap::new(), answer, allowed, close)
}

/// The same in the memory of an empty map: the request's, as a rule. hyper
/// takes the response's for the next request, so that no request but the first takes memory for one.
pub(super) fn response_in(
    headers: HeaderMap,
    answer: Answer,
    allowed: Allowed,
    close: bool,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    *response.headers_mut() = headers;
    let headers = response.headers_mut();
    let given = answer
        .content_type
        .and_then(|given| HeaderValue::from_maybe_shared(given).ok());
    headers.insert(CONTENT_TYPE, given.unwrap_or(XML));
    allowed.write(headers);
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(u16::from(seconds)));
    }
    headers.insert(DATE, date());
    if close || answer.close {
        headers.insert(CONNECTION, CLOSE);
    }
    response
}

/// The bytes that hyper would write.
pub(super) fn bytes_of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 384);
    let reason = status.canonical_reason().unwrap_or("<none>");
    let line = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    debug_assert!(line.is_ok(), "a BytesMut takes every write");
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"content-length: ");
    out.put_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.put_slice(b"\r\n\r\n");
    out.put_slice(body);
    out.freeze()
}

/// The `Date` of now (RFC 9110 §6.6.1), made once a second on each thread.
fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now = since.as_secs();
    LAST.with_borrow_mut(|(second, value)| {
        if *second != now {
            let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
            *value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
            *second = now;
        }
        value.clone()
    })
}
