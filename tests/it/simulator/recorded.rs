//! The Tigase profile against what a real Tigase 8.4.0 was recorded to do.
//!
//! The request bytes and the answers are from recordings; what differs from run to run is masked.

use std::time::Duration;

use bowline::demo::node::{Fate, Node, Profile};
use tokio::net::TcpStream;

use super::wire::{Wire, attribute, plain, post};
use super::{calm, start};

const HEAD: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\nAccess-Control-Allow-Headers: Content-Type\r\nAccess-Control-Max-Age: 86400\r\n";
const SERVER: &str = "Server: Tigase Bosh/8.4.0-b12150/70ef25b8\r\n\r\n";
const CREATE: &str = "<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' content='text/xml; charset=utf-8' to='example.com' rid='1000' hold='1' wait='10' ver='1.6' xml:lang='en' xmpp:version='1.0'/>";
pub(super) const UNKNOWN: &str = "<body xmlns='http://jabber.org/protocol/httpbind' rid='5000' sid='00000000-0000-4000-8000-000000000000'></body>";

/// A recorded 200 with this body.
pub(super) fn ok(body: &str) -> String {
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length:";
    plain(&format!("{head} {length}\r\n{HEAD}{SERVER}{body}"))
}

/// A recorded wrapper of a session, with what follows in it.
fn wrapper(more: &str) -> String {
    let body = "<body host=\"t1.example.com\" from=\"example.com\" xmpp:version=\"1.0\" secure=\"true\" xmlns:xmpp=\"urn:xmpp:xbosh\" xmlns:stream=\"http://etherx.jabber.org/streams\" xmlns=\"http://jabber.org/protocol/httpbind\"";
    ok(&format!("{body}{more}"))
}

/// The recorded answer to a creation.
fn created(wait: u32, hold: u32, ack: &str) -> String {
    ok(&format!(
        "<body host=\"t1.example.com\" sid=\"709836a4-9e4a-4448-89d0-a7b66c9dd0be\" from=\"example.com\" requests=\"2\" secure=\"true\" hold=\"{hold}\" maxpause=\"10\" inactivity=\"10\" authid=\"aa738153-43ab-4651-881b-e7113b041366\" wait=\"{wait}\" polling=\"10\" xmpp:version=\"1.0\" ver=\"1.6\" xmlns:xmpp=\"urn:xmpp:xbosh\" xmlns:stream=\"http://etherx.jabber.org/streams\"{ack} xmlns=\"http://jabber.org/protocol/httpbind\"/>"
    ))
}

/// A recorded refusal.
pub(super) fn refused(status: &str, condition: &str) -> String {
    let body = format!(
        "<body type='terminate' condition='{condition}' xmlns='http://jabber.org/protocol/httpbind'/>"
    );
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/xml; charset=utf-8\r\n");
    plain(&format!(
        "{head}Content-Length: {length}\r\n{HEAD}Connection: close\r\n{SERVER}{body}"
    ))
}

pub(super) fn not_found() -> String {
    refused("404 Invalid SID", "item-not-found")
}

fn body(rid: u64, sid: &str, inner: &str) -> String {
    format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{sid}'>{inner}</body>"
    )
}

fn ping(id: &str) -> String {
    format!("<iq type='get' id='{id}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>")
}

fn result(id: &str) -> String {
    format!("<iq xmlns=\"jabber:client\" type=\"result\" id=\"{id}\"/>")
}

fn terminate(rid: u64, sid: &str) -> String {
    body(rid, sid, "").replace("></body>", " type='terminate'></body>")
}

/// A node as in the recordings, its seconds shortened.
pub(super) async fn node() -> Node {
    start(calm("t1.example.com").second(Duration::from_millis(100))).await
}

/// A session with no XMPP stream in it, on a connection of its own.
async fn session(node: &Node) -> (Wire, String) {
    let mut wire = Wire::to(node).await;
    wire.post(&CREATE.replace(" xmpp:version='1.0'", "")).await;
    let answer = wire.hear().await;
    assert_eq!(plain(&answer), created(10, 1, " ack=\"1000\""));
    (wire, attribute(&answer, "sid"))
}

/// 01: login, a held poll, the end, the sid right after it.
#[tokio::test]
async fn a_login_and_its_end() {
    let node = node().await;
    let mut wire = Wire::to(&node).await;
    wire.post(CREATE).await;
    let answer = wire.hear().await;
    assert_eq!(plain(&answer), created(10, 1, " ack=\"1000\""));
    let sid = attribute(&answer, "sid");
    wire.post(&body(1001, &sid, "")).await;
    assert_eq!(
        plain(&wire.hear().await),
        wrapper(
            " ack=\"1001\"><stream:features xmlns=\"jabber:client\"><auth xmlns=\"http://jabber.org/features/iq-auth\"/><register xmlns=\"http://jabber.org/features/iq-register\"/><mechanisms xmlns=\"urn:ietf:params:xml:ns:xmpp-sasl\"><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism><mechanism>ANONYMOUS</mechanism></mechanisms><starttls xmlns=\"urn:ietf:params:xml:ns:xmpp-tls\"/><compression xmlns=\"http://jabber.org/features/compress\"><method>zlib</method></compression></stream:features></body>"
        )
    );
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
    wire.post(&body(1002, &sid, auth)).await;
    let success = "<success xmlns=\"urn:ietf:params:xml:ns:xmpp-sasl\"/>";
    assert_eq!(
        plain(&wire.hear().await),
        wrapper(&format!(" ack=\"1002\">{success}</body>"))
    );
    let restart =
        " xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true' to='example.com' xml:lang='en'>";
    wire.post(&body(1003, &sid, "").replacen('>', restart, 1))
        .await;
    assert_eq!(
        plain(&wire.hear().await),
        wrapper(
            " ack=\"1003\"><stream:features xmlns=\"jabber:client\"><register xmlns=\"http://jabber.org/features/iq-register\"/><csi xmlns=\"urn:xmpp:csi:0\"/><ver xmlns=\"urn:xmpp:features:rosterver\"/><sub xmlns=\"urn:xmpp:features:pre-approval\"/><starttls xmlns=\"urn:ietf:params:xml:ns:xmpp-tls\"/><bind xmlns=\"urn:ietf:params:xml:ns:xmpp-bind\"/><session xmlns=\"urn:ietf:params:xml:ns:xmpp-session\"><optional/></session><c node=\"https://tigase.net/tigase-xmpp-server\" ver=\"e0YMzJ68ida3DlqKrs51yT7xmeY=\" hash=\"SHA-1\" xmlns=\"http://jabber.org/protocol/caps\"/></stream:features></body>"
        )
    );
    let bind = "<iq type='set' id='b1' xmlns='jabber:client'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    wire.post(&body(1004, &sid, bind)).await;
    let answer = wire.hear().await;
    let jid = attribute(&answer, "to");
    let bound = format!(
        " ack=\"1004\"><iq to=\"{jid}\" xmlns=\"jabber:client\" type=\"result\" id=\"b1\"><bind xmlns=\"urn:ietf:params:xml:ns:xmpp-bind\"><jid>{jid}</jid></bind></iq></body>"
    );
    assert_eq!(plain(&answer), wrapper(&bound));
    wire.post(&body(1005, &sid, "")).await;
    assert_eq!(plain(&wire.hear().await), wrapper(" ack=\"1005\"/>"));
    let presence = "<presence xmlns='jabber:client' type='unavailable'/>";
    wire.post(&body(1006, &sid, presence).replacen('>', " type='terminate'>", 1))
        .await;
    let end = wire.rest().await;
    assert_eq!(plain(&end), wrapper(" ack=\"1006\" type=\"terminate\"/>"));
    let mut late = Wire::to(&node).await;
    late.post(&body(1007, &sid, "")).await;
    assert_eq!(
        plain(&late.rest().await),
        wrapper(" ack=\"1007\" type=\"terminate\"/>")
    );
    node.wait_until(|node| node.connections() == 0)
        .await
        .expect("every socket closed");
}

/// 02: what is no session.
#[tokio::test]
async fn unknown_sids_and_hosts() {
    let node = node().await;
    for (body, expected) in [
        (UNKNOWN.to_owned(), not_found()),
        (UNKNOWN.replace("00000000-0000-4000-8000-000000000000", "bogus"), not_found()),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='5000'></body>".to_owned(),
            refused("405 Invalid hostname.", "improper-addressing"),
        ),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='5000' to='nosuch.example.org' wait='10' hold='1' ver='1.6'></body>".to_owned(),
            refused("405 Invalid hostname.", "host-unknown"),
        ),
    ] {
        let mut wire = Wire::to(&node).await;
        wire.post(&body).await;
        assert_eq!(plain(&wire.rest().await), expected, "{body}");
    }
}

/// 02 and 03: creations that look odd and are taken all the same.
#[tokio::test]
async fn odd_creations() {
    let node = node().await;
    let plain_ack = |ack: &str| format!(" ack=\"{ack}\"");
    for (body, expected) in [
        (
            "<body xmlns='urn:wrong' to='example.com' rid='5000' wait='10' hold='1'/>",
            created(10, 1, &plain_ack("5000")),
        ),
        (
            "<foo xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='5000'/>",
            created(30, 1, &plain_ack("5000")),
        ),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com'/>",
            created(30, 1, ""),
        ),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='77' wait='60' hold='3' inactivity='600' requests='9'/>",
            created(30, 3, &plain_ack("77")),
        ),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='77' wait='5' hold='0' content='text/html; charset=utf-8'/>",
            created(5, 1, &plain_ack("77")).replace("text/xml;", "text/html;"),
        ),
        (
            "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='77' wait='5' hold='1' content='text/xml&#13;&#10;X-Injected: 1'/>",
            created(5, 1, &plain_ack("77"))
                .replace("text/xml; charset=utf-8", "text/xml&#13;&#10;X-Injected: 1"),
        ),
    ] {
        let mut wire = Wire::to(&node).await;
        wire.post(body).await;
        assert_eq!(plain(&wire.hear().await), expected, "{body}");
    }
}

/// 04 A: `terminate` while a poll is held.
#[tokio::test]
async fn a_terminate_gets_eof_and_the_held_poll_the_answer() {
    let node = node().await;
    let (mut held, sid) = session(&node).await;
    held.post(&body(1001, &sid, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    let mut ending = Wire::to(&node).await;
    ending.post(&terminate(1002, &sid)).await;
    assert_eq!(ending.rest().await, "");
    assert_eq!(
        plain(&held.rest().await),
        wrapper(" ack=\"1001\" type=\"terminate\"/>")
    );
}

/// 04 B: with `hold='1'` the second request releases the first.
#[tokio::test]
async fn the_second_request_releases_the_first() {
    let node = node().await;
    let (mut first, sid) = session(&node).await;
    let mut second = Wire::to(&node).await;
    first.post(&body(1001, &sid, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    second.post(&body(1002, &sid, "")).await;
    assert_eq!(plain(&first.hear().await), wrapper(" ack=\"1001\"/>"));
    first.post(&body(1003, &sid, &ping("p1"))).await;
    assert_eq!(plain(&second.hear().await), wrapper(" ack=\"1002\"/>"));
    let answer = wrapper(&format!(" ack=\"1003\">{}</body>", result("p1")));
    assert_eq!(plain(&first.hear().await), answer);
}

/// 04 C, E, F, I, L: repetitions, and rids that are wrong.
#[tokio::test]
async fn repeated_and_wrong_rids() {
    let node = node().await;
    let (mut wire, sid) = session(&node).await;
    wire.post(&body(1001, &sid, &ping("p2"))).await;
    let answer = wrapper(&format!(" ack=\"1001\">{}</body>", result("p2")));
    assert_eq!(plain(&wire.hear().await), answer);
    let mut again = Wire::to(&node).await;
    again.post(&body(1001, &sid, &ping("p2"))).await;
    assert_eq!(
        plain(&again.hear().await),
        wrapper("/>"),
        "the lost answer stays lost"
    );
    for rid in [1012, 991] {
        wire.post(&body(rid, &sid, &ping("p3"))).await;
        let answer = wrapper(&format!(">{}</body>", result("p3")));
        assert_eq!(plain(&wire.hear().await), answer);
    }
    again.post(&body(991, &sid, &ping("p4"))).await;
    assert_eq!(plain(&again.hear().await), wrapper(" type=\"terminate\"/>"));
    wire.post(&body(992, &sid, &ping("p5"))).await;
    assert!(
        wire.hear().await.contains("id=\"p5\""),
        "the session lives on"
    );
}

/// 05 A: the end of one session closes a socket that another one polls on.
#[tokio::test]
async fn a_shared_connection_is_cut() {
    let node = node().await;
    let (mut shared, first) = session(&node).await;
    let (mut own, second) = session(&node).await;
    shared.post(&body(1001, &second, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    let mut third = Wire::to(&node).await;
    third.post(&terminate(1001, &first)).await;
    assert_eq!(
        plain(&third.rest().await),
        wrapper(" ack=\"1001\" type=\"terminate\"/>")
    );
    assert_eq!(shared.rest().await, "");
    own.post(&body(1002, &second, &ping("p1"))).await;
    let answer = wrapper(&format!(" ack=\"1001\">{}</body>", result("p1")));
    assert_eq!(plain(&own.hear().await), answer);
}

/// 05 B: a session's sockets but the last four are closed.
#[tokio::test]
async fn four_sockets_stay_open() {
    let node = node().await;
    let (wire, sid) = session(&node).await;
    let mut wires = vec![wire];
    for rid in 1001..=1006 {
        let mut wire = Wire::to(&node).await;
        wire.post(&body(rid, &sid, &ping("p"))).await;
        wire.hear().await;
        wires.push(wire);
    }
    for closed in &mut wires[..3] {
        assert_eq!(closed.rest().await, "");
    }
    node.wait_until(|node| node.connections() == 4)
        .await
        .expect("four are left");
    assert!(wires[3..].iter().all(Wire::is_silent));
}

/// 05 C: of two pipelined requests one is answered.
#[tokio::test]
async fn of_two_pipelined_requests_one_is_answered() {
    let window = Some(Duration::from_millis(1));
    let profile = Profile::tigase("t1.example.com").collision(window);
    let node = start(profile.batching(Duration::from_millis(100))).await;
    let (mut wire, sid) = session(&node).await;
    let both = post(&body(1001, &sid, &ping("p11"))) + &post(&body(1002, &sid, &ping("p12")));
    wire.say(both.as_bytes()).await;
    let results = result("p11") + &result("p12");
    let answer = wrapper(&format!(" ack=\"1001\">{results}</body>"));
    assert_eq!(plain(&wire.hear().await), answer);
    assert_eq!(node.count(|seen| seen.fate == Fate::TooClose), 1);
    assert_eq!(node.held(), 0);
}

/// 05 E and 17: what was sent to a client that went away comes with its next request.
#[tokio::test]
async fn a_stanza_waits_for_a_client_that_went_away() {
    let node = node().await;
    let (_first, sid) = session(&node).await;
    let mut gone = Wire::to(&node).await;
    gone.post(&body(1001, &sid, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    drop(gone);
    node.wait_until(|node| node.held() == 0)
        .await
        .expect("noticed");
    assert!(node.push(&sid, "<message id=\"m\"/>"));
    for rid in [1002, 1003] {
        let mut next = Wire::to(&node).await;
        next.post(&body(rid, &sid, "")).await;
        let answer = next.hear().await;
        assert_eq!(
            answer.contains("<message id=\"m\"/>"),
            rid == 1002,
            "{answer}"
        );
    }
}

/// 06: two bodies in one POST get two answers, each for its own session.
#[tokio::test]
async fn two_bodies_in_one_request() {
    let node = node().await;
    let (mut wire, first) = session(&node).await;
    let (_other, second) = session(&node).await;
    let both = body(1001, &first, &ping("p21")) + &body(1001, &second, &ping("p22"));
    wire.post(&both).await;
    for id in ["p21", "p22"] {
        let answer = wrapper(&format!(" ack=\"1001\">{}</body>", result(id)));
        assert_eq!(plain(&wire.hear().await), answer);
    }
    let create = "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='77' wait='5' hold='1'/>";
    wire.post(&format!("{create}{UNKNOWN}")).await;
    assert_eq!(plain(&wire.hear().await), created(5, 1, " ack=\"77\""));
    assert_eq!(plain(&wire.rest().await), not_found());
}

/// 08: on SIGTERM every socket gets EOF; connections are still accepted for a while.
#[tokio::test]
async fn a_shutdown() {
    let node = node().await;
    let (mut held, sid) = session(&node).await;
    held.post(&body(1001, &sid, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    node.terminate_gracefully().await;
    assert_eq!(held.rest().await, "");
    let mut late = Wire::to(&node).await;
    late.post(UNKNOWN).await;
    node.wait_until(|node| node.connections() == 0 && !node.is_listening())
        .await
        .expect("gone");
    assert!(TcpStream::connect(node.address()).await.is_err());
    assert!(!node.owns(&sid));
}

/// 16: of two requests in the same millisecond one is never answered.
#[tokio::test]
async fn the_same_millisecond() {
    let profile = Profile::tigase("t1.example.com").collision(Some(Duration::from_secs(5)));
    let node = start(profile.second(Duration::from_millis(50))).await;
    let (mut first, sid) = session(&node).await;
    let mut second = Wire::to(&node).await;
    first.post(&body(1001, &sid, "")).await;
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    second.post(&body(1002, &sid, "")).await;
    assert_eq!(plain(&first.hear().await), wrapper(" ack=\"1001\"/>"));
    assert!(second.is_silent());
    assert_eq!(
        node.record().last().map(|seen| seen.fate),
        Some(Fate::TooClose)
    );
}
