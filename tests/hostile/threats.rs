//! Threats of docs/security.md that are more than one exchange; each test is named after its threat.

use std::net::{IpAddr, Ipv4Addr};

use bowline::config::Placement;
use bowline::proxy::BoshRequest;
use bowline::upstream::{Authority, Path, Query};

use crate::client::{Heard, Wire};
use crate::corpus::{NAMESPACE, Words, creation, poll};
use crate::invariants::Expected;
use crate::node::Node;
use crate::nodes::Misbehaviour;
use crate::support::waiting::eventually;
use crate::world::{World, create, is_reject, settings};

fn words(world: &World) -> Words {
    Words {
        sid: String::new(),
        rid: 1,
        victim: world.canary.sid.clone(),
    }
}

/// Two nodes that take creations in turn.
async fn in_turn() -> World {
    let nodes = vec![Node::start().await, Node::start().await];
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    World::with(nodes, &settings).await
}

#[tokio::test]
async fn pin_theft_a_second_node_that_offers_a_sid_is_refused_and_counted() {
    let mut world = in_turn().await;
    let thief = 1 - world.home();
    let script = "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} sid='{victim}'/>}\\r\\n\\r\\n\
                  <body {N} sid='{victim}'/>";
    let armed = Misbehaviour::always(None, script, words(&world));
    world.nodes[thief].misbehave(Some(armed));
    let mut refused = 0;
    for _ in 0..4 {
        let mut wire = Wire::to(world.address()).await;
        let answer = wire.post(&creation(5)).await.unwrap();
        if answer.attribute("sid").is_none() {
            is_reject(&answer, 200).unwrap();
            refused += 1;
        }
    }
    assert_eq!(refused, 2, "each second creation went to the thief");
    let conflicts = world
        .balancer
        .metric("bowline_rejects_total{cause=\"sid_conflict\"}");
    assert_eq!(conflicts, 2);
    for _ in 0..3 {
        world.canary(None, &mut Expected::default()).await.unwrap();
    }
    assert!(!world.nodes[thief].was_asked_about(&world.canary.sid));
}

#[tokio::test]
async fn pin_theft_a_node_that_gives_one_sid_to_two_clients_is_refused_and_counted() {
    let mut world = World::new(1).await;
    let script = "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} sid='{victim}'/>}\\r\\n\\r\\n\
                  <body {N} sid='{victim}'/>";
    world.canary(None, &mut Expected::default()).await.unwrap();
    let armed = Misbehaviour::always(None, script, words(&world));
    world.nodes[0].misbehave(Some(armed));
    let mut wire = Wire::to(world.address()).await;
    let answer = wire.post(&creation(5)).await.unwrap();
    assert_eq!(answer.attribute("sid"), None);
    is_reject(&answer, 200).unwrap();
    world.nodes[0].misbehave(None);
    let conflicts = world
        .balancer
        .metric("bowline_rejects_total{cause=\"sid_conflict\"}");
    assert_eq!(conflicts, 1);
    for _ in 0..3 {
        world.canary(None, &mut Expected::default()).await.unwrap();
    }
}

#[tokio::test]
async fn pin_poisoning_nothing_but_a_creation_makes_a_pin() {
    let mut world = in_turn().await;
    let before = world.balancer.proxy().sessions.len();
    // What a client says: sids that nobody made.
    let mut wire = Wire::to(world.address()).await;
    for rid in 1..50 {
        let answer = wire
            .post(&poll(&format!("made-up-{rid}"), rid))
            .await
            .unwrap();
        assert_eq!(answer.attribute("condition"), Some("item-not-found"));
    }
    // What a node says in answer to something else, and while it ends a session.
    let (session, mut wire) = world.session().await.unwrap();
    let home = usize::from(!world.nodes[0].knows(&session.sid));
    for script in [
        "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} sid='planted'/>}\\r\\n\\r\\n<body {N} sid='planted'/>",
        "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} type='terminate' sid='planted'/>}\\r\\n\\r\\n\
         <body {N} type='terminate' sid='planted'/>",
    ] {
        let armed = Misbehaviour::always(Some(session.sid.clone()), script, words(&world));
        world.nodes[home].misbehave(Some(armed));
        wire.post(&poll(&session.sid, session.rid)).await.unwrap();
        world.nodes[home].misbehave(None);
    }
    // A creation that is refused makes none either.
    let script = "HTTP/1.1 200 OK\\r\\nContent-Length: {len:<body {N} type='terminate' sid='planted'/>}\\r\\n\\r\\n\
                  <body {N} type='terminate' sid='planted'/>";
    for node in &world.nodes {
        node.misbehave(Some(Misbehaviour::always(None, script, words(&world))));
    }
    wire.post(&creation(7)).await.unwrap();
    for node in &world.nodes {
        node.misbehave(None);
    }
    assert!(world.balancer.proxy().sessions.find("planted").is_none());
    // The session of this test is left, as a pin or as what is left of one.
    assert!(world.balancer.proxy().sessions.len() <= before + 1);
    world.canary(None, &mut Expected::default()).await.unwrap();
}

#[tokio::test]
async fn ejection_one_client_cannot_have_a_node_called_down() {
    let mut world = World::new(1).await;
    let up = || world.balancer.proxy().cluster.nodes()[0].is_up();
    for _ in 0..50 {
        let (session, mut wire) = world.session().await.unwrap();
        let sid = Some(session.sid.clone());
        let armed = Misbehaviour::always(sid, "garbage{close}", words(&world));
        world.nodes[0].misbehave(Some(armed));
        let answer = wire.post(&poll(&session.sid, session.rid)).await.unwrap();
        assert_eq!(answer.attribute("condition"), Some("item-not-found"));
        world.nodes[0].misbehave(None);
        assert!(up());
    }
    let probed = || {
        world
            .balancer
            .metric("bowline_probe_seconds_count{node=\"t1\"}")
            > 1
    };
    eventually("the signals have led to probes", probed).await;
    assert!(up());
    world.canary(None, &mut Expected::default()).await.unwrap();
}

#[tokio::test]
async fn spoofed_addresses_are_believed_of_trusted_proxies_only() {
    let forwarded = async |trusted: &str, fields: &str| {
        let nodes = vec![Node::start().await];
        let mut settings = settings(&nodes);
        settings.trusted_proxies = trusted.split(' ').map(|net| net.parse().unwrap()).collect();
        let world = World::with(nodes, &settings).await;
        world.nodes[0].news();
        let body = creation(9);
        let length = body.len();
        let request = format!(
            "POST /http-bind HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        );
        let mut wire = Wire::to(world.address()).await;
        wire.write(request.as_bytes()).await;
        assert!(
            matches!(wire.hear(false).await, Ok(Heard::Answer(answer)) if answer.status == 200)
        );
        let news = world.nodes[0].news();
        let text = String::from_utf8(news[0].bytes.clone()).unwrap();
        let head = text.split_once("\r\n\r\n").unwrap().0.to_owned();
        let chosen =
            |line: &&str| line.starts_with("X-Forwarded-For") || line.starts_with("X-Forwarded-P");
        let lines: Vec<&str> = head.lines().filter(chosen).collect();
        assert!(!head.contains("evil"), "{head}");
        lines
            .join(" ")
            .replace("X-Forwarded-For: ", "")
            .replace("X-Forwarded-Proto: ", "")
    };
    let stranger = "10.0.0.0/8";
    let trusted = "127.0.0.0/8 10.0.0.0/8";
    for (trusted, fields, expected) in [
        (
            stranger,
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
            "127.0.0.1 http",
        ),
        (
            stranger,
            "Forwarded: for=192.0.2.1;proto=https\r\nX-Real-IP: evil\r\n",
            "127.0.0.1 http",
        ),
        (
            trusted,
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
            "192.0.2.1 https",
        ),
        // What the client wrote stands to the left of what the proxies wrote.
        (
            trusted,
            "X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.1.1.1\r\n",
            "192.0.2.1 http",
        ),
        (
            trusted,
            "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 192.0.2.1\r\n",
            "192.0.2.1 http",
        ),
        (
            trusted,
            "X-Forwarded-For: 192.0.2.1, evil\r\n",
            "127.0.0.1 http",
        ),
        (
            trusted,
            "X-Forwarded-For: 192.0.2.1, <evil/>, 10.1.1.1\r\n",
            "10.1.1.1 http",
        ),
        (
            trusted,
            "X-Forwarded-For: \r\nForwarded: for=192.0.2.1\r\n",
            "127.0.0.1 http",
        ),
        (
            trusted,
            "Forwarded: for=evil, for=\"[2001:db8::1]:99\"\r\n",
            "2001:db8::1 http",
        ),
        // It hides nothing of that either.
        (
            trusted,
            "X-Forwarded-For: \u{e9}, 192.0.2.1\r\n",
            "192.0.2.1 http",
        ),
        (
            trusted,
            "Forwarded: x=\", for=192.0.2.1\r\n",
            "192.0.2.1 http",
        ),
        (
            trusted,
            "X-Real-IP: evil\r\nProxy: evil\r\nX-Forwarded-Host: evil\r\nVia: evil\r\n",
            "127.0.0.1 http",
        ),
    ] {
        assert_eq!(
            forwarded(trusted, fields).await,
            expected,
            "{trusted}: {fields}"
        );
    }
}

#[tokio::test]
async fn answers_reach_no_other_session_however_requests_are_mixed() {
    let world = World::new(1).await;
    // Twenty sessions, whose requests go over five client connections at random.
    let mut wires = Vec::new();
    for _ in 0..5 {
        wires.push(Wire::to(world.address()).await);
    }
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(create(&mut wires[0]).await.unwrap());
    }
    for turn in 0..400 {
        let session = fastrand::usize(..sessions.len());
        let wire = fastrand::usize(..wires.len());
        if turn % 7 == 0 {
            // Held, and given up: its answer must go nowhere.
            let given_up = &sessions[session];
            let body = format!(
                "<body {NAMESPACE} rid='{}' sid='{}'><hold xmlns='urn:test'/></body>",
                given_up.rid, given_up.sid
            );
            let mut gone = Wire::to(world.address()).await;
            gone.write(&crate::client::post(&body)).await;
            sessions[session] = create(&mut wires[wire]).await.unwrap();
            continue;
        }
        sessions[session].poll(&mut wires[wire]).await.unwrap();
    }
    for recording in world.nodes[0].everything() {
        assert!(recording.sids.len() <= 1, "sessions share a connection");
    }
}

#[test]
fn leaks_no_debug_output_has_a_sid() {
    let body = poll("secret-sid", 4);
    let request = bowline::bosh::read_request(body.as_bytes()).unwrap();
    let answer = bowline::bosh::read_response(body.as_bytes()).unwrap();
    let ask = BoshRequest {
        path: Path::new("/http-bind").unwrap(),
        query: Query::default(),
        group: None,
        origin: None,
        host: Authority::new("a").unwrap(),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        connected: bowline::sessions::Time::default(),
        protocol: bowline::proxy::Protocol::PLAIN,
        secure: false,
        parent: bowline::observe::traces::Parent::default(),
        body: body.as_bytes(),
    };
    let told = bowline::proxy::Answer::ok(body.clone().into());
    let mut reader = bowline::upstream::Reader::new(1000);
    let length = body.len();
    let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    let upstream = reader.push(bytes.as_bytes()).unwrap().unwrap();
    for debug in [
        format!("{request:?}"),
        format!("{answer:?}"),
        format!("{ask:?}"),
        format!("{told:?}"),
        format!("{upstream:?}"),
    ] {
        assert!(!debug.contains("secret"), "{debug}");
        assert!(debug.len() > 20, "{debug}");
    }
}
