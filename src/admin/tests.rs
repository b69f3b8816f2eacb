//! The admin listener over real sockets.

mod bounds;
mod changes;
mod streams;

use std::time::SystemTime;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::tests::settings;
use crate::cluster::{NodeId, Penalty, Share, Verdict};
use crate::config::Placement;

const T1: NodeId = NodeId(0);
const T2: NodeId = NodeId(1);

/// An admin listener before a cluster of two nodes, t1 and t2.
struct Admin {
    address: SocketAddr,
    state: Arc<AdminState>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// An answer, read to the end of its connection.
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json\r\n"));
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Admin {
    async fn start() -> Self {
        Self::with(AccessControl::default()).await
    }

    async fn with(access: AccessControl) -> Self {
        Self::of_scope(Scope::Admin, access).await
    }

    async fn of_scope(scope: Scope, access: AccessControl) -> Self {
        let metrics = Arc::new(Metrics::new());
        let cluster = Cluster::new(&settings(2, Placement::ClientIp), &metrics);
        let state = AdminState::new(
            Arc::new(cluster),
            metrics,
            access,
            mpsc::channel(1).0,
            || (),
        );
        let state = Arc::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        let task = tokio::spawn(serve(listener, scope, Arc::clone(&state), stopped));
        Self {
            address,
            state,
            stop,
            task,
        }
    }

    fn verdict(&self, id: NodeId, up: bool) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        self.state
            .cluster
            .set_verdict(id, if up { Verdict::Up } else { Verdict::Down }, at);
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` as it is and reads until the end.
    async fn raw(&self, request: &str) -> Response {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        Response {
            status: head[9..12].parse().unwrap(),
            head: format!("{head}\r\n"),
            body: body.to_owned(),
        }
    }

    async fn ask(&self, method: &str, path: &str) -> Response {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.raw(&request).await
    }

    async fn get(&self, path: &str) -> Response {
        self.ask("GET", path).await
    }

    async fn ready(&self) -> (u16, String) {
        let answer = self.get("/ready").await;
        (answer.status, answer.body)
    }
}

#[tokio::test]
async fn it_is_live_before_anything_is_known() {
    let admin = Admin::start().await;
    assert_eq!(admin.get("/live").await.status, 200);
    let help = admin.get("/help").await;
    assert_eq!(help.status, 200);
    for path in [
        "/live", "/ready", "/health", "/nodes", "/events", "/history", "/stream", "/metrics",
    ] {
        assert!(help.body.contains(path), "{path}");
    }
}

#[tokio::test]
async fn the_page_comes_with_its_guards() {
    let admin = Admin::start().await;
    let page = admin.get("/").await;
    assert_eq!((page.status, page.body.as_str()), (200, page::PAGE));
    for line in [
        "content-type: text/html; charset=utf-8\r\n",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "; frame-ancestors 'none';",
        "x-content-type-options: nosniff\r\n",
        "x-frame-options: DENY\r\n",
        "referrer-policy: no-referrer\r\n",
        "cache-control: no-store\r\n",
    ] {
        assert!(page.head.contains(line), "{line}: {}", page.head);
    }
    assert!(!page.body.contains("t1"), "nothing of the cluster");
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(admin.raw(rebound).await.status, 421);
    let head = admin.ask("HEAD", "/").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn it_is_ready_when_all_are_probed_and_one_is_up_until_the_drain() {
    let admin = Admin::start().await;
    let not_yet = (503, "node t1 has not been probed yet\n".to_owned());
    assert_eq!(admin.ready().await, not_yet);
    admin.verdict(T1, true);
    let not_yet = (503, "node t2 has not been probed yet\n".to_owned());
    assert_eq!(admin.ready().await, not_yet);
    admin.verdict(T2, false);
    assert_eq!(admin.ready().await, (200, "ready\n".to_owned()));
    admin.verdict(T1, false);
    assert_eq!(admin.ready().await, (503, "no node is up\n".to_owned()));
    admin.verdict(T2, true);
    assert_eq!(admin.ready().await.0, 200);
    admin.state.begin_drain();
    assert_eq!(admin.ready().await, (503, "draining\n".to_owned()));
    assert_eq!(admin.get("/live").await.status, 200);
}

#[tokio::test]
async fn health_tells_the_state_of_every_node() {
    let admin = Admin::start().await;
    let health = admin.get("/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["status"], "down");
    assert_eq!(health.json()["nodes"][0]["verdict"], "unknown");
    assert_eq!(health.json()["nodes"][0]["since"], Value::Null);

    admin.verdict(T1, true);
    admin.verdict(T2, false);
    let t2 = admin.state.cluster.node(T2);
    t2.sessions.add(7);
    t2.held.add(3);
    t2.set_share(Share(250));
    t2.set_penalty(Penalty {
        falls: 3,
        length: Duration::from_secs(10),
    });
    t2.probe_failed(
        "connection refused".into(),
        "refused",
        SystemTime::UNIX_EPOCH,
    );
    let health = admin.get("/health").await;
    assert_eq!(health.status, 200);
    let json = health.json();
    assert_eq!(json["status"], "degraded");
    assert_eq!(
        (&json["schema"], &json["draining"]),
        (&1.into(), &false.into())
    );
    let reason = "node t2 is down since 2001-09-09T01:46:40Z: connection refused";
    assert_eq!(json["reasons"], serde_json::json!([reason]));
    assert_eq!((&json["sessions"], &json["held"]), (&7.into(), &3.into()));
    assert_eq!(json["nodes"][0]["last_failure"], Value::Null);
    let expected = serde_json::json!({
        "name": "t2",
        "address": "192.0.2.2:5280",
        "resolved": ["192.0.2.2:5280"],
        "state": "ready",
        "state_since": null,
        "verdict": "down",
        "since": "2001-09-09T01:46:40Z",
        "weight": 1,
        "backup": false,
        "zone": null,
        "share": 0.25,
        "until": null,
        "falls": 3,
        "penalty_seconds": 10.0,
        "sessions": 7,
        "held": 3,
        "tunnels": 0,
        "creations_per_second": 0.0,
        "error_share_1m": null,
        "error_share_5m": null,
        "p50_ms": null,
        "p99_ms": null,
        "probe_p50_ms": null,
        "probe_p99_ms": null,
        "last_failure": { "what": "connection refused", "when": "1970-01-01T00:00:00Z" },
    });
    assert_eq!(json["nodes"][1], expected);
    assert_eq!(admin.get("/nodes").await.json(), json["nodes"]);
    for path in ["/nodes/t2", "/nodes/t2/state"] {
        assert_eq!(admin.get(path).await.json(), json["nodes"][1]);
    }

    admin.verdict(T2, true);
    assert_eq!(admin.get("/health").await.json()["status"], "ok");
}

#[tokio::test]
async fn a_full_table_is_a_reason() {
    let admin = Admin::start().await;
    admin.verdict(T1, true);
    admin.verdict(T2, true);
    admin.state.metrics.connections_limit.set(10);
    admin.state.metrics.connections.set(8);
    assert_eq!(admin.get("/health").await.json()["status"], "ok");
    admin.state.metrics.connections.set(9);
    let health = admin.get("/health").await.json();
    assert_eq!(health["status"], "degraded");
    let reason = "client connections are near their limit: 9 of 10";
    assert_eq!(health["reasons"], serde_json::json!([reason]));
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let admin = Admin::start().await;
    admin.verdict(T1, true);
    let older = admin.get("/metrics").await;
    let newer = admin
        .raw(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.3\r\n\r\n",
        )
        .await;
    for (metrics, kind) in [
        (&older, "text/plain; version=0.0.4"),
        (&newer, "application/openmetrics-text; version=1.0.0"),
    ] {
        assert_eq!(metrics.status, 200);
        let expected = format!("content-type: {kind}; charset=utf-8\r\n");
        assert!(metrics.head.contains(&expected), "{}", metrics.head);
        assert!(metrics.head.contains("cache-control: no-store\r\n"));
        assert!(metrics.body.contains("bowline_node_up{node=\"t1\"} 1\n"));
        assert!(metrics.body.contains("bowline_node_up{node=\"t2\"} 0\n"));
        let open = metrics
            .body
            .lines()
            .find(|line| line.starts_with("process_open_fds "));
        assert!(open.is_some_and(|line| !line.ends_with(" 0")), "{open:?}");
    }
    assert!(newer.body.contains("# TYPE bowline_requests counter\n"));
    assert!(newer.body.ends_with("# EOF\n"));
    assert!(
        older
            .body
            .contains("# TYPE bowline_requests_total counter\n")
    );
    assert!(!older.body.contains("# EOF"));
}

#[tokio::test]
async fn health_shows_the_load_of_the_process() {
    let admin = Admin::start().await;
    let before = admin.get("/health").await.json();
    assert_eq!(before["rejects_5m"], serde_json::json!({}));
    assert_eq!(before["memory_bytes"], Value::Null);
    let metrics = &admin.state.metrics;
    metrics.count_reject("no_node");
    metrics.count_reject("no_node");
    metrics.set_process(&Process::read().unwrap());
    let health = admin.get("/health").await.json();
    assert_eq!(health["rejects_5m"], serde_json::json!({ "no_node": 2 }));
    assert!(health["memory_bytes"].as_u64() > Some(1 << 20), "{health}");
    let open = health["open_fds"].as_u64();
    assert!(
        open > Some(3) && open < health["max_fds"].as_u64(),
        "{health}"
    );
    assert!(health["requests_per_second"].is_number(), "{health}");
    assert!(health["nodes"][0].get("probe_p50_ms").is_some(), "{health}");
    let read: report::Health = serde_json::from_value(health).unwrap();
    assert_eq!(read.load.rejects_5m["no_node"], 2);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let admin = Admin::start().await;
    for path in [
        "/", "/live", "/ready", "/nodes", "/events", "/history", "/none",
    ] {
        let (get, head) = (admin.get(path).await, admin.ask("HEAD", path).await);
        assert_eq!(get.status, head.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        let length = format!("content-length: {}\r\n", get.body.len());
        assert!(head.head.contains(&length), "{path}: {}", head.head);
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_in_words() {
    let admin = Admin::start().await;
    let unknown = admin.get("/sessions/../\"x\"").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["error"].is_string());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let refused = admin.ask(method, "/health").await;
        assert_eq!(refused.status, 405);
        assert!(
            refused.head.contains("allow: GET, HEAD\r\n"),
            "{}",
            refused.head
        );
        assert!(refused.json()["error"].is_string());
    }
}

#[tokio::test]
async fn a_body_is_refused_and_ends_the_connection() {
    let admin = Admin::start().await;
    for framing in [
        "Content-Length: 2\r\n\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{framing}");
        let refused = admin.raw(&request).await;
        assert_eq!(refused.status, 413, "{framing}");
        assert!(refused.head.contains("connection: close\r\n"));
    }
    let posted = "POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(admin.raw(posted).await.status, 405);
}

#[tokio::test]
async fn a_connection_takes_one_request_after_the_other() {
    let admin = Admin::start().await;
    let request = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = admin.raw(&format!("{request}{last}")).await;
    assert_eq!(answer.body.matches("HTTP/1.1 200 OK\r\n").count(), 1);
    assert!(answer.body.ends_with("live\n"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_cut_off() {
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    let begun = Instant::now();
    stream.write_all(b"GET /live HTTP/1.1\r\nHo").await.unwrap();
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= HEAD_TIMEOUT && took < MAX_AGE, "{took:?}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_free_slot() {
    let admin = Admin::start().await;
    let mut idle = vec![];
    for _ in 0..MAX_CONNECTIONS {
        idle.push(admin.connect().await);
    }
    let mut waiting = pin!(admin.get("/live"));
    let early = timeout(Duration::from_millis(100), waiting.as_mut()).await;
    assert!(early.is_err(), "answered beyond the limit");
    idle.pop();
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn stopping_closes_the_listener_and_idle_connections() {
    let admin = Admin::start().await;
    let mut idle = admin.connect().await;
    idle.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    admin.stop.send(()).unwrap();
    let mut rest = vec![];
    idle.read_to_end(&mut rest).await.unwrap();
    admin.task.await.unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
    assert_eq!(Arc::strong_count(&admin.state), 1);
}

#[tokio::test]
async fn the_address_for_probes_serves_three_endpoints_to_everyone() {
    let file = std::env::temp_dir().join(format!("bowline-probes-{}", std::process::id()));
    std::fs::write(&file, "correct-horse-battery\n").unwrap();
    let settings = crate::config::Admin {
        token_file: Some(file.clone()),
        ..crate::config::Admin::default()
    };
    let access = AccessControl::load(&settings).unwrap();
    std::fs::remove_file(&file).unwrap();
    let admin = Admin::of_scope(Scope::Probes, access).await;
    admin.verdict(T1, true);
    admin.verdict(T2, true);
    for path in ["/live", "/ready", "/metrics"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: bowline.ns.svc\r\nConnection: close\r\n\r\n");
        let answer = admin.raw(&request).await;
        assert_eq!(answer.status, 200, "{path}");
        let put = admin.ask("PUT", path).await;
        assert_eq!(put.status, 405, "{path}");
        assert!(put.head.contains("allow: GET, HEAD\r\n"), "{}", put.head);
    }
    for path in [
        "/", "/help", "/health", "/nodes", "/events", "/stream", "/x",
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("only /live, /ready and /metrics"));
    }
    for path in ["/nodes/t1/state?state=drain", "/config"] {
        assert_eq!(admin.ask("PUT", path).await.status, 404, "{path}");
    }
    let state = admin.state.cluster.node(T1).state();
    assert_eq!(state, crate::cluster::OperatorState::Ready);
}
