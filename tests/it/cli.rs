//! The commands that ask a running balancer, as a shell runs them.

use std::net::TcpListener;
use std::process::{Output, Stdio};

use bowline::demo::client::Client;
use bowline::server::Server;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::balancer::{Balancer, PATIENCE, settings, tigase_nodes};

/// Runs the program with these arguments against the admin listener `url`.
async fn bowline(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(arguments)
        .env("BOWLINE_ADMIN", url)
        .env_remove("BOWLINE_TOKEN_FILE")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[tokio::test]
async fn a_node_is_drained_from_the_shell() {
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    let status = bowline(&url, &["status"]).await;
    let page = text(&status.stdout);
    assert_eq!(code(&status), 0, "{page}{}", text(&status.stderr));
    assert!(page.starts_with("ok: 0 sessions, "), "{page}");
    assert!(page.contains("\nt1    ready  up "), "{page}");

    let drained = bowline(&url, &["drain", "t1"]).await;
    assert_eq!(
        text(&drained.stdout),
        "t1: ready -> drain; it has no sessions\n"
    );
    assert_eq!(code(&drained), 0);
    let refused = bowline(&url, &["maint", "t2"]).await;
    assert_eq!(code(&refused), 75);
    assert_eq!(
        text(&refused.stderr),
        "no other node is ready: without t2 nobody could log in; force it if you mean it\n"
    );
    let forced = bowline(&url, &["maint", "t2", "--force"]).await;
    assert_eq!(code(&forced), 0);
    let down = bowline(&url, &["status", "--json"]).await;
    assert_eq!(code(&down), 2);
    let health: serde_json::Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!(health["nodes"][1]["state"], "maint");
    let back = bowline(&url, &["ready", "t2", "--admin", &url]).await;
    assert_eq!(code(&back), 0);
    for name in ["t3", "../t1", ""] {
        assert_eq!(code(&bowline(&url, &["ready", name]).await), 64, "{name}");
    }
}

/// A disk that is full, or a terminal that is gone, ends no command with a panic (code 101).
#[tokio::test]
async fn what_cannot_be_written_is_no_panic() {
    let into_full = |arguments: &[&str], url: &str| {
        let full = || std::fs::File::create("/dev/full").unwrap();
        Command::new(env!("CARGO_BIN_EXE_bowline"))
            .args(arguments)
            .env("BOWLINE_ADMIN", url)
            .stdin(Stdio::null())
            .stdout(full())
            .stderr(full())
            .status()
    };
    for wrong in [&["run", "-c", "/missing"][..], &["check", "/missing"]] {
        let status = into_full(wrong, "").await.unwrap();
        assert_eq!(status.code(), Some(78), "{wrong:?}");
    }
    let nodes = tigase_nodes(2).await;
    let balancer = Balancer::before(&nodes).await;
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    for done in [&["status"][..], &["status", "--json"], &["drain", "t1"]] {
        let status = into_full(done, &url).await.unwrap();
        assert_eq!(status.code(), Some(74), "{done:?}");
    }
    let unknown = into_full(&["drain", "t9"], &url).await.unwrap();
    assert_eq!(unknown.code(), Some(64));
    let demo = into_full(&["demo", "--for", "1"], "").await.unwrap();
    assert_eq!(demo.code(), Some(74));
}

#[tokio::test]
async fn who_does_not_answer_or_refuses_has_a_code_of_its_own() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = bowline(&format!("http://{free}"), &["status"]).await;
    assert_eq!(code(&nobody), 69, "{}", text(&nobody.stderr));
    assert!(text(&nobody.stderr).starts_with("no answer from http://127.0.0.1:"));
    assert_eq!(code(&bowline("https://127.0.0.1", &["status"]).await), 64);

    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let file = std::env::temp_dir().join(format!("bowline-cli-token-{}", std::process::id()));
    std::fs::write(&file, "correct-horse-battery\n").unwrap();
    settings.admin.as_mut().unwrap().token_file = Some(file.clone());
    let balancer = Balancer::start(&settings).await;
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    let refused = bowline(&url, &["status"]).await;
    assert_eq!(code(&refused), 77, "{}", text(&refused.stderr));
    let token = file.to_str().unwrap();
    let seen = bowline(&url, &["status", "--token-file", token]).await;
    assert_eq!(code(&seen), 0, "{}", text(&seen.stderr));
    std::fs::remove_file(&file).unwrap();
    let lost = bowline(&url, &["status", "--token-file", token]).await;
    assert_eq!(code(&lost), 78);
    assert!(Server::start(&settings).is_err(), "no token");

    let clients = format!("http://{}", balancer.address());
    assert_eq!(code(&bowline(&clients, &["status"]).await), 76);
}

#[tokio::test]
async fn the_demo_says_where_its_live_page_is() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_bowline"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let address = timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("a line more");
            if let Some(url) = line.trim().strip_prefix("live page http://") {
                break url.trim_end_matches('/').parse().unwrap();
            }
        }
    });
    let address = address.await.expect("in time");
    let page = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let page = Client::to(address).deadline(PATIENCE).post_raw(page).await;
    let page = page.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<title>Bowline</title>"));
    demo.kill().await.unwrap();
}
