//! The operator looks at sessions, ends some, and waits until a drained node is empty.

use std::process::Stdio;

use bowline::config::{AdminToken, Placement, Role};
use bowline::demo::client::{Client, Reply};
use bowline::demo::node::Node;
use serde_json::Value;
use tokio::process::Command;

use crate::balancer::{
    Balancer, PATIENCE, assert_goes_on, assert_item_not_found, eventually, owner, settings,
    tigase_nodes,
};
use crate::operator::admin;
use crate::support::folder::Folder;

/// Asks with a token.
async fn with_token(balancer: &Balancer, token: &str, method: &str, target: &str) -> Reply {
    let address = balancer.server.admin_address().unwrap();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Bowline: 1\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    let client = Client::to(address).deadline(PATIENCE);
    client.post_raw(request.as_bytes()).await.unwrap()
}

fn json(reply: &Reply) -> Value {
    serde_json::from_str(reply.text()).unwrap()
}

/// A balancer of round robin in front of `nodes`, with a token for each role.
async fn balancer(nodes: &[Node], folder: &Folder) -> Balancer {
    let mut settings = settings(nodes);
    settings.placement = Placement::RoundRobin;
    let token = |name: &str, role| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("the-token-of-{name}")).unwrap();
        AdminToken {
            name: name.to_owned(),
            file,
            role,
        }
    };
    let tokens = vec![
        token("reader", Role::Read),
        token("operator", Role::Operate),
    ];
    settings.admin.as_mut().unwrap().tokens = tokens;
    Balancer::start(&settings).await
}

const READER: &str = "the-token-of-reader";
const OPERATOR: &str = "the-token-of-operator";

#[tokio::test]
async fn sessions_are_listed_and_only_an_operator_sees_whole_sids() {
    let (nodes, folder) = (tigase_nodes(2).await, Folder::new("sessions").unwrap());
    let balancer = balancer(&nodes, &folder).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(balancer.session().await);
    }
    let held = clients[0].begin_poll().await.unwrap();
    eventually("the poll is held", || balancer.held() == 1).await;
    let whole = json(&with_token(&balancer, OPERATOR, "GET", "/sessions").await);
    assert_eq!((&whole["total"], &whole["active"]), (&6.into(), &1.into()));
    let listed = whole["sessions"].as_array().unwrap();
    let mut sids: Vec<&str> = listed
        .iter()
        .map(|one| one["sid"].as_str().unwrap())
        .collect();
    assert_eq!(
        sids.last(),
        Some(&clients[0].sid()),
        "the active one is last"
    );
    sids.sort_unstable();
    let mut expected: Vec<&str> = clients.iter().map(Client::sid).collect();
    expected.sort_unstable();
    assert_eq!(sids, expected);

    let cut = with_token(
        &balancer,
        READER,
        "GET",
        "/sessions?node=t2&limit=2&offset=2",
    )
    .await;
    let page = json(&cut);
    assert_eq!((&page["total"], &page["offset"]), (&3.into(), &2.into()));
    let page = page["sessions"].as_array().unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0]["node"], "t2");
    assert_eq!(page[0]["sid"].as_str().unwrap().chars().count(), 7);
    assert!(
        clients
            .iter()
            .all(|client| !cut.text().contains(client.sid()))
    );
    let sid = clients[1].sid();
    let one = with_token(&balancer, OPERATOR, "GET", &format!("/sessions/{sid}")).await;
    assert_eq!(json(&one)["sid"], sid);
    assert_eq!(json(&one)["requests"], 0);

    for (token, method, target, status) in [
        (READER, "DELETE", format!("/sessions/{sid}"), 403),
        (
            READER,
            "DELETE",
            "/sessions?node=t1&limit=1".to_owned(),
            403,
        ),
        (OPERATOR, "DELETE", "/sessions?node=t1".to_owned(), 400),
        (OPERATOR, "DELETE", "/sessions".to_owned(), 400),
        (OPERATOR, "GET", "/sessions?node=t9".to_owned(), 404),
        (OPERATOR, "GET", "/sessions?x=1".to_owned(), 400),
        (OPERATOR, "GET", format!("/sessions/{}", &sid[..6]), 404),
        (OPERATOR, "PUT", "/sessions".to_owned(), 405),
        ("a-token-that-is-none", "GET", "/sessions".to_owned(), 401),
    ] {
        let reply = with_token(&balancer, token, method, &target).await;
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert!(!reply.text().contains(sid));
    }
    drop(held);
}

#[tokio::test]
async fn without_a_token_no_sid_is_whole() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let list = admin(&balancer, "GET", "/sessions").await;
    let sid = json(&list)["sessions"][0]["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(sid, format!("{}…", &client.sid()[..6]));
}

#[tokio::test]
async fn a_session_that_the_operator_ends_gets_its_answer_and_then_its_end() {
    let (nodes, folder) = (tigase_nodes(2).await, Folder::new("ended").unwrap());
    let balancer = balancer(&nodes, &folder).await;
    let mut client = balancer.session().await;
    let poll = client.begin_poll().await.unwrap();
    eventually("the poll is held", || balancer.held() == 1).await;
    let node = &nodes[owner(&nodes, client.sid())];
    let target = format!("/sessions/{}", client.sid());
    let ended = with_token(&balancer, OPERATOR, "DELETE", &target).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    let again = with_token(&balancer, OPERATOR, "DELETE", &target).await;
    assert_eq!(again.status, 404);
    assert!(node.push(client.sid(), "<message><body>late</body></message>"));
    let answer = poll.reply().await.unwrap();
    assert_goes_on(&answer);
    assert!(answer.text().contains("late"), "{answer:?}");
    assert_item_not_found(&client.poll().await.unwrap());
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"session_closed\"}"),
        1
    );
    assert_eq!(balancer.metric("bowline_sessions{"), 0);
    let events = balancer.proxy().cluster.events.since(0);
    let last = events.last().unwrap();
    assert_eq!(last.kind.word(), "sessions_ended");
    assert_eq!(
        last.text,
        format!("operator ended a session of {}", node.name())
    );
    client.create().await.unwrap();
}

/// `bowline` with these arguments against `balancer`.
pub(crate) fn bowline(balancer: &Balancer, arguments: &[&str]) -> Command {
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command
        .args(arguments)
        .env("BOWLINE_ADMIN", url)
        .env_remove("BOWLINE_TOKEN_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_drain_waits_until_the_last_session_leaves() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let name = nodes[owner(&nodes, client.sid())].name().to_owned();
    let waiting = bowline(&balancer, &["drain", &name, "--wait"])
        .spawn()
        .unwrap();
    let node = balancer.proxy().cluster.named(&name).unwrap();
    eventually("it drains", || node.state().word() == "drain").await;
    assert_goes_on(&client.ping("1").await.unwrap());
    assert!(client.terminate().await.unwrap().is_terminate());
    let ended = waiting.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let out = String::from_utf8(ended.stdout).unwrap();
    let last = format!("{name}: no session left\n");
    assert!(out.ends_with(&last), "{out}");
}

#[tokio::test]
async fn at_the_deadline_a_drain_ends_the_rest_and_their_clients_log_in_elsewhere() {
    let nodes = tigase_nodes(2).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(balancer.session().await);
    }
    let arguments = ["drain", "t1", "--wait", "--deadline", "10ms", "--rate", "3"];
    let waiting = bowline(&balancer, &arguments).spawn().unwrap();
    let ended = waiting.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let mut moved = 0;
    for client in &mut clients {
        if owner(&nodes, client.sid()) == 1 {
            continue;
        }
        assert_item_not_found(&client.poll().await.unwrap());
        client.create().await.unwrap();
        assert_eq!(owner(&nodes, client.sid()), 1);
        moved += 1;
    }
    assert_eq!(moved, 4);
    assert_eq!(
        balancer.metric("bowline_rejects_total{cause=\"session_closed\"}"),
        4
    );
}

#[tokio::test]
async fn a_drain_that_is_taken_back_ends_no_session() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let client = balancer.session().await;
    let name = nodes[owner(&nodes, client.sid())].name().to_owned();
    let mut command = bowline(&balancer, &["drain", &name, "--wait", "--deadline", "1h"]);
    let waiting = command.spawn().unwrap();
    let node = balancer.proxy().cluster.named(&name).unwrap();
    eventually("it drains", || node.state().word() == "drain").await;
    let ready = bowline(&balancer, &["ready", &name])
        .output()
        .await
        .unwrap();
    assert!(ready.status.success(), "{ready:?}");
    let ended = waiting.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let words = "a node is in service again: no session of it is ended\n";
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), words);
    assert_eq!(balancer.metric("bowline_sessions{"), 1);
}
