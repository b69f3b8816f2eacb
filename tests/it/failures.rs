//! What the client sees of a node that fails: every row of the table in docs/protocol.md.

use std::time::Duration;

use bowline::cluster::Verdict;
use bowline::config::Placement;
use bowline::demo::client::{Client, Pending};
use bowline::demo::node::{Ending, Fate, Fault, Hub, Kind, Node, Profile, Seen};
use tokio::time::Instant;

use crate::balancer::*;
use crate::routing::creation;

/// A client whose poll is held, and where.
async fn holding(balancer: &Balancer, nodes: &[Node]) -> (Client, usize, Pending) {
    let mut client = balancer.session().await;
    let home = owner(nodes, client.sid());
    let poll = client.begin_poll().await.unwrap();
    nodes[home].wait_until(|n| n.held() == 1).await.unwrap();
    (client, home, poll)
}

#[tokio::test]
async fn refuses_the_connection_at_a_creation_the_next_node_takes_it() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let first = balancer
        .proxy()
        .cluster
        .place(std::net::IpAddr::from([127, 0, 0, 1]), &[])
        .unwrap()
        .index();
    nodes[first].refuse().await;
    let client = balancer.session().await;
    assert_eq!(owner(&nodes, client.sid()), 1 - first);
    let name = nodes[first].name();
    assert_eq!(
        balancer.metric(&format!(
            "bowline_upstream_connects_total{{node=\"{name}\",outcome=\"failed\"}}"
        )),
        1
    );
}

#[tokio::test]
async fn refuses_the_connection_at_a_pinned_sid_the_session_moves_at_once() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    nodes[home].kill(Ending::Eof).await;
    let asked = Instant::now();
    assert_item_not_found(&client.poll().await.unwrap());
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "no waiting for a verdict"
    );
    assert_eq!(
        seen_of(&nodes[1 - home], client.sid()).len(),
        1,
        "the survivor answered"
    );
    let failed = &balancer.proxy().cluster.nodes()[home];
    assert_eq!(failed.reassigned.get(), 1);
    eventually("a probe went out at once", || {
        failed.metrics.probe_failures.get() > 0
    })
    .await;
    client.create().await.unwrap();
    assert_eq!(owner(&nodes, client.sid()), 1 - home);
}

#[tokio::test]
async fn a_cluster_that_shares_sessions_just_goes_on() {
    let hub = Hub::default();
    let mut nodes = Vec::new();
    for name in ["e1", "e2"] {
        let profile = Profile::shared(name, &hub).sessions_outlive_nodes();
        nodes.push(Node::start(profile).await.unwrap());
    }
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let first = nodes
        .iter()
        .position(|node| node.requests_of(client.sid()) == 1)
        .unwrap();
    nodes[first].kill(Ending::Eof).await;
    assert_goes_on(&client.ping("a").await.unwrap());
    assert_goes_on(&client.ping("b").await.unwrap());
    assert_eq!(seen_of(&nodes[1 - first], client.sid()).len(), 2);
}

#[tokio::test]
async fn closes_a_reused_idle_connection_the_same_node_is_asked_again() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    nodes[home].misbehave(Fault::closing_reused());
    for _ in 0..5 {
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert!(seen_of(&nodes[1 - home], client.sid()).is_empty());
    let served = |fate| {
        seen_of(&nodes[home], client.sid())
            .iter()
            .filter(|s| s.fate == fate)
            .count()
    };
    assert_eq!(served(Fate::Served), 5);
    assert!(served(Fate::Misbehaved("closing_reused")) >= 1);
    let metrics = &balancer.proxy().cluster.nodes()[home].metrics;
    assert_eq!(metrics.exchange_failures.get(), 0, "that is no failure");
}

#[tokio::test]
async fn an_idle_connection_that_its_node_closed_is_not_used() {
    let nodes = tigase_nodes(1).await;
    nodes[0].misbehave(Fault::closing_when_idle(Duration::from_millis(1)));
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    for _ in 0..5 {
        nodes[0]
            .wait_until(|node| node.connections() == 0)
            .await
            .unwrap();
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert_eq!(
        seen_of(&nodes[0], client.sid()).len(),
        5,
        "none was sent twice"
    );
}

#[tokio::test]
async fn closes_a_fresh_connection_with_no_answer_the_same_rid_is_sent_once_more() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    nodes[home].misbehave(Fault::connection_close().once());
    assert_goes_on(&client.ping("a").await.unwrap());
    nodes[home].misbehave(Fault::closing_fresh().once());
    assert_goes_on(&client.ping("b").await.unwrap());
    assert!(seen_of(&nodes[1 - home], client.sid()).is_empty());
    let rids: Vec<_> = seen_of(&nodes[home], client.sid())
        .iter()
        .map(|seen| seen.rid)
        .collect();
    assert_eq!(rids.len(), 3);
    assert_eq!(rids[1], rids[2], "the same rid");
}

#[tokio::test]
async fn closes_with_no_answer_and_then_refuses_the_session_moves() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let (client, home, poll) = holding(&balancer, &nodes).await;
    nodes[home].kill(Ending::Eof).await;
    assert_item_not_found(&poll.reply().await.unwrap());
    assert_eq!(seen_of(&nodes[1 - home], client.sid()).len(), 1);
}

#[tokio::test]
async fn resets_every_connection_the_session_moves() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    nodes[home].misbehave(Fault::resetting());
    assert_item_not_found(&client.poll().await.unwrap());
    assert_eq!(seen_of(&nodes[1 - home], client.sid()).len(), 1);
}

#[tokio::test]
async fn writes_bytes_that_are_no_http_the_client_gets_a_bosh_error() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    for fault in [
        Fault::answering_stream_error(),
        Fault::answering_rubbish("SSH-2.0-x\r\n"),
    ] {
        let mut client = balancer.session().await;
        let sid = client.sid().to_owned();
        let fault = fault.on(move |seen| seen.sid.as_ref() == Some(&sid));
        // On a reused connection they may be older than the request, which is sent again.
        nodes[0].misbehave(fault.clone().once());
        assert_goes_on(&client.ping("p").await.unwrap());
        nodes[0].misbehave(fault);
        assert_item_not_found(&client.poll().await.unwrap());
        assert_eq!(
            seen_of(&nodes[0], client.sid()).len(),
            4,
            "twice each, and no more"
        );
    }
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"node_garbage\"}"),
        2
    );
}

#[tokio::test]
async fn answers_html_the_same_rid_is_sent_again_and_then_503() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let sid = client.sid().to_owned();
    let html = Fault::answering_status(502).on(move |seen| seen.sid.as_ref() == Some(&sid));
    nodes[0].misbehave(html.clone().once());
    assert_goes_on(&client.ping("p").await.unwrap());
    nodes[0].misbehave(html.times(3));
    assert_eq!(client.poll().await.unwrap().status, 503);
    assert_eq!(seen_of(&nodes[0], client.sid()).len(), 5);
}

#[tokio::test]
async fn answers_another_4xx_the_request_is_given_up() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    nodes[0].misbehave(Fault::answering_status(413).once());
    let reply = client.poll().await.unwrap();
    assert_goes_on(&reply);
    assert!(reply.is_empty(), "{reply:?}");
    assert_goes_on(&client.ping("p").await.unwrap());
}

#[tokio::test]
async fn answers_400_403_or_404_with_no_wrapper_the_session_has_ended() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    for (status, condition) in [
        (400, "bad-request"),
        (403, "policy-violation"),
        (404, "item-not-found"),
    ] {
        let mut client = balancer.session().await;
        nodes[0].misbehave(Fault::answering_status(status).once());
        let reply = client.poll().await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.condition().as_deref(), Some(condition));
    }
}

#[tokio::test]
async fn garbage_at_a_creation_the_next_node_takes_it() {
    for fault in [
        Fault::answering_status(500),
        Fault::answering_stream_error(),
        Fault::cutting_the_body(),
        Fault::closing_fresh(),
    ] {
        let nodes = tigase_nodes(2).await;
        let balancer = Balancer::start(&patient(&nodes)).await;
        nodes[0].misbehave(fault.on(|seen| seen.kind == Kind::Create));
        for _ in 0..4 {
            let client = balancer.session().await;
            assert_eq!(owner(&nodes, client.sid()), 1);
        }
    }
}

#[tokio::test]
async fn garbage_from_every_node_a_creation_ends_with_a_wrapper() {
    for (fault, status, condition) in [
        (Fault::answering_status(500), 503, "system-shutdown"),
        (Fault::answering_status(413), 200, "internal-server-error"),
        (
            Fault::answering_stream_error(),
            200,
            "internal-server-error",
        ),
    ] {
        let nodes = tigase_nodes(2).await;
        for node in &nodes {
            node.misbehave(fault.clone().on(|seen| seen.kind == Kind::Create));
        }
        let balancer = Balancer::start(&patient(&nodes)).await;
        let reply = balancer.client().post(&creation()).await.unwrap();
        assert_eq!(reply.status, status, "{fault:?}");
        assert_eq!(reply.condition().as_deref(), Some(condition), "{fault:?}");
    }
}

#[tokio::test]
async fn sends_surplus_bytes_that_connection_is_dropped() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    nodes[0].misbehave(Fault::surplus_bytes());
    for _ in 0..4 {
        let reply = client.ping("p").await.unwrap();
        assert_goes_on(&reply);
    }
    let mut connections: Vec<_> = seen_of(&nodes[0], client.sid())
        .iter()
        .map(|seen| seen.connection)
        .collect();
    connections.dedup();
    assert_eq!(connections.len(), 4, "each on a connection of its own");
}

#[tokio::test]
async fn cuts_an_answer_the_same_rid_is_sent_once_more() {
    for fault in [Fault::cutting_the_body(), Fault::losing_the_answer()] {
        let nodes = vec![Node::start(Profile::prosody("p1")).await.unwrap()];
        let balancer = Balancer::start(&patient(&nodes)).await;
        let mut client = balancer.session().await;
        nodes[0].misbehave(fault.once());
        let reply = client.ping("p").await.unwrap();
        assert_goes_on(&reply);
        assert!(
            reply.text().contains("id='p'") || reply.text().contains("id=\"p\""),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn answers_only_headers_the_session_moves_with_the_verdict() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let (client, home, poll) = holding(&balancer, &nodes).await;
    // The held poll is answered by a head and nothing more, and so is every probe.
    nodes[home].misbehave(Fault::stalling_after_headers());
    let mut second = balancer.client();
    second.adopt(client.sid(), client.rid());
    let asked = Instant::now();
    let third = second.begin_poll().await.unwrap();
    assert_item_not_found(&third.reply().await.unwrap());
    let took = asked.elapsed();
    assert!(
        took < Duration::from_secs(3),
        "no waiting for the rest: {took:?}"
    );
    // Both requests lose their node at the same moment; the session may end before the other one moves.
    let moved = seen_of(&nodes[1 - home], client.sid()).len();
    assert!((1..=2).contains(&moved), "{moved}");
    drop(poll);
}

#[tokio::test]
async fn every_honest_form_of_an_answer_is_passed_on() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    for fault in [
        Fault::chunked(),
        Fault::close_delimited(),
        Fault::one_byte_at_a_time(),
        Fault::continue_first(),
        Fault::connection_close(),
        Fault::slow(Duration::from_millis(60)),
    ] {
        nodes[0].misbehave(fault.times(2));
        for _ in 0..2 {
            assert_goes_on(&client.ping("p").await.unwrap());
        }
    }
}

#[tokio::test]
async fn does_not_answer_in_time_the_request_is_sent_again_and_then_given_up() {
    let profile = Profile::tigase("t1").inactivity(60);
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.client().wait(0).deadline(Duration::from_secs(40));
    client.create().await.unwrap();
    nodes[0].misbehave(
        Fault::never_answering()
            .on(|seen| seen.kind == Kind::Poll)
            .once(),
    );
    let asked = Instant::now();
    let reply = client.poll().await.unwrap();
    let took = asked.elapsed();
    assert_goes_on(&reply);
    assert!((10..13).contains(&took.as_secs()), "wait + 10 s: {took:?}");
    let node = &balancer.proxy().cluster.nodes()[0];
    assert!(
        node.last_failure().unwrap().what.contains("overdue"),
        "{:?}",
        node.last_failure()
    );
}

/// Found by the chaos suite: the second time nothing ever ended the wait.
#[tokio::test]
async fn does_not_answer_twice_the_request_is_given_up_and_the_session_stays() {
    let profile = Profile::tigase("t1").inactivity(60);
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.client().wait(0).deadline(Duration::from_secs(40));
    client.create().await.unwrap();
    nodes[0].misbehave(Fault::never_answering().on(|seen| seen.kind == Kind::Poll));
    let asked = Instant::now();
    assert_goes_on(&client.poll().await.unwrap());
    let took = asked.elapsed();
    assert!((20..24).contains(&took.as_secs()), "twice 10 s: {took:?}");
    let causes = "bowline_rejects_total{cause=\"request_failed\"}";
    assert_eq!(balancer.metric(causes), 1);
    nodes[0].behave();
    assert_goes_on(&client.ping("still-there").await.unwrap());
}

#[tokio::test]
async fn does_not_answer_a_creation_a_probe_looks_after_it_and_the_next_node_takes_it() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.health.interval = Duration::from_secs(3600);
    settings.health.fall = 1;
    let balancer = Balancer::start(&settings).await;
    let first = balancer
        .proxy()
        .cluster
        .place(std::net::IpAddr::from([127, 0, 0, 1]), &[])
        .unwrap()
        .index();
    nodes[first].freeze();
    let asked = Instant::now();
    let client = balancer.session().await;
    let took = asked.elapsed();
    assert_eq!(owner(&nodes, client.sid()), 1 - first);
    assert!(
        (3..6).contains(&took.as_secs()),
        "a probe after 3 s: {took:?}"
    );
}

#[tokio::test]
async fn is_marked_down_while_polls_are_held_their_sessions_move() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    let mut polls = Vec::new();
    for _ in 0..10 {
        let mut client = balancer.session().await;
        polls.push(client.begin_poll().await.unwrap());
        clients.push(client);
    }
    for node in &nodes {
        node.wait_until(|node| node.held() == 5).await.unwrap();
    }
    nodes[0].freeze();
    let mut survivors = Vec::new();
    for (client, poll) in clients.iter().zip(polls) {
        if nodes[0].owns(client.sid()) {
            assert_item_not_found(&poll.reply().await.unwrap());
        } else {
            survivors.push(poll);
        }
    }
    assert_eq!(survivors.len(), 5);
    assert_eq!(
        nodes[1].held(),
        5,
        "the survivor's sessions noticed nothing"
    );
    assert_eq!(balancer.proxy().cluster.nodes()[0].held.get(), 0);
    assert_eq!(
        balancer.metric("bowline_sessions_reassigned_total{node=\"t1\",cause=\"failure\"}"),
        5
    );
    drop(survivors);
    eventually("nothing is held any more", || balancer.held() == 0).await;
}

#[tokio::test]
async fn answers_404_with_a_wrapper_the_client_gets_200_unless_it_is_legacy() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    for (ver, status) in [("ver='1.6'", 200), ("", 404)] {
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='example.com' \
             wait='5' hold='1' {ver}/>"
        );
        let mut client = balancer.client();
        let created = client.post(&body).await.unwrap();
        client.adopt(&created.attribute("sid").unwrap(), 1);
        nodes[0].revive().await.unwrap();
        let reply = client.poll().await.unwrap();
        assert_eq!(reply.status, status, "{ver}: {reply:?}");
        assert_eq!(reply.condition().as_deref(), Some("item-not-found"));
    }
}

#[tokio::test]
async fn no_node_is_up_a_creation_waits_and_then_gets_503() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.placement_wait = Duration::from_millis(300);
    let balancer = Balancer::start(&settings).await;
    nodes[0].kill(Ending::Eof).await;
    let down = || !balancer.proxy().cluster.any_up();
    eventually("the node is down", down).await;
    let asked = Instant::now();
    let reply = balancer.client().post(&creation()).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(reply.is_terminate());
    assert_ne!(
        reply.condition().as_deref(),
        Some("remote-connection-failed")
    );
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"no_node\"}"),
        1
    );
}

#[tokio::test]
async fn a_node_that_comes_in_time_takes_the_waiting_creation() {
    let nodes = vec![Node::start(Profile::tigase("t1").refusing()).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let waiting = balancer.client().begin_post(&creation()).await.unwrap();
    nodes[0].listen().await.unwrap();
    let reply = waiting.reply().await.unwrap();
    assert!(reply.attribute("sid").is_some(), "{reply:?}");
}

#[tokio::test]
async fn a_session_waits_for_its_only_node() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    nodes[0].refuse().await;
    let down = || !balancer.proxy().cluster.any_up();
    eventually("the node is down", down).await;
    let ping = "<iq type='get' id='p' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>";
    let waiting = client.begin("", ping).await.unwrap();
    nodes[0].listen().await.unwrap();
    assert_goes_on(&waiting.reply().await.unwrap());
}

#[tokio::test]
async fn every_node_is_down_a_session_waits_for_the_first_that_comes_back() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let (mut client, home, poll) = holding(&balancer, &nodes).await;
    for node in &nodes {
        node.kill(Ending::Eof).await;
    }
    let down = || !balancer.proxy().cluster.any_up();
    eventually("no node is up", down).await;
    nodes[1 - home].revive().await.unwrap();
    let back = Instant::now();
    assert_item_not_found(&poll.reply().await.unwrap());
    let took = back.elapsed();
    // One fast probe, and what the machine may add.
    assert!(took < Duration::from_millis(100 + 400), "{took:?}");
    assert_eq!(seen_of(&nodes[1 - home], client.sid()).len(), 1);
    client.create().await.unwrap();
}

/// Found by the chaos suite: the wait began with the request, and was over for a poll held for long.
#[tokio::test]
async fn every_node_is_down_a_poll_that_was_held_for_long_waits_as_long_as_any_other() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let sid = client.sid();
    let session = balancer.proxy().sessions.find(sid).unwrap();
    let patience = Duration::from_secs(u64::from(session.terms().inactivity.max(10)));
    assert!(patience < PATIENCE, "{patience:?}");
    tokio::time::sleep(patience + Duration::from_millis(100)).await;
    nodes[0].freeze();
    let node = &balancer.proxy().cluster.nodes()[0];
    eventually("it is down", || node.verdict() == Verdict::Down).await;
    nodes[0].thaw();
    let again = |node: &Node| seen_of(node, sid).len() == 2;
    nodes[0].wait_until(again).await.unwrap();
    nodes[0].push(sid, "<message xmlns='jabber:client' id='m'/>");
    assert_goes_on(&poll.reply().await.unwrap());
}

#[tokio::test]
async fn another_nodes_sid_is_an_alarm_and_the_first_pin_stays() {
    let hub = Hub::default();
    let nodes = [
        Node::start(Profile::tigase("t1").in_hub(&hub).seed(1))
            .await
            .unwrap(),
        Node::start(Profile::tigase("t2").seed(2)).await.unwrap(),
    ];
    let mut settings = patient(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    let body = format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{}' wait='5'/>",
        client.sid()
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    nodes[1 - home]
        .misbehave(Fault::answering_rubbish(answer).on(|seen| seen.kind == Kind::Create));
    let thief = balancer.client().post(&creation()).await.unwrap();
    assert!(thief.is_terminate(), "{thief:?}");
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"sid_conflict\"}"),
        1
    );
    assert_goes_on(&client.ping("still at home").await.unwrap());
    assert_eq!(seen_of(&nodes[home], client.sid()).len(), 1);
}

#[tokio::test]
async fn closes_at_every_node_a_request_does_not_go_round() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    for node in &nodes {
        let sid = client.sid().to_owned();
        node.misbehave(
            Fault::resetting()
                .on(move |seen| seen.kind == Kind::Create || seen.sid.as_ref() == Some(&sid)),
        );
    }
    let reply = client.poll().await.unwrap();
    assert_goes_on(&reply);
    assert!(reply.is_empty(), "{reply:?}");
    let sent = |of: &dyn Fn(&Seen) -> bool| -> usize { nodes.iter().map(|n| n.count(of)).sum() };
    assert_eq!(sent(&|seen| seen.sid.as_deref() == Some(client.sid())), 3);
    let creations = || sent(&|seen| seen.kind == Kind::Create);
    let before = creations();
    let reply = balancer.client().post(&creation()).await.unwrap();
    assert_eq!(reply.condition().as_deref(), Some("internal-server-error"));
    assert_eq!(creations() - before, 3);
}
