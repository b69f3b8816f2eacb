//! What the operator decides about nodes, over the admin listener, with clients at work.

use std::time::Duration;

use bowline::cluster::Verdict;
use bowline::config::Placement;
use bowline::demo::client::Reply;
use bowline::demo::node::{Ending, Node};
use serde_json::Value;

use crate::balancer::{
    Balancer, PATIENCE, assert_goes_on, assert_item_not_found, eventually, owner, settings,
    tigase_nodes,
};
use crate::support::admin::request;

/// Asks the admin listener.
pub(crate) async fn admin(balancer: &Balancer, method: &str, target: &str) -> Reply {
    let address = balancer.server.admin_address().unwrap();
    request(address, method, target).await.unwrap()
}

async fn set(balancer: &Balancer, node: usize, state: &str) {
    let target = format!("/nodes/t{}/state?state={state}", node + 1);
    let reply = admin(balancer, "PUT", &target).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn json(balancer: &Balancer, target: &str) -> Value {
    let reply = admin(balancer, "GET", target).await;
    serde_json::from_str(reply.text()).unwrap()
}

/// Waits for the verdict on the node at this place.
async fn until_verdict(balancer: &Balancer, at: usize, verdict: Verdict) {
    let node = &balancer.proxy().cluster.nodes()[at];
    let what = format!("{} is {}", node.name, verdict.word());
    eventually(&what, || node.verdict() == verdict).await;
}

/// The sentence of `/health` that begins so.
fn reason(health: &Value, beginning: &str) -> String {
    let reasons = health["reasons"].as_array().unwrap().iter();
    let mut reasons = reasons.map(|reason| reason.as_str().unwrap());
    let found = reasons.find(|reason| reason.starts_with(beginning));
    found.unwrap_or_else(|| panic!("{health}")).to_owned()
}

#[tokio::test]
async fn a_silent_node_is_shown_with_what_follows_and_when() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.health.silence = PATIENCE;
    let balancer = Balancer::start(&settings).await;
    let clients = [balancer.session().await, balancer.session().await];
    let silent = owner(&nodes, clients[0].sid());
    nodes[silent].freeze();
    until_verdict(&balancer, silent, Verdict::Silent).await;
    eventually("the end of its patience is known", || {
        balancer.proxy().cluster.nodes()[silent].until().is_some()
    })
    .await;
    let health = json(&balancer, "/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["network_suspected"], false);
    let node = &health["nodes"][silent];
    assert_eq!(node["verdict"], "silent");
    let until = node["until"].as_str().unwrap();
    let since = node["since"].as_str().unwrap();
    let name = nodes[silent].name();
    assert_eq!(
        reason(&health, &format!("node {name} ")),
        format!(
            "node {name} is silent since {since}: it keeps its 2 sessions until {until}, and gets \
             no new ones"
        )
    );
    nodes[silent].thaw();
    until_verdict(&balancer, silent, Verdict::Up).await;
    eventually("nothing is to come", || {
        balancer.proxy().cluster.nodes()[silent].until().is_none()
    })
    .await;
    let health = json(&balancer, "/health").await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["nodes"][silent]["until"], Value::Null);
}

/// Kills the node twice, so that it is held back when it answers again.
async fn flap(balancer: &Balancer, nodes: &[Node], at: usize) {
    for verdict in [Verdict::Up, Verdict::HeldBack] {
        nodes[at].kill(Ending::Eof).await;
        until_verdict(balancer, at, Verdict::Down).await;
        nodes[at].revive().await.unwrap();
        until_verdict(balancer, at, verdict).await;
    }
}

#[tokio::test]
async fn a_node_that_is_held_back_is_shown_as_one_that_answers() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.health.penalty = Duration::from_secs(60);
    let balancer = Balancer::start(&settings).await;
    flap(&balancer, &nodes, 1).await;
    eventually("the end of its penalty is known", || {
        balancer.proxy().cluster.nodes()[1].until().is_some()
    })
    .await;
    let health = json(&balancer, "/health").await;
    assert_eq!(health["status"], "degraded");
    let node = &health["nodes"][1];
    assert_eq!(node["verdict"], "held_back");
    let until = node["until"].as_str().unwrap();
    assert_eq!(
        reason(&health, "node t2 "),
        format!(
            "node t2 answers and is held back until {until}: it went down 2 times lately. It keeps \
             its 0 sessions, and gets no new ones"
        )
    );
    assert_eq!(balancer.metric("bowline_node_up{node=\"t2\"}"), 0);
}

#[tokio::test]
async fn a_suspicion_of_the_own_network_is_a_reason() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.health.silence = PATIENCE;
    let balancer = Balancer::start(&settings).await;
    let _client = balancer.session().await;
    nodes.iter().for_each(Node::freeze);
    eventually("the network is suspected", || {
        balancer.proxy().cluster.network_suspected()
    })
    .await;
    for at in 0..2 {
        until_verdict(&balancer, at, Verdict::Silent).await;
    }
    let health = json(&balancer, "/health").await;
    assert_eq!(health["status"], "down");
    assert_eq!(health["network_suspected"], true);
    assert_eq!(
        reason(&health, "most nodes "),
        "most nodes fell silent at once: the balancer's own network is suspected, and all sessions \
         stay where they are"
    );
    reason(&health, "node t1 is silent since");
    nodes.iter().for_each(Node::thaw);
    eventually("the network is well again", || {
        !balancer.proxy().cluster.network_suspected()
    })
    .await;
    assert_eq!(json(&balancer, "/health").await["network_suspected"], false);
}

#[tokio::test]
async fn drain_keeps_sessions_and_takes_no_new_one() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut old = [balancer.session().await, balancer.session().await];
    let poll = old[0].begin_poll().await.unwrap();
    let drained = owner(&nodes, old[0].sid());
    set(&balancer, drained, "drain").await;
    for _ in 0..4 {
        let new = balancer.session().await;
        assert_ne!(owner(&nodes, new.sid()), drained);
    }
    for client in &mut old {
        assert_goes_on(&client.ping("1").await.unwrap());
    }
    assert_goes_on(&poll.reply().await.unwrap());
    assert_eq!(nodes[drained].sessions().len(), 1);
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 0);

    set(&balancer, drained, "ready").await;
    let back = [balancer.session().await, balancer.session().await];
    assert!(back.iter().any(|new| owner(&nodes, new.sid()) == drained));
}

#[tokio::test]
async fn maint_moves_sessions_off_at_once() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let (mut held, mut quiet) = (balancer.session().await, balancer.session().await);
    while owner(&nodes, quiet.sid()) != owner(&nodes, held.sid()) {
        quiet = balancer.session().await;
    }
    let out = owner(&nodes, held.sid());
    let poll = held.begin_poll().await.unwrap();
    nodes[out]
        .wait_until(|node| node.held() == 1)
        .await
        .unwrap();
    set(&balancer, out, "maint").await;
    assert_item_not_found(&poll.reply().await.unwrap());
    assert_item_not_found(&quiet.poll().await.unwrap());
    let name = format!("t{}", out + 1);
    let moved = format!("bowline_sessions_reassigned_total{{node=\"{name}\",cause=\"maint\"}}");
    assert_eq!(balancer.metric(&moved), 2);
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total"), 2);
    eventually("nothing is held there", || balancer.held() == 0).await;
    for _ in 0..3 {
        assert_ne!(owner(&nodes, balancer.session().await.sid()), out);
    }

    eventually("the move is an event", || {
        let events = balancer.proxy().cluster.events.since(0);
        let told = events
            .iter()
            .filter(|event| event.kind.word() == "reassigned");
        told.filter_map(|event| event.sessions).sum::<u64>() == 2
    })
    .await;
    let health = json(&balancer, "/health").await;
    assert_eq!(health["status"], "ok");
    assert_eq!(health["nodes"][out]["state"], "maint");
    assert_eq!(health["nodes"][out]["verdict"], "up");
    let events = json(&balancer, "/events").await;
    assert_eq!(events["events"][0]["kind"], "start");
}

#[tokio::test]
async fn a_node_that_becomes_ready_ends_the_wait_of_a_creation() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.placement_wait = PATIENCE;
    let balancer = Balancer::start(&settings).await;
    let forced = admin(&balancer, "PUT", "/nodes/t1/state?state=drain").await;
    assert_eq!(forced.status, 409);
    set(&balancer, 0, "drain&force").await;
    let mut waiting = balancer.client();
    let created = tokio::spawn(async move {
        waiting.create().await.unwrap();
        waiting
    });
    eventually("the creation has come", || {
        balancer.metric("bowline_client_received_bytes_total") > 0
    })
    .await;
    set(&balancer, 0, "ready").await;
    let client = created.await.unwrap();
    assert!(nodes[0].owns(client.sid()));
}

#[tokio::test]
async fn health_tells_what_clients_meet() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let ping = client.begin("", "<iq type='get' id='1'/>").await.unwrap();
    assert_goes_on(&poll.reply().await.unwrap());
    let health = json(&balancer, "/health").await;
    let node = &health["nodes"][0];
    assert_eq!(health["sessions"], 1);
    assert_eq!(node["error_share_1m"], 0.0);
    assert!(node["creations_per_second"].as_f64().unwrap() > 0.0);
    assert!(node["p50_ms"].as_f64().unwrap() <= node["p99_ms"].as_f64().unwrap());
    // The creation, and the send that the node answered by ending the held poll.
    let count = "bowline_upstream_answer_seconds_count{node=\"t1\"}";
    assert_eq!(balancer.metric(count), 2);
    assert!(balancer.metric("bowline_overhead_seconds_count") >= 2);
    assert!(balancer.metric("bowline_upstream_sent_bytes_total") > 100);
    drop(ping);
}

#[tokio::test]
async fn the_address_for_probes_serves_no_more_than_probes_need() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let admin = settings.admin.as_mut().unwrap();
    admin.probes = Some("127.0.0.1:0".parse().unwrap());
    let balancer = Balancer::start(&settings).await;
    let probes = balancer.server.probes_address().unwrap();
    for (target, status) in [("/ready", 200), ("/live", 200), ("/metrics", 200)] {
        let reply = request(probes, "GET", target).await.unwrap();
        assert_eq!(reply.status, status, "{target}");
    }
    for (method, target) in [("GET", "/health"), ("PUT", "/nodes/t1/state?state=maint")] {
        let reply = request(probes, method, target).await.unwrap();
        assert_eq!(reply.status, 404, "{target}");
    }
    assert_eq!(json(&balancer, "/nodes/t1").await["state"], "ready");
}
