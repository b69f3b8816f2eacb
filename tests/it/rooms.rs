//! What Jitsi Meet needs: the query on its way to nodes, rooms that stay together, and fields of a
//! node's answer on their way to the client.

use std::collections::BTreeSet;

use bowline::cluster::OperatorState;
use bowline::config::{Placement, QueryPolicy, Settings};
use bowline::demo::client::Client;
use bowline::demo::node::{Ending, Fault, Kind, Node, Reaction, Step};

use crate::balancer::*;
use crate::routing::creation;

/// Settings for rooms.
fn by_room(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.placement = Placement::Query("room".into());
    settings
}

fn member(balancer: &Balancer, room: &str) -> Client {
    let path = format!("/http-bind?prefix=a&room={room}&token=x");
    balancer.client().path(&path)
}

/// The request line of the only creation that `node` saw.
fn line_of_creation(node: &Node) -> String {
    let record = node.record().into_iter();
    let mut creations = record.filter(|seen| seen.kind == Kind::Create);
    let text = creations.next_back().unwrap().text();
    text.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_node_gets_the_query_only_where_the_operator_says_so() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&by_room(&nodes)).await;
    member(&balancer, "tea").create().await.unwrap();
    assert_eq!(line_of_creation(&nodes[0]), "POST /http-bind HTTP/1.1");

    let mut settings = settings(&nodes);
    settings.bosh.query = QueryPolicy::Pass;
    let balancer = Balancer::start(&settings).await;
    let mut client = member(&balancer, "a%20b");
    client.create().await.unwrap();
    let line = "POST /http-bind?prefix=a&room=a%20b&token=x HTTP/1.1";
    assert_eq!(line_of_creation(&nodes[0]), line);
    assert_goes_on(&client.ping("p").await.unwrap());
    let seen = seen_of(&nodes[0], client.sid());
    assert!(seen.iter().all(|seen| seen.text().starts_with(line)));
}

#[tokio::test]
async fn a_query_that_could_break_a_head_is_refused_where_nodes_would_get_it() {
    let nodes = tigase_nodes(1).await;
    for (query, policy, expected) in [
        ("a=b\\c".to_owned(), QueryPolicy::Pass, 400),
        ("x".repeat(4097), QueryPolicy::Pass, 400),
        ("x".repeat(4096), QueryPolicy::Pass, 200),
        ("a=b\\c".to_owned(), QueryPolicy::Drop, 200),
    ] {
        let mut settings = settings(&nodes);
        settings.bosh.query = policy;
        let balancer = Balancer::start(&settings).await;
        let client = balancer.client().path(&format!("/http-bind?{query}"));
        let reply = client.post(&creation()).await.unwrap();
        assert_eq!(reply.status, expected, "{policy:?}: {reply:?}");
    }
}

#[tokio::test]
async fn two_balancers_send_a_room_to_the_same_node() {
    let nodes = tigase_nodes(3).await;
    let balancers = [
        Balancer::start(&by_room(&nodes)).await,
        Balancer::start(&by_room(&nodes)).await,
    ];
    let mut used = BTreeSet::new();
    for number in 0..30 {
        let mut homes = BTreeSet::new();
        for balancer in balancers.iter().cycle().take(4) {
            let mut client = member(balancer, &format!("room{number}"));
            client.create().await.unwrap();
            homes.insert(owner(&nodes, client.sid()));
        }
        assert_eq!(homes.len(), 1, "room {number} is split: {homes:?}");
        used.extend(homes);
    }
    assert_eq!(used.len(), 3, "rooms are at {used:?} only");
}

#[tokio::test]
async fn a_creation_without_a_room_goes_by_its_address() {
    let nodes = tigase_nodes(3).await;
    let mut settings = by_room(&nodes);
    settings.trusted_proxies = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    let balancer = Balancer::start(&settings).await;
    for number in 1..=8 {
        let address: std::net::IpAddr = format!("198.51.100.{number}").parse().unwrap();
        let home = balancer.proxy().cluster.home(address, &[]).unwrap();
        for path in ["/http-bind", "/http-bind?prefix=a", "/http-bind?room="] {
            let client = balancer.client().path(path);
            let mut client = client.header("X-Forwarded-For", &address.to_string());
            client.create().await.unwrap();
            assert_eq!(owner(&nodes, client.sid()), home.index());
        }
    }
}

/// Creates `count` sessions of a room, and says where they are.
async fn fill(
    balancer: &Balancer,
    nodes: &[Node],
    room: &str,
    count: usize,
) -> (Vec<Client>, usize) {
    let mut members = Vec::new();
    for _ in 0..count {
        let mut client = member(balancer, room);
        client.create().await.unwrap();
        members.push(client);
    }
    let home = owner(nodes, members[0].sid());
    let all = members.iter();
    assert!(
        all.map(|one| owner(nodes, one.sid()))
            .all(|one| one == home)
    );
    (members, home)
}

/// The sessions move without their creations: what the pin keeps of the room decides.
#[tokio::test]
async fn sessions_of_a_room_move_to_one_survivor() {
    let nodes = tigase_nodes(4).await;
    let balancer = Balancer::start(&by_room(&nodes)).await;
    for number in 0..6 {
        let room = format!("room{number}");
        let (members, home) = fill(&balancer, &nodes, &room, 4).await;
        nodes[home].kill(Ending::Reset).await;
        let mut survivors = BTreeSet::new();
        for old in &members {
            // The request names no room.
            let mut client = balancer.client();
            client.adopt(old.sid(), old.rid());
            assert_item_not_found(&client.poll().await.unwrap());
            let seen = (0..4).filter(|at| nodes[*at].requests_of(old.sid()) > 0);
            survivors.extend(seen.filter(|at| *at != home));
        }
        assert_eq!(survivors.len(), 1, "room {number} is split: {survivors:?}");
        let (_, new_home) = fill(&balancer, &nodes, &room, 4).await;
        assert!(survivors.contains(&new_home));
        nodes[home].revive().await.unwrap();
        let cluster = &balancer.proxy().cluster;
        eventually("the node is back", || {
            cluster.nodes().iter().all(|node| node.is_up())
        })
        .await;
        // The node that came back does not take the room's newcomers.
        let (_, later_home) = fill(&balancer, &nodes, &room, 2).await;
        assert_eq!(new_home, later_home);
    }
}

#[tokio::test]
async fn a_room_stays_at_a_node_that_is_drained() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&by_room(&nodes)).await;
    let (_members, home) = fill(&balancer, &nodes, "tea", 2).await;
    let cluster = &balancer.proxy().cluster;
    let node = cluster.nodes()[home].id;
    let drained = cluster.set_state(
        node,
        OperatorState::Drain,
        false,
        std::time::SystemTime::now(),
    );
    drained.unwrap();
    let (_, later_home) = fill(&balancer, &nodes, "tea", 2).await;
    assert_eq!(later_home, home);
    for number in 0..20 {
        let (_, other) = fill(&balancer, &nodes, &format!("room{number}"), 1).await;
        assert_ne!(other, home, "room {number} is new");
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_takes_no_room_off_its_node() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::start(&by_room(&nodes)).await;
    let (mut members, home) = fill(&balancer, &nodes, "tea", 2).await;
    nodes[home].misbehave(Fault::resetting().once());
    assert_goes_on(&members[0].ping("p").await.unwrap());
    let (_, later_home) = fill(&balancer, &nodes, "tea", 2).await;
    assert_eq!(later_home, home);
}

fn answer_with(sid: &str, fields: &str) -> Fault {
    let xmlns = "http://jabber.org/protocol/httpbind";
    let body = format!("<body xmlns='{xmlns}' sid='{sid}' wait='5'/>");
    let length = body.len();
    let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    let fault = Fault::reacting("fields", Reaction::Steps(vec![Step::Bytes(text.into())]));
    // Not a probe.
    fault.on(|seen| seen.kind == Kind::Create).once()
}

#[tokio::test]
async fn named_fields_of_a_nodes_answer_reach_the_client() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.bosh.answer_headers = vec!["x-jitsi-shard".to_owned(), "x-b".to_owned()];
    let balancer = Balancer::start(&settings).await;
    nodes[0].misbehave(answer_with(
        "s1",
        "X-Jitsi-Shard: shard-1\r\nSet-Cookie: a=b\r\nX-B: 2\r\nX-C: 3\r\n",
    ));
    let mut client = balancer.client();
    let reply = client.create().await.unwrap();
    assert_eq!(reply.header("x-jitsi-shard"), Some("shard-1"));
    assert_eq!(reply.header("x-b"), Some("2"));
    assert_eq!(reply.header("set-cookie"), None);
    assert_eq!(reply.header("x-c"), None);
    let exposed = reply.header("access-control-expose-headers");
    assert_eq!(exposed, Some("x-jitsi-shard, x-b"));
    // What the balancer writes itself has none.
    let reply = balancer.client().post("<body/>").await.unwrap();
    assert_eq!(reply.header("access-control-expose-headers"), None);
}

#[tokio::test]
async fn fields_that_pass_are_bounded() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.bosh.answer_headers = vec!["x-a".to_owned()];
    let balancer = Balancer::start(&settings).await;
    nodes[0].misbehave(answer_with("s1", &"X-A: 1\r\n".repeat(90)));
    let reply = balancer.client().create().await.unwrap();
    assert_eq!(
        reply
            .headers
            .iter()
            .filter(|(name, _)| name == "x-a")
            .count(),
        32
    );
    nodes[0].misbehave(answer_with("s2", &format!("X-A: {}\r\n", "x".repeat(5000))));
    let reply = balancer.client().post(&creation()).await.unwrap();
    assert_eq!((reply.status, reply.header("x-a")), (200, None));
}

#[tokio::test]
async fn fields_that_a_reload_names_pass_from_now_on_and_answers_have_its_limit() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let balancer = Balancer::start(&settings).await;
    for (sid, names, passes) in [
        ("s1", Vec::new(), None),
        ("s2", vec!["x-a".to_owned()], Some("1")),
        ("s3", Vec::new(), None),
    ] {
        settings.bosh.answer_headers = names;
        balancer.server.reload(&settings).unwrap();
        nodes[0].misbehave(answer_with(sid, "X-A: 1\r\n"));
        let reply = balancer.client().create().await.unwrap();
        assert_eq!(reply.header("x-a"), passes, "{sid}");
    }
    settings.bosh.max_answer = 40;
    balancer.server.reload(&settings).unwrap();
    nodes[0].misbehave(answer_with("s4", ""));
    let reply = balancer.client().post(&creation()).await.unwrap();
    assert!(!reply.text().contains("s4"), "{reply:?}");
}
