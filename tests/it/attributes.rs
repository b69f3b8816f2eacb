//! Attributes that the balancer takes out of a start tag: `from` of a creation, `host` of an answer.

use bowline::config::{CreationFrom, HostAttribute};
use bowline::demo::client::Reply;
use bowline::demo::node::{Fault, Kind, Node, Profile};

use crate::balancer::*;

/// A creation as Strophe.js writes it, with the address of its user.
const CREATION: &str = "<body rid='1' xmlns='http://jabber.org/protocol/httpbind' \
    to='example.com' wait='5' hold='1' ver='1.6' from='user@example.com/x' x:from='kept' \
    xmlns:x='urn:x'/>";

/// A Tigase with its default see-other-host never answers a creation with `from`.
fn see_other_host() -> Fault {
    Fault::never_answering().on(|seen| {
        let raw = String::from_utf8_lossy(&seen.raw);
        seen.kind == Kind::Create && raw.contains(" from=")
    })
}

/// The body of the first creation that reached the node.
fn creation_at(node: &Node) -> String {
    let record = node.record();
    let seen = record.iter().find(|seen| seen.kind == Kind::Create);
    let raw = String::from_utf8_lossy(&seen.expect("a creation").raw).into_owned();
    raw[raw.find("<body").expect("a body")..].to_owned()
}

#[tokio::test]
async fn a_creation_with_from_is_answered_at_once() {
    let nodes = tigase_nodes(2).await;
    for node in &nodes {
        node.misbehave(see_other_host());
    }
    let balancer = Balancer::start(&patient(&nodes)).await;
    let reply = balancer.client().post(CREATION).await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
    let home = usize::from(nodes[0].sessions().is_empty());
    let without = CREATION.replace(" from='user@example.com/x'", "");
    assert_eq!(creation_at(&nodes[home]), without, "nothing else changes");
    assert_eq!(nodes[1 - home].count(|seen| seen.kind == Kind::Create), 0);
}

#[tokio::test]
async fn from_passes_where_the_operator_wants_it() {
    let nodes = tigase_nodes(1).await;
    let mut settings = patient(&nodes);
    settings.bosh.creation_from = CreationFrom::Pass;
    let balancer = Balancer::start(&settings).await;
    balancer.client().post(CREATION).await.unwrap();
    assert_eq!(creation_at(&nodes[0]), CREATION);
}

#[tokio::test]
async fn from_of_a_session_passes() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let client = balancer.session().await;
    let body = format!(
        "<body rid='{}' sid='{}' from='user@example.com' to='example.com' \
         xmlns='http://jabber.org/protocol/httpbind'><a/></body>",
        client.rid() + 1,
        client.sid()
    );
    let pending = balancer.client().begin_post(&body).await.unwrap();
    let arrived = |node: &Node| {
        node.record().iter().any(|seen| {
            let raw = String::from_utf8_lossy(&seen.raw);
            raw.ends_with(&body)
        })
    };
    nodes[0].wait_until(arrived).await.unwrap();
    drop(pending);
}

/// The answer of a node to a request of a session, written by hand, as its client gets it.
async fn passed_on(settings: impl Fn(&mut bowline::config::Settings), body: &str) -> Reply {
    let nodes = vec![Node::start(Profile::prosody("p1")).await.unwrap()];
    let mut chosen = patient(&nodes);
    settings(&mut chosen);
    let balancer = Balancer::start(&chosen).await;
    let mut client = balancer.session().await;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    nodes[0].misbehave(Fault::answering_rubbish(answer).once());
    client.poll().await.unwrap()
}

/// An answer in which `host` stands for itself, and for other things in six places.
fn with_hosts(host: &str) -> String {
    format!(
        "\u{FEFF}<?xml version='1.0'?>\n<body xmlns:xmpp='urn:xmpp:xbosh' xmpp:host='a' \
         condition=' host=&apos;b&apos;'{host} ack='1' \
         xmlns='http://jabber.org/protocol/httpbind'>\
         <message xmlns='jabber:client' host='c'><body> host='d'</body></message></body>"
    )
}

#[tokio::test]
async fn no_answer_tells_a_client_the_host_of_its_node() {
    for host in [" host='t1'", "\n\thost = \"t1.example.com\" "] {
        let reply = passed_on(|_| (), &with_hosts(host)).await;
        let rest = if host.ends_with(' ') { " " } else { "" };
        assert_eq!(reply.text(), with_hosts(rest));
    }
    assert_eq!(
        passed_on(|_| (), &with_hosts("")).await.text(),
        with_hosts("")
    );
}

#[tokio::test]
async fn host_passes_or_is_rewritten_where_the_operator_wants_it() {
    let long = format!("{}.example.com", "chat".repeat(15));
    for name in ["c.de", "t1.example.org", &long] {
        let rewrite = |settings: &mut bowline::config::Settings| {
            settings.host_attribute = HostAttribute::Rewrite(name.into());
        };
        let reply = passed_on(rewrite, &with_hosts("  host=\"t1.example.com\"")).await;
        let expected = with_hosts(&format!("  host=\"{name}\""));
        assert_eq!(reply.text(), expected);
        let reply = passed_on(rewrite, &with_hosts("")).await;
        assert_eq!(reply.text(), with_hosts(""), "none is added");
    }
    let pass = |settings: &mut bowline::config::Settings| {
        settings.host_attribute = HostAttribute::Pass;
    };
    let body = with_hosts(" host='t1'");
    assert_eq!(passed_on(pass, &body).await.text(), body);
}

#[tokio::test]
async fn a_creation_answer_and_an_end_name_no_host_either() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.client();
    let created = client.create().await.unwrap();
    assert!(!created.text().contains("host="), "{created:?}");
    assert!(created.text().contains("authid="), "{created:?}");
    let ended = client.terminate().await.unwrap();
    assert!(ended.is_terminate(), "{ended:?}");
    assert!(!ended.text().contains("host="), "{ended:?}");
    // A session that nobody has.
    let unknown = client.poll().await.unwrap();
    assert!(!unknown.text().contains("host="), "{unknown:?}");
}
