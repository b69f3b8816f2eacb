//! A restart with a snapshot: no session is forgotten, nor what the operator decided.

use bowline::cluster::OperatorState;
use bowline::config::{NodeState, Placement, Snapshot};
use bowline::demo::client::Client;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::balancer::*;
use crate::cuts::number;
use crate::process::{Process, Start};
use crate::support::folder::Folder;
use crate::support::waiting::until;

/// The same session at another process.
fn moved(client: &Client, to: SocketAddr) -> Client {
    let mut next = Client::to(to).deadline(PATIENCE);
    next.adopt(client.sid(), client.rid());
    next
}

#[tokio::test]
async fn a_restart_forgets_no_session_and_no_operator_state() {
    let nodes = tigase_nodes(3).await;
    let folder = Folder::new("snapshot").unwrap();
    let mut settings = settings(&nodes);
    settings.placement = Placement::LeastSessions;
    settings.snapshot = Some(Snapshot {
        file: folder.path().join("sessions"),
        interval: Duration::from_secs(3600),
    });
    let old = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = old.session().await;
        client.ping("before").await.unwrap();
        clients.push(client);
    }
    let t2 = old.proxy().cluster.named("t2").unwrap().id;
    let now = SystemTime::now();
    let set = (old.proxy().cluster).set_state(t2, OperatorState::Drain, false, now);
    set.unwrap();
    assert_eq!(old.server.drain().await, 0);

    let new = Balancer::start(&settings).await;
    assert_eq!(new.metric("bowline_sessions_restored_total"), 24);
    for client in &clients {
        let node = owner(&nodes, client.sid());
        let mut client = moved(client, new.address());
        assert_goes_on(&client.ping("after").await.unwrap());
        assert_eq!(owner(&nodes, client.sid()), node);
    }
    assert_eq!(new.metric("bowline_unknown_sids_total"), 0);
    let t2 = new.proxy().cluster.named("t2").unwrap();
    assert_eq!(t2.state(), OperatorState::Drain);
    let before = t2.sessions.get();
    for _ in 0..4 {
        new.session().await;
    }
    assert_eq!(t2.sessions.get(), before, "it takes no new session");

    assert_eq!(new.server.drain().await, 0);
    settings.nodes[1].state = Some(NodeState::Maint);
    let last = Balancer::start(&settings).await;
    let t2 = last.proxy().cluster.named("t2").unwrap();
    assert_eq!(t2.state(), OperatorState::Maint, "the file comes first");
}

#[tokio::test]
async fn sessions_survive_a_kill_of_the_process() {
    let nodes = tigase_nodes(3).await;
    let folder = Folder::new("killed").unwrap();
    let file = folder.path().join("sessions");
    let more = format!(
        "log: {{ format: json }}\nplacement: round-robin\nsnapshot: {{ file: '{}', interval: 1s }}",
        file.display()
    );
    let start = Start {
        more: &more,
        ..Start::default()
    };
    let old = Process::start(&nodes, &start).await;
    let mut clients = Vec::new();
    let sessions = number("KILLED", 12);
    for _ in 0..sessions {
        let mut client = old.client();
        client.create().await.unwrap();
        client.ping("before").await.unwrap();
        clients.push(client);
    }
    let saved = async || old.metric("bowline_snapshot_sessions").await == sessions as u64;
    assert!(until(PATIENCE, saved).await, "the snapshot has them");
    old.signal("KILL");
    drop(old);

    let new = Process::start(&nodes, &start).await;
    new.line("the snapshot", |line| {
        line["message"] == "snapshot read" && line["restored"] == sessions
    })
    .await;
    for client in &clients {
        let mut client = moved(client, new.address);
        assert_goes_on(&client.ping("after").await.unwrap());
    }
    assert_eq!(new.metric("bowline_unknown_sids_total").await, 0);
}

#[tokio::test]
async fn a_foreign_file_prevents_no_start() {
    let nodes = tigase_nodes(1).await;
    let folder = Folder::new("foreign").unwrap();
    let file = folder.write("sessions", "not a snapshot").unwrap();
    let more = format!(
        "log: {{ format: json }}\nsnapshot: {{ file: '{}' }}",
        file.display()
    );
    let start = Start {
        more: &more,
        ..Start::default()
    };
    let process = Process::start(&nodes, &start).await;
    process
        .line("a warning", |line| {
            let message = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN" && message.starts_with("the snapshot cannot be used")
        })
        .await;
    let mut client = process.client();
    client.create().await.unwrap();
    assert_goes_on(&client.ping("one").await.unwrap());
    assert!(folder.path().join("sessions.broken").exists());
}
