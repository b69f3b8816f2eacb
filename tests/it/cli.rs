//! The commands that ask a running balancer, as a shell runs them.

use std::process::{Output, Stdio};

use bowline::demo::client::Client;
use bowline::server::Server;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::balancer::{Balancer, PATIENCE, settings, tigase_nodes};
use crate::support::folder::Folder;
use crate::support::program::free_address;

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
        "no other node is ready: without t2 no user could log in; use --force to do it anyway\n"
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
    let unknown = bowline(&url, &["ready", "t1", "t3"]).await;
    let words = "there is no node t3; the nodes are t1, t2\n";
    assert_eq!(text(&unknown.stderr), words);
}

#[tokio::test]
async fn the_status_comes_again_until_its_reader_goes() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::before(&nodes).await;
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    let mut watching = Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(["status", "--watch", "--admin", &url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut heads = 0;
    while heads < 2 {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("it goes on");
        assert!(!line.contains(char::is_control), "{line:?}");
        heads += usize::from(line.starts_with("ok: 0 sessions, "));
    }
    drop(lines);
    let ended = timeout(PATIENCE, watching.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(74));
}

#[tokio::test]
async fn several_nodes_are_drained_at_once() {
    let nodes = tigase_nodes(3).await;
    let balancer = Balancer::before(&nodes).await;
    let url = format!("http://{}", balancer.server.admin_address().unwrap());
    let drained = bowline(&url, &["drain", "t1", "t2"]).await;
    let words = "t1: ready -> drain; it has no sessions\nt2: ready -> drain; it has no sessions\n";
    assert_eq!(text(&drained.stdout), words);
    let refused = bowline(&url, &["drain", "--all"]).await;
    assert_eq!(code(&refused), 75);
    let words = "no other node is ready: without t1, t2, t3 no user could log in; use --force to \
                 do it anyway\n";
    assert_eq!(text(&refused.stderr), words);
    let ready = bowline(&url, &["ready", "--all"]).await;
    assert_eq!(text(&ready.stdout).lines().count(), 3);
    let cluster = &balancer.proxy().cluster;
    assert!(cluster.nodes().iter().all(|node| node.takes_new()));
    for wrong in [&["drain"][..], &["drain", "t1", "--all"]] {
        assert_eq!(code(&bowline(&url, wrong).await), 64, "{wrong:?}");
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
    let free = free_address().unwrap();
    let nobody = bowline(&format!("http://{free}"), &["status"]).await;
    assert_eq!(code(&nobody), 69, "{}", text(&nobody.stderr));
    assert!(text(&nobody.stderr).starts_with("no answer from http://127.0.0.1:"));
    assert_eq!(code(&bowline("https://127.0.0.1", &["status"]).await), 64);

    let nodes = tigase_nodes(1).await;
    let mut settings = settings(&nodes);
    let folder = Folder::new("token").unwrap();
    let file = folder.write("token", "correct-horse-battery\n").unwrap();
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

/// Answers one request with `status` and `body`, and gives its URL.
async fn impostor(status: u16, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}");
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Until the other side has gone.
        let _ = stream.read(&mut [0]).await;
    });
    url
}

/// `/health` of something that is no Bowline.
fn health(word: &str, nodes: &[&str]) -> String {
    let node = |name: &&str| {
        json!({
            "name": name, "address": word, "resolved": [], "state": word, "state_since": word,
            "verdict": "up", "since": word, "weight": 1, "share": 1.0, "falls": 0,
            "penalty_seconds": 0.0, "sessions": 1, "held": 1, "creations_per_second": 0.0,
            "error_share_1m": null, "error_share_5m": null, "p50_ms": null, "p99_ms": null,
            "last_failure": { "what": word, "when": word },
        })
    };
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    let health = json!({
        "schema": 1, "status": "ok", "reasons": [word], "draining": false, "version": word,
        "started": word, "now": word, "sessions": 1, "held": 1, "connections": 1, "nodes": nodes,
    });
    health.to_string()
}

#[tokio::test]
async fn what_an_admin_endpoint_sends_does_not_reach_the_terminal_raw() {
    let word = "\u{1b}[2J\u{1b}]0;x\u{7}all is well\r\nreally\u{9b}31m";
    let error = json!({ "error": word }).to_string();
    let changed = json!({ "node": word, "before": word, "state": word, "sessions": 1, "held": 1 });
    let status = &["status"][..];
    let drain = &["drain", "t1"][..];
    let wrong = health(word, &[]).replace("\"ok\"", &json!(word).to_string());
    for (arguments, status, body, expected, lines) in [
        (status, 200, health(word, &[word, "t1"]), 0, 11),
        (status, 200, wrong, 76, 1),
        (status, 401, error.clone(), 77, 1),
        (drain, 200, json!({ "nodes": [changed] }).to_string(), 0, 1),
        (drain, 409, error.clone(), 75, 1),
        (drain, 500, error, 76, 1),
    ] {
        let told = bowline(&impostor(status, body).await, arguments).await;
        let out = text(&told.stdout) + &text(&told.stderr);
        assert_eq!(code(&told), expected, "{out:?}");
        assert!(out.contains("\\u{1b}[2J"), "{out:?}");
        let rows: Vec<&str> = out.lines().collect();
        assert_eq!(rows.len(), lines, "{out:?}");
        assert!(!rows.concat().contains(char::is_control), "{out:?}");
    }
}

/// A table is as wide as its widest cell: that of one node must not count for thousands.
#[tokio::test]
async fn an_endless_answer_does_not_fill_the_memory() {
    let wide = "x".repeat(100_000);
    let mut nodes = vec!["t1"; 500];
    nodes[0] = &wide;
    let told = bowline(&impostor(200, health("x", &nodes)).await, &["status"]).await;
    assert_eq!(code(&told), 0, "{}", text(&told.stderr));
    assert!(told.stdout.len() < 200_000, "{}", told.stdout.len());
    let long = impostor(200, " ".repeat(9 << 20)).await;
    let told = text(&bowline(&long, &["status"]).await.stderr);
    assert!(told.contains("length limit exceeded"), "{told}");
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

#[tokio::test]
async fn completions_and_man_pages_name_every_command() {
    let commands = [
        "run",
        "check",
        "config",
        "config-show",
        "config-schema",
        "demo",
        "status",
        "top",
        "reload",
        "drain",
        "maint",
        "ready",
        "completions",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let printed = bowline("", &["completions", shell]).await;
        assert_eq!(code(&printed), 0);
        let printed = text(&printed.stdout);
        for word in commands.iter().chain(&["deadline", "token-file"]) {
            // A command of a command is two words there.
            let word = word.rsplit('-').next().unwrap_or(word);
            assert!(printed.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(code(&bowline("", &["completions", "dos"]).await), 64);
    let folder = Folder::new("man").unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(code(&bowline("", &["man", path]).await), 0);
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for command in commands {
        let own = page(&format!("bowline-{command}.1"));
        assert!(own.starts_with(".ie") && own.contains(".SH NAME"), "{own}");
        let parent = command.split('-').next().unwrap_or(command);
        assert!(page("bowline.1").contains(parent), "{command}");
    }
    let missing = bowline("", &["man", &format!("{path}/none")]).await;
    assert_eq!(code(&missing), 74);
}

#[tokio::test]
async fn help_fits_a_terminal_of_80_columns() {
    let mut pages = vec![vec!["--help"]];
    for command in [
        "run", "check", "config", "demo", "status", "top", "reload", "drain", "maint", "ready",
    ] {
        pages.push(vec![command, "--help"]);
    }
    pages.push(vec!["config", "show", "--help"]);
    for page in pages {
        let help = Command::new(env!("CARGO_BIN_EXE_bowline"))
            .args(&page)
            .env("COLUMNS", "80")
            .output()
            .await
            .unwrap();
        let help = text(&help.stdout);
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest.unwrap() <= 80, "{page:?} {longest:?}: {help}");
    }
}
