//! The list of nodes for clients that choose a node themselves, and the client of docs/guides/tigase.md.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bowline::cluster::OperatorState;
use bowline::config::{NodeList, Origins, Settings};
use bowline::demo::client::Reply;
use bowline::demo::node::{Ending, Kind, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::balancer::*;
use crate::support::folder::Folder;

const HOST_META: &str = "/.well-known/host-meta";
const HOST_META_JSON: &str = "/.well-known/host-meta.json";
const RELATION: &str = "urn:xmpp:alt-connections:xbosh";

fn url(node: &Node) -> String {
    format!("http://{}/http-bind", node.address())
}

/// Settings with a list of these nodes.
fn listing(nodes: &[Node]) -> Settings {
    let mut settings = settings(nodes);
    settings.node_list = Some(NodeList {
        path: "/nodes.json".to_owned(),
        max_age: Duration::from_secs(7),
        host_meta: true,
    });
    for (settings, node) in settings.nodes.iter_mut().zip(nodes) {
        settings.public_url = Some(url(node));
    }
    settings
}

async fn ask(balancer: &Balancer, line: &str) -> Reply {
    let request = format!("{line} HTTP/1.1\r\nHost: a\r\nOrigin: https://chat.example.com\r\n\r\n");
    let client = balancer.client();
    client.post_raw(request.as_bytes()).await.unwrap()
}

async fn list(balancer: &Balancer) -> Value {
    let reply = ask(balancer, "GET /nodes.json").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(reply.text()).unwrap()
}

/// The names in the list.
async fn names(balancer: &Balancer) -> Vec<String> {
    let list = list(balancer).await;
    let nodes = list["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn until_listed(balancer: &Balancer, wanted: &[&str]) {
    let look = async {
        while names(balancer).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, look).await.expect("the list changes");
}

fn verdict_of(balancer: &Balancer, index: usize) -> bool {
    balancer.proxy().cluster.nodes()[index].is_up()
}

#[tokio::test]
async fn the_list_has_the_nodes_with_a_url_that_are_up_and_ready() {
    let nodes = tigase_nodes(3).await;
    let mut settings = listing(&nodes);
    settings.nodes[0].weight = 3;
    settings.nodes[2].public_url = None;
    let balancer = Balancer::start(&settings).await;
    let expected = json!({ "nodes": [
        { "name": "t1", "public_url": url(&nodes[0]), "weight": 3.0 },
        { "name": "t2", "public_url": url(&nodes[1]), "weight": 1.0 },
    ] });
    assert_eq!(list(&balancer).await, expected);

    let change = |index: usize, state| {
        let cluster = &balancer.proxy().cluster;
        let id = cluster.nodes()[index].id;
        cluster
            .set_state(id, state, true, std::time::SystemTime::now())
            .unwrap();
    };
    for state in [OperatorState::Drain, OperatorState::Maint] {
        change(0, state);
        assert_eq!(names(&balancer).await, ["t2"], "{state:?}");
        change(0, OperatorState::Ready);
        assert_eq!(names(&balancer).await, ["t1", "t2"], "{state:?}");
    }

    nodes[1].kill(Ending::Eof).await;
    eventually("t2 is down", || !verdict_of(&balancer, 1)).await;
    assert_eq!(names(&balancer).await, ["t1"]);
    nodes[0].kill(Ending::Eof).await;
    eventually("t1 is down", || !verdict_of(&balancer, 0)).await;
    let empty = ask(&balancer, "GET /nodes.json").await;
    assert_eq!((empty.status, empty.text()), (200, r#"{"nodes":[]}"#));
    // To keep it would keep clients away from the first node that comes back.
    assert_eq!(empty.header("cache-control"), Some("no-store"));
}

/// A node that came back has its share of new clients, as it has of new sessions.
#[tokio::test]
async fn a_node_that_came_back_has_less_weight_for_a_while() {
    let nodes = tigase_nodes(2).await;
    let mut settings = listing(&nodes);
    settings.health.slow_start = Duration::from_secs(3600);
    settings.health.penalty = Duration::ZERO;
    let balancer = Balancer::start(&settings).await;
    nodes[1].kill(Ending::Eof).await;
    eventually("t2 is down", || !verdict_of(&balancer, 1)).await;
    nodes[1].revive().await.unwrap();
    until_listed(&balancer, &["t1", "t2"]).await;
    let list = list(&balancer).await;
    assert_eq!(list["nodes"][0]["weight"], json!(1.0));
    assert_eq!(list["nodes"][1]["weight"], json!(0.1));
}

#[tokio::test]
async fn host_meta_has_a_link_to_each_node() {
    let nodes = tigase_nodes(3).await;
    let mut settings = listing(&nodes);
    settings.nodes[1].public_url = Some("https://t2.example.com/a&b'c".to_owned());
    let balancer = Balancer::start(&settings).await;
    let (first, last) = (url(&nodes[0]), url(&nodes[2]));

    let reply = ask(&balancer, &format!("GET {HOST_META}")).await;
    assert_eq!(
        reply.header("content-type"),
        Some("application/xrd+xml; charset=utf-8")
    );
    let expected = format!(
        "<?xml version='1.0' encoding='utf-8'?>\n\
         <XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n\
         <Link rel='{RELATION}' href='{first}'/>\n\
         <Link rel='{RELATION}' href='https://t2.example.com/a&amp;b&apos;c'/>\n\
         <Link rel='{RELATION}' href='{last}'/>\n\
         </XRD>\n"
    );
    assert_eq!(reply.text(), expected);

    let reply = ask(&balancer, &format!("GET {HOST_META_JSON}")).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let links: Value = serde_json::from_str(reply.text()).unwrap();
    let expected = json!({ "links": [
        { "rel": RELATION, "href": first },
        { "rel": RELATION, "href": "https://t2.example.com/a&b'c" },
        { "rel": RELATION, "href": last },
    ] });
    assert_eq!(links, expected);
}

#[tokio::test]
async fn methods_and_headers_of_the_lists() {
    let nodes = tigase_nodes(1).await;
    let mut settings = listing(&nodes);
    settings.cors.origins = Origins::Only(vec!["https://chat.example.com".to_owned()]);
    settings.cors.credentials = true;
    settings.cors.headers = vec!["Authorization".to_owned()];
    let balancer = Balancer::start(&settings).await;
    for path in ["/nodes.json", "/nodes.json?now", HOST_META, HOST_META_JSON] {
        let get = ask(&balancer, &format!("GET {path}")).await;
        assert_eq!(get.status, 200, "{path}: {get:?}");
        assert_eq!(get.header("cache-control"), Some("max-age=7"), "{get:?}");
        let length = get.header("content-length").unwrap().to_owned();

        // The answer to HEAD ends with its head: nothing is in front of the next one.
        let both = format!(
            "HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\nGET /other HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let text = crate::http::raw(&balancer, both.as_bytes()).await;
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            head.contains(&format!("content-length: {length}")),
            "{text}"
        );
        assert!(rest.starts_with("HTTP/1.1 404 "), "{text}");

        let options = ask(&balancer, &format!("OPTIONS {path}")).await;
        assert_eq!(options.status, 200, "{path}: {options:?}");
        let allowed = options.header("access-control-allow-headers");
        assert_eq!(allowed, Some("Content-Type, Authorization"));
        for method in ["POST", "PUT", "DELETE", "TRACE"] {
            let refused = ask(&balancer, &format!("{method} {path}")).await;
            assert_eq!(refused.status, 405, "{method} {path}: {refused:?}");
            assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
            assert_eq!(refused.header("connection"), Some("close"));
        }
        for reply in [get, options] {
            let origin = reply.header("access-control-allow-origin");
            assert_eq!(origin, Some("https://chat.example.com"), "{reply:?}");
            let credentials = reply.header("access-control-allow-credentials");
            assert_eq!(credentials, Some("true"), "{reply:?}");
        }
    }
    assert_eq!(
        balancer.metric("bowline_requests_total{kind=\"other\",outcome=\"ok\"}"),
        8
    );
}

#[tokio::test]
async fn without_the_settings_there_is_no_list() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    for path in ["/nodes.json", HOST_META, HOST_META_JSON] {
        assert_eq!(
            ask(&balancer, &format!("GET {path}")).await.status,
            404,
            "{path}"
        );
    }
    let mut settings = listing(&nodes);
    let list = settings.node_list.as_mut().unwrap();
    (list.path, list.host_meta) = ("/bosh-nodes".to_owned(), false);
    let balancer = Balancer::start(&settings).await;
    for (path, status) in [
        ("/bosh-nodes", 200),
        ("/bosh-nodes/", 404),
        (HOST_META, 404),
    ] {
        assert_eq!(
            ask(&balancer, &format!("GET {path}")).await.status,
            status,
            "{path}"
        );
    }
}

/// The client that docs/guides/tigase.md shows, to the letter.
fn documented_client() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/tigase.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, after) = page.split_once("```js client\n").expect("the client");
    let (script, _) = after.split_once("```").expect("its end");
    script.to_owned()
}

/// The documented client, run by Node.js against a list.
struct Script {
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    _child: Child,
    _folder: Folder,
}

impl Script {
    fn start(balancer: &Balancer) -> Self {
        let folder = Folder::new("client").unwrap();
        folder.write("client.mjs", &documented_client()).unwrap();
        let start = format!(
            "import {{ stayOnline }} from './client.mjs';\n\
             await stayOnline('http://{}/nodes.json', 'example.com', (event) => console.log(event));\n",
            balancer.address()
        );
        let start = folder.write("start.mjs", &start).unwrap();
        let mut child = Command::new("node")
            .arg(start)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            lines,
            _child: child,
            _folder: folder,
        }
    }

    /// The next thing that it says.
    async fn next(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("a line in time").unwrap().expect("it goes on")
    }
}

fn is_there_node() -> bool {
    let node = std::process::Command::new("node").arg("--version").output();
    let is_there = node.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: Node.js is missing, which runs the client of docs/guides/tigase.md");
    }
    is_there
}

#[tokio::test]
async fn the_documented_client_goes_on_at_another_node() {
    assert!(documented_client().lines().count() <= 30);
    if !is_there_node() {
        return;
    }
    let nodes = tigase_nodes(4).await;
    let mut settings = listing(&nodes);
    // The list names a dead node all the while: the client has to leave it out itself.
    settings.health.interval = Duration::from_secs(3600);
    settings.health.fall = 100;
    let balancer = Balancer::start(&settings).await;
    let mut script = Script::start(&balancer);
    let mut left: Vec<&Node> = nodes.iter().collect();
    while left.len() > 1 {
        let said = script.next().await;
        let name = said.strip_prefix("online at ").expect(&said);
        let at = left.iter().position(|node| node.name() == name);
        let node = left.remove(at.expect("a node that lives"));
        assert!(script.next().await.contains("<stream:features"));
        // It stays there: one session, whose polls are held one after the other.
        node.wait_until(|node| node.held() == 1).await.unwrap();
        let [sid] = &node.sessions()[..] else {
            panic!("one session at {name}");
        };
        for number in 0..2 {
            let polls = node.count(|seen| seen.kind == Kind::Poll);
            assert!(node.push(sid, format!("<message id='{number}'/>")));
            node.wait_until(|node| node.count(|seen| seen.kind == Kind::Poll) > polls)
                .await
                .unwrap();
            let said = script.next().await;
            assert!(
                said.contains(&format!("<message id='{number}'/>")),
                "{said}"
            );
        }
        // The first one stays dead. The others live again at once, and yet the client leaves them out.
        node.kill(Ending::Eof).await;
        if left.len() < 3 {
            node.revive().await.unwrap();
        }
    }
    let last = left[0].name();
    assert_eq!(script.next().await, format!("online at {last}"));
    // Nothing of the sessions went through the balancer.
    assert_eq!(
        balancer.metric("bowline_requests_total{kind=\"creation\""),
        0
    );

    // When the rest is empty, every node has its turn again.
    left[0].kill(Ending::Reset).await;
    loop {
        let said = script.next().await;
        if let Some(name) = said.strip_prefix("online at ") {
            assert_ne!(name, last);
            return;
        }
    }
}
