//! Requests that are no wrappers, and why.

use super::body;
use crate::bosh::Malformed::{self, *};
use crate::bosh::{MAX_ATTRIBUTES, MAX_CHILD_ATTRIBUTES, MAX_DEPTH, read_request};

fn check(rows: &[(&str, Malformed)]) {
    for (template, cause) in rows {
        let body = body(template);
        assert_eq!(read_request(body.as_bytes()), Err(*cause), "{body:?}");
    }
}

#[test]
fn no_wrapper_at_all() {
    check(&[
        ("", Empty),
        (" \r\n\t", Empty),
        ("\u{FEFF}", Empty),
        ("hello", NotXml),
        ("{\"sid\":1}", NotXml),
        ("</body>", MismatchedTag),
        ("</body", Truncated),
        ("<![CDATA[x", Truncated),
        ("<", Truncated),
        ("<>", BadName),
        ("< body {N} rid='1'/>", BadName),
        ("&lt;body/>", NotXml),
        ("x<body {N} rid='1'/>", NotXml),
        ("\u{FEFF}\u{FEFF}<body {N} rid='1'/>", NotXml),
        ("<![CDATA[x]]><body {N} rid='1'/>", NotXml),
        ("<?xml version='1.0'?>", Truncated),
    ]);
}

#[test]
fn another_root() {
    check(&[
        ("<bodY {N} rid='1'/>", NotBody),
        ("<stream {N} rid='1'/>", NotBody),
        ("<html><body {N} rid='1'/></html>", NotBody),
        ("<body rid='1'/>", WrongNamespace),
        ("<body xmlns='' rid='1'/>", WrongNamespace),
        ("<body xmlns='jabber:client' rid='1'/>", WrongNamespace),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind/' rid='1'/>",
            WrongNamespace,
        ),
        (
            "<body xmlns=' http://jabber.org/protocol/httpbind' rid='1'/>",
            WrongNamespace,
        ),
        (
            "<body xmlns:b='http://jabber.org/protocol/httpbind' rid='1'/>",
            WrongNamespace,
        ),
        ("<b:body {N} xmlns:b='urn:b' rid='1'/>", WrongNamespace),
        ("<xml:body {N} rid='1'/>", WrongNamespace),
        ("<b:body {N} rid='1'/>", UndeclaredPrefix),
        ("<xmlns:body {N} rid='1'/>", BadName),
    ]);
}

#[test]
fn markup_that_no_wrapper_may_have() {
    check(&[
        ("<!DOCTYPE body><body {N} rid='1'/>", Doctype),
        ("<!doctype body><body {N} rid='1'/>", Doctype),
        (
            "<!DOCTYPE b [<!ENTITY a 'b'>]><body {N} rid='1' sid='&a;'/>",
            Doctype,
        ),
        (
            "<?xml version='1.0'?><!DOCTYPE body><body {N} rid='1'/>",
            Doctype,
        ),
        ("<body {N} rid='1'><!DOCTYPE a></body>", Doctype),
        ("<body {N} rid='1'/><!DOCTYPE a>", Doctype),
        ("<!-- c --><body {N} rid='1'/>", Comment),
        ("<body {N} rid='1'><!-- c --></body>", Comment),
        ("<body {N} rid='1'><a><!----></a></body>", Comment),
        ("<body {N} rid='1'><!-->", Comment),
        ("<body {N} rid='1'/><!-- c -->", Comment),
        ("<?php x?><body {N} rid='1'/>", ProcessingInstruction),
        (
            "<?xml-stylesheet href='x'?><body {N} rid='1'/>",
            ProcessingInstruction,
        ),
        ("<body {N} rid='1'><?a b?></body>", ProcessingInstruction),
        (
            "<body {N} rid='1'><?xml version='1.0'?></body>",
            ProcessingInstruction,
        ),
        ("<body {N} rid='1'/><?a b?>", ProcessingInstruction),
        (
            " <?xml version='1.0'?><body {N} rid='1'/>",
            ProcessingInstruction,
        ),
        (
            "<?xml version='1.0'?><?xml version='1.0'?><body {N} rid='1'/>",
            ProcessingInstruction,
        ),
        ("<?xml?><body {N} rid='1'/>", BadDeclaration),
        ("<?xml version='1.1'?><body {N} rid='1'/>", BadDeclaration),
        (
            "<?xml encoding='UTF-8'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml version='1.0' encoding='UTF-16'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml version='1.0' encoding='latin1'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml encoding='UTF-8' version='1.0'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml version='1.0' version='1.0'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml version='1.0'encoding='UTF-8'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        (
            "<?xml version='1.0' x='y'?><body {N} rid='1'/>",
            BadDeclaration,
        ),
        ("<body {N} rid='1'><![cdata[x]]></body>", NotXml),
        ("<body {N} rid='1'><!ELEMENT a></body>", NotXml),
    ]);
}

#[test]
fn after_the_root() {
    check(&[
        ("<body {N} rid='1'/><body {N} rid='2'/>", SecondRoot),
        (
            "<body {N} rid='1'></body>\n<body {N} rid='2'></body>",
            SecondRoot,
        ),
        ("<body {N} rid='1'/>x", TrailingBytes),
        ("<body {N} rid='1'/>&#32;", TrailingBytes),
        ("<body {N} rid='1'/></body>", TrailingBytes),
        ("<body {N} rid='1'/><![CDATA[ ]]>", TrailingBytes),
        ("<body {N} rid='1'/>\u{A0}", TrailingBytes),
        ("<body {N} rid='1'/>\u{FEFF}", TrailingBytes),
        ("<body {N} rid='1'/>\0", BadCharacter),
    ]);
}

#[test]
fn tags_that_are_no_xml() {
    check(&[
        ("<body {N} rid='1'/ >", BadAttribute),
        ("<body/ {N} rid='1'>", BadName),
        ("<body {N} rid='1' / >", BadName),
        ("<body {N} rid='1'sid='s'/>", BadAttribute),
        ("<body {N} rid='1' rid/>", BadAttribute),
        ("<body {N} rid=1/>", BadAttribute),
        ("<body {N} rid='1' a=/>", BadAttribute),
        ("<body {N} rid='1' a='<'/>", BadAttribute),
        ("<body {N} rid='1' ='x'/>", BadName),
        ("<body {N} rid='1' 1a='x'/>", BadName),
        ("<body {N} rid='1' a:b:c='x'/>", BadName),
        ("<body {N} rid='1' :a='x'/>", BadName),
        ("<body {N} rid='1' a:='x'/>", BadName),
        ("<body {N} rid='1' a\"b='x\">'/>", BadName),
        ("<body {N} rid='1'><a,b/></body>", BadName),
        ("<body {N} rid='1'><-a/></body>", BadName),
        ("<body {N} rid='1'><a\u{D7}/></body>", BadName),
        ("<body {N} rid='1'><a b='1'c='2'/></body>", BadAttribute),
        ("<body {N} rid='1'><a></b></body>", MismatchedTag),
        ("<body {N} rid='1'></ body>", MismatchedTag),
        ("<body {N} rid='1'></body x=''>", MismatchedTag),
        ("<body {N} rid='1'></BODY>", MismatchedTag),
        (
            "<b:body xmlns:b='http://jabber.org/protocol/httpbind' rid='1'></body>",
            MismatchedTag,
        ),
        ("<body {N} rid='1'><a></body>", MismatchedTag),
        ("<body {N} rid='1'>a]]>b</body>", NotXml),
        ("<body {N} rid='1'>a < b</body>", BadName),
    ]);
}

#[test]
fn duplicates_and_namespaces() {
    check(&[
        ("<body {N} rid='1' sid='a' sid='a'/>", DuplicateAttribute),
        ("<body {N} rid='1' sid='a' sid=\"b\"/>", DuplicateAttribute),
        ("<body {N} {N} rid='1'/>", DuplicateAttribute),
        ("<body {N} rid='1' xmlns=''/>", DuplicateAttribute),
        (
            "<body {N} rid='1' xmlns:a='urn:1' xmlns:a='urn:2'/>",
            DuplicateAttribute,
        ),
        (
            "<body {N} rid='1' a:x='' b:x='' xmlns:a='urn:1' xmlns:b='urn:1'/>",
            DuplicateAttribute,
        ),
        (
            "<body {N} rid='1' a:x='' b:x='' xmlns:a='u' xmlns:b='&#117;'/>",
            DuplicateAttribute,
        ),
        (
            "<body {N} rid='1' xml:lang='a' xml:lang='a'/>",
            DuplicateAttribute,
        ),
        (
            "<body {N} rid='1'><a b='' c='' b=''/></body>",
            DuplicateAttribute,
        ),
        (
            "<body {N} rid='1' xmlns:a='u'><c a:x='' b:x='' xmlns:b='u'/></body>",
            DuplicateAttribute,
        ),
        ("<body {N} rid='1' x:sid='a'/>", UndeclaredPrefix),
        ("<body {N} rid='1' xmpp:restart='true'/>", UndeclaredPrefix),
        ("<body {N} rid='1'><a:b/></body>", UndeclaredPrefix),
        (
            "<body {N} rid='1'><a:b xmlns:a='u'/><a:c/></body>",
            UndeclaredPrefix,
        ),
        (
            "<body {N} rid='1'><a xmlns:a='u'></a><a:c/></body>",
            UndeclaredPrefix,
        ),
        ("<body {N} rid='1'><a b:c=''/></body>", UndeclaredPrefix),
        ("<body {N} rid='1' xmlns:a=''/>", BadNamespace),
        ("<body {N} rid='1' xmlns:xml='urn:x'/>", BadNamespace),
        ("<body {N} rid='1' xmlns:xmlns='urn:x'/>", BadNamespace),
        (
            "<body {N} rid='1' xmlns:a='http://www.w3.org/XML/1998/namespace'/>",
            BadNamespace,
        ),
        (
            "<body {N} rid='1' xmlns:a='http://www.w3.org/2000/xmlns/'/>",
            BadNamespace,
        ),
        (
            "<body {N} rid='1'><a xmlns='http://www.w3.org/2000/xmlns/'/></body>",
            BadNamespace,
        ),
        ("<body {N} rid='1' xmlns:='urn:x'/>", BadName),
        ("<body {N} rid='1'><xmlns:a/></body>", BadName),
    ]);
}

#[test]
fn characters_and_references() {
    check(&[
        ("<body {N} rid='1' to='\0'/>", BadCharacter),
        ("<body {N} rid='1' to='\u{1B}'/>", BadCharacter),
        ("<body {N} rid='1'>\u{8}</body>", BadCharacter),
        (
            "<body {N} rid='1'><![CDATA[\u{FFFE}]]></body>",
            BadCharacter,
        ),
        ("<body {N} rid='1' to='\u{FFFF}'/>", BadCharacter),
        ("<body {N} rid='1' to='&#0;'/>", BadReference),
        ("<body {N} rid='1' to='&#x1F;'/>", BadReference),
        ("<body {N} rid='1' to='&#xFFFE;'/>", BadReference),
        ("<body {N} rid='1' to='&#xD800;'/>", BadReference),
        ("<body {N} rid='1' to='&#x110000;'/>", BadReference),
        (
            "<body {N} rid='1' to='&#99999999999999999999;'/>",
            BadReference,
        ),
        ("<body {N} rid='1' to='&#X41;'/>", BadReference),
        ("<body {N} rid='1' to='&#+65;'/>", BadReference),
        ("<body {N} rid='1' to='&# 65;'/>", BadReference),
        ("<body {N} rid='1' to='&#;'/>", BadReference),
        ("<body {N} rid='1' to='&#x;'/>", BadReference),
        ("<body {N} rid='1' to='&;'/>", BadReference),
        ("<body {N} rid='1' to='&nbsp;'/>", BadReference),
        ("<body {N} rid='1' to='&AMP;'/>", BadReference),
        ("<body {N} rid='1' to='a & b'/>", BadReference),
        ("<body {N} rid='1' to='&amp'/>", BadReference),
        ("<body {N} rid='1' unknown='&a;'/>", BadReference),
        ("<body {N} rid='1'><a b='&a;'/></body>", BadReference),
        ("<body {N} rid='1'>&a;</body>", BadReference),
        ("<body {N} rid='1'>&#0;</body>", BadReference),
        ("<body {N} rid='1'>a & b</body>", BadReference),
        ("<body {N} rid='1'>&&amp;</body>", BadReference),
    ]);
}

#[test]
fn fields() {
    check(&[
        ("<body {N}/>", MissingRid),
        ("<body {N} sid='abc'/>", MissingRid),
        ("<body {N} sid='abc'><a rid='1'/></body>", MissingRid),
        ("<body {N} x:rid='1' xmlns:x='urn:x'/>", MissingRid),
        ("<body {N} rid=''/>", BadRid),
        ("<body {N} rid=' 1'/>", BadRid),
        ("<body {N} rid='+1'/>", BadRid),
        ("<body {N} rid='-1'/>", BadRid),
        ("<body {N} rid='1.0'/>", BadRid),
        ("<body {N} rid='0x1'/>", BadRid),
        ("<body {N} rid='١'/>", BadRid),
        ("<body {N} rid='9007199254740992'/>", BadRid),
        ("<body {N} rid='18446744073709551617'/>", BadRid),
        ("<body {N} rid='00000000000000001'/>", BadRid),
        ("<body {N} rid='&#49;'/>", BadRid),
        ("<body {N} rid='1' sid=''/>", BadSid),
        ("<body {N} rid='1' sid='a&#x62;c'/>", BadSid),
        ("<body {N} rid='1' sid='&amp;'/>", BadSid),
        ("<body {N} rid='1' sid='it\"s'/>", BadSid),
        ("<body {N} rid='1' sid=\"it's\"/>", BadSid),
        ("<body {N} rid='1' sid=' abc'/>", BadSid),
        ("<body {N} rid='1' sid='a\nb'/>", BadSid),
        ("<body {N} rid='1' sid='a&#10;b'/>", BadSid),
        ("<body {N} rid='1' sid='a\u{7F}b'/>", BadSid),
        ("<body {N} rid='1' sid='é'/>", BadSid),
        ("<body {N} rid='1' wait='soon'/>", BadNumber),
        ("<body {N} rid='1' hold=''/>", BadNumber),
        ("<body {N} rid='1' pause='-1'/>", BadNumber),
        (
            "<body {N} rid='1' content='text/xml\r\nX-Injected: 1'/>",
            BadContent,
        ),
        (
            "<body {N} rid='1' content='text/xml&#13;&#10;X-Injected: 1'/>",
            BadContent,
        ),
        ("<body {N} rid='1' content='text/xml&#xA;'/>", BadContent),
        ("<body {N} rid='1' content='text/xml\tx'/>", BadContent),
        ("<body {N} rid='1' content='text/xml&lt;'/>", BadContent),
        ("<body {N} rid='1' content='text/xmlé'/>", BadContent),
        ("<body {N} rid='1' content='text/xml&#233;'/>", BadContent),
        ("<body {N} rid='1' content='text/xml&#x7F;'/>", BadContent),
    ]);
}

#[test]
fn bytes_that_are_no_utf8() {
    for broken in [
        &b"\xFF"[..],
        b"\xC3",
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
    ] {
        let good = body("<body {N} rid='1'>?</body>");
        let (before, after) = good.split_once('?').expect("a place for them");
        let bytes = [before.as_bytes(), broken, after.as_bytes()].concat();
        assert_eq!(read_request(&bytes), Err(NotUtf8), "{broken:?}");
    }
    let utf16: Vec<u8> = body("<body {N} rid='1'/>")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(read_request(&utf16), Err(BadCharacter));
    assert_eq!(
        read_request(&[&b"\xFF\xFE"[..], &utf16].concat()),
        Err(NotUtf8)
    );
}

#[test]
fn more_than_the_bounds_allow() {
    let deep = "<a>".repeat(MAX_DEPTH);
    let deep_empty = format!("{}<a/>", "<a>".repeat(MAX_DEPTH - 1));
    let many = |count: usize| -> String { (0..count).map(|i| format!(" a{i}=''")).collect() };
    let prefixes: String = (0..65)
        .map(|i| format!("<p{i}:a xmlns:p{i}='u'>"))
        .collect();
    let sid = "s".repeat(257);
    check(&[
        (&format!("<body {{N}} rid='1'>{deep}"), TooDeep),
        (&format!("<body {{N}} rid='1'>{deep_empty}"), TooDeep),
        (
            &format!("<body {{N}} rid='1'{}/>", many(MAX_ATTRIBUTES - 1)),
            TooManyAttributes,
        ),
        (
            &format!(
                "<body {{N}} rid='1'><a{}/></body>",
                many(MAX_CHILD_ATTRIBUTES + 1)
            ),
            TooManyAttributes,
        ),
        (
            &format!("<body {{N}} rid='1'>{prefixes}"),
            TooManyNamespaces,
        ),
        (&format!("<body {{N}} rid='1' sid='{sid}'/>"), BadSid),
    ]);
}

#[test]
fn what_lenient_readers_take_for_another_request() {
    check(&[
        ("<body {N} rid='1' to='>'/>", HiddenAttribute),
        ("<body {N} rid='1' to=\" sid='x'\"/>", HiddenAttribute),
        ("<body {N} rid='1' to='rid \n=2'/>", HiddenAttribute),
        ("<body {N} rid='1' xmlns:x='a>b'/>", HiddenAttribute),
        ("<body {N} rid='1'><![CDATA[>]]></body>", MarkupInSection),
        (
            "<body {N} rid='1'><a><![CDATA[a<b]]></a></body>",
            MarkupInSection,
        ),
        ("<body {N} rid='1'><body sid='x'/></body>", NestedWrapper),
        (
            "<body {N} rid='1'><a><x:body xmlns:x='u' rid='2'>",
            NestedWrapper,
        ),
    ]);
}

#[test]
fn a_body_cut_off_at_any_byte() {
    let good = body(
        "\u{FEFF}<?xml version='1.0' encoding='UTF-8'?>\n<body {N} rid='1' sid='abc' \
         xmlns:xmpp=\"urn:xmpp:xbosh\" xmpp:restart='true'><a b='>é'>é &amp; <![CDATA[&]]]]></a>\
         <c/></body>",
    );
    assert!(read_request(good.as_bytes()).is_ok());
    for length in 0..good.len() {
        let cut = good.as_bytes().get(..length).expect("a prefix");
        assert!(read_request(cut).is_err(), "{length} bytes of {good}");
    }
}
