//! The simulated node and the small client: sessions, lives and deaths, messages, other servers.

mod faults;
mod parser;
mod recorded;
mod wire;

use std::time::Duration;

use bowline::demo::client::{Client, Error};
use bowline::demo::node::{Ending, Fate, Hub, Kind, Node, Profile};
use wire::Wire;

/// A Tigase node that answers two requests of one session however close they come.
fn calm(name: &str) -> Profile {
    Profile::tigase(name).collision(None)
}

async fn start(profile: Profile) -> Node {
    Node::start(profile).await.expect("a free port")
}

async fn client_of(node: &Node) -> Client {
    let mut client = Client::to(node.address());
    client.create().await.expect("a session");
    client
}

#[tokio::test]
async fn a_session_is_made_polled_and_ended() {
    let node = start(calm("t1").second(Duration::from_millis(20))).await;
    let mut client = client_of(&node).await;
    let sid = client.sid().to_owned();
    assert!(node.owns(&sid));
    for _ in 0..2 {
        assert!(client.poll().await.expect("an empty answer").is_empty());
    }
    let answer = client.ping("p1").await.expect("a result");
    assert!(
        answer.payload().contains("type=\"result\" id=\"p1\""),
        "{}",
        answer.text()
    );
    assert!(client.terminate().await.expect("an end").is_terminate());
    assert!(!node.owns(&sid));
    assert_eq!(node.requests_of(&sid), 5);
    let kinds: Vec<Kind> = node.record().iter().map(|seen| seen.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Create,
            Kind::Poll,
            Kind::Poll,
            Kind::Send,
            Kind::Terminate
        ]
    );
}

#[tokio::test]
async fn a_poll_is_held_while_something_is_sent() {
    let node = start(calm("t1")).await;
    let mut client = client_of(&node).await;
    let held = client.begin_poll().await.expect("sent");
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    let answer = client.ping("p1").await.expect("a result");
    assert!(answer.payload().contains("id=\"p1\""));
    assert!(held.reply().await.expect("released").is_empty());
    assert_eq!(node.connections(), 2);
}

#[tokio::test]
async fn a_third_request_finds_no_connection() {
    let node = start(calm("t1")).await;
    let mut client = client_of(&node).await;
    let _first = client.begin_poll().await.expect("sent");
    let _second = client.begin_poll().await.expect("sent");
    assert!(matches!(client.poll().await, Err(Error::Busy)));
}

#[tokio::test]
async fn a_pushed_stanza_answers_the_held_poll_or_waits() {
    let node = start(calm("t1")).await;
    let mut client = client_of(&node).await;
    let sid = client.sid().to_owned();
    assert!(node.push(&sid, "<message id='1'/>"));
    assert_eq!(
        client.poll().await.expect("it").payload(),
        "<message id='1'/>"
    );
    let held = client.begin_poll().await.expect("sent");
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    assert!(node.push(&sid, "<message id='2'/>"));
    assert_eq!(
        held.reply().await.expect("it").payload(),
        "<message id='2'/>"
    );
    assert!(!node.push("nobody", "<message/>"));
}

#[tokio::test]
async fn messages_cross_the_nodes_of_a_hub() {
    let hub = Hub::default();
    let nodes = [
        start(calm("t1").in_hub(&hub)).await,
        start(calm("t2").in_hub(&hub)).await,
    ];
    let mut romeo = client_of(&nodes[0]).await;
    let mut juliet = Client::to(nodes[1].address());
    juliet
        .create_with("from='juliet@example.com'")
        .await
        .expect("a session");
    let held = juliet.begin_poll().await.expect("sent");
    let by_name = "<message to='juliet@example.com' id='m1'><body>hi</body></message>";
    let _sent = romeo.begin("", by_name).await.expect("sent");
    let got = held.reply().await.expect("a message");
    assert!(got.payload().contains("id=\"m1\"") && got.payload().contains("<body>hi</body>"));
    let to_sid = format!("<message to='{}' id='m2'/>", romeo.sid());
    let _answered = juliet.begin("", &to_sid).await.expect("sent");
    let _lost = juliet
        .begin("", "<message to='nobody'/>")
        .await
        .expect("sent");
    nodes[1]
        .wait_until(|_| hub.undelivered() == 1)
        .await
        .expect("undelivered");
    assert_eq!(nodes[0].record().len() + nodes[1].record().len(), 6);
}

#[tokio::test]
async fn a_killed_node_leaves_nothing_and_lives_again_on_its_port() {
    for ending in [Ending::Eof, Ending::Reset] {
        let node = start(calm("t1")).await;
        let mut client = client_of(&node).await;
        let sid = client.sid().to_owned();
        let held = client.begin_poll().await.expect("sent");
        node.wait_until(|node| node.held() == 1)
            .await
            .expect("held");
        node.kill(ending).await;
        match (ending, held.reply().await) {
            (Ending::Eof, Err(Error::Closed(seen))) => assert!(seen.is_empty()),
            (Ending::Reset, Err(Error::Io(_))) => {}
            (_, other) => panic!("{ending:?}: {other:?}"),
        }
        assert_eq!((node.connections(), node.is_listening()), (0, false));
        assert!(matches!(
            Client::connect(node.address()).await,
            Err(Error::Io(_))
        ));
        node.revive().await.expect("the same port");
        assert!(!node.owns(&sid));
        assert_eq!(client.poll().await.expect("an answer").status, 404);
        assert!(node.owns(client_of(&node).await.sid()));
    }
}

#[tokio::test]
async fn a_frozen_node_accepts_and_says_nothing() {
    let node = start(calm("t1")).await;
    let mut client = client_of(&node).await;
    node.freeze();
    let seen = node.record().len();
    let pinged = client
        .begin("", "<iq type='get' id='p1'/>")
        .await
        .expect("sent");
    let other = Client::connect(node.address())
        .await
        .expect("the kernel accepts");
    assert_eq!(node.record().len(), seen);
    node.thaw();
    assert!(pinged.reply().await.expect("late").payload().contains("p1"));
    assert_eq!(
        other
            .post("<body sid='x'/>")
            .await
            .expect("an answer")
            .status,
        404
    );
}

#[tokio::test]
async fn a_refusing_node_keeps_its_connections() {
    let node = start(calm("t1").refusing()).await;
    assert!(matches!(
        Client::connect(node.address()).await,
        Err(Error::Io(_))
    ));
    node.listen().await.expect("its port");
    let mut client = client_of(&node).await;
    node.refuse().await;
    assert!(matches!(
        Client::connect(node.address()).await,
        Err(Error::Io(_))
    ));
    assert!(
        client
            .ping("p1")
            .await
            .expect("on its old connection")
            .payload()
            .contains("p1")
    );
}

#[tokio::test]
async fn a_session_ends_after_its_inactivity() {
    let node = start(calm("t1").inactivity(1).second(Duration::from_millis(50))).await;
    let mut client = client_of(&node).await;
    let mut wire = Wire::to(&node).await;
    node.wait_until(|node| node.sessions().is_empty())
        .await
        .expect("forgotten");
    node.wait_until(|node| node.connections() == 1)
        .await
        .expect("its socket closed");
    wire.say(b"OPTIONS / HTTP/1.1\r\n\r\n").await;
    assert!(wire.hear().await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(client.poll().await.expect("an answer").status, 404);
}

#[tokio::test]
async fn stanzas_are_collected_before_they_are_sent() {
    let node = start(calm("t1").batching(Duration::from_millis(100))).await;
    let mut client = client_of(&node).await;
    let sid = client.sid().to_owned();
    let held = client.begin_poll().await.expect("sent");
    node.wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    node.push(&sid, "<message id='1'/>");
    node.push(&sid, "<message id='2'/>");
    let both = held.reply().await.expect("both");
    assert_eq!(both.payload(), "<message id='1'/><message id='2'/>");
}

#[tokio::test]
async fn prosody_repeats_its_sid_and_its_answers() {
    let node = start(Profile::prosody("p1")).await;
    let mut client = client_of(&node).await;
    let first = client.ping("p1").await.expect("a result");
    assert_eq!(first.attribute("sid").as_deref(), Some(client.sid()));
    let again = client.repeat().await.expect("the same");
    assert_eq!(again.payload(), first.payload());
    assert_eq!(
        node.record().last().map(|seen| seen.fate),
        Some(Fate::Repeated)
    );
    let wrong = format!("<body rid='{}' sid='{}'/>", client.rid() + 7, client.sid());
    let wrong = client.post(&wrong).await.expect("a refusal");
    assert_eq!(
        (wrong.status, wrong.condition().as_deref()),
        (200, Some("item-not-found"))
    );
    assert!(node.owns(client.sid()));
    assert!(
        client
            .ping("p2")
            .await
            .expect("it survives")
            .payload()
            .contains("p2")
    );
    let unknown = client
        .post("<body rid='1' sid='unknown'/>")
        .await
        .expect("a refusal");
    assert_eq!(
        (unknown.status, unknown.condition().as_deref()),
        (200, Some("item-not-found"))
    );
}

#[tokio::test]
async fn prosody_puts_requests_in_rid_order() {
    let node = start(Profile::prosody("p1")).await;
    let client = client_of(&node).await;
    let body = |ahead: u64| {
        let (rid, sid) = (client.rid() + ahead, client.sid());
        format!("<body rid='{rid}' sid='{sid}'><iq type='get' id='p{ahead}'/></body>")
    };
    let second = client.begin_post(&body(2)).await.expect("sent");
    node.wait_until(|node| node.record().len() == 2)
        .await
        .expect("seen");
    let first = client.post(&body(1)).await.expect("a result");
    assert!(first.payload().contains("id=\"p1\""));
    assert!(
        second
            .reply()
            .await
            .expect("a result")
            .payload()
            .contains("id=\"p2\"")
    );
}

#[tokio::test]
async fn a_shared_session_works_at_every_node() {
    let hub = Hub::default();
    let nodes = [
        start(Profile::shared("e1", &hub)).await,
        start(Profile::shared("e2", &hub)).await,
    ];
    let mut client = client_of(&nodes[0]).await;
    let mut elsewhere = Client::to(nodes[1].address());
    elsewhere.adopt(client.sid(), client.rid());
    assert!(
        elsewhere
            .ping("p1")
            .await
            .expect("a result")
            .payload()
            .contains("p1")
    );
    assert!(nodes[0].owns(client.sid()) && !nodes[1].owns(client.sid()));
    client.adopt(elsewhere.sid(), elsewhere.rid());
    let held = client.begin_poll().await.expect("sent");
    nodes[0]
        .wait_until(|node| node.held() == 1)
        .await
        .expect("held");
    nodes[0].terminate_gracefully().await;
    let end = held.reply().await.expect("an end");
    assert_eq!(end.condition().as_deref(), Some("remote-stream-error"));
    let gone = elsewhere.poll().await.expect("an answer");
    assert_eq!(
        (gone.status, gone.reason.as_str()),
        (200, "Session ID mismatch")
    );
}

#[tokio::test]
async fn a_shared_session_can_outlive_its_node() {
    let hub = Hub::default();
    let shared = |name| Profile::shared(name, &hub).sessions_outlive_nodes();
    let nodes = [start(shared("e1")).await, start(shared("e2")).await];
    let client = client_of(&nodes[0]).await;
    nodes[0].kill(Ending::Reset).await;
    let mut elsewhere = Client::to(nodes[1].address());
    elsewhere.adopt(client.sid(), client.rid());
    assert!(
        elsewhere
            .ping("p1")
            .await
            .expect("a result")
            .payload()
            .contains("p1")
    );
    assert!(nodes[1].owns(client.sid()));
}

#[tokio::test]
async fn a_thousand_polls_are_held_and_all_end_with_the_node() {
    let node = start(calm("t1").without_record()).await;
    let mut held = Vec::new();
    for _ in 0..1000 {
        let mut client = client_of(&node).await;
        held.push(client.begin_poll().await.expect("sent"));
    }
    node.wait_until(|node| node.held() == 1000)
        .await
        .expect("all held");
    drop(node);
    for one in held {
        assert!(matches!(
            one.reply().await,
            Err(Error::Closed(_) | Error::Io(_))
        ));
    }
}
