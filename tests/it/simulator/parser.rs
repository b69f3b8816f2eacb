//! What a Tigase node takes for a request, against the recordings: it has no HTTP parser.

use super::recorded::{UNKNOWN, node, not_found, ok, refused};
use super::wire::{Wire, plain, post};

const STREAM_ERROR: &str = "<stream:error xmlns:stream=\"http://etherx.jabber.org/streams\"><not-well-formed xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\"/></stream:error>";

/// 03: there is no HTTP parser; whatever comes before the XML is skipped.
#[tokio::test]
async fn heads_are_skipped() {
    let node = node().await;
    let split = UNKNOWN.replace("protocol", "p\r\n4f\r\nrotocol");
    for request in [
        post(UNKNOWN).replace("POST /bosh HTTP/1.1", "PUT / HTTP/1.1"),
        post(UNKNOWN).replace("/bosh", "/no/such/path?q=1"),
        post(UNKNOWN).replace("HTTP/1.1", "HTTP/1.0"),
        post(UNKNOWN).replace("Content-Length: 111\r\n", ""),
        post(UNKNOWN).replace("Content-Length: 111", "Content-Length: 1"),
        format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6f\r\n{UNKNOWN}\r\n0\r\n\r\n"
        ),
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{split}\r\n0\r\n\r\n"),
        post(&format!(
            "<?xml version='1.0' encoding='utf-8'?>\n{UNKNOWN}"
        )),
        format!("PROXY TCP4 1.2.3.4 5.6.7.8 1111 5280\r\n{}", post(UNKNOWN)),
    ] {
        let mut wire = Wire::to(&node).await;
        wire.say(request.as_bytes()).await;
        assert_eq!(plain(&wire.rest().await), not_found(), "{request}");
    }
}

/// 03: what derails the parser: markup in the head, bad bytes, bad XML.
#[tokio::test]
async fn derailed_parsers() {
    let node = node().await;
    let marked = post(UNKNOWN).replace("Content-Length", "X-Foo: <a/>\r\nContent-Length");
    let mut latin = b"POST / HTTP/1.1\r\nX-Name: caf\xe9\r\n\r\n".to_vec();
    latin.extend_from_slice(UNKNOWN.as_bytes());
    let bad = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1'><a></b></body>";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (request, expected) in [
        (
            marked.into_bytes(),
            refused("405 Invalid hostname.", "improper-addressing"),
        ),
        (latin, String::new()),
        (post(bad).into_bytes(), STREAM_ERROR.to_owned()),
        (preface, STREAM_ERROR.to_owned()),
    ] {
        let mut wire = Wire::to(&node).await;
        wire.say(&request).await;
        let answer = wire.rest().await;
        let answer = if answer.contains("\r\n\r\n") {
            plain(&answer)
        } else {
            answer
        };
        assert_eq!(answer, expected);
    }
    let mut wire = Wire::to(&node).await;
    wire.say(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>").await;
    assert_eq!(wire.rest().await.len(), 478);
}

/// 03: never answered, never closed.
#[tokio::test]
async fn silent_connections() {
    let node = node().await;
    let mut wires = Vec::new();
    for request in [
        "HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(),
        "PUT / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n".to_owned(),
        post(""),
        post("hello"),
        post(UNKNOWN).replace("Content-Length", "X-Foo: a<b>c\r\nContent-Length"),
        post("<body xmlns='x' rid=1 <<>>"),
        post("<body xmlns='http://jabber.org/protocol/httpbind' rid='1'"),
    ] {
        let mut wire = Wire::to(&node).await;
        wire.say(request.as_bytes()).await;
        wires.push(wire);
    }
    let mut other = Wire::to(&node).await;
    other.post(UNKNOWN).await;
    assert_eq!(plain(&other.rest().await), not_found());
    assert!(wires.iter().all(Wire::is_silent));
    assert_eq!((node.record().len(), node.connections()), (1, wires.len()));
    // `Expect: 100-continue` is ignored: the body may come later, with nothing in between.
    wires[2].say(UNKNOWN.as_bytes()).await;
    assert_eq!(plain(&wires[2].rest().await), not_found());
}

/// 03: `GET` ends the connection, `OPTIONS` does not.
#[tokio::test]
async fn plain_requests() {
    let node = node().await;
    let mut wire = Wire::to(&node).await;
    wire.say(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        .await;
    assert_eq!(
        plain(&wire.rest().await),
        ok(
            "This is BOSH (XEP-0124: Bidirectional-streams Over Synchronous HTTP (BOSH)) endpoint, if you want to use it use POST method as defined in it's specification: https://xmpp.org/extensions/xep-0124.html"
        )
    );
    let mut wire = Wire::to(&node).await;
    wire.say(b"OPTIONS /bosh HTTP/1.1\r\nHost: example.com\r\nOrigin: http://x\r\nAccess-Control-Request-Method: POST\r\n\r\n").await;
    assert_eq!(plain(&wire.hear().await), ok(""));
    wire.post(UNKNOWN).await;
    assert_eq!(plain(&wire.rest().await), not_found());
}
