//! A new configuration in a running balancer: it applies without a restart, or changes nothing.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use bowline::cluster::OperatorState;
use bowline::config::{NodeSettings, NodeState, Placement};
use bowline::demo::client::Client;
use bowline::demo::node::Node;
use serde_json::Value;

use crate::balancer::*;
use crate::cuts::number;
use crate::process::{Process, Start};
use crate::support::waiting::until;

fn node_settings(node: &Node) -> NodeSettings {
    NodeSettings::new(node.name().to_owned(), node.address().to_string())
}

#[tokio::test]
async fn a_node_that_joins_gets_sessions_and_one_that_leaves_keeps_its_own() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes[..1]);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut old = balancer.session().await;
    let poll = old.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();

    settings.nodes = vec![node_settings(&nodes[1])];
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), "node t2 joins, node t1 leaves");
    let t2 = || balancer.proxy().cluster.named("t2").unwrap();
    eventually("the first probe of t2", || t2().is_up()).await;
    let mut new = balancer.session().await;
    assert_eq!(owner(&nodes, new.sid()), 1);

    assert_goes_on(&old.ping("one").await.unwrap());
    assert_goes_on(&poll.reply().await.unwrap());
    assert_goes_on(&new.ping("one").await.unwrap());
    assert!(old.terminate().await.unwrap().is_terminate());
    eventually("t1 is gone", || {
        balancer.proxy().cluster.named("t1").is_none()
    })
    .await;
}

#[tokio::test]
async fn two_hundred_held_polls_of_a_removed_node_end_with_its_answers() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes[..1]);
    let balancer = Balancer::start(&settings).await;
    let (mut clients, mut polls) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let mut client = balancer.session().await;
        polls.push(client.begin_poll().await.unwrap());
        clients.push(client);
    }
    nodes[0]
        .wait_until(|node| node.held() == 200)
        .await
        .unwrap();
    settings.nodes = vec![node_settings(&nodes[1])];
    balancer.server.reload(&settings).unwrap();
    for (client, poll) in clients.iter_mut().zip(polls) {
        assert!(nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>"));
        assert!(poll.reply().await.unwrap().text().contains("id='m'"));
        assert!(client.terminate().await.unwrap().is_terminate());
    }
    eventually("t1 is gone", || {
        balancer.proxy().cluster.named("t1").is_none()
    })
    .await;
    assert_eq!(balancer.metric("bowline_rejects_total{"), 0);
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total{"), 0);
}

#[tokio::test]
async fn a_state_in_the_file_is_set_when_it_changes_and_the_operator_may_change_it() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.nodes[0].state = Some(NodeState::Drain);
    let balancer = Balancer::start(&settings).await;
    let cluster = &balancer.proxy().cluster;
    let t1 = cluster.named("t1").unwrap();
    assert_eq!(t1.state(), OperatorState::Drain);
    let set = cluster.set_state(t1.id, OperatorState::Ready, false, SystemTime::now());
    assert_eq!(set, Ok(OperatorState::Drain));
    settings.nodes[0].weight = 3;
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), "node t1: weight 1 -> 3");
    assert_eq!(
        t1.state(),
        OperatorState::Ready,
        "the operator's choice stays"
    );
    settings.nodes[0].state = Some(NodeState::Maint);
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), "node t1: state maint");
    assert_eq!(t1.state(), OperatorState::Maint);
    let events = cluster.events.since(0);
    assert_eq!(
        events.last().unwrap().text,
        "the configuration set t1 to maint"
    );
    settings.nodes[0].state = None;
    balancer.server.reload(&settings).unwrap();
    assert_eq!(t1.state(), OperatorState::Ready);
}

#[tokio::test]
async fn a_state_that_discovery_brings_is_set_when_it_changes() {
    let nodes = tigase_nodes(2).await;
    let settings = settings(&nodes);
    let balancer = Balancer::start(&settings).await;
    let cluster = &balancer.proxy().cluster;
    let t1 = cluster.named("t1").unwrap();
    let mut found = settings.nodes.clone();
    let mut find = |state| {
        found[0].state = state;
        balancer.server.set_nodes(found.clone()).unwrap();
        t1.state()
    };
    assert_eq!(find(Some(NodeState::Drain)), OperatorState::Drain);
    let set = cluster.set_state(t1.id, OperatorState::Ready, false, SystemTime::now());
    assert_eq!(set, Ok(OperatorState::Drain));
    let same = find(Some(NodeState::Drain));
    assert_eq!(same, OperatorState::Ready, "the operator's choice stays");
    assert_eq!(find(Some(NodeState::Maint)), OperatorState::Maint);
    assert_eq!(find(None), OperatorState::Ready);
}

#[tokio::test]
async fn other_probes_are_sent_from_now_on() {
    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    settings.health.interval = Duration::from_secs(3600);
    let balancer = Balancer::start(&settings).await;
    let probes = || nodes[0].count(|_| true);
    let before = probes();
    settings.health.interval = Duration::from_millis(20);
    let step = balancer.server.reload(&settings).unwrap();
    assert_eq!(step.words(), "health");
    eventually("several probes", || probes() > before + 3).await;
    let node = || balancer.proxy().cluster.named("t1").unwrap();
    assert!(node().is_up(), "it keeps its verdict");
}

/// Memory of this process that is in use, in KiB.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse().unwrap()
}

/// The variable that is set in the process of its own, where only the reloads can make memory grow.
const ALONE: &str = "BOWLINE_RELOADS_ALONE";

/// `RELOAD_SECONDS` spreads the reloads, over 15 at most: clients give up after 20.
#[test]
fn a_thousand_reloads_under_load_fail_no_request_and_leave_memory_flat() {
    if env::var_os(ALONE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        return runtime.block_on(a_thousand_reloads());
    }
    let name = "reload::a_thousand_reloads_under_load_fail_no_request_and_leave_memory_flat";
    let mut alone = Command::new(env::current_exe().unwrap());
    alone.args(["--exact", "--nocapture", name]).env(ALONE, "1");
    let output = alone.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}{errors}");
    print!("{text}");
}

async fn a_thousand_reloads() {
    const RELOADS: u32 = 1000;
    let seconds = u64::try_from(number("RELOAD_SECONDS", 0)).unwrap();
    let pause = Duration::from_secs(seconds) / RELOADS;
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let (mut sessions, mut held) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let mut client = balancer.session().await;
        held.push(client.begin_poll().await.unwrap());
        sessions.push(client);
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut client, done) = (balancer.session().await, Arc::clone(&done));
        clients.spawn(async move {
            let mut pings = 0_u32;
            while !done.load(Ordering::Relaxed) {
                assert_goes_on(&client.ping(&pings.to_string()).await.unwrap());
                pings += 1;
            }
            pings
        });
    }
    let mut early = 0;
    for reload in 0..RELOADS {
        settings.nodes.rotate_left(1);
        settings.nodes[0].weight = 1 + reload % 5;
        settings.health.rise = 1 + reload % 2;
        // Connections end with their next answer.
        settings.timeouts.idle = Duration::from_secs(60 + u64::from(reload / 4 % 2));
        settings.limits.connections = 1000 + reload as usize % 3;
        balancer.server.reload(&settings).unwrap();
        if reload == RELOADS / 5 {
            early = resident();
        }
        // Also without a pause, clients have their turn.
        tokio::time::sleep(pause).await;
    }
    let grown = resident() - early;
    done.store(true, Ordering::Relaxed);
    let pings: u32 = clients.join_all().await.iter().sum();
    assert!(pings > 100, "{pings}");
    // Without any reload, the record of the nodes in this process takes half a KiB for each ping.
    let record = i64::from(pings / 2);
    assert!(
        grown - record < 8 * 1024,
        "memory grew by {grown} KiB with {pings} pings"
    );
    for (client, poll) in sessions.iter_mut().zip(held) {
        let push = "<message xmlns='jabber:client' id='m'/>";
        let node = owner(&nodes, client.sid());
        nodes[node].push(client.sid(), push);
        assert!(poll.reply().await.unwrap().text().contains("id='m'"));
        assert_goes_on(&client.ping("last").await.unwrap());
    }
    assert_eq!(balancer.metric("bowline_rejects_total{"), 0);
    assert_eq!(balancer.metric("bowline_sessions_reassigned_total{"), 0);
    println!("{pings} pings, memory {early} KiB and {grown} KiB more");
}

/// The configuration of a process with another list of nodes.
fn rewrite(process: &Process, nodes: &[&Node]) {
    let text = fs::read_to_string(process.config()).unwrap();
    let (front, rest) = text.split_once("nodes:\n").unwrap();
    let rest = rest.lines().filter(|line| !line.starts_with("  - "));
    let mut changed = front.to_owned() + "nodes:\n";
    for node in nodes {
        changed += &format!(
            "  - {{ name: {}, address: '{}' }}\n",
            node.name(),
            node.address()
        );
    }
    changed.extend(rest.map(|line| line.to_owned() + "\n"));
    fs::write(process.config(), changed).unwrap();
}

async fn is_up(process: &Process, node: &str) -> bool {
    let up = format!("bowline_node_up{{node=\"{node}\"}} 1");
    process.admin("/metrics").await.text().contains(&up)
}

async fn until_up(process: &Process, node: &str) {
    let up = async || is_up(process, node).await;
    assert!(until(PATIENCE, up).await, "{node} is up");
}

fn cli(process: &Process) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(["reload", "--admin", &format!("http://{}", process.admin)])
        .output()
        .unwrap()
}

async fn session(process: &Process) -> Client {
    let mut client = process.client();
    client.create().await.unwrap();
    client
}

#[tokio::test]
async fn a_signal_and_the_command_reload_the_file() {
    let nodes = tigase_nodes(3).await;
    let process = Process::start(&nodes[..1], &Start::default()).await;
    let mut client = session(&process).await;
    rewrite(&process, &[&nodes[0], &nodes[1]]);
    process.signal("HUP");
    until_up(&process, "t2").await;
    // A poll that is held meanwhile gets its answer.
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    rewrite(&process, &[&nodes[0], &nodes[2]]);
    let output = cli(&process);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "changed: node t3 joins, node t2 leaves\n"
    );
    assert_eq!(output.status.code(), Some(0));
    until_up(&process, "t3").await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    assert!(poll.reply().await.unwrap().text().contains("id='m'"));
    assert_goes_on(&client.ping("one").await.unwrap());
    assert_eq!(process.metric("bowline_reloads_total").await, 2);
    let events = process.admin("/events").await;
    assert!(
        events
            .text()
            .contains("configuration reloaded: node t2 joins")
    );
}

#[tokio::test]
async fn the_limit_of_connections_is_logged_when_it_changes() {
    let nodes = tigase_nodes(1).await;
    let process = Process::start(&nodes, &Start::default()).await;
    let good = fs::read_to_string(process.config()).unwrap();
    let reload = async |more: &str, count: u64| {
        fs::write(process.config(), good.clone() + more).unwrap();
        assert_eq!(cli(&process).status.code(), Some(0));
        assert_eq!(process.metric("bowline_reloads_total").await, count);
    };
    reload("placement: random\n", 1).await;
    reload("placement: random\nlimits: { connections: 5 }\n", 2).await;
    // The lines come in order, so that those of the first reload are there as well.
    // At the start they may be lowered to what fits, which is another line.
    let is_limit = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("limits"))
    };
    let lowered = |line: &Value| is_limit(line) && line["connections"] == 5;
    process.line("the new limit", lowered).await;
    assert_eq!(
        process.lines().iter().filter(|line| is_limit(line)).count(),
        2
    );
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_explained() {
    let nodes = tigase_nodes(1).await;
    let process = Process::start(&nodes, &Start::default()).await;
    let mut client = session(&process).await;
    let good = fs::read_to_string(process.config()).unwrap();
    fs::write(process.config(), good.clone() + "thread: 5\n").unwrap();
    let output = cli(&process);
    assert_eq!(output.status.code(), Some(78));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("unknown key `thread`"), "{words}");
    let health = process.admin("/health").await;
    assert!(health.text().contains("the last reload was refused"));
    assert_eq!(process.metric("bowline_reload_failures_total").await, 1);
    let failed = "bowline_config_last_reload_successful";
    assert_eq!(process.metric(failed).await, 0);
    assert_goes_on(&client.ping("one").await.unwrap());

    // A key that waits for a restart is named, and the good file ends the alarm.
    fs::write(process.config(), good.clone() + "affinity_ttl: 5m\n").unwrap();
    let output = cli(&process);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(words, "nothing changed\nneeds a restart: affinity_ttl\n");
    assert_eq!(process.metric(failed).await, 1);
    let health = process.admin("/health").await;
    assert!(!health.text().contains("the last reload was refused"));
}

#[tokio::test]
async fn a_file_that_changes_is_applied_by_itself() {
    let nodes = tigase_nodes(2).await;
    let start = Start {
        more: "log: { format: json }\nreload_on_change: true",
        ..Start::default()
    };
    let process = Process::start(&nodes[..1], &start).await;
    rewrite(&process, &[&nodes[0], &nodes[1]]);
    until_up(&process, "t2").await;
}

#[tokio::test]
async fn a_configuration_in_a_request_is_applied() {
    let nodes = tigase_nodes(2).await;
    let process = Process::start(&nodes[..1], &Start::default()).await;
    let text = fs::read_to_string(process.config()).unwrap();
    let more = format!(
        "  - {{ name: t2, address: '{}' }}\nthreads",
        nodes[1].address()
    );
    let text = text.replacen("threads", &more, 1);
    let put = async |body: &str| {
        let request = format!(
            "PUT /config HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Bowline: 1\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Client::to(process.admin)
            .deadline(PATIENCE)
            .post_raw(request.as_bytes())
            .await
            .unwrap()
    };
    assert_eq!(put("listen: [").await.status, 422);
    let reply = put(&text).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.text().contains("node t2 joins"), "{reply:?}");
    until_up(&process, "t2").await;
}
