//! Requests that are wrappers, and what each says.

use super::{bare, body};
use crate::bosh::{MAX_ATTRIBUTES, MAX_CHILD_ATTRIBUTES, MAX_DEPTH, Request, read_request};

/// A body, and how what it says differs from [`bare`].
type Row = (&'static str, fn(&mut Request<'_>));

fn check(rows: &[Row]) {
    for (template, differs) in rows {
        let body = body(template);
        let mut expected = bare();
        differs(&mut expected);
        assert_eq!(read_request(body.as_bytes()), Ok(expected), "{body}");
    }
}

#[test]
fn every_field() {
    check(&[
        ("<body {N} rid='1'/>", |_| {}),
        ("<body {N} rid='1'></body>", |_| {}),
        ("<body {N} rid='1' sid='abc'/>", |r| {
            r.sid = Some("abc".into())
        }),
        ("<body {N} rid='1' to='example.com'/>", |r| {
            r.to = Some("example.com".into())
        }),
        ("<body {N} rid='1' to=''/>", |r| r.to = Some("".into())),
        ("<body {N} rid='1' wait='60'/>", |r| r.wait = Some(60)),
        ("<body {N} rid='1' wait='0060'/>", |r| r.wait = Some(60)),
        ("<body {N} rid='1' wait='99999999999999999999999'/>", |r| {
            r.wait = Some(u32::MAX)
        }),
        ("<body {N} rid='1' hold='0'/>", |r| r.hold = Some(0)),
        ("<body {N} rid='1' ver='1.6'/>", |r| r.ver = true),
        ("<body {N} rid='1' ver=''/>", |r| r.ver = true),
        ("<body {N} rid='1' pause='120'/>", |r| r.pause = Some(120)),
        ("<body {N} rid='1' type='terminate'/>", |r| {
            r.terminate = true
        }),
        ("<body {N} rid='1' type='error'/>", |_| {}),
        ("<body {N} rid='1' type='Terminate'/>", |_| {}),
        ("<body {N} rid='1' stream='s1'/>", |r| {
            r.stream = Some("s1".into())
        }),
        ("<body {N} rid='9007199254740991'/>", |r| {
            r.rid = (1 << 53) - 1
        }),
        ("<body {N} rid='0'/>", |r| r.rid = 0),
        ("<body {N} rid='0000000000000007'/>", |r| r.rid = 7),
        (
            "<body {N} rid='1' content='text/xml; charset=utf-8'/>",
            |_| {},
        ),
        ("<body {N} rid='1' unknown='x' key='k'/>", |_| {}),
        ("<body {N} rid='1' ack='3'/>", |r| r.ack = Some(3)),
        ("<body {N} rid='1' ack='x'/>", |_| {}),
    ]);
}

#[test]
fn what_counts_as_an_attribute() {
    check(&[
        (r#"<body rid="1" sid="abc" {N}/>"#, |r| {
            r.sid = Some("abc".into())
        }),
        ("<body {N} rid='1' sid='a=b+/c;-_.~#'/>", |r| {
            r.sid = Some("a=b+/c;-_.~#".into())
        }),
        ("<body {N} rid='1' x:sid='no' xmlns:x='urn:x'/>", |_| {}),
        (
            "<body {N} rid='1' sid='yes' x:sid='no' xmlns:x='urn:x'/>",
            |r| {
                r.sid = Some("yes".into());
            },
        ),
        (
            "<body {N} rid='1' b:sid='no' xmlns:b='http://jabber.org/protocol/httpbind'/>",
            |_| {},
        ),
        ("<body {N} rid='1' SID='no' Sid='no'/>", |_| {}),
        ("<body {N} rid='1' xmlns:sid='urn:no'/>", |_| {}),
        ("<body\n{N}\r\n\trid = '1'\n sid\t=\n'abc'\n/>", |r| {
            r.sid = Some("abc".into())
        }),
        ("<body {N} rid='1' ></body >", |_| {}),
        ("<body {N} rid='1' to='a\tb\nc\r\nd\re'/>", |r| {
            r.to = Some("a b c d e".into())
        }),
        ("<body {N} rid='1' to='a&#9;b&#xA;c&#13;d'/>", |r| {
            r.to = Some("a\tb\nc\rd".into())
        }),
        ("<body {N} rid='1' to=' a  b '/>", |r| {
            r.to = Some(" a  b ".into())
        }),
        ("<body {N} rid='1' to='bücher.example'/>", |r| {
            r.to = Some("bücher.example".into())
        }),
        ("<body {N} rid='1' to='&#x1F600;&#128512;'/>", |r| {
            r.to = Some("😀😀".into())
        }),
        ("<body {N} rid='1' to='&#00000000000000000065;'/>", |r| {
            r.to = Some("A".into())
        }),
        ("<body {N} rid='1' to=']]&gt;'/>", |r| {
            r.to = Some("]]>".into())
        }),
        (
            "<body {N} rid='1' to='a=b' route='xmpp:b:1?said=x&amp;sid&#61;y'/>",
            |r| r.to = Some("a=b".into()),
        ),
        ("<body {N} rid='1' to='&amp;lt;'/>", |r| {
            r.to = Some("&lt;".into())
        }),
        (
            "<body {N} rid='1' été='x' xml:lang='fr' data-a.b_c='1'/>",
            |_| {},
        ),
        ("<body {N} rid='1' sid='xmlns'/>", |r| {
            r.sid = Some("xmlns".into())
        }),
    ]);
}

#[test]
fn namespaces() {
    check(&[
        (
            "<b:body xmlns:b='http://jabber.org/protocol/httpbind' rid='1' sid='s'/>",
            |r| {
                r.sid = Some("s".into());
            },
        ),
        (
            "<b:body rid='1' xmlns:b='http://jabber.org/protocol/httpbind'></b:body>",
            |_| {},
        ),
        (
            "<b:body rid='1' xmlns='' xmlns:b='http://jabber.org/protocol/httpbind'/>",
            |_| {},
        ),
        (
            "<body rid='1' xmlns='http&#58;//jabber.org/protocol/httpbind'/>",
            |_| {},
        ),
        (
            "<body {N} rid='1' xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'/>",
            |r| {
                r.restart = true;
            },
        ),
        (
            "<body {N} rid='1' r:restart='1' xmlns:r='urn:xmpp:xbosh'/>",
            |r| r.restart = true,
        ),
        (
            "<body {N} rid='1' r:restart='1' xmlns:r='urn:xmpp:&#120;bosh'/>",
            |r| r.restart = true,
        ),
        (
            "<body {N} rid='1' xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='false'/>",
            |_| {},
        ),
        (
            "<body {N} rid='1' xmlns:xmpp='urn:other' xmpp:restart='true'/>",
            |_| {},
        ),
        ("<body {N} rid='1' restart='true'/>", |_| {}),
        (
            "<body {N} rid='1' xmlns:x='urn:x' x:rid='2' x:type='terminate' x:wait='no'/>",
            |_| {},
        ),
        (
            "<body {N} rid='1' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
            |_| {},
        ),
        (
            "<body {N} rid='1'><a xmlns='' sid='inner' rid='7'/></body>",
            |r| r.empty = false,
        ),
        (
            "<body {N} rid='1'><a:b xmlns:a='urn:a' a:c='1' c='2'/></body>",
            |r| r.empty = false,
        ),
        (
            "<body {N} rid='1' xmlns:a='urn:1'><a:b xmlns:a='urn:2'><a:c/></a:b><a:d/></body>",
            |r| {
                r.empty = false;
            },
        ),
        // The same declaration once more in each sibling: it ends with its element.
        (
            "<body {N} rid='1'><p:a xmlns:p='urn:p'/><p:a xmlns:p='urn:p'></p:a></body>",
            |r| {
                r.empty = false;
            },
        ),
    ]);
}

#[test]
fn payload() {
    check(&[
        ("<body {N} rid='1'> \r\n\t </body>", |_| {}),
        ("<body {N} rid='1'>&#32;&#10;</body>", |_| {}),
        ("<body {N} rid='1'><![CDATA[]]></body>", |_| {}),
        ("<body {N} rid='1'><![CDATA[x]]></body>", |r| {
            r.empty = false
        }),
        ("<body {N} rid='1'>x</body>", |r| r.empty = false),
        ("<body {N} rid='1'>&amp;</body>", |r| r.empty = false),
        ("<body {N} rid='1'>\u{A0}</body>", |r| r.empty = false),
        (
            "<body {N} rid='1'><message><body>a &lt; b ]] ></body></message></body>",
            |r| {
                r.empty = false;
            },
        ),
        (
            "<body {N} rid='1'><a><![CDATA[!-- b &no; ]] ]]]></a></body>",
            |r| {
                r.empty = false;
            },
        ),
        (
            "<body {N} rid='1'><a>&#x1F600; \u{7F}\u{85}😀</a></body>",
            |r| r.empty = false,
        ),
        ("<body {N} rid='1'><a b='>' c=\"'/>\"/></body>", |r| {
            r.empty = false
        }),
        ("<body {N} rid='1'>\n<a/>\n</body>\n\t ", |r| {
            r.empty = false
        }),
        (
            "<body {N} rid='1'><body x:sid='x' xmlns:x='urn:x'/><a sid='x' rid='9'/></body>",
            |r| r.empty = false,
        ),
    ]);
}

#[test]
fn a_byte_order_mark_in_the_root_is_text() {
    check(&[
        ("<body {N} rid='1'>\u{FEFF}</body>", |r| r.empty = false),
        ("<body {N} rid='1'>\u{FEFF}\u{FEFF}<a/></body >", |r| {
            r.empty = false
        }),
        ("<body {N} rid='1'>\u{FEFF}&amp;x</body>", |r| {
            r.empty = false
        }),
    ]);
}

#[test]
fn before_the_root() {
    check(&[
        ("\n <body {N} rid='1'/>", |r| r.start = 2),
        ("\u{FEFF}<body {N} rid='1'/>", |r| r.start = 3),
        ("<?xml version='1.0'?><body {N} rid='1'/>", |r| r.start = 21),
        (
            "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<body {N} rid='1'/>",
            |r| r.start = 40,
        ),
        (
            "<?xml version='1.0' encoding='UTF-8' standalone='no'?><body {N} rid='1'/>",
            |r| {
                r.start = 54;
            },
        ),
        (
            "\u{FEFF}<?xml\nversion = '1.0'\t?> <body {N} rid='1'/>",
            |r| r.start = 28,
        ),
    ]);
}

#[test]
fn a_sid_may_be_256_bytes_long() {
    let sid = "s".repeat(256);
    let body = body(&format!("<body {{N}} rid='1' sid='{sid}'/>"));
    let request = read_request(body.as_bytes()).expect("a good body");
    assert_eq!(request.sid.as_deref(), Some(&*sid));
}

#[test]
fn all_that_the_bounds_allow() {
    let deep = MAX_DEPTH - 1;
    let nested = format!("{}{}", "<a>".repeat(deep), "</a>".repeat(deep));
    let many = |count: usize| -> String { (0..count).map(|i| format!(" a{i}=''")).collect() };
    for template in [
        format!("<body {{N}} rid='1'>{nested}</body>"),
        // Two of them are the namespace and the rid.
        format!(
            "<body {{N}} rid='1'{}><a/></body>",
            many(MAX_ATTRIBUTES - 2)
        ),
        format!(
            "<body {{N}} rid='1'><a{}/></body>",
            many(MAX_CHILD_ATTRIBUTES)
        ),
    ] {
        let expected = Request {
            empty: false,
            ..bare()
        };
        assert_eq!(read_request(body(&template).as_bytes()), Ok(expected));
    }
}
