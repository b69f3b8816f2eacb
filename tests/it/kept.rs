//! Answers that are kept for clients whose connection breaks, and what is kept of nothing else.

use bowline::config::Release;
use bowline::demo::client::Client;
use bowline::demo::node::{Hub, Kind, Manner, Node, Profile, Reaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::balancer::*;
use crate::clients::{post, read_response};

/// A request with a ping, which its node answers at once.
pub(crate) fn ping(sid: &str, rid: u64, id: &str) -> String {
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' rid='{rid}'>\
         <iq type='get' id='{id}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq></body>"
    );
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Asks on a new connection.
async fn ask(balancer: &Balancer, request: &str) -> String {
    let mut stream = begin(balancer, request).await;
    let read = tokio::time::timeout(PATIENCE, read_response(&mut stream));
    read.await.unwrap()
}

/// Begins to ask on a new connection.
async fn begin(balancer: &Balancer, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Asks, and cuts the connection behind the first byte of the answer.
async fn ask_and_cut(balancer: &Balancer, request: &str) {
    let mut stream = begin(balancer, request).await;
    let read = tokio::time::timeout(PATIENCE, stream.read_u8());
    read.await.unwrap().unwrap();
}

/// A client, its sid and its next rid.
async fn session(balancer: &Balancer) -> (Client, String, u64) {
    let client = balancer.session().await;
    let (sid, rid) = (client.sid().to_owned(), client.rid() + 1);
    (client, sid, rid)
}

/// The same for a client that has sent a request beside its poll: it has two connections. The second is
/// returned as well.
async fn active_session(balancer: &Balancer, node: &Node) -> (Client, String, u64, TcpStream) {
    let (client, sid, rid) = session(balancer).await;
    let mut poll = begin(balancer, &post(&sid, rid)).await;
    node.wait_until(|node| node.held() == 1).await.unwrap();
    let mut second = begin(balancer, &ping(&sid, rid + 1, "p")).await;
    assert!(!read_response(&mut poll).await.contains("id=\"p\""));
    assert!(read_response(&mut second).await.contains("id=\"p\""));
    (client, sid, rid + 2, second)
}

fn sends(node: &Node) -> usize {
    node.count(|seen| seen.kind == Kind::Send)
}

/// Tigase recognises the request and does not answer it a second time: the result was lost.
#[tokio::test]
async fn an_answer_that_was_cut_is_there_for_the_same_request() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let request = ping(&sid, rid, "p1");
    ask_and_cut(&balancer, &request).await;
    for _ in 0..3 {
        assert!(ask(&balancer, &request).await.contains("id=\"p1\""));
    }
    assert_eq!(sends(&nodes[0]), 1, "nothing goes to the node");
    assert_eq!(balancer.metric("bowline_answers_replayed_total"), 3);
    assert_eq!(balancer.metric("bowline_kept_answers{"), 0);
    assert_eq!(balancer.metric("bowline_kept_answers "), 1);
    // The session goes on, and drops the answer when a rid two above comes.
    assert!(
        ask(&balancer, &ping(&sid, rid + 1, "p2"))
            .await
            .contains("p2")
    );
    assert!(
        ask(&balancer, &ping(&sid, rid + 2, "p3"))
            .await
            .contains("p3")
    );
    assert_eq!(balancer.metric("bowline_kept_answers "), 2);
}

#[tokio::test]
async fn without_memory_for_answers_nothing_is_kept() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.answer_memory = 0;
    let balancer = Balancer::start(&settings).await;
    let (_client, sid, rid) = session(&balancer).await;
    let request = ping(&sid, rid, "p1");
    ask_and_cut(&balancer, &request).await;
    let mut again = begin(&balancer, &request).await;
    nodes[0].wait_until(|node| sends(node) == 2).await.unwrap();
    assert!(nodes[0].push(&sid, "<message xmlns='jabber:client' id='m'/>"));
    let answer = read_response(&mut again).await;
    assert!(
        !answer.contains("p1") && answer.contains("id='m'"),
        "{answer}"
    );
    assert_eq!(balancer.metric("bowline_kept_answers "), 0);
}

/// The node judges a request that only has the rid of an older one.
#[tokio::test]
async fn the_same_rid_with_another_body_goes_to_the_node() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    ask_and_cut(&balancer, &ping(&sid, rid, "p1")).await;
    let other = ask(&balancer, &ping(&sid, rid, "p2")).await;
    assert!(!other.contains("p1"), "{other}");
    assert_eq!(sends(&nodes[0]), 2);
    assert_eq!(balancer.metric("bowline_answers_replayed_total"), 0);
}

/// A poll that nothing came for is not worth the memory: an idle session keeps nothing.
#[tokio::test]
async fn a_session_that_only_polls_keeps_nothing() {
    let nodes = [Node::start(Profile::tigase("t1").wait_limit(1))
        .await
        .unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    assert!(ask(&balancer, &ping(&sid, rid, "p1")).await.contains("p1"));
    for next in 1..=2 {
        ask(&balancer, &post(&sid, rid + next)).await;
    }
    assert_eq!(balancer.metric("bowline_kept_answers "), 0);
    assert_eq!(balancer.metric("bowline_kept_answers_bytes"), 0);
}

/// A flood of bodies under one rid, and of answers, stays within the budget.
#[tokio::test]
async fn full_memory_drops_the_answers_of_the_session_that_was_served_least_recently() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.answer_memory = 16 * 1024;
    let balancer = Balancer::start(&settings).await;
    let mut sessions = Vec::new();
    for _ in 0..200 {
        let (client, sid, rid) = session(&balancer).await;
        assert!(
            ask(&balancer, &ping(&sid, rid, "p"))
                .await
                .contains("id=\"p\"")
        );
        sessions.push((client, sid, rid));
    }
    let (_, sid, rid) = &sessions[199];
    for number in 0..50 {
        ask(&balancer, &ping(sid, *rid, &format!("other{number}"))).await;
    }
    let kept = balancer.metric("bowline_kept_answers_bytes");
    assert!(kept > 0 && kept <= 16 * 1024, "{kept}");
    assert!(balancer.metric("bowline_answers_evicted_total") > 0);
    let before = sends(&nodes[0]);
    let (_, sid, rid) = &sessions[198];
    assert!(
        ask(&balancer, &ping(sid, *rid, "p"))
            .await
            .contains("id=\"p\"")
    );
    assert_eq!(sends(&nodes[0]), before, "the newest ones are there");
    let (_, sid, rid) = &sessions[0];
    let _oldest = begin(&balancer, &ping(sid, *rid, "p")).await;
    nodes[0]
        .wait_until(|node| sends(node) > before)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_above_64_kib_is_not_kept() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    for (size, kept) in [(60 * 1024, 1), (70 * 1024, 0)] {
        let rid = rid + if kept == 1 { 0 } else { 2 };
        let mut poll = begin(&balancer, &post(&sid, rid)).await;
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        let text = "x".repeat(size);
        assert!(nodes[0].push(&sid, format!("<m xmlns='jabber:client'>{text}</m>")));
        let answer = tokio::time::timeout(PATIENCE, read_response(&mut poll)).await;
        assert!(answer.unwrap().contains(&text));
        eventually("the answer is kept or not", || {
            balancer.metric("bowline_kept_answers ") == kept
        })
        .await;
    }
}

/// The client lost its connection, and the balancer has not noticed. The same request on another connection
/// gets the answer to the first.
#[tokio::test]
async fn the_same_request_again_waits_for_the_answer_to_the_first() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let poll = post(&sid, rid);
    let first = begin(&balancer, &poll).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let mut second = begin(&balancer, &poll).await;
    let other = post(&sid, rid).replace("/>", " x='y'/>").replace(
        "Content-Length: ",
        &format!("Content-Length: {}\r\nX-Old: ", length_of(&poll) + 6),
    );
    drop(first);
    // The session's next request is not held up by the second one.
    assert!(nodes[0].push(&sid, "<message xmlns='jabber:client' id='m'/>"));
    assert!(read_response(&mut second).await.contains("id='m'"));
    assert_eq!(seen_of(&nodes[0], &sid).len(), 1);
    // Another body goes to the node.
    drop(begin(&balancer, &other).await);
    nodes[0]
        .wait_until(|node| seen_of(node, &sid).len() == 2)
        .await
        .unwrap();
}

/// A network may deliver the earlier request last. So the connection on which the client waits is not known,
/// and each of them gets the answer.
#[tokio::test]
async fn each_of_several_connections_gets_the_answer() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let poll = post(&sid, rid);
    let mut streams = vec![begin(&balancer, &poll).await];
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    for _ in 0..2 {
        streams.push(begin(&balancer, &poll).await);
    }
    assert!(nodes[0].push(&sid, "<message xmlns='jabber:client' id='m'/>"));
    for stream in &mut streams {
        let answer = tokio::time::timeout(PATIENCE, read_response(stream)).await;
        assert!(answer.unwrap().contains("id='m'"));
    }
    assert_eq!(seen_of(&nodes[0], &sid).len(), 1, "the node sees one");
}

/// With an attribute more in its wrapper.
fn with(request: &str, attribute: &str) -> String {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body = body.replacen("<body ", &format!("<body {attribute} "), 1);
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// XEP-0124 §9.2: the client has the answers up to this rid.
#[tokio::test]
async fn an_ack_drops_the_answers_that_have_arrived() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let kept = || balancer.metric("bowline_kept_answers ");
    ask(&balancer, &ping(&sid, rid, "p0")).await;
    ask(&balancer, &ping(&sid, rid + 1, "p1")).await;
    assert_eq!(kept(), 2);
    let _poll = begin(
        &balancer,
        &with(&post(&sid, rid + 2), &format!("ack='{rid}'")),
    )
    .await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    assert_eq!(kept(), 1, "the first one");
    let ack = format!("ack='{}'", rid + 1);
    let poll = with(&post(&sid, rid + 3), &ack);
    let _poll = begin(&balancer, &poll).await;
    eventually("the second one is gone", || kept() == 0).await;
}

/// Its client counts on its own. No answer has arrived for that.
#[tokio::test]
async fn a_rid_outside_of_the_window_drops_no_answer() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let request = ping(&sid, rid, "p0");
    ask_and_cut(&balancer, &request).await;
    let _poll = begin(&balancer, &post(&sid, rid + 100)).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    assert!(ask(&balancer, &request).await.contains("id=\"p0\""));
}

fn length_of(request: &str) -> usize {
    request.split_once("\r\n\r\n").unwrap().1.len()
}

/// A node answers at the moment when the client goes away: the connection is closed with the answer on it.
#[tokio::test]
async fn an_answer_that_comes_while_its_client_goes_away_is_kept() {
    let nodes = [slow_to_answer().await];
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    let request = ping(&sid, rid, "p1");
    let first = begin(&balancer, &request).await;
    nodes[0].wait_until(|node| sends(node) == 1).await.unwrap();
    drop(first);
    eventually("the answer is kept", || {
        balancer.metric("bowline_kept_answers ") == 1
    })
    .await;
    assert!(ask(&balancer, &request).await.contains("id=\"p1\""));
    assert_eq!(sends(&nodes[0]), 1);
    let gone = "bowline_requests_total{kind=\"send\",outcome=\"client_gone\"}";
    assert_eq!(balancer.metric(gone), 1);
    eventually("nothing is held", || balancer.held() == 0).await;
}

/// A node that answers a request with stanzas after 200 ms.
async fn slow_to_answer() -> Node {
    let profile = Profile::tigase("t1").with_script(|seen| match seen.kind {
        Kind::Send => {
            Reaction::ServeAs(Manner::default().slow(std::time::Duration::from_millis(200)))
        }
        _ => Reaction::Serve,
    });
    Node::start(profile).await.unwrap()
}

/// ejabberd does not notice a closed connection, and gives what comes to the dead request.
#[tokio::test]
async fn a_node_that_keeps_polls_brings_what_its_client_missed() {
    let nodes = [Node::start(Profile::shared("e1", &Hub::default()))
        .await
        .unwrap()];
    let mut settings = settings(&nodes);
    settings.upstream.release = Release::Keep;
    let balancer = Balancer::start(&settings).await;
    let (_client, sid, rid) = session(&balancer).await;
    let poll = post(&sid, rid);
    let first = begin(&balancer, &poll).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    drop(first);
    let gone = "bowline_requests_total{kind=\"poll\"";
    assert!(nodes[0].push(&sid, "<message xmlns='jabber:client' id='m'/>"));
    assert!(ask(&balancer, &poll).await.contains("id='m'"));
    eventually("both are counted", || balancer.metric(gone) == 2).await;
    assert_eq!(seen_of(&nodes[0], &sid).len(), 1);
}

/// Strophe.js drops the lower request when the higher one is answered first, and its session ends.
#[tokio::test]
async fn a_request_waits_for_the_one_below_whose_client_went_away() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.retry = std::time::Duration::from_secs(3600);
    let balancer = Balancer::start(&settings).await;
    let (_client, sid, rid, _second) = active_session(&balancer, &nodes[0]).await;
    let poll = post(&sid, rid);
    let first = begin(&balancer, &poll).await;
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    drop(first);
    nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    let _higher = begin(&balancer, &ping(&sid, rid + 1, "p")).await;
    // It is in the balancer before the lower one comes again.
    eventually("it is under way", || under_way(&balancer, &sid) == 1).await;
    // Ten times the distance between two requests, after which it would go without the wait.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(sends(&nodes[0]), 1, "it waits");
    let _lower = begin(&balancer, &poll).await;
    nodes[0].wait_until(|node| sends(node) == 2).await.unwrap();
    let seen = seen_of(&nodes[0], &sid);
    let rids: Vec<_> = seen.iter().filter_map(|seen| seen.rid).collect();
    assert_eq!(rids[rids.len() - 3..], [rid, rid, rid + 1]);
}

fn under_way(balancer: &Balancer, sid: &str) -> u8 {
    let session = balancer.proxy().sessions.find(sid);
    session.map_or(0, |session| session.under_way())
}

/// A page that is loaded again goes on with the next rid, and never asks for the last one again. Its browser
/// closes the connection of the poll only. A proxy has connections of its own.
#[tokio::test]
async fn a_page_that_is_loaded_again_does_not_wait() {
    let nodes = tigase_nodes(1).await;
    for is_behind_proxy in [false, true] {
        let mut settings = settings(&nodes);
        settings.timeouts.retry = std::time::Duration::from_secs(3600);
        if is_behind_proxy {
            settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        }
        let balancer = Balancer::start(&settings).await;
        let (_client, sid, rid, mut other) = active_session(&balancer, &nodes[0]).await;
        let held = begin(&balancer, &post(&sid, rid)).await;
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        // What counts as an old connection.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        drop(held);
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
        let next = ping(&sid, rid + 1, "p2");
        if is_behind_proxy {
            other = begin(&balancer, &next).await;
        } else {
            other.write_all(next.as_bytes()).await.unwrap();
        }
        let answer = tokio::time::timeout(PATIENCE, read_response(&mut other)).await;
        assert!(answer.unwrap().contains("p2"));
    }
}

/// A poll, or a rid two above, says that the client has given up the lost request.
#[tokio::test]
async fn a_client_that_moves_on_does_not_wait() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.retry = std::time::Duration::from_secs(3600);
    let balancer = Balancer::start(&settings).await;
    for higher in ["poll", "two"] {
        let (_client, sid, rid, _second) = active_session(&balancer, &nodes[0]).await;
        let first = begin(&balancer, &post(&sid, rid)).await;
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        drop(first);
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
        let next = match higher {
            "poll" => post(&sid, rid + 1),
            _ => ping(&sid, rid + 1, "p1"),
        };
        let mut next = begin(&balancer, &next).await;
        if higher == "two" {
            eventually("it waits", || under_way(&balancer, &sid) == 1).await;
        }
        // A client has two requests under way: this one says that it has given up the first. Its result
        // comes with the older one of those that are open.
        let mut last = begin(&balancer, &ping(&sid, rid + 2, "p2")).await;
        let answers = async {
            let first = read_response(&mut next).await;
            if !first.contains("id=\"p2\"") {
                assert!(read_response(&mut last).await.contains("id=\"p2\""));
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
    }
}

/// Without the lower one, the higher one goes in the end.
#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.timeouts.retry = std::time::Duration::from_millis(300);
    let balancer = Balancer::start(&settings).await;
    let (_client, sid, rid, _second) = active_session(&balancer, &nodes[0]).await;
    drop({
        let first = begin(&balancer, &post(&sid, rid)).await;
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        first
    });
    nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(
        ask(&balancer, &ping(&sid, rid + 1, "p"))
            .await
            .contains("id=\"p\"")
    );
    // It began to wait before, when its client was seen to be gone.
    assert!(begun.elapsed() > std::time::Duration::from_millis(100));
}

/// Prosody refuses a rid when it has answered one behind it, and its session lives on.
#[tokio::test]
async fn a_node_that_does_not_find_a_rid_any_more_has_not_lost_the_session() {
    let nodes = [Node::start(Profile::prosody("p1")).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let (_client, sid, rid) = session(&balancer).await;
    for next in 0..4 {
        let id = format!("p{next}");
        assert!(
            ask(&balancer, &ping(&sid, rid + next, &id))
                .await
                .contains(&id)
        );
    }
    let late = ask(&balancer, &post(&sid, rid)).await;
    assert!(!late.contains("terminate"), "{late}");
    assert!(
        ask(&balancer, &ping(&sid, rid + 4, "on"))
            .await
            .contains("on")
    );
    assert_eq!(balancer.metric("bowline_sessions_terminated_total{"), 0);
}
