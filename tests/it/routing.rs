//! Where requests go when every node is well.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bowline::config::{Affinity, Placement};
use bowline::demo::client::Client;
use bowline::demo::node::{Fate, Fault, Hub, Kind, Node, Profile};

use crate::balancer::*;

#[tokio::test]
async fn a_session_stays_with_the_node_that_made_it() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(balancer.session().await);
    }
    for round in 0..10 {
        for client in &mut clients {
            assert_goes_on(&client.ping(&round.to_string()).await.unwrap());
        }
    }
    for client in &clients {
        let node = &nodes[owner(&nodes, client.sid())];
        // The creation does not name the sid, but the node counts it.
        assert_eq!(node.requests_of(client.sid()), 11);
    }
    for node in &nodes {
        assert_eq!(node.sessions().len(), 2, "round robin over {}", node.name());
    }
    assert_eq!(balancer.metric("bowline_sessions_created_total{"), 6);
}

#[tokio::test]
async fn an_upstream_connection_serves_one_session_only() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(balancer.session().await);
    }
    for _ in 0..5 {
        for client in &mut clients {
            client.ping("p").await.unwrap();
        }
    }
    let mut sessions: HashMap<u64, String> = HashMap::new();
    for client in &clients {
        for seen in seen_of(&nodes[0], client.sid()) {
            let first = sessions
                .entry(seen.connection)
                .or_insert(client.sid().to_owned());
            assert_eq!(first, client.sid(), "connection {}", seen.connection);
        }
    }
    assert!(
        sessions.len() <= 10,
        "connections are used again: {}",
        sessions.len()
    );
}

#[tokio::test]
async fn a_terminate_ends_the_session_while_a_poll_is_held() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let ended = client.terminate().await.unwrap();
    assert_eq!(ended.status, 200);
    assert!(ended.is_terminate(), "{ended:?}");
    assert_eq!(ended.condition(), None, "{ended:?}");
    let poll = poll.reply().await.unwrap();
    assert!(poll.is_terminate(), "{poll:?}");
    eventually("nothing is held", || balancer.held() == 0).await;
    assert_eq!(
        balancer.metric("bowline_sessions_terminated_total{condition=\"none\"}"),
        1
    );
    assert_eq!(balancer.metric("bowline_sessions{node=\"t1\"}"), 0);
    nodes[0]
        .wait_until(|node| node.connections() == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn requests_of_one_session_go_up_in_rid_order_and_never_within_two_milliseconds() {
    // Narrow, so that a node that is slow to read does not take two for one pair.
    let profile = Profile::tigase("t1").collision(Some(Duration::from_millis(2)));
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let (sid, rid) = (client.sid().to_owned(), client.rid());
    for round in 0..20 {
        let rid = rid + 1 + 2 * round;
        let first = body(&sid, rid);
        let second = body(&sid, rid + 1);
        // The second is on its way before the first.
        let late = client.begin_post(&second).await.unwrap();
        let early = client.begin_post(&first).await.unwrap();
        let (early, late) = tokio::join!(early.reply(), late.reply());
        assert_goes_on(&early.unwrap());
        assert_goes_on(&late.unwrap());
    }
    let seen = seen_of(&nodes[0], &sid);
    assert_eq!(seen.len(), 40);
    for pair in seen.windows(2) {
        assert!(
            pair[0].rid < pair[1].rid,
            "{:?} before {:?}",
            pair[0].rid,
            pair[1].rid
        );
        assert_ne!(pair[1].fate, Fate::TooClose);
    }
    client.adopt(&sid, rid + 40);
    assert_goes_on(&client.ping("after").await.unwrap());
}

fn body(sid: &str, rid: u64) -> String {
    format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='{sid}' rid='{rid}'>\
         <iq type='get' id='{rid}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq></body>"
    )
}

#[tokio::test]
async fn a_rid_that_never_comes_does_not_hold_the_next_for_ever() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let (sid, rid) = (client.sid().to_owned(), client.rid());
    client.adopt(&sid, rid + 1);
    assert_goes_on(&client.ping("gap").await.unwrap());
    assert_eq!(seen_of(&nodes[0], &sid).last().unwrap().rid, Some(rid + 2));
}

#[tokio::test]
async fn an_unknown_sid_goes_to_its_rendezvous_node_and_its_answer_is_passed_on() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.client();
    client.adopt("no-such-sid", 7);
    assert_item_not_found(&client.poll().await.unwrap());
    assert_eq!(balancer.metric("bowline_unknown_sids_total"), 1);
    assert!(balancer.proxy().sessions.is_empty(), "no trace of it");
}

#[tokio::test]
async fn a_sid_that_its_node_knows_becomes_a_pin() {
    let hub = Hub::default();
    let mut nodes = Vec::new();
    for name in ["e1", "e2"] {
        nodes.push(Node::start(Profile::shared(name, &hub)).await.unwrap());
    }
    let mut settings = settings(&nodes);
    settings.bosh.paths.push("/bosh".to_owned());
    let balancer = Balancer::start(&settings).await;
    // Made without the balancer, as by an application server that pre-binds.
    let mut direct = Client::to(nodes[0].address()).path("/bosh");
    direct.create().await.unwrap();
    let mut client = balancer.client().path("/bosh");
    client.adopt(direct.sid(), direct.rid());
    assert_goes_on(&client.ping("a").await.unwrap());
    assert_goes_on(&client.ping("b").await.unwrap());
    assert_eq!(balancer.proxy().sessions.len(), 1);
    assert_eq!(
        balancer.metric("bowline_unknown_sids_total"),
        1,
        "known from then on"
    );
    let asked = nodes
        .iter()
        .filter(|node| !seen_of(node, client.sid()).is_empty());
    assert!(asked.count() <= 2);
}

#[tokio::test]
async fn with_affinity_client_ip_the_sessions_of_an_address_stay_together() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.affinity = Affinity::ClientIp;
    settings.placement = Placement::RoundRobin;
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let balancer = Balancer::start(&settings).await;
    let mut homes = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let mut owners = Vec::new();
        for _ in 0..4 {
            let mut client = balancer.client().header("X-Forwarded-For", address);
            client.create().await.unwrap();
            owners.push(owner(&nodes, client.sid()));
        }
        owners.dedup();
        assert_eq!(owners.len(), 1, "{address}");
        homes.push(owners[0]);
    }
    homes.sort_unstable();
    assert_eq!(homes, [0, 1, 2], "round robin places addresses");
}

#[tokio::test]
async fn placement_by_client_ip_follows_the_address() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.trusted_proxies = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    let balancer = Balancer::start(&settings).await;
    for number in 1..=8 {
        let address = format!("198.51.100.{number}");
        let expected = balancer
            .proxy()
            .cluster
            .place(address.parse::<std::net::IpAddr>().unwrap(), &[])
            .unwrap();
        for _ in 0..2 {
            let mut client = balancer.client().header("X-Forwarded-For", &address);
            client.create().await.unwrap();
            assert_eq!(owner(&nodes, client.sid()), expected.index());
        }
    }
}

#[tokio::test]
async fn nodes_get_a_fresh_and_minimal_head() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer
        .client()
        .header("X-Evil", "<a/>")
        .header("Accept-Encoding", "gzip")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("Cookie", "a=b");
    client.create().await.unwrap();
    let created = nodes[0]
        .record()
        .into_iter()
        .find(|seen| seen.kind == Kind::Create)
        .unwrap();
    let text = created.text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let address = balancer.address();
    let expected = format!(
        "POST /http-bind HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/xml; charset=utf-8\r\n\
         Content-Length: {}\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: {address}",
        body.len()
    );
    assert_eq!(head, expected);
}

#[tokio::test]
async fn a_full_table_turns_creations_away_and_serves_its_sessions() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.limits.sessions = 2;
    let balancer = Balancer::start(&settings).await;
    let mut first = balancer.session().await;
    let _second = balancer.session().await;
    let refused = balancer.client().post(&creation()).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert!(refused.is_terminate());
    assert_goes_on(&first.ping("p").await.unwrap());
    assert_eq!(balancer.metric("bowline_rejects_total{cause=\"full\"}"), 1);
}

#[tokio::test]
async fn an_invitation_to_compress_is_not_passed_on() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let body = |accept: &str| {
        format!("<body xmlns='http://jabber.org/protocol/httpbind' sid='s'{accept} wait='5'/>")
    };
    let invites = body(" accept='gzip,deflate'");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{invites}",
        invites.len()
    );
    nodes[0].misbehave(Fault::answering_rubbish(answer).once());
    let made = balancer.client().post(&creation()).await.unwrap();
    assert_eq!(made.text(), body(""));
}

/// A creation's body.
pub(crate) fn creation() -> String {
    "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='example.com' wait='5' hold='1' \
     ver='1.6'/>"
        .to_owned()
}

#[tokio::test]
async fn an_expired_session_is_forgotten() {
    let profile = Profile::tigase("t1")
        .inactivity(0)
        .second(Duration::from_secs(1000));
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let _client = balancer.session().await;
    assert_eq!(balancer.proxy().sessions.len(), 1);
    // `inactivity` of 0 s and the grace of 5 s.
    eventually("the pin is gone", || balancer.proxy().sessions.is_empty()).await;
    assert_eq!(balancer.metric("bowline_sessions_expired_total"), 1);
}

/// So that the next process can read it.
#[tokio::test]
async fn a_pin_expires_in_seconds_of_the_wall_clock() {
    let profile = Profile::tigase("t1").inactivity(60);
    let nodes = [Node::start(profile).await.unwrap()];
    let balancer = Balancer::before(&nodes).await;
    let seconds = || {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u32::try_from(since_epoch.unwrap().as_secs()).unwrap()
    };
    let before = seconds();
    let mut client = balancer.session().await;
    assert_goes_on(&client.ping("p").await.unwrap());
    let after = seconds();
    let proxy = balancer.proxy();
    let session = proxy.sessions.find(client.sid()).unwrap();
    eventually("the request is over", || session.under_way() == 0).await;
    let pin = session.pin(proxy.now()).unwrap();
    assert_eq!(proxy.cluster.node(pin.node).name, "t1");
    // `inactivity` and the grace of 5 s, and less than a second for rounding up.
    let expected = before + 65..=after + 66;
    assert!(expected.contains(&pin.expires), "{pin:?}, {expected:?}");
}
