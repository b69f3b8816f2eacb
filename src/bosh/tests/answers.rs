//! Start tags of answers, and the wrappers that the balancer writes.

use super::body;
use crate::bosh::Malformed::{self, *};
use crate::bosh::{Condition, HTTPBIND, Response, read_request, read_response, terminate};

/// A body, and how what it says differs from an answer that says nothing.
type Row = (&'static str, fn(&mut Response<'_>));

#[test]
fn what_a_start_tag_says() {
    let rows: &[Row] = &[
        ("<body {N}/>", |_| {}),
        ("<body {N}>", |_| {}),
        ("<body {N} sid='a-b'/>", |a| a.sid = Some("a-b".into())),
        ("<body {N} x:sid='a' xmlns:x='urn:x'/>", |_| {}),
        (
            "<body {N} wait='30' inactivity='10' polling='5' maxpause='120' requests='2' hold='1'/>",
            |a| {
                a.wait = Some(30);
                a.inactivity = Some(10);
                a.polling = Some(5);
                a.maxpause = Some(120);
                a.requests = Some(2);
                a.hold = Some(1);
            },
        ),
        ("<body {N} inactivity='soon' wait='' hold='-1'/>", |_| {}),
        ("<body {N} ver='1.6'/>", |a| a.ver = true),
        (
            "<body {N} type='terminate' condition='item-not-found'/>",
            |a| {
                a.terminate = true;
                a.condition = Some("item-not-found".into());
            },
        ),
        ("<body type=\"error\" {N}/>", |a| a.error = true),
        ("<?xml version='1.0'?>\n<body {N} ver='1'/>", |a| {
            a.ver = true
        }),
        ("\u{FEFF}<body {N} ver='1'/>", |a| a.ver = true),
        (
            "<b:body sid='s' xmlns:b='http://jabber.org/protocol/httpbind'>",
            |a| {
                a.sid = Some("s".into());
            },
        ),
        ("<body {N} authid='a>b'>", |_| {}),
    ];
    for (template, differs) in rows {
        let tag = body(template);
        let mut expected = Response {
            end: tag.len(),
            ..Response::default()
        };
        differs(&mut expected);
        for rest in [
            &b""[..],
            b"<a>",
            b"</wrong>",
            b"<!-- c -->",
            b"\xFF\0",
            b"<body>&no;",
        ] {
            let bytes = [tag.as_bytes(), rest].concat();
            assert_eq!(
                read_response(&bytes),
                Ok(expected.clone()),
                "{tag} and {rest:?}"
            );
        }
    }
}

#[test]
fn what_is_no_start_tag() {
    let rows: &[(&str, Malformed)] = &[
        ("", Empty),
        ("\n", Empty),
        ("<body {N}", Truncated),
        ("<body {N} sid='a>", Truncated),
        ("<?xml version='1.0'", Truncated),
        ("<stream:error xmlns:stream='urn:s'>", NotBody),
        ("<html>", NotBody),
        ("<body>", WrongNamespace),
        ("<body {N} sid=''/>", BadSid),
        ("<body {N} sid='a&#45;b'/>", BadSid),
        ("<body {N} sid='a' sid='b'>", DuplicateAttribute),
        ("<body {N} x:y='a'>", UndeclaredPrefix),
        ("<body {N} a='\u{1}'>", BadCharacter),
        ("<!-- c --><body {N}/>", Comment),
        ("<!DOCTYPE html><html>", Doctype),
        ("HTTP/1.1", NotXml),
    ];
    for (template, cause) in rows {
        let body = body(template);
        assert_eq!(read_response(body.as_bytes()), Err(*cause), "{body:?}");
    }
    assert_eq!(read_response(b"<body a='\xFF'/>"), Err(NotUtf8));
    assert_eq!(read_response(b"<body a='\xC3"), Err(Truncated));
    let endless = format!("<body a='{}'/>", "x".repeat(70_000));
    assert_eq!(read_response(endless.as_bytes()), Err(Truncated));
}

#[test]
fn accept_can_be_cut_out() {
    for (before, accept, after) in [
        (
            "<body xmlns='http://jabber.org/protocol/httpbind'",
            " accept='gzip,deflate'",
            "/>",
        ),
        (
            "\u{FEFF}\n<body",
            "\n\taccept = \"gzip\"",
            " xmlns='http://jabber.org/protocol/httpbind'>",
        ),
    ] {
        let whole = format!("{before}{accept}{after}");
        let range = read_response(whole.as_bytes())
            .expect("a good tag")
            .accept
            .expect("a place");
        assert_eq!(range, before.len()..before.len() + accept.len());
    }
}

#[test]
fn host_is_found_with_and_without_its_name() {
    const N: &str = "xmlns='http://jabber.org/protocol/httpbind'";
    for (front, name, value, quote, back) in [
        ("<body", " host='", "t1", "'", " {N}/>"),
        ("<body {N}", "\n\thost =  \"", "t1.example.com", "\"", ">"),
        (
            "\u{FEFF} <body xmlns:x='u' x:host='no' {N}",
            "  host='",
            "",
            "'",
            " x='host=&apos;'/>",
        ),
    ] {
        let text = |part: &str| part.replace("{N}", N);
        let (front, back) = (text(front), text(back));
        let whole = [&front, name, value, quote, &back].concat();
        let answer = read_response(whole.as_bytes()).expect("a good tag");
        let place = answer.host.expect("a place");
        let start = front.len() + name.len();
        assert_eq!(place.value, start..start + value.len());
        assert_eq!(place.whole, front.len()..start + value.len() + quote.len());
    }
    for without in [
        "<body {N} x:host='a' xmlns:x='u'/>",
        "<body {N} ghost='a' hosts='b' HOST='c' x=' host=&apos;d&apos;'/>",
        "<body {N}><message host='a'/><body host='b'/></body>",
        "<body {N}> host='a'</body>",
    ] {
        let answer = without.replace("{N}", N);
        assert_eq!(read_response(answer.as_bytes()).expect("good").host, None);
    }
}

#[test]
fn written_wrappers_read_back() {
    for condition in Condition::ALL {
        let written = terminate(Some(*condition));
        let expected = format!(
            "<body xmlns='{HTTPBIND}' type='terminate' condition='{}'/>",
            condition.as_str()
        );
        assert_eq!(written, expected);
        let answer = read_response(&written).expect("a good tag");
        assert!(answer.terminate);
        assert_eq!(answer.condition.as_deref(), Some(condition.as_str()));
        // As a request it lacks nothing but a rid.
        assert_eq!(read_request(&written), Err(MissingRid));
    }
    let written = terminate(None);
    assert_eq!(
        written,
        format!("<body xmlns='{HTTPBIND}' type='terminate'/>")
    );
    assert_eq!(read_response(&written).expect("a good tag").condition, None);
}
