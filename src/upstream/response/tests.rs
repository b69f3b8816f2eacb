//! The reader's table: answers as bytes, each with what becomes of it, fed in every way.

use std::fmt::Write as _;

use super::*;

/// The body limit of the table.
pub(super) const MAX: usize = 64;

/// What becomes of `pieces` and the end of the connection behind them, in one line: the label of
/// an error and its rule, or status, `keep` or `close`, type and body of an answer.
pub(super) fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    match read(pieces) {
        Err(Error::Invalid(rule)) => format!("invalid: {rule}"),
        Err(error) => error.label().to_owned(),
        Ok(answer) => {
            let mut line = format!("{} ", answer.status);
            line += if answer.reusable { "keep " } else { "close " };
            line += &answer.content_type.map_or("-".into(), |kind| {
                String::from_utf8_lossy(&kind).replace(' ', "")
            });
            if !answer.body.is_empty() {
                let _ = write!(line, " {}", String::from_utf8_lossy(&answer.body));
            }
            line
        }
    }
}

pub(super) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Response, Error> {
    let mut reader = Reader::new(MAX);
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        if let Some(answer) = reader.push(piece)? {
            let surplus: usize = pieces.map(<[u8]>::len).sum();
            return Ok(Response {
                reusable: answer.reusable && surplus == 0,
                ..answer
            });
        }
    }
    reader.end()
}

/// Checks one answer whole, byte by byte, and at every two-part split if it is small.
pub(super) fn check(bytes: &[u8], expected: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    assert_eq!(outcome([bytes]), expected, "whole: {shown:?}");
    assert_eq!(outcome(bytes.chunks(1)), expected, "by bytes: {shown:?}");
    if bytes.len() <= 1024 {
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(outcome([first, second]), expected, "at {at}: {shown:?}");
        }
    }
}

fn check_all(table: &[(&str, &str)]) {
    for (bytes, expected) in table {
        check(bytes.as_bytes(), expected);
    }
}

#[test]
fn answers_framed_by_their_length() {
    check_all(&[
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "200 keep - hello",
        ),
        (
            "HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:5\r\n\r\nhello",
            "200 keep - hello",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: \t 5 \t\r\n\r\nhello",
            "200 keep - hello",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 keep -"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello",
            "200 keep - hello",
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
            "200 keep - ok",
        ),
        (
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
            "200 keep - ok",
        ),
        (
            "HTTP/1.1 404 Invalid SID\r\nContent-Length: 2\r\n\r\nno",
            "404 keep - no",
        ),
        ("HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", "599 keep -"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: 2\r\n\r\nok",
            "200 keep text/xml;charset=utf-8 ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\ncontent-type: c/d\r\nContent-Length: 0\r\n\r\n",
            "200 keep a/b",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type:\r\nContent-Length: 0\r\n\r\n",
            "200 keep ",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\nContent-Length: 1\r\n\r\nx",
            "200 keep - x",
        ),
        (
            "HTTP/1.1 200 r\u{e9}ponse\r\nContent-Length: 1\r\n\r\nx",
            "200 keep - x",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: r\u{e9}\r\nContent-Length: 1\r\n\r\nx",
            "200 keep - x",
        ),
    ]);
}

#[test]
fn answers_cut_by_the_end_of_the_connection() {
    check_all(&[
        ("", "closed"),
        ("H", "cut"),
        ("HTTP/1.1 200 O", "cut"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "cut"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "cut"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "cut"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "cut"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "cut",
        ),
    ]);
}

#[test]
fn connections_that_do_not_go_on() {
    let length = "\r\nContent-Length: 1\r\n\r\nx";
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\nConnection: close", "200 close - x"),
        ("HTTP/1.1 200 OK\r\nConnection: Close", "200 close - x"),
        (
            "HTTP/1.1 200 OK\r\nConnection: foo ,\tclose",
            "200 close - x",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: foo\r\nConnection: close",
            "200 close - x",
        ),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive", "200 keep - x"),
        (
            "HTTP/1.1 200 OK\r\nConnection: enclose, closed",
            "200 keep - x",
        ),
        ("HTTP/1.0 200 OK", "200 close - x"),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive", "200 close - x"),
    ] {
        check(format!("{head}{length}").as_bytes(), expected);
        // A byte behind the answer never counts as part of it, nor of a next one.
        let surplus = format!("{head}{length}!");
        check(surplus.as_bytes(), &expected.replace("keep", "close"));
    }
    check_all(&[
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx\r\n",
            "200 close - x",
        ),
        (
            "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "204 close -",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n!",
            "200 close -",
        ),
    ]);
}

#[test]
fn answers_that_the_end_of_the_connection_completes() {
    check_all(&[
        ("HTTP/1.1 200 OK\r\n\r\n", "200 close -"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "200 close - hello"),
        (
            "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello",
            "200 close - hello",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
            "200 close - hello",
        ),
        ("HTTP/1.1 502 Bad\r\n\r\n<html>", "502 close - <html>"),
    ]);
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let full = "x".repeat(MAX);
    check(
        format!("{head}{full}").as_bytes(),
        &format!("200 close - {full}"),
    );
    check(format!("{head}{full}x").as_bytes(), "too_large");
}

#[test]
fn answers_without_a_body() {
    check_all(&[
        ("HTTP/1.1 204 No Content\r\n\r\n", "204 keep -"),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 999999\r\n\r\n",
            "304 keep -",
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "204 keep -",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx",
            "204 close -",
        ),
    ]);
}

#[test]
fn interim_answers() {
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    for (count, expected) in [
        (1, "200 keep - x"),
        (8, "200 keep - x"),
        (9, "invalid: too many interim answers"),
    ] {
        check(
            format!("{}{last}", interim.repeat(count)).as_bytes(),
            expected,
        );
    }
    check_all(&[
        (
            "HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
            "204 keep -",
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n<body/>", "not_http"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "invalid: an upgrade that was not requested",
        ),
    ]);
}

#[test]
fn a_whole_interim_answer_is_no_beginning() {
    let mut reader = Reader::new(MAX);
    assert!(!reader.has_begun());
    for (bytes, begun) in [("HTTP/1.1 10", true), ("0 x\r\n\r\n", false), ("H", true)] {
        assert!(matches!(reader.push(bytes.as_bytes()), Ok(None)));
        assert_eq!(reader.has_begun(), begun, "after {bytes:?}");
    }
}

#[test]
fn chunked_answers() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, expected) in [
        ("5\r\nhello\r\n0\r\n\r\n", "200 keep - hello"),
        ("2\r\nhe\r\n03\r\nllo\r\n000\r\n\r\n", "200 keep - hello"),
        ("0\r\n\r\n", "200 keep -"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "200 keep - 0123456789"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "200 keep - 0123456789"),
        ("2;x=\"y; z\"\r\nok\r\n0 \t;last\r\n\r\n", "200 keep - ok"),
        ("2 \r\nok\r\n0\r\n\r\n", "200 keep - ok"),
        (
            "2\r\nok\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
            "200 keep - ok",
        ),
        ("\r\n", "invalid: chunk size"),
        ("-1\r\n", "invalid: chunk size"),
        ("+1\r\nx\r\n", "invalid: chunk size"),
        (" 1\r\nx\r\n", "invalid: chunk size"),
        ("0x1\r\nx\r\n", "invalid: chunk size"),
        ("1 1\r\nx\r\n", "invalid: chunk size"),
        (";x\r\n", "invalid: chunk size"),
        ("g\r\n", "invalid: chunk size"),
        ("1\nx\r\n", "invalid: chunk size"),
        ("00000000000000001\r\nx", "invalid: chunk size"),
        ("10000000000000000\r\nx", "invalid: chunk size"),
        ("1\rx", "invalid: chunk extension"),
        ("1;x\ny\r\nx\r\n0\r\n\r\n", "invalid: chunk extension"),
        ("1;\0\r\nx", "invalid: chunk extension"),
        ("2\r\nok0\r\n\r\n", "invalid: end of a chunk"),
        ("2\r\nok\n0\r\n\r\n", "invalid: end of a chunk"),
        ("2\r\nokay\r\n0\r\n\r\n", "invalid: end of a chunk"),
        ("0\r\n folded\r\n\r\n", "invalid: trailer"),
        ("0\r\nx: y\n\r\n", "invalid: trailer"),
        ("0\r\n\n", "invalid: trailer"),
        ("0\r\n\rx", "invalid: trailer"),
        ("0\r\nx: \0\r\n\r\n", "invalid: trailer"),
        ("41\r\n", "too_large"),
        ("1\r\nx\r\n40\r\n", "too_large"),
        ("ffffffffffffffff\r\n", "too_large"),
    ] {
        check(format!("{head}{body}").as_bytes(), expected);
    }
}

#[test]
fn doubtful_framing_is_refused() {
    const CODING: &str = "invalid: a Transfer-Encoding other than chunked";
    const LENGTH: &str = "invalid: a Content-Length that is no number";
    for (fields, expected) in [
        (
            "Content-Length: 1\r\nContent-Length: 1",
            "invalid: more than one Content-Length",
        ),
        (
            "Content-Length: 1\r\nContent-Length: 2",
            "invalid: more than one Content-Length",
        ),
        ("Content-Length: 1, 1", LENGTH),
        ("Content-Length: +1", LENGTH),
        ("Content-Length: -1", LENGTH),
        ("Content-Length: 0x1", LENGTH),
        ("Content-Length: 1 1", LENGTH),
        ("Content-Length:", LENGTH),
        ("Content-Length: 65", "too_large"),
        ("Content-Length: 18446744073709551616", "too_large"),
        ("Content-Length: 99999999999999999999999999", "too_large"),
        ("Transfer-Encoding: gzip, chunked", CODING),
        ("Transfer-Encoding: chunked, chunked", CODING),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            CODING,
        ),
        ("Transfer-Encoding: identity", CODING),
        ("Transfer-Encoding:", CODING),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "invalid: Transfer-Encoding and Content-Length",
        ),
        (
            "Content-Encoding: gzip",
            "invalid: a Content-Encoding that was not requested",
        ),
        (
            "Content-Encoding: identity, gzip",
            "invalid: a Content-Encoding that was not requested",
        ),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        check(bytes.as_bytes(), expected);
    }
    check(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "invalid: Transfer-Encoding in HTTP/1.0",
    );
}

#[test]
fn malformed_heads_are_refused() {
    const LF: &str = "invalid: a line ends with LF alone";
    const NAME: &str = "invalid: the name of a header field";
    const VALUE: &str = "invalid: the value of a header field";
    check_all(&[
        ("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", LF),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", LF),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", LF),
        ("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\nX: y\r\n\tfolded\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\n: x\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\nr\u{e9}: x\r\n\r\n", NAME),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", VALUE),
        ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", VALUE),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "invalid: the status"),
        ("HTTP/1.1 200 O\rK\r\n\r\n", "invalid: the status"),
        ("HTTP/1.1 20 OK\r\n\r\n", "invalid: the status"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "invalid: the status"),
        ("HTTP/1.1  200 OK\r\n\r\n", "invalid: the status"),
        ("HTTP/1.1 abc\r\n\r\n", "invalid: the status"),
        (
            "HTTP/1.1 099 x\r\n\r\n",
            "invalid: a status outside 100 to 599",
        ),
        (
            "HTTP/1.1 600 x\r\n\r\n",
            "invalid: a status outside 100 to 599",
        ),
    ]);
}

#[test]
fn other_versions_and_other_protocols() {
    const VERSION: &str = "invalid: a version other than 1.0 and 1.1";
    check_all(&[
        ("HTTP/2.0 200 OK\r\n\r\n", VERSION),
        ("HTTP/1.2 200 OK\r\n\r\n", VERSION),
        ("HTTP/0.9", VERSION),
        ("HTTP/11 200 OK\r\n\r\n", VERSION),
        ("HTTP/1.1\t200 OK\r\n\r\n", VERSION),
        ("http/1.1 200 OK\r\n\r\n", "not_http"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "not_http"),
        (" HTTP/1.1 200 OK\r\n\r\n", "not_http"),
        ("HTTPS/1.1 200 OK\r\n\r\n", "not_http"),
        ("<", "not_http"),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind'/>",
            "not_http",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not_http"),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}\n", "not_http"),
    ]);
}

/// What real nodes wrote.
#[test]
fn answers_of_real_nodes() {
    const CORS: &str = "Access-Control-Allow-Origin: *\r\n\
        Access-Control-Allow-Methods: GET, POST, OPTIONS\r\n\
        Access-Control-Allow-Headers: Content-Type\r\n\
        Access-Control-Max-Age: 86400\r\n";
    const SERVER: &str = "Server: Tigase Bosh/8.4.0-b12150/70ef25b8\r\n\r\n";
    const TYPE: &str = "Content-Type: text/xml; charset=utf-8\r\n";
    let body = "<body xmlns=\"http://jabber.org/protocol/httpbind\" ack=\"1003\"/>";
    check(
        format!("HTTP/1.1 200 OK\r\n{TYPE}Content-Length: 62\r\n{CORS}{SERVER}{body}").as_bytes(),
        &format!("200 keep text/xml;charset=utf-8 {body}"),
    );
    let body = "<body type='terminate' condition='item-not-found'/>";
    check(
        format!(
            "HTTP/1.1 404 Invalid SID\r\n{TYPE}Content-Length: 51\r\n{CORS}\
             Connection: close\r\n{SERVER}{body}"
        )
        .as_bytes(),
        &format!("404 close text/xml;charset=utf-8 {body}"),
    );
    check(
        b"<stream:error xmlns:stream=\"http://etherx.jabber.org/streams\">\
          <not-well-formed xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\"/></stream:error>",
        "not_http",
    );
}

#[test]
fn a_reader_is_of_use_once() {
    let whole = b"HTTP/1.1 204 x\r\n\r\n";
    let mut reader = Reader::new(MAX);
    assert!(matches!(reader.push(whole), Ok(Some(_))));
    assert!(matches!(reader.push(whole), Err(Error::Invalid(_))));
    let mut reader = Reader::new(MAX);
    assert!(reader.push(b"<").is_err());
    assert!(matches!(reader.push(whole), Err(Error::Invalid(_))));
    assert!(reader.end().is_err());
}

#[test]
fn the_usual_type_takes_no_memory() {
    let answer = |name: &str| {
        let bytes = format!("HTTP/1.1 204 x\r\nContent-Type: {name}\r\n\r\n");
        read([bytes.as_bytes()]).expect("an answer").content_type
    };
    let (one, other) = (
        answer("text/xml; charset=utf-8"),
        answer("text/xml; charset=utf-8"),
    );
    let place = |kind: Option<Bytes>| kind.expect("a type").as_ptr();
    assert_eq!(place(one), place(other));
}
