//! What each rule takes and refuses.

use proptest::prelude::*;

use super::*;

#[test]
fn node_names() {
    for good in ["t1", "T-1_a.b", "1", &"x".repeat(64)] {
        assert!(is_node_name(good), "{good}");
    }
    for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
        assert!(!is_node_name(bad), "{bad}");
    }
}

#[test]
fn authorities() {
    for good in [
        "chat.example.com",
        "chat.example.com:5280",
        "10.0.0.1",
        "[::1]",
        "[::1]:5280",
        "chat_1",
    ] {
        assert_eq!(authority(good), Ok(()), "{good}");
    }
    let long = vec!["x".repeat(61); 4].join(".") + ":65535";
    assert_eq!((long.len(), authority(&long)), (253, Ok(())));
    let longer = vec!["x".repeat(62); 4].join(".") + ":65535";
    for bad in [
        "",
        "a b",
        "chat<example>",
        "chat.example.com\r\nX: y",
        "https://chat.example.com",
        "chat.example.com/",
        "chat.example.com:0",
        "::1",
        "user@chat",
        &longer,
    ] {
        assert!(authority(bad).is_err(), "{bad}");
    }
}

#[test]
fn addresses() {
    for good in [
        "t1:5280",
        "t1.example.com:5280",
        "t1.example.com.:1",
        "tigase_1:65535",
        "10.0.0.1:80",
        "[::1]:5280",
        "[2001:db8::1]:5280",
        "xn--bcher-kva.example:80",
    ] {
        assert_eq!(host_port(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "t1",
        "t1:",
        ":5280",
        "t1:0",
        "t1:65536",
        "t1:+80",
        "t1:80 ",
        "a b:80",
        "t1..x:80",
        "-a:80",
        "a-:80",
        "::1:5280",
        "[::1]",
        "[::1:80",
        "[t1]:80",
        "300.1.1.1:80",
        "1.2.3:80",
        "10.0.0.1.:80",
        "bücher.example:80",
        "http://t1:80",
        "t1:80/x",
        "user@t1:80",
        "[fe80::1%eth0]:80",
    ] {
        assert!(host_port(bad).is_err(), "{bad}");
    }
}

#[test]
fn bare_ipv6_addresses() {
    for bare in [
        "::1:5280",
        ":::5280",
        "2001:db8::1:80",
        "::ffff:10.0.0.1:80",
    ] {
        assert!(is_bare_ipv6(bare), "{bare}");
        assert_eq!(host_port(bare), Err(BARE_IPV6), "{bare}");
    }
    for other in ["", "t1:80", "[::1]:80", "t1:80:90", "10.0.0.1:80"] {
        assert!(!is_bare_ipv6(other), "{other}");
    }
}

#[test]
fn addresses_that_mean_the_same_are_equal() {
    let same = |a, b| canonical_host_port(a) == canonical_host_port(b);
    assert!(same("T1.example.com:80", "t1.example.com.:080"));
    assert!(same("[::1]:80", "[0:0::1]:80"));
    assert!(!same("t1:80", "t1:81"));
    assert!(!same("t1:80", "t2:80"));
}

#[test]
fn paths() {
    for good in ["/", "/http-bind", "/a/b~c;d=1/", "/%20"] {
        assert_eq!(path(good), Ok(()), "{good}");
    }
    for bad in [
        "", "x", "/a b", "/<", "/a?b", "/#", "/ä", "/\"", "/\n", "/{x}",
    ] {
        assert!(path(bad).is_err(), "{bad}");
    }
}

#[test]
fn origins() {
    for good in [
        "https://chat.example.com",
        "http://localhost:8080",
        "https://[::1]:8443",
        "https://[::1]",
        "capacitor://localhost",
        "http://10.0.0.1",
    ] {
        assert_eq!(origin(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "chat.example.com",
        "https://",
        "https://a/",
        "https://a/b",
        "https://A",
        "https://a:443",
        "http://a:80",
        "https://a:0",
        "https://a:x",
        "https://*.a",
        "null",
        "://a",
        "https://a b",
    ] {
        assert!(origin(bad).is_err(), "{bad}");
    }
}

#[test]
fn public_urls() {
    for good in [
        "https://t1.example.com/http-bind",
        "http://10.0.0.1:5280/bosh/",
        "https://[2001:db8::1]:8443/a&b'c",
        "https://t1.example.com",
        "https://T1.example.com:443/%20",
    ] {
        assert_eq!(public_url(good), Ok(()), "{good}");
    }
    let long = format!("https://t1.example.com/{}", "x".repeat(1024));
    for bad in [
        "",
        "t1.example.com",
        "//t1.example.com/http-bind",
        "/http-bind",
        "ws://t1.example.com/http-bind",
        "ftp://t1.example.com",
        "javascript:alert(1)",
        "https://",
        "https:///http-bind",
        "https://t1 x/",
        "https://user:secret@t1.example.com/",
        "https://t1.example.com:0/",
        "https://t1.example.com:65536/",
        "https://t1.example.com:x/",
        "https://t1.example.com/a b",
        "https://t1.example.com/\"><x",
        "https://t1.example.com/?a",
        "https://t1.example.com?a",
        "https://t1.example.com/#a",
        "https://b\u{fc}cher.example/",
        &long,
    ] {
        assert!(public_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn request_headers() {
    for good in ["Authorization", "X-Foo", "x", "Accept", &"x".repeat(64)] {
        assert_eq!(request_header(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "X Foo",
        "X-Foo:",
        "X-Foo\r\nX-Bar",
        "X-F\u{f6}o",
        "X,Y",
        "*",
        "content-type",
        "Cookie",
        "HOST",
        "Sec-Fetch-Mode",
        "Proxy-Authorization",
        &"x".repeat(65),
    ] {
        assert!(request_header(bad).is_err(), "{bad}");
    }
}

#[test]
fn answer_headers() {
    for good in ["x-jitsi-shard", "set-cookie", "x"] {
        assert_eq!(answer_header(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "X-A",
        "x a",
        "x:",
        "x\r\ny",
        "connection",
        "content-length",
        "access-control-allow-origin",
        "vary",
        &"x".repeat(65),
    ] {
        assert!(answer_header(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC*") {
        let _ = (is_node_name(&text), host_port(&text), path(&text), origin(&text), request_header(&text), public_url(&text));
        let _ = canonical_host_port(&text);
    }
}
