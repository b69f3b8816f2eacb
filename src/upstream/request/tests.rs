//! What is written for a node, to the letter, and what could break it.

use super::*;

fn head(client: &str) -> RequestHead<'static> {
    RequestHead {
        path: Path::new("/http-bind").expect("a path"),
        query: Query::default(),
        host: Authority::new("t1.example.com:5280").expect("a host"),
        forwarded_for: client.parse().expect("an address"),
        forwarded_proto: Proto::Https,
        forwarded_host: Authority::new("chat.example.com"),
        origin: None,
    }
}

#[test]
fn a_request_to_the_letter() {
    let request = write_request(&head("192.0.2.7"), b"<body/>");
    assert_eq!(
        std::str::from_utf8(&request).unwrap(),
        "POST /http-bind HTTP/1.1\r\n\
         Host: t1.example.com:5280\r\n\
         Content-Type: text/xml; charset=utf-8\r\n\
         Content-Length: 7\r\n\
         X-Forwarded-For: 192.0.2.7\r\n\
         X-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: chat.example.com\r\n\
         \r\n\
         <body/>"
    );
}

#[test]
fn a_stored_request_is_written_as_it_would_have_been_at_once() {
    let head = RequestHead {
        forwarded_host: Authority::new("t1.example.com:5280"),
        ..head("2001:db8::1")
    };
    for (query, origin) in [("", ""), ("room=tea&prefix=a", "https://a.example")] {
        let query = Query::new(query).expect("a query");
        let origin = OriginValue::new(origin.as_bytes());
        let head = RequestHead {
            query,
            origin,
            ..head
        };
        let target = (head.path, query);
        let more = (head.forwarded_proto, origin);
        let stored = StoredRequest::new(target, head.host, more, b"<body/>");
        for _ in 0..2 {
            let mut written = b"before".to_vec();
            stored.write(head.forwarded_for, &mut written);
            assert_eq!(written[6..], write_request(&head, b"<body/>")[..]);
        }
    }
}

#[test]
fn a_client_without_a_host_has_no_forwarded_host() {
    let head = RequestHead {
        forwarded_host: None,
        forwarded_proto: Proto::Http,
        ..head("::1")
    };
    let request = write_request(&head, b"");
    assert!(request.ends_with(
        b"Content-Length: 0\r\nX-Forwarded-For: ::1\r\nX-Forwarded-Proto: http\r\n\r\n"
    ));
}

#[test]
fn addresses_are_written_in_full() {
    for (client, written) in [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        (
            "2001:db8:1111:2222:3333:4444:5555:6666",
            "2001:db8:1111:2222:3333:4444:5555:6666",
        ),
    ] {
        let request = write_request(&head(client), b"");
        let line = format!("\r\nX-Forwarded-For: {written}\r\n");
        assert!(String::from_utf8_lossy(&request).contains(&line), "{line}");
    }
}

#[test]
fn any_body_is_passed_as_it_is() {
    let body: Vec<u8> = (0..=255).collect();
    let request = write_request(&head("::1"), &body);
    assert!(request.ends_with(&body));
    assert!(String::from_utf8_lossy(&request).contains("Content-Length: 256\r\n"));
}

#[test]
fn paths_that_could_break_a_head_are_refused() {
    for path in ["/", "/http-bind", "/a/b-c_d.e~f", "/x?y=1;z=2", "/%3C"] {
        assert!(Path::new(path).is_some(), "{path}");
    }
    let long = format!("/{}", "x".repeat(2048));
    for path in [
        "",
        "bosh",
        "/a b",
        "/a\r\nX: y",
        "/<a/>",
        "/a&b",
        "/é",
        "/a#b",
        "/\"",
        "/\0",
        &long,
    ] {
        assert!(Path::new(path).is_none(), "{path:?}");
    }
    for alone in "<>&#\"'\\` \r\n\t\0\x7f".chars() {
        let path = format!("/a{alone}b");
        assert!(Path::new(&path).is_none(), "{path:?}");
    }
}

#[test]
fn a_query_stands_behind_the_path() {
    let head = RequestHead {
        query: Query::new("room=tea&prefix=a%20b").expect("a query"),
        ..head("::1")
    };
    let request = write_request(&head, b"");
    assert!(request.starts_with(b"POST /http-bind?room=tea&prefix=a%20b HTTP/1.1\r\n"));
}

#[test]
fn a_preflight_to_the_letter() {
    let preflight = Preflight {
        path: Path::new("/http-bind").expect("a path"),
        query: Query::new("room=tea").expect("a query"),
        host: Authority::new("a").expect("a host"),
        origin: OriginValue::new(b"https://a.example"),
        method: OriginValue::new(b"POST"),
        headers: OriginValue::new(b"x-a, x-b"),
    };
    assert_eq!(
        std::str::from_utf8(&preflight.write()).unwrap(),
        "OPTIONS /http-bind?room=tea HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a, x-b\r\n\r\n"
    );
}

#[test]
fn origins_that_could_break_a_head_are_refused() {
    assert!(OriginValue::new(b"null").is_some());
    assert!(OriginValue::new(&[b'x'; 512]).is_some());
    let long = [b'x'; 513];
    for value in [
        &b""[..],
        b"a\r\nb",
        b"<a",
        b"a>",
        b"a&b",
        b"\xe9",
        b"\x7f",
        b"\t",
        &long,
    ] {
        assert!(OriginValue::new(value).is_none(), "{value:?}");
    }
}

#[test]
fn queries_that_could_break_a_head_are_refused() {
    let longest = "x".repeat(4096);
    for query in ["", "room=tea", "a=1&b=2;c", "a[]=%3C|^{}'", &longest] {
        assert!(Query::new(query).is_some(), "{query}");
    }
    assert!(Query::new(&"x".repeat(4097)).is_none());
    for alone in "<>#\"\\` \r\n\t\0\x7f\u{e9}".chars() {
        let query = format!("a{alone}b");
        assert!(Query::new(&query).is_none(), "{query:?}");
    }
}

#[test]
fn hosts_that_could_break_a_head_are_refused() {
    for host in ["a", "t1.example.com:5280", "[2001:db8::1]:80", "192.0.2.7"] {
        assert!(Authority::new(host).is_some(), "{host}");
    }
    let long = "x".repeat(256);
    for host in [
        "",
        "a b",
        "a\r\nb",
        "<a>",
        "a&b",
        "user@host",
        "é",
        "a/b",
        "a,b",
        &long,
    ] {
        assert!(Authority::new(host).is_none(), "{host:?}");
    }
    for alone in "<>&#\"'\\`/@?=;,!$()*+{}|^ \r\n\t\0\x7f".chars() {
        let host = format!("a{alone}b");
        assert!(Authority::new(&host).is_none(), "{host:?}");
    }
}
