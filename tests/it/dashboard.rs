//! The queries of the dashboard and of the alerts, asked of a real Prometheus that scraped a
//! balancer at work. Skipped aloud where it is not installed (Debian: `prometheus`).

use std::process::Stdio;
use std::time::Duration;

use bowline::config::{Placement, Settings};
use bowline::demo::client::Client;
use bowline::demo::node::{Ending, Node};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::balancer::{Balancer, PATIENCE, eventually, settings, tigase_nodes};
use crate::monitoring::{expressions, root};
use crate::operator::admin;
use crate::support::folder::Folder;
use crate::support::program::free_address;

/// Scrapes, one each half second, that lie between the first and the last question.
const SCRAPES: f64 = 8.0;

/// A Prometheus that scrapes one balancer.
struct Prometheus {
    port: u16,
    _folder: Folder,
    _process: Child,
}

impl Prometheus {
    /// None if it is not installed.
    fn start(target: &str) -> Option<Self> {
        let folder = Folder::new("prometheus").unwrap();
        let rules = root().join("deploy/prometheus/alerts.yaml");
        let text = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: bowline\n    static_configs: [{{ targets: [{target:?}] }}]\n"
        );
        let file = folder.write("prometheus.yml", &text).unwrap();
        let port = free_address().unwrap().port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .kill_on_drop(true);
        match command.spawn() {
            Ok(process) => Some(Self {
                port,
                _folder: folder,
                _process: process,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: no prometheus (Debian: apt-get install prometheus)");
                None
            }
            Err(error) => panic!("prometheus: {error}"),
        }
    }

    /// What it answers to a `GET`; none while it does not listen.
    async fn get(&self, target: &str) -> Option<Value> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let talk = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = talk.ok()?;
        let connection = tokio::spawn(connection);
        let request = Request::get(target).header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        connection.abort();
        serde_json::from_slice(&body).ok()
    }

    /// The samples that a query finds now.
    async fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let coded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let target = format!("/api/v1/query?query={coded}");
        let answer = self.get(&target).await.ok_or("no answer")?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let samples = answer["data"]["result"].as_array().ok_or("no result")?;
        let value = |sample: &Value| {
            sample["value"][1]
                .as_str()
                .and_then(|text| text.parse().ok())
        };
        Ok(samples.iter().filter_map(value).collect())
    }
}

/// A little of everything, for ever: sessions that come, talk and go, some that are unknown, and
/// requests that the admin listener refuses.
async fn work(balancer: &Balancer) {
    let admin = Client::to(balancer.server.admin_address().unwrap()).deadline(PATIENCE);
    for number in 0.. {
        let mut client = balancer.session().await;
        let mut stranger = balancer.client();
        stranger.adopt(&format!("nobody-{number}"), 7);
        // What comes of each is told by the metrics; a node is being killed meanwhile.
        let _ = client.ping("1").await;
        let _ = stranger.poll().await;
        let _ = client.terminate().await;
        let _ = balancer.client().post("<body/>").await;
        let foreign = b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        let _ = admin.post_raw(foreign).await;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Takes the first node out, and reloads the configuration: events that the dashboard marks.
async fn change(balancer: &Balancer, settings: &Settings) {
    let reply = admin(balancer, "PUT", "/nodes/t1/state?state=drain").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let mut settings = settings.clone();
    settings.placement = Placement::Random;
    let outcome = balancer.server.reload(&settings);
    let outcome = outcome.map_err(|error| error.to_string());
    balancer.server.reloaded(&outcome, None);
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Kills the last node, with sessions on it, and leaves it dead.
async fn kill(nodes: &[Node], balancer: &Balancer) {
    let mut kept = Vec::new();
    for _ in 0..3 * nodes.len() {
        let mut client = balancer.session().await;
        let poll = client.begin_poll().await.unwrap();
        kept.push((client, poll));
    }
    nodes.last().unwrap().kill(Ending::Eof).await;
    eventually("its sessions have moved", || {
        balancer.metric("bowline_sessions_reassigned_total") > 0
    })
    .await;
    drop(kept);
}

#[tokio::test]
async fn every_query_finds_something_in_a_real_prometheus() {
    let nodes = tigase_nodes(3).await;
    let mut settings = settings(&nodes);
    settings.placement = Placement::RoundRobin;
    let balancer = Balancer::start(&settings).await;
    let target = balancer.server.admin_address().unwrap().to_string();
    let Some(prometheus) = Prometheus::start(&target) else {
        return;
    };
    let asked = async {
        until_scraped(&prometheus, 2.0).await;
        kill(&nodes, &balancer).await;
        change(&balancer, &settings).await;
        until_scraped(&prometheus, SCRAPES).await;
        ask_all(&prometheus).await;
    };
    let in_time = timeout(4 * PATIENCE, async {
        tokio::select! {
            () = asked => {}
            () = work(&balancer) => {}
        }
    });
    in_time.await.expect("Prometheus answers");
}

async fn until_scraped(prometheus: &Prometheus, times: f64) {
    let begin = Instant::now();
    loop {
        let scraped = prometheus
            .query("count_over_time(bowline_build_info[5m])")
            .await;
        if scraped.is_ok_and(|counts| counts.iter().any(|count| *count >= times)) {
            return;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "{times} scrapes");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn ask_all(prometheus: &Prometheus) {
    let (alerts, queries): (Vec<_>, Vec<_>) = expressions()
        .into_iter()
        .partition(|(place, _)| place.starts_with("Bowline"));
    assert!(queries.len() > 30, "{}", queries.len());
    let mut empty = Vec::new();
    for (place, expression) in queries {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$job", "bowline")
            .replace("$instance", ".*");
        match prometheus.query(&expression).await {
            Ok(values) if values.iter().any(|value| value.is_finite()) => {}
            Ok(values) => empty.push(format!("{place}: {values:?}: {expression}")),
            Err(error) => panic!("{place}: {error}: {expression}"),
        }
    }
    assert!(empty.is_empty(), "{}", empty.join("\n"));
    // That a rule can be worked out at all, whatever it finds.
    let rules = prometheus.get("/api/v1/rules").await.unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), alerts.len());
    for rule in rules {
        assert_eq!(
            rule["health"], "ok",
            "{}: {}",
            rule["name"], rule["lastError"]
        );
    }
}
