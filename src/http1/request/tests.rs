//! What is a request, and what is none.

use super::*;
use crate::http1::HeadEnd;

/// The path, the host and the framing that a head comes to; none if it is refused.
fn read(head: &str) -> Option<(String, String, Framing)> {
    let end = HeadEnd::of_request().find(head.as_bytes()).ok()??;
    assert_eq!(end, head.len(), "{head:?}");
    let mut room = Room::new();
    let head = RequestHead::parse(head.as_bytes(), &mut room).ok()?;
    let request = head.request().ok()?;
    Some((request.path.into(), request.host.into(), request.framing))
}

fn head(line: &str, fields: &[(&str, &str)]) -> String {
    let fields = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("{line}\r\n{}\r\n", fields.collect::<String>())
}

#[test]
fn hosts() {
    let with = |host| read(&head("POST / HTTP/1.1", &[("host", host)]));
    for good in [
        "a",
        "chat.example.com",
        "chat.example.com:5280",
        "10.0.0.1",
        "[::1]",
        "[::1]:80",
    ] {
        assert_eq!(with(good).map(|read| read.1), Some(good.to_owned()));
    }
    let long = "a".repeat(300);
    for bad in [
        "", "a b", "a/b", "a@b", "a<b", "[::1", "[::1]80", "a:b", "a:1:2", ":80", "a,b", "[x]",
        "\u{e9}", &long,
    ] {
        assert_eq!(with(bad), None, "{bad}");
    }
}

#[test]
fn exactly_one_host_that_agrees_with_the_target() {
    let with = |target: &str, fields: &[_]| {
        read(&head(&format!("POST {target} HTTP/1.1"), fields)).map(|read| read.0)
    };
    assert_eq!(with("/", &[]), None);
    assert_eq!(with("/", &[("host", "a"), ("host", "a")]), None);
    let a = [("host", "A")];
    for (target, path) in [
        ("/x?y#", None),
        ("/x#y", None),
        ("/x?y=\u{e9}", None),
        ("/x?y=<", None),
        ("/<x/>", None),
        ("/\u{e9}", None),
        ("/x?y=1&z=2?", Some("/x")),
        ("http://a/x", Some("/x")),
        ("https://a/x", Some("/x")),
        ("http://a", Some("/")),
        ("http://a?x", Some("/")),
        ("*", Some("*")),
        ("http://b/x", None),
        ("http://a:80/x", None),
        ("ftp://a/x", None),
        ("HTTP://a/x", None),
        ("httpx://a/x", None),
        ("a", None),
        ("a:80", None),
        ("?x", None),
    ] {
        assert_eq!(with(target, &a).as_deref(), path, "{target}");
    }
}

#[test]
fn exactly_one_framing() {
    let framed = |version: &str, fields: &[(&str, &str)]| {
        let fields: Vec<_> = [("host", "a")].iter().chain(fields).copied().collect();
        read(&head(&format!("POST / {version}"), &fields)).map(|read| read.2)
    };
    let new = |fields: &[_]| framed("HTTP/1.1", fields);
    assert_eq!(new(&[]), Some(Framing::Empty));
    assert_eq!(new(&[("content-length", "12")]), Some(Framing::Length(12)));
    assert_eq!(new(&[("Content-Length", "0")]), Some(Framing::Empty));
    let beyond = new(&[("content-length", "18446744073709551616")]);
    assert_eq!(beyond, Some(Framing::Length(u64::MAX)));
    assert_eq!(
        new(&[("transfer-encoding", "Chunked")]),
        Some(Framing::Chunked)
    );
    for odd in ["", "012", "00", "+12", "-1", "1 2", "0x1", "12,12", "1e3"] {
        assert_eq!(new(&[("content-length", odd)]), None, "{odd}");
    }
    for odd in [
        "",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "chunked;q=1",
        "xchunked",
    ] {
        assert_eq!(new(&[("transfer-encoding", odd)]), None, "{odd}");
    }
    let (length, chunked) = (("content-length", "12"), ("transfer-encoding", "chunked"));
    for twice in [
        [length, length],
        [chunked, chunked],
        [length, chunked],
        [chunked, length],
    ] {
        assert_eq!(new(&twice), None, "{twice:?}");
    }
    assert_eq!(framed("HTTP/1.0", &[length]), Some(Framing::Length(12)));
    assert_eq!(framed("HTTP/1.0", &[chunked]), None);
}

#[test]
fn a_body_belongs_to_a_post() {
    for method in ["GET", "OPTIONS", "PUT", "post"] {
        let line = format!("{method} / HTTP/1.1");
        assert!(read(&head(&line, &[("host", "a"), ("content-length", "0")])).is_some());
        assert_eq!(
            read(&head(&line, &[("host", "a"), ("content-length", "3")])),
            None
        );
    }
}

#[test]
fn codings_and_expectations() {
    let bytes = |version: &str, field: &str| {
        head(
            &format!("POST / {version}"),
            &[("host", "a"), field.split_once('=').unwrap()],
        )
    };
    for (version, field, coded, expects) in [
        ("HTTP/1.1", "content-encoding=gzip", true, false),
        ("HTTP/1.1", "content-encoding=", true, false),
        ("HTTP/1.1", "content-encoding=Identity", false, false),
        ("HTTP/1.1", "expect=100-Continue", false, true),
        ("HTTP/1.1", "expect=200-ok", false, false),
        ("HTTP/1.0", "expect=100-continue", false, false),
    ] {
        let bytes = bytes(version, field);
        let mut room = Room::new();
        let head = RequestHead::parse(bytes.as_bytes(), &mut room).unwrap();
        let request = head.request().unwrap();
        assert_eq!(request.coded, coded, "{field}");
        assert_eq!(request.expects_continue, expects, "{field}");
    }
}

#[test]
fn connections_stay_open_unless_the_client_or_its_version_says_otherwise() {
    for (version, fields, stays) in [
        ("HTTP/1.1", &[][..], true),
        ("HTTP/1.1", &[("connection", "close")], false),
        ("HTTP/1.1", &[("connection", "keep-alive, CLOSE")], false),
        ("HTTP/1.1", &[("connection", "close, \u{e9}")], false),
        (
            "HTTP/1.1",
            &[("connection", "keep-alive"), ("connection", "close")],
            false,
        ),
        ("HTTP/1.0", &[], false),
        ("HTTP/1.0", &[("connection", "Keep-Alive")], true),
        ("HTTP/1.0", &[("connection", "keep-alive, close")], false),
    ] {
        let bytes = head(&format!("GET / {version}"), fields);
        let mut room = Room::new();
        let head = RequestHead::parse(bytes.as_bytes(), &mut room).unwrap();
        assert_eq!(head.stays(), stays, "{version} {fields:?}");
    }
}

#[test]
fn fields_are_bounded() {
    let with = |count: usize| {
        let fields: String = (1..count)
            .map(|number| format!("X{number}: y\r\n"))
            .collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    assert!(read(&with(100)).is_some());
    let many = with(101);
    let mut room = Room::new();
    let refused = RequestHead::parse(many.as_bytes(), &mut room).map(|_| ());
    assert_eq!(refused, Err(Error::TooManyFields));
}

#[test]
fn lines_that_two_readers_may_read_in_two_ways_are_refused() {
    for bytes in [
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "POST / HTTP/1.1\r\n Host: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "POST  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.2\r\nHost: a\r\n\r\n",
        "POST / HTTP/2.0\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "POST /\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\n\rHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(read(bytes), None, "{bytes:?}");
    }
    assert!(read("\r\n\r\nPOST / HTTP/1.1\r\nHost: \t a \t\r\n\r\n").is_some());
}
