//! Who is at fault when a request fails, and what its session has to do with it: nothing, as a rule.

use std::time::Duration;

use bowline::demo::client::Reply;
use bowline::demo::node::{Ending, Fate, Fault, Kind, Node, Profile, Reaction, Seen, Step};
use tokio::time::Instant;

use crate::balancer::*;
use crate::routing::creation;

/// The stanza that no node survives.
const DEADLY: &str = "<iq type='get' id='deadly' xmlns='jabber:client'><x xmlns='urn:x'/></iq>";

fn of_session(sid: &str) -> impl Fn(&Seen) -> bool + Send + Sync + 'static {
    let sid = sid.to_owned();
    move |seen| seen.sid.as_ref() == Some(&sid)
}

fn rejects(balancer: &Balancer, cause: &str) -> u64 {
    balancer.metric(&format!("bowline_rejects_total{{cause=\"{cause}\"}}"))
}

/// The client goes on, with nothing lost but an answer.
fn assert_given_up(reply: &Reply) {
    assert_goes_on(reply);
    assert!(reply.is_empty(), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn an_http_error_for_a_moment_is_not_seen_by_the_client() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    for status in [408, 429, 500, 502, 503] {
        nodes[home].misbehave(Fault::answering_status(status).once());
        assert_goes_on(&client.ping("p").await.unwrap());
        let seen = seen_of(&nodes[home], client.sid());
        let [.., failed, served] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(failed.rid, served.rid, "the same rid");
        assert_ne!(
            failed.connection, served.connection,
            "on a fresh connection"
        );
        assert_eq!(served.fate, Fate::Served);
        let pause = served.when - failed.when;
        assert!(pause >= Duration::from_millis(200), "{pause:?}");
        let what = balancer.proxy().cluster.nodes()[home].last_failure();
        let what = what.unwrap().what;
        assert!(what.contains(&format!("answered {status}")), "{what}");
    }
    assert!(seen_of(&nodes[1 - home], client.sid()).is_empty());
}

#[tokio::test]
async fn an_http_error_holds_up_what_comes_behind_it() {
    // A busy machine lets the node read two requests less than 5 ms apart that were sent so.
    let profile = Profile::tigase("t1").collision(Some(Duration::from_millis(2)));
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    nodes[0].misbehave(Fault::answering_status(502).once());
    let poll = client.begin_poll().await.unwrap();
    let node = &balancer.proxy().cluster.nodes()[0];
    eventually("the error is there", || node.last_failure().is_some()).await;
    // Its result may come with the poll, and the node then holds the ping. Its own answer may take until
    // `wait` ends.
    let ping = client.begin("", "<message/>").await.unwrap();
    assert_goes_on(&poll.reply().await.unwrap());
    let rids = || -> Vec<u64> {
        let seen = seen_of(&nodes[0], client.sid());
        seen.iter().filter_map(|seen| seen.rid).collect()
    };
    let first = rids()[0];
    eventually("the ping came", || rids().contains(&(first + 1))).await;
    drop(ping);
    let before: Vec<u64> = rids().into_iter().take_while(|rid| *rid == first).collect();
    assert_eq!(before, [first, first]);
}

#[tokio::test]
async fn an_http_error_that_stays_leaves_the_session_where_it_is() {
    for (ver, pages) in [("ver='1.6'", 502), ("", 500)] {
        let nodes = tigase_nodes(2).await;
        let balancer = Balancer::start(&patient(&nodes)).await;
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='example.com' \
             wait='5' hold='1' {ver}/>"
        );
        let mut client = balancer.client();
        let created = client.post(&body).await.unwrap();
        client.adopt(&created.attribute("sid").unwrap(), 1);
        let home = owner(&nodes, client.sid());
        let of = of_session(client.sid());
        nodes[home].misbehave(Fault::answering_status(pages).on(of));
        let reply = client.poll().await.unwrap();
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert!(reply.text().starts_with("<body"), "{reply:?}");
        assert_eq!(seen_of(&nodes[home], client.sid()).len(), 3);
        assert_eq!(rejects(&balancer, "node_error"), 1);
        nodes[home].behave();
        // As a client does: the same rid once more.
        let mut again = balancer.client();
        again.adopt(client.sid(), 1);
        assert_goes_on(&again.ping("p").await.unwrap());
        assert!(seen_of(&nodes[1 - home], client.sid()).is_empty());
        assert_eq!(balancer.metric("bowline_sessions_terminated_total"), 0);
        assert_eq!(
            balancer.metric("bowline_sessions{"),
            1,
            "the pin is where it was"
        );
    }
}

#[tokio::test]
async fn a_request_that_its_node_refuses_is_given_up_alone() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    for (count, status) in (1..).zip([401, 405, 413, 431]) {
        nodes[home].misbehave(Fault::answering_status(status).once());
        assert_given_up(&client.poll().await.unwrap());
        assert_eq!(rejects(&balancer, "request_failed"), count);
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert_eq!(
        seen_of(&nodes[home], client.sid()).len(),
        8,
        "none was sent twice"
    );
    assert!(seen_of(&nodes[1 - home], client.sid()).is_empty());
}

#[tokio::test]
async fn an_answer_beyond_the_bound_ends_no_session() {
    let nodes = tigase_nodes(1).await;
    let mut settings = patient(&nodes);
    settings.bosh.max_answer = 4096;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n";
    nodes[0].misbehave(Fault::answering_rubbish(bytes).once());
    assert_given_up(&client.poll().await.unwrap());
    assert_goes_on(&client.ping("p").await.unwrap());
}

#[tokio::test]
async fn a_terminate_that_is_answered_with_nothing_ends_the_pin() {
    let wrapper = "<body xmlns='http://jabber.org/protocol/httpbind'/>";
    for body in [wrapper, ""] {
        let nodes = tigase_nodes(1).await;
        let balancer = Balancer::start(&patient(&nodes)).await;
        let mut client = balancer.session().await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        nodes[0]
            .misbehave(Fault::answering_rubbish(answer).on(|seen| seen.kind == Kind::Terminate));
        let reply = client.terminate().await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(
            reply.text() == body || reply.is_terminate(),
            "{body:?}: {reply:?}"
        );
        assert_eq!(balancer.metric("bowline_sessions{"), 0, "{body:?}");
        assert_eq!(
            balancer.metric("bowline_sessions_terminated_total{condition=\"none\"}"),
            1
        );
        let node = &balancer.proxy().cluster.nodes()[0];
        assert_eq!(node.metrics.exchange_failures.get(), 0);
        assert!(node.last_failure().is_none());
        assert_eq!(nodes[0].count(|seen| seen.kind == Kind::Terminate), 1);
    }
}

/// Whether a poll or a `terminate` of a logout is answered, or neither of them.
async fn logouts(fault: Option<Fault>) {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    if let Some(fault) = fault {
        nodes[0].misbehave(fault);
    }
    let node = &balancer.proxy().cluster.nodes()[0];
    for count in 1..=10 {
        let mut client = balancer.session().await;
        // Both on connections that were used before, or both on fresh ones.
        if count % 2 == 0 {
            assert_goes_on(&client.ping("p").await.unwrap());
        }
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|n| n.held() == 1).await.unwrap();
        let (poll, end) = tokio::join!(poll.reply(), client.terminate());
        for reply in [poll.unwrap(), end.unwrap()] {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(reply.is_terminate(), "{reply:?}");
            assert_eq!(reply.condition(), None, "{reply:?}");
        }
        assert_eq!(balancer.metric("bowline_sessions{"), 0, "the pin is gone");
    }
    assert_eq!(node.metrics.exchange_failures.get(), 0);
    assert!(node.last_failure().is_none(), "{:?}", node.last_failure());
    assert_eq!(nodes[0].count(|seen| seen.kind == Kind::Terminate), 10);
}

#[tokio::test]
async fn ten_logouts_are_no_failure() {
    // The poll gets 200 `terminate`, and the `terminate` an end without a byte.
    logouts(None).await;
    // The end comes when the poll has been answered for long.
    let slow = Fault::slow(Duration::from_millis(50));
    logouts(Some(slow.on(|seen| seen.kind == Kind::Terminate))).await;
}

#[tokio::test]
async fn ten_logouts_at_which_the_node_says_nothing_are_no_failure() {
    let poll = Fault::losing_the_answer().on(|seen| seen.kind == Kind::Poll);
    logouts(Some(poll)).await;
}

#[tokio::test]
async fn a_request_that_its_node_closes_on_is_given_up_alone() {
    for reused in [true, false] {
        let nodes = tigase_nodes(3).await;
        let balancer = Balancer::start(&patient(&nodes)).await;
        let mut client = balancer.session().await;
        let home = owner(&nodes, client.sid());
        if !reused {
            nodes[home].misbehave(Fault::connection_close().once());
        }
        assert_goes_on(&client.ping("p").await.unwrap());
        nodes[home].misbehave(Fault::closing_fresh().on(of_session(client.sid())));
        nodes[home].misbehave(Fault::closing_reused().on(of_session(client.sid())));
        let before = seen_of(&nodes[home], client.sid()).len();
        assert_given_up(&client.poll().await.unwrap());
        assert_eq!(seen_of(&nodes[home], client.sid()).len() - before, 3);
        for other in (0..3).filter(|other| *other != home) {
            assert!(seen_of(&nodes[other], client.sid()).is_empty());
        }
        assert_eq!(rejects(&balancer, "request_failed"), 1);
        nodes[home].behave();
        assert_goes_on(&client.ping("its session goes on").await.unwrap());
        assert_eq!(
            balancer.metric("bowline_sessions_reassigned_total"),
            0,
            "at its node"
        );
    }
}

#[tokio::test]
async fn a_request_that_kills_nodes_reaches_two_of_them() {
    let nodes = tigase_nodes(4).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    let is_deadly = |seen: &Seen| seen.raw.windows(6).any(|word| word == b"deadly");
    for node in &nodes {
        node.misbehave(Fault::never_answering().on(is_deadly));
    }
    // A node that has read it dies.
    let dies = async |node: &Node| {
        node.wait_until(|node| node.count(is_deadly) > 0).await?;
        node.kill(Ending::Eof).await;
        Ok::<(), bowline::demo::node::TooLate>(())
    };
    let request = client.begin("", DEADLY).await.unwrap();
    let dying = async {
        let [a, b, c, d] = &nodes[..] else {
            panic!("four nodes");
        };
        // Those that never see it wait in vain.
        let _ = tokio::join!(dies(a), dies(b), dies(c), dies(d));
    };
    let reply = tokio::select! {
        reply = request.reply() => reply.unwrap(),
        () = dying => panic!("no answer"),
    };
    assert_given_up(&reply);
    let reached: Vec<usize> = nodes.iter().map(|node| node.count(is_deadly)).collect();
    assert!((1..=3).contains(&reached[home]), "{reached:?}");
    let others: usize = reached.iter().sum::<usize>() - reached[home];
    assert_eq!(others, 1, "{reached:?}");
    let listening = nodes.iter().filter(|node| node.is_listening()).count();
    assert_eq!(listening, 2, "two nodes live");
    // Its session is gone with its node, which the next request learns from a survivor.
    assert_item_not_found(&client.poll().await.unwrap());
}

#[tokio::test]
async fn a_creation_reaches_three_nodes() {
    for (fault, status) in [
        (Fault::resetting(), 200),
        (Fault::closing_fresh(), 200),
        (Fault::answering_status(500), 503),
        (Fault::answering_stream_error(), 200),
    ] {
        let nodes = tigase_nodes(4).await;
        for node in &nodes {
            node.misbehave(fault.clone().on(|seen| seen.kind == Kind::Create));
        }
        let balancer = Balancer::start(&patient(&nodes)).await;
        let reply = balancer.client().post(&creation()).await.unwrap();
        assert_eq!(reply.status, status, "{fault:?}: {reply:?}");
        assert!(reply.is_terminate(), "{fault:?}: {reply:?}");
        let has_retry = reply.header("retry-after").is_some();
        assert_eq!(has_retry, status == 503, "{fault:?}: {reply:?}");
        let mut reached: Vec<usize> = nodes
            .iter()
            .map(|node| node.count(|seen| seen.kind == Kind::Create))
            .collect();
        reached.sort_unstable();
        assert_eq!(reached, [0, 1, 1, 1], "{fault:?}");
    }
}

#[tokio::test]
async fn a_lone_node_gets_a_creation_three_times() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    for fault in [Fault::resetting(), Fault::answering_status(503)] {
        nodes[0].misbehave(fault.clone().on(|seen| seen.kind == Kind::Create).times(2));
        let client = balancer.session().await;
        assert!(nodes[0].owns(client.sid()), "{fault:?}");
    }
}

#[tokio::test]
async fn a_request_that_was_refused_before_a_byte_was_sent_tries_every_node() {
    let nodes = tigase_nodes(5).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    nodes[home].kill(Ending::Eof).await;
    let alive = (home + 1) % 5;
    for node in (0..5).filter(|node| ![home, alive].contains(node)) {
        nodes[node].refuse().await;
    }
    assert_item_not_found(&client.poll().await.unwrap());
    assert_eq!(seen_of(&nodes[alive], client.sid()).len(), 1);
}

#[tokio::test]
async fn stale_bytes_on_an_idle_connection_are_not_taken_for_an_answer() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    for bytes in ["<stream:error/>", "HTTP/1.1 2000 No\r\n\r\n"] {
        let steps = vec![Step::Bytes(bytes.into()), Step::End(Ending::Eof)];
        let reaction = Reaction::Steps(steps);
        let stale = Fault::reacting("stale", reaction);
        nodes[0].misbehave(stale.once());
        assert_goes_on(&client.ping("p").await.unwrap());
    }
    assert_eq!(rejects(&balancer, "node_garbage"), 0);
}

#[tokio::test]
async fn a_killed_node_counts_the_requests_that_it_had() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut client = balancer.session().await;
    let home = owner(&nodes, client.sid());
    // The poll is held on a connection that was used before.
    assert_goes_on(&client.ping("p").await.unwrap());
    let poll = client.begin_poll().await.unwrap();
    nodes[home].wait_until(|n| n.held() == 1).await.unwrap();
    let held = seen_of(&nodes[home], client.sid()).pop().unwrap();
    assert!(held.reused, "{held:?}");
    // What counts is that the node had it for longer than a second.
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1100)).await;
    let failures = || balancer.metric("bowline_upstream_failures_total");
    assert_eq!(failures(), 0);
    nodes[home].kill(Ending::Eof).await;
    assert_item_not_found(&poll.reply().await.unwrap());
    assert_eq!(failures(), 1);
    let what = balancer.proxy().cluster.nodes()[home].last_failure();
    assert!(what.is_some());
}
