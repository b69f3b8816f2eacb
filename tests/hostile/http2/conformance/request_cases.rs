//! Requests that break a rule of RFC 9113, and some that break none.

use super::*;

/// RFC 9113 §8: requests.
pub(super) fn requests() -> Vec<Case> {
    use Expect::{Refused, Served, Stream};
    let trailers = |fields: &[Field], flags| frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
    let data = |bytes: &[u8]| frame(DATA, 0, 1, bytes);
    vec![
        case(
            "8.1: a second head without the end",
            &[post(1), data(b"x"), trailers(&[("x", "y")], 0)],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.1: pseudo-header fields in trailers are passed over",
            &[
                post(1),
                data(b"x"),
                trailers(&[(":path", "/x")], END_STREAM),
            ],
            Refused(400),
        ),
        case(
            "8.1.1: a length that is too small",
            &[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &block(&[&POST[..], &[("content-length", "1")]].concat()),
                ),
                frame(DATA, END_STREAM, 1, b"xy"),
            ],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.1.1: a length that is too large",
            &[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &block(&[&POST[..], &[("content-length", "9")]].concat()),
                ),
                frame(DATA, END_STREAM, 1, b"xy"),
            ],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.1.1: a length without a body",
            &[and(&[("content-length", "9")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2: a name in capitals",
            &[and(&[("X-Test", "y")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.1: a blank in a name",
            &[and(&[("a b", "y")])],
            Refused(400),
        ),
        case(
            "8.2.1: a colon in a name",
            &[and(&[("a:b", "y")])],
            Refused(400),
        ),
        case("8.2.1: an empty name", &[and(&[("", "y")])], Refused(400)),
        case(
            "8.2.1: a quote in a name",
            &[and(&[("a\"b", "y")])],
            Refused(400),
        ),
        case(
            "8.2.1: a NUL in a value",
            &[and(&[("x", "a\0b")])],
            Refused(400),
        ),
        case(
            "8.2.1: a line end in a value",
            &[and(&[("x", "a\r\nhost: b")])],
            Refused(400),
        ),
        case(
            "8.2.1: a LF in a value",
            &[and(&[("x", "a\nb")])],
            Refused(400),
        ),
        case(
            "8.2.1: a blank in front of a value",
            &[and(&[("x", " y")])],
            Refused(400),
        ),
        case(
            "8.2.1: a tab behind a value",
            &[and(&[("x", "y\t")])],
            Refused(400),
        ),
        case(
            "8.2.2: connection",
            &[and(&[("connection", "close")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: keep-alive",
            &[and(&[("keep-alive", "timeout=1")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: proxy-connection",
            &[and(&[("proxy-connection", "close")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: transfer-encoding",
            &[and(&[("transfer-encoding", "chunked")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: upgrade",
            &[and(&[("upgrade", "h2c")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: te of gzip",
            &[and(&[("te", "gzip")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.2.2: te of trailers",
            &[and(&[("te", "trailers")])],
            Served,
        ),
        case(
            "8.3: an unknown pseudo-header field",
            &[and(&[(":x", "y")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3: a field of answers",
            &[and(&[(":status", "200")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3: a pseudo-header field behind others",
            &[with(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: no method",
            &[with(&GET[1..])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: no scheme",
            &[with(&[GET[0], GET[2], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: no path",
            &[with(&GET[..3])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: no path and no authority",
            &[with(&GET[..2])],
            Refused(400),
        ),
        case(
            "8.3.1: an empty path",
            &[with(&[GET[0], GET[1], GET[2], (":path", "")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: a path without a slash",
            &[with(&[GET[0], GET[1], GET[2], (":path", "http-bind")])],
            Refused(400),
        ),
        case(
            "8.3.1: a whole URL as the path",
            &[with(&[
                GET[0],
                GET[1],
                GET[2],
                (":path", "http://a/http-bind"),
            ])],
            Refused(400),
        ),
        case(
            "8.3.1: the method twice",
            &[and(&[GET[0]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: the method twice, in front",
            &[with(&[GET[0], GET[0], GET[1], GET[2], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: the scheme twice",
            &[with(&[GET[0], GET[1], GET[1], GET[2], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: the path twice",
            &[with(&[GET[0], GET[1], GET[2], GET[3], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: the authority twice",
            &[with(&[GET[0], GET[1], GET[2], GET[2], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.3.1: another scheme",
            &[with(&[GET[0], (":scheme", "ftp"), GET[2], GET[3]])],
            Refused(400),
        ),
        case(
            "8.3.1: https",
            &[with(&[GET[0], (":scheme", "https"), GET[2], GET[3]])],
            Served,
        ),
        case(
            "8.3.1: a Host alone",
            &[with(&[GET[0], GET[1], GET[3], ("host", "a")])],
            Served,
        ),
        case(
            "8.3.1: neither Host nor authority",
            &[with(&[GET[0], GET[1], GET[3]])],
            Refused(400),
        ),
        case(
            "8.3.1: an empty authority",
            &[with(&[GET[0], GET[1], (":authority", ""), GET[3]])],
            Refused(400),
        ),
        case(
            "8.3.1: Host and authority differ",
            &[and(&[("host", "b")])],
            Refused(400),
        ),
        case(
            "8.3.1: Host and authority are the same",
            &[and(&[("host", "a")])],
            Served,
        ),
        case(
            "8.3.1: Host twice",
            &[and(&[("host", "a"), ("host", "a")])],
            Refused(400),
        ),
        case(
            "8.3.1: a user in the authority",
            &[with(&[GET[0], GET[1], (":authority", "u@a"), GET[3]])],
            Refused(400),
        ),
        case(
            "8.5: CONNECT",
            &[with(&[(":method", "CONNECT"), (":authority", "a:80")])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "8.5: CONNECT with a path",
            &[with(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]])],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "RFC 8441: a protocol",
            &[with(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                GET[1],
                GET[2],
                GET[3],
            ])],
            Refused(405),
        ),
        case("a head of 33 KiB", &[oversized(33)], Refused(431)),
        case("a head of 31 KiB", &[oversized(31)], Served),
    ]
}

/// A request with a field of this size in KiB, split into frames.
fn oversized(kib: usize) -> Vec<u8> {
    let value = "y".repeat(kib * 1024);
    let mut fields: Vec<(&str, &str)> = GET.to_vec();
    fields.push(("x", &value));
    let block = block(&fields);
    let (first, rest) = block.split_at(MAX_FRAME);
    let mut bytes = frame(HEADERS, END_STREAM, 1, first);
    let last = rest.len().div_ceil(MAX_FRAME) - 1;
    for (at, part) in rest.chunks(MAX_FRAME).enumerate() {
        let flags = if at == last { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, 1, part));
    }
    bytes
}
