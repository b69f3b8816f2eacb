//! The runbook of docs/operations.md, followed to the letter: each numbered step that begins with a command
//! is run as it is written, in order, against a balancer and scripted nodes. Paths and the address of the admin listener
//! are those of the test. What systemd or a person does, the test does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bowline::demo::client::Client;
use bowline::demo::node::{Node, Profile};
use tokio::process::Command as Async;
use tokio::time::timeout;

use super::page;
use crate::balancer::{PATIENCE, assert_goes_on, owner, tigase_nodes};
use crate::support::admin;
use crate::support::folder::Folder;
use crate::support::program::{Program, bowline, free_address};
use crate::support::waiting::until;

/// The steps of a task, one after the other.
struct Task {
    steps: std::vec::IntoIter<String>,
}

impl Task {
    /// The numbered list below the heading `title`.
    fn of(title: &str) -> Self {
        Self::in_page(&page("docs/operations.md").text, title)
    }

    fn in_page(text: &str, title: &str) -> Self {
        let heading = format!("\n### {title}\n");
        let (_, below) = text.split_once(&heading).expect("the heading");
        let section = below.split("\n#").next().unwrap_or_default();
        let steps = section.lines().filter_map(|line| {
            let (number, step) = line.split_once(". ")?;
            number.parse::<u8>().ok().map(|_| step.to_owned())
        });
        let steps: Vec<_> = steps.collect();
        assert!(steps.len() > 3, "{title}: {steps:?}");
        Self {
            steps: steps.into_iter(),
        }
    }

    /// The command of the next step.
    #[track_caller]
    fn command(&mut self) -> String {
        let step = self.steps.next().expect("one more step");
        let command = step.strip_prefix('`').and_then(|rest| rest.split_once('`'));
        command
            .unwrap_or_else(|| panic!("no command: {step}"))
            .0
            .to_owned()
    }

    /// The next step, which a person does and which begins so.
    #[track_caller]
    fn by_hand(&mut self, beginning: &str) -> String {
        let step = self.steps.next().expect("one more step");
        assert!(step.starts_with(beginning), "{step}");
        step
    }

    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.steps.next(), None);
    }
}

/// A machine with a balancer as the runbook has it, in a folder.
struct Machine {
    folder: Folder,
    listen: SocketAddr,
    admin: SocketAddr,
    service: Option<Program>,
}

impl Machine {
    /// Bowline is installed, and in front of these nodes.
    fn new(nodes: &[Node]) -> Self {
        let folder = Folder::new("runbook").unwrap();
        let machine = Self {
            listen: free_address().unwrap(),
            admin: free_address().unwrap(),
            service: None,
            folder,
        };
        let (listen, admin) = (machine.listen, machine.admin);
        let snapshot = machine.path("sessions");
        let mut text = format!(
            "listen: [{{ address: '{listen}' }}]\nadmin: {{ address: '{admin}' }}\nthreads: 1\n\
             placement: round-robin\nsnapshot: {{ file: {snapshot:?}, interval: 1s }}\n\
             health: {{ interval: 200ms, timeout: 200ms, rise: 1 }}\nnodes:\n"
        );
        text.extend(
            nodes
                .iter()
                .map(|node| line_of(node.name(), node.address())),
        );
        machine.folder.write("bowline.yaml", &text).unwrap();
        // A script, because a copy of the program itself takes long.
        let program = bowline(None).unwrap();
        let script = format!("#!/bin/sh\nexec {program:?} \"$@\"\n");
        for place in ["bin", "new"] {
            std::fs::create_dir(machine.path(place)).unwrap();
            let path = machine.path(place).join("bowline");
            std::fs::write(&path, &script).unwrap();
            crate::support::program::must(Command::new("chmod").arg("755").arg(path)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the runbook, with the paths and the addresses of this machine.
    fn shell(&self, command: &str) -> Async {
        let folder = self.folder.path().display();
        let command = command
            .replace("/etc/bowline/", &format!("{folder}/"))
            .replace("/usr/local/bin/", &format!("{folder}/bin/"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Async::new("sh");
        shell
            .args(["-c", &command])
            .current_dir(self.path("new"))
            .env("PATH", format!("{folder}/bin:{path}"))
            .env("BOWLINE_ADMIN", format!("http://{}", self.admin))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        shell
    }

    async fn output(&self, command: &str) -> Output {
        let output = timeout(PATIENCE, self.shell(command).output()).await;
        output.expect("it ends").unwrap()
    }

    /// Runs a command that has to succeed, and returns what it prints.
    async fn run(&self, command: &str) -> String {
        let output = self.output(command).await;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command}: {text}");
        text
    }

    /// Runs `bowline status` until it shows what is wanted.
    async fn run_until(&self, command: &str, wanted: impl Fn(&str) -> bool) {
        assert_eq!(command, "bowline status");
        let shown = async || wanted(&String::from_utf8_lossy(&self.output(command).await.stdout));
        assert!(until(PATIENCE, shown).await, "{}", self.run(command).await);
    }

    /// Starts the service, as systemd does, and waits until it takes sessions.
    async fn start(&mut self) {
        let mut command = Command::new(self.path("bin").join("bowline"));
        command
            .args(["run", "--config"])
            .arg(self.path("bowline.yaml"))
            .stderr(Stdio::null());
        self.service = Some(Program::start(&mut command).unwrap());
        let admin = self.admin;
        let ready = async || {
            let answer = admin::get(admin, "/ready").await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        assert!(until(PATIENCE, ready).await, "it is ready");
    }

    /// Ends the service with this signal.
    async fn stop(&mut self, signal: &str) {
        let mut service = self.service.take().expect("it runs");
        service.signal(signal).unwrap();
        service.wait().await.unwrap();
    }

    async fn session(&self) -> Client {
        let mut client = Client::to(self.listen).deadline(PATIENCE);
        client.create().await.unwrap();
        client
    }

    fn edit(&self, change: impl Fn(String) -> String) {
        let file = self.path("bowline.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, change(text)).unwrap();
    }
}

fn line_of(name: &str, address: impl std::fmt::Display) -> String {
    format!("  - {{ name: {name}, address: {address} }}\n")
}

/// Whether `bowline status` shows a node with this state and verdict.
fn shows(status: &str, node: &str, state: &str, verdict: &str) -> bool {
    status.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.starts_with(&[node, state, verdict])
    })
}

#[tokio::test]
async fn patch_a_node() {
    let nodes = tigase_nodes(3).await;
    let mut machine = Machine::new(&nodes);
    machine.start().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(machine.session().await);
    }
    let mut task = Task::of("Patch a node");

    let drain = task.command();
    let running = machine
        .shell(&drain)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let drained = async || {
        let status = machine.output("bowline status").await;
        shows(
            &String::from_utf8_lossy(&status.stdout),
            "t1",
            "drain",
            "up",
        )
    };
    assert!(until(PATIENCE, drained).await);
    let place = sessions
        .iter()
        .position(|client| owner(&nodes, client.sid()) == 0);
    let mut last = sessions.remove(place.expect("a session on t1"));
    assert_goes_on(&last.ping("while it drains").await.unwrap());
    last.terminate().await.unwrap();
    let output = timeout(PATIENCE, running.wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    assert!(output.status.success(), "{output:?}");

    task.by_hand("Patch t1");
    nodes[0].revive().await.unwrap();
    machine
        .run_until(&task.command(), |status| shows(status, "t1", "drain", "up"))
        .await;
    machine.run(&task.command()).await;
    task.end();

    let status = machine.run("bowline status").await;
    assert!(shows(&status, "t1", "ready", "up"), "{status}");
    for client in &mut sessions {
        assert_goes_on(&client.ping("after").await.unwrap());
    }
}

#[tokio::test]
async fn add_a_node_and_replace_all_nodes() {
    let mut nodes = tigase_nodes(3).await;
    let mut machine = Machine::new(&nodes);
    machine.start().await;
    let mut old = machine.session().await;

    let mut task = Task::of("Add a node");
    task.by_hand("Start the node");
    nodes.push(Node::start(Profile::tigase("t4".to_owned())).await.unwrap());
    let step = task.by_hand("Add it to `nodes` in `/etc/bowline/bowline.yaml`: ");
    let line = step.split('`').nth(5).expect("a line of the file");
    let address = nodes[3].address().to_string();
    let line = format!("  {}\n", line.replace("t4.example.com:5280", &address));
    machine.edit(|text| text + &line);
    machine.run(&task.command()).await;
    let said = machine.run(&task.command()).await;
    assert!(said.contains("t4"), "{said}");
    machine
        .run_until(&task.command(), |status| shows(status, "t4", "ready", "up"))
        .await;
    task.end();
    assert_goes_on(&old.ping("t4 is there").await.unwrap());

    let mut task = Task::of("Replace all nodes");
    task.by_hand("Add the new nodes as above");
    old.terminate().await.unwrap();
    machine.run(&task.command()).await;
    let mut new = machine.session().await;
    task.by_hand("Remove the old nodes from `/etc/bowline/bowline.yaml`");
    machine.edit(|text| {
        let lines = text.split_inclusive('\n');
        let is_old = |line: &&str| ["t1", "t2", "t3"].iter().any(|name| line.contains(name));
        lines.filter(|line| !is_old(line)).collect()
    });
    machine.run(&task.command()).await;
    machine.run(&task.command()).await;
    let only_new = |status: &str| {
        let is_gone = |name: &&str| !status.lines().any(|line| line.starts_with(*name));
        shows(status, "t4", "ready", "up") && ["t1", "t2", "t3"].iter().all(is_gone)
    };
    machine.run_until(&task.command(), only_new).await;
    task.end();
    for node in &nodes[..3] {
        node.kill(bowline::demo::node::Ending::Eof).await;
    }
    assert_goes_on(&new.ping("the old nodes are stopped").await.unwrap());
}

#[tokio::test]
async fn upgrade_bowline() {
    let nodes = tigase_nodes(2).await;
    let mut machine = Machine::new(&nodes);
    machine.start().await;
    let mut client = machine.session().await;
    let mut task = Task::of("Upgrade Bowline");
    for _ in 0..4 {
        machine.run(&task.command()).await;
    }
    assert!(machine.path("bin/bowline.old").exists());
    assert!(!machine.path("bin/bowline.new").exists());
    // Without the sockets of systemd, which tests/it/activation.rs holds.
    assert_eq!(task.command(), "systemctl restart bowline");
    machine.stop("TERM").await;
    machine.start().await;
    let status = machine.run(&task.command()).await;
    assert!(status.contains(env!("CARGO_PKG_VERSION")), "{status}");
    task.end();
    assert_goes_on(&client.ping("with the new program").await.unwrap());
}

#[tokio::test]
async fn lose_a_balancer() {
    let nodes = tigase_nodes(2).await;
    let mut lost = Machine::new(&nodes);
    lost.start().await;
    let mut clients = vec![lost.session().await, lost.session().await];
    lost.stop("KILL").await;

    let mut task = Task::of("Lose a balancer");
    task.by_hand("Install Bowline");
    let mut machine = Machine::new(&nodes);
    machine.run(&task.command()).await;
    assert!(task.command().starts_with("systemctl enable --now "));
    machine.start().await;
    task.by_hand("Move the address");
    for client in &mut clients {
        let mut moved = Client::to(machine.listen).deadline(PATIENCE);
        moved.adopt(client.sid(), client.rid());
        assert_goes_on(&moved.ping("at the other balancer").await.unwrap());
        *client = moved;
    }
    machine
        .run_until(&task.command(), |status| status.contains("2 sessions"))
        .await;
    task.end();
}

#[test]
fn steps_are_those_of_one_task() {
    let text = "\n### A\n\n1. `x y`: z\n2. By hand.\n3. `c`\n4. `d`\n\n### B\n\n1. `no`\n";
    let mut task = Task::in_page(text, "A");
    assert_eq!(task.command(), "x y");
    assert_eq!(task.by_hand("By"), "By hand.");
    assert_eq!((task.command(), task.command()), ("c".into(), "d".into()));
    task.end();
}
