//! The demo as a person sees it: on a terminal it takes keys, and it leaves the terminal as it was.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::balancer::PATIENCE;
use crate::support::admin::ask;
use crate::support::terminal::Terminal;

/// A demo on a terminal of its own; what it shows comes through a pipe.
struct Demo {
    child: Child,
    shown: Lines<BufReader<ChildStdout>>,
    /// Everything shown so far.
    transcript: String,
    terminal: Terminal,
}

impl Demo {
    /// None where there is no `setsid` that can give a process its terminal.
    fn start() -> Option<Self> {
        let terminal = Terminal::open();
        let mut command = terminal.command();
        command.arg("demo").stdout(Stdio::piped());
        let child = command.stderr(Stdio::null()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: no setsid (Debian: apt-get install util-linux)");
                return None;
            }
            Err(error) => panic!("setsid: {error}"),
        };
        Some(Self {
            shown: BufReader::new(child.stdout.take().unwrap()).lines(),
            transcript: String::new(),
            child,
            terminal,
        })
    }

    /// Waits for a line with this text.
    async fn shows(&mut self, text: &str) -> String {
        let shown = async {
            while let Some(line) = self.shown.next_line().await.unwrap() {
                self.transcript.push_str(&line);
                self.transcript.push('\n');
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        let shown = timeout(PATIENCE, shown).await;
        let shown = shown.unwrap_or_else(|_| panic!("not in time: {text:?}\n{}", self.transcript));
        shown.unwrap_or_else(|| panic!("the end came before {text:?}\n{}", self.transcript))
    }

    /// Waits until the balancer has this verdict on t2, and says what `/health` has on it then.
    async fn verdict_on_t2(&self, admin: SocketAddr, verdict: &str) -> Value {
        let turned = async {
            loop {
                let health = ask(admin, "/health").await;
                let mut health: Value = serde_json::from_str(health.text()).unwrap();
                if health["nodes"][1]["verdict"] == verdict {
                    return health["nodes"][1].take();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let turned = timeout(PATIENCE, turned).await;
        turned.unwrap_or_else(|_| panic!("not in time: t2 is {verdict}"))
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys);
    }

    /// Whether the terminal is as a shell expects it.
    fn is_as_before(&self) -> bool {
        self.terminal.is_as_before()
    }

    async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").unwrap()
    }
}

#[tokio::test]
async fn a_key_press_kills_a_node_and_another_one_revives_it() {
    let Some(mut demo) = Demo::start() else {
        return;
    };
    demo.shows("1, 2 and 3 kill or revive t1, t2 and t3").await;
    demo.shows("requests held").await;
    assert!(!demo.is_as_before(), "keys come without Enter");
    demo.press("2");
    demo.shows("t2 is killed, with").await;
    demo.shows("are logged in again elsewhere").await;
    demo.press("2");
    demo.shows("t2 is back").await;
    demo.press("k");
    demo.shows("is killed, with").await;
    demo.press("q");
    demo.shows("2 node deaths").await;
    assert!(demo.wait().await.success());
    assert!(demo.is_as_before());
}

#[tokio::test]
async fn a_node_that_dies_again_and_again_is_back_at_once() {
    let Some(mut demo) = Demo::start() else {
        return;
    };
    let admin = demo.shows("live page").await;
    let admin = admin.trim().strip_prefix("live page http://").unwrap();
    let admin: SocketAddr = admin.trim_end_matches('/').parse().unwrap();
    for death in 1..=3 {
        demo.verdict_on_t2(admin, "up").await;
        demo.press("2");
        let node = demo.verdict_on_t2(admin, "down").await;
        assert_eq!(node["falls"], death);
        assert_eq!(node["penalty_seconds"], 0.0);
        demo.press("2");
    }
    demo.verdict_on_t2(admin, "up").await;
}

#[tokio::test]
async fn the_last_node_can_be_killed_too() {
    let Some(mut demo) = Demo::start() else {
        return;
    };
    demo.shows("requests held").await;
    demo.press("123k");
    demo.shows("t3 is killed, with").await;
    demo.shows("no node is left").await;
    demo.press("1");
    demo.shows("t1 is back").await;
    demo.shows("12 sessions").await;
    demo.press("q");
    demo.shows("3 node deaths").await;
    assert!(demo.wait().await.success());
}

#[tokio::test]
async fn the_terminal_is_as_before_however_the_demo_ends() {
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let Some(mut demo) = Demo::start() else {
            return;
        };
        demo.shows("requests held").await;
        assert!(!demo.is_as_before());
        if signal == "INT" {
            demo.press("\u{3}");
        } else {
            let id = demo.child.id().expect("it runs").to_string();
            let kill = Command::new("kill").args(["-s", signal, &id]).status();
            assert!(kill.await.unwrap().success());
        }
        demo.shows("node deaths").await;
        assert!(demo.wait().await.success(), "{signal}");
        assert!(demo.is_as_before(), "{signal}");
    }
}
