//! Changing a node's state, and everything that is asked of who does.

use super::*;
use crate::cluster::OperatorState;
use crate::config::{AdminToken, Role};

/// The admin listener's two nodes, both up.
async fn both_up(access: AccessControl) -> Admin {
    let admin = Admin::with(access).await;
    admin.verdict(T1, true);
    admin.verdict(T2, true);
    admin
}

impl Admin {
    /// Sends `PUT /nodes/{target}` with these header lines and this body.
    async fn put(&self, target: &str, headers: &str, body: &str) -> Response {
        let length = body.len();
        self.raw(&format!(
            "PUT /nodes/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    fn states(&self) -> [OperatorState; 2] {
        [T1, T2].map(|id| self.state.cluster.node(id).state())
    }

    fn refusals(&self) -> u64 {
        self.state.metrics.admin_refusals.get()
    }
}

const MARKED: &str = "X-Bowline: 1\r\n";

#[tokio::test]
async fn a_state_is_set_by_body_or_by_query() {
    use OperatorState::{Drain, Maint, Ready};
    let admin = both_up(AccessControl::default()).await;
    let json = "Content-Type: application/json\r\n";
    let set = admin.put("t1/state", json, "{\"state\":\"drain\"}").await;
    assert_eq!(set.status, 200, "{}", set.body);
    let expected = serde_json::json!({
        "node": "t1", "before": "ready", "state": "drain", "sessions": 0, "held": 0,
    });
    assert_eq!(set.json(), expected);
    assert_eq!(admin.states(), [Drain, Ready]);
    assert_eq!(
        admin.put("t1/state?state=maint", MARKED, "").await.status,
        200
    );
    assert_eq!(admin.states(), [Maint, Ready]);
    assert_eq!(
        admin
            .put("t1/state", MARKED, "{\"state\":\"ready\"}")
            .await
            .status,
        200
    );
    assert_eq!(admin.states(), [Ready, Ready]);

    let metrics = admin.get("/metrics").await.body;
    assert!(metrics.contains("bowline_node_state{node=\"t1\",state=\"ready\"} 1\n"));
    assert!(metrics.contains("bowline_node_state{node=\"t1\",state=\"maint\"} 0\n"));
    let events = admin.get("/events").await.json();
    let texts: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "state")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0], "the operator set t1 from ready to drain");
    let newest = events["events"].as_array().unwrap().last().unwrap()["id"].clone();
    let none = admin.get(&format!("/events?since={newest}")).await.json();
    assert_eq!(none["events"], serde_json::json!([]));
    assert_eq!(admin.get("/events?since=x").await.status, 400);
}

#[tokio::test]
async fn what_the_operator_did_is_told_and_is_no_fault() {
    let admin = both_up(AccessControl::default()).await;
    admin.put("t1/state?state=maint", MARKED, "").await;
    let health = admin.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &"ok".into())
    );
    let reason = health.json()["reasons"][0].as_str().unwrap().to_owned();
    assert!(reason.starts_with("node t1 is in maint since "), "{reason}");
    admin.verdict(T1, false);
    assert_eq!(
        admin.get("/health").await.json()["status"],
        "ok",
        "it may be down"
    );
    assert_eq!(admin.ready().await.0, 200);

    let forced = admin
        .put("t2/state?state=drain&force=true", MARKED, "")
        .await;
    assert_eq!(forced.status, 200);
    let health = admin.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (503, &"down".into())
    );
    let words = "the operator has taken every node that is up out of service\n";
    assert_eq!(admin.ready().await, (503, words.to_owned()));
}

#[tokio::test]
async fn the_last_node_is_refused_in_words_unless_forced() {
    let admin = both_up(AccessControl::default()).await;
    admin.verdict(T2, false);
    let refused = admin.put("t1/state?state=drain", MARKED, "").await;
    assert_eq!(refused.status, 409);
    let words = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        words.contains("without t1 no user could log in; use --force"),
        "{words}"
    );
    assert_eq!(admin.states()[0], OperatorState::Ready);
    let body = "{\"state\":\"drain\",\"force\":true}";
    assert_eq!(admin.put("t1/state", MARKED, body).await.status, 200);
    assert_eq!(admin.states()[0], OperatorState::Drain);
}

impl Admin {
    /// Sends `PUT /states` with this body.
    async fn put_states(&self, body: &str) -> Response {
        let length = body.len();
        self.raw(&format!(
            "PUT /states HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{MARKED}\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

#[tokio::test]
async fn several_nodes_change_together_or_not_at_all() {
    use OperatorState::{Drain, Maint, Ready};
    let admin = both_up(AccessControl::default()).await;
    for all in [r#""all":true"#, r#""nodes":["t2","t1","t1"]"#] {
        let body = format!(r#"{{"state":"drain",{all}}}"#);
        let refused = admin.put_states(&body).await;
        assert_eq!(refused.status, 409, "{body}");
        let words = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(
            words.contains("without t1, t2 no user could log in"),
            "{words}"
        );
        assert_eq!(admin.states(), [Ready, Ready]);
    }
    let unknown = r#"{"state":"drain","nodes":["t1","t9"]}"#;
    let unknown = admin.put_states(unknown).await;
    assert_eq!(unknown.status, 404);
    let words = "there is no node t9; the nodes are t1, t2";
    assert_eq!(unknown.json()["error"], words);
    let missing = admin.get("/nodes/t9").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]),
        (404, &words.into())
    );
    for wrong in [
        "",
        r#"{"state":"drain"}"#,
        r#"{"state":"drain","nodes":[]}"#,
        r#"{"state":"drain","nodes":["t1"],"all":true}"#,
        r#"{"state":"off","all":true}"#,
        r#"{"state":"drain","all":true,"now":1}"#,
    ] {
        assert_eq!(admin.put_states(wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(admin.states(), [Ready, Ready]);
    let one = admin
        .put_states(r#"{"state":"drain","nodes":["t1"]}"#)
        .await;
    assert_eq!(one.status, 200, "{}", one.body);
    assert_eq!(admin.states(), [Drain, Ready]);
    let forced = r#"{"state":"maint","all":true,"force":true}"#;
    let forced = admin.put_states(forced).await;
    assert_eq!(forced.json()["nodes"][0]["before"], "drain");
    assert_eq!(forced.json()["nodes"][1]["before"], "ready");
    assert_eq!(admin.states(), [Maint, Maint]);
    let back = admin.put_states(r#"{"state":"ready","all":true}"#).await;
    assert_eq!(back.status, 200);
    assert_eq!(admin.states(), [Ready, Ready]);
    assert_eq!(admin.get("/states").await.status, 405);
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let admin = both_up(AccessControl::default()).await;
    let long = format!("{{\"state\":\"drain\",\"x\":\"{}\"}}", "x".repeat(2000));
    for (target, body, status) in [
        ("t1/state", "", 400),
        ("t1/state", "drain", 400),
        ("t1/state", "{\"state\":\"DRAIN\"}", 400),
        ("t1/state", "{\"state\":\"drain\",\"forced\":true}", 400),
        ("t1/state?state=drain", "{\"state\":\"drain\"}", 400),
        ("t1/state?state=drained", "", 400),
        ("t1/state?sate=drain", "", 400),
        ("t1/state", long.as_str(), 400),
        ("t3/state", "{\"state\":\"drain\"}", 404),
        ("t1", "{\"state\":\"drain\"}", 405),
        ("t1/address", "", 404),
    ] {
        let refused = admin.put(target, MARKED, body).await;
        assert_eq!(refused.status, status, "{target} {body}: {}", refused.body);
        assert!(refused.json()["error"].is_string());
    }
    assert_eq!(admin.states(), [OperatorState::Ready; 2]);
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let admin = both_up(AccessControl::default()).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let foreign = "X-Bowline: 1\r\nOrigin: https://evil.example\r\n";
    for headers in ["", form, foreign] {
        let refused = admin.put("t1/state?state=drain", headers, "").await;
        assert_eq!(refused.status, 403, "{headers}");
    }
    assert_eq!(admin.refusals(), 3);
    assert_eq!(admin.states(), [OperatorState::Ready; 2]);
    let rebound = "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let refused = admin.raw(rebound).await;
    assert_eq!(refused.status, 421);
    assert!(!refused.body.contains("t1"));
    let probe = rebound.replace("/health", "/live");
    assert_eq!(
        admin.raw(&probe).await.status,
        200,
        "a prober sends any name"
    );
}

#[tokio::test]
async fn with_a_token_only_who_has_it_sees_anything() {
    let file = std::env::temp_dir().join(format!("bowline-token-{}", std::process::id()));
    std::fs::write(&file, "correct-horse-battery\n").unwrap();
    let settings = crate::config::Admin {
        token_file: Some(file.clone()),
        ..crate::config::Admin::default()
    };
    let access = AccessControl::load(&settings).unwrap();
    std::fs::write(&file, "short").unwrap();
    let fault = AccessControl::load(&settings).unwrap_err().to_string();
    assert!(fault.contains("must hold one line of 16 to 256"), "{fault}");
    std::fs::remove_file(&file).unwrap();
    let fault = AccessControl::load(&settings).unwrap_err().to_string();
    assert!(fault.contains("cannot be read"), "{fault}");

    let admin = both_up(access).await;
    for open in ["/", "/help", "/live", "/ready"] {
        assert_eq!(admin.get(open).await.status, 200, "{open}");
    }
    let closed = [
        "/health",
        "/nodes",
        "/nodes/t1",
        "/events",
        "/history",
        "/stream",
        "/metrics",
    ];
    for path in closed.iter().chain(&["/none"]) {
        let refused = admin.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        let challenge = "www-authenticate: Bearer realm=\"bowline\"\r\n";
        assert!(refused.head.contains(challenge), "{}", refused.head);
        assert!(refused.json()["error"].is_string());
    }
    assert_eq!(admin.refusals(), 8);
    let wrong = "X-Bowline: 1\r\nAuthorization: Bearer correct-horse-batterz\r\n";
    assert_eq!(
        admin.put("t1/state?state=drain", wrong, "").await.status,
        401
    );
    assert_eq!(admin.states(), [OperatorState::Ready; 2]);
    let right = "X-Bowline: 1\r\nAuthorization: Bearer correct-horse-battery\r\n";
    assert_eq!(
        admin.put("t1/state?state=drain", right, "").await.status,
        200
    );
    let metrics = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Authorization: Bearer correct-horse-battery\r\n\r\n";
    let metrics = admin.raw(metrics).await;
    let line = "bowline_admin_refusals_total{reason=\"token\"} 9\n";
    assert!(metrics.body.contains(line), "{}", metrics.body);
}

/// Writes a file for each token; they are gone with the folder.
fn tokens(named: &[(&str, Role, &str)]) -> Vec<AdminToken> {
    let token = |(name, role, secret): &(&str, Role, &str)| {
        let file = format!("bowline-named-{name}-{}", std::process::id());
        let file = std::env::temp_dir().join(file);
        std::fs::write(&file, secret).unwrap();
        AdminToken {
            name: (*name).to_owned(),
            file,
            role: *role,
        }
    };
    named.iter().map(token).collect()
}

#[tokio::test]
async fn a_token_that_reads_changes_nothing_and_a_change_has_a_name() {
    let named = [
        ("grafana", Role::Read, "grafana-reads-this"),
        ("anna", Role::Operate, "anna-may-do-it-all"),
    ];
    let settings = crate::config::Admin {
        tokens: tokens(&named),
        ..crate::config::Admin::default()
    };
    let access = AccessControl::load(&settings).unwrap();
    let [grafana, anna] = [0, 1].map(|at: usize| &settings.tokens[at].file);
    std::fs::copy(anna, grafana).unwrap();
    let fault = AccessControl::load(&settings).unwrap_err().to_string();
    assert!(fault.contains("has the same token as"), "{fault}");
    std::fs::remove_file(anna).unwrap();
    std::fs::remove_file(grafana).unwrap();

    let admin = both_up(access).await;
    let with = |token: &str| format!("X-Bowline: 1\r\nAuthorization: Bearer {token}\r\n");
    let target = "t1/state?state=drain";
    let refused = admin.put(target, &with("grafana-reads-this"), "").await;
    assert_eq!(refused.status, 403);
    let words = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        words.contains("wants a token with `role: operate`"),
        "{words}"
    );
    assert_eq!(admin.states(), [OperatorState::Ready; 2]);
    let set = admin.put(target, &with("anna-may-do-it-all"), "").await;
    assert_eq!(set.status, 200);
    let read = |token| {
        format!(
            "GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )
    };
    let events = admin.raw(&read("grafana-reads-this")).await.json();
    let last = events["events"].as_array().unwrap().last().unwrap();
    assert_eq!(last["text"], "anna set t1 from ready to drain");
    let metrics = read("grafana-reads-this").replace("/events", "/metrics");
    let metrics = admin.raw(&metrics).await;
    let line = "bowline_admin_refusals_total{reason=\"role\"} 1\n";
    assert!(metrics.body.contains(line), "{}", metrics.body);
}
