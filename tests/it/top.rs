//! `bowline top` on a terminal: keys change a node, any size is shown, a balancer that goes is noticed,
//! and the terminal is left as it was.

use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::balancer::{PATIENCE, tigase_nodes};
use crate::process::{Process, Start};
use crate::support::terminal::{Screen, Terminal};
use crate::support::waiting::eventually;

struct Top {
    terminal: Terminal,
    screen: Screen,
    child: Child,
}

impl Top {
    /// None where there is no `setsid` that can give a process its terminal.
    fn start(admin: std::net::SocketAddr) -> Option<Self> {
        let terminal = Terminal::open();
        terminal.resize(60, 16);
        let output = || Stdio::from(terminal.program.try_clone().unwrap());
        let mut command = terminal.command();
        command
            .args(["top", "--admin", &format!("http://{admin}")])
            .env("TERM", "xterm")
            .stdout(output())
            .stderr(output());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: no setsid (Debian: apt-get install util-linux)");
                return None;
            }
            Err(error) => panic!("setsid: {error}"),
        };
        Some(Self {
            screen: terminal.screen(),
            terminal,
            child,
        })
    }

    async fn shows(&self, text: &str) -> String {
        let what = format!("{text:?} on the screen");
        eventually(&what, || self.screen.text().contains(text)).await;
        self.screen.text()
    }

    async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").unwrap()
    }
}

#[tokio::test]
async fn a_node_is_drained_with_two_keys() {
    let nodes = tigase_nodes(2).await;
    let mut process = Process::start(&nodes, &Start::default()).await;
    let Some(mut top) = Top::start(process.admin) else {
        return;
    };
    let picture = top.shows("q quit").await;
    assert!(picture.starts_with("ok: 0 sessions, 0 held"), "{picture}");
    assert!(
        picture.contains("> t1 ") && picture.contains("\n  t2 "),
        "{picture}"
    );
    assert!(
        picture.lines().all(|line| line.chars().count() <= 60),
        "{picture}"
    );
    assert!(!top.terminal.is_as_before(), "keys come without Enter");

    top.terminal.press("\u{1b}[Bd");
    top.shows("[y/n] drain t2: no new sessions, 0 stay?").await;
    top.terminal.press("n");
    top.shows("q quit").await;
    top.terminal.press("dy");
    top.shows("t2: ready -> drain; it has no sessions").await;
    top.shows("> t2   drain up").await;
    let log = process.line("the change", |line| line["message"] == "operator state set");
    assert_eq!(log.await["node"], "t2");
    // The event, from the next look.
    top.shows(" set t2 from ready to drain").await;

    top.terminal.resize(110, 30);
    top.shows("P50MS").await;

    process.terminate();
    process.wait().await;
    top.shows("trying again: no answer from http://127.0.0.1")
        .await;
    top.terminal.press("q");
    assert!(top.wait().await.success());
    assert!(top.terminal.is_as_before());
}

#[tokio::test]
async fn a_signal_leaves_the_terminal_as_it_was() {
    let nodes = tigase_nodes(1).await;
    let process = Process::start(&nodes, &Start::default()).await;
    let Some(mut top) = Top::start(process.admin) else {
        return;
    };
    top.shows("q quit").await;
    let id = top.child.id().expect("it runs").to_string();
    let kill = Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(kill.await.unwrap().success());
    assert!(top.wait().await.success());
    assert!(top.terminal.is_as_before());
}

#[tokio::test]
async fn a_pipe_is_no_terminal() {
    let output = Command::new(env!("CARGO_BIN_EXE_bowline"))
        .arg("top")
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("use `status --watch`"), "{said}");
}
