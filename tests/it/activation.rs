//! Sockets that the service manager holds: the test holds them in its place, and starts one process after
//! the other with them.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use bowline::demo::node::{Node, Profile};

use crate::balancer::*;
use crate::process::Start;
use crate::support::chat::Chats;
use crate::support::folder::Folder;
use crate::support::log::Log;
use crate::support::process::{configuration, places};
use crate::support::program::{Program, bowline};
use crate::support::waiting::until;
use crate::support::{admin, metrics};

/// How often the load test restarts the balancer. `BOWLINE_RESTARTS` sets another number.
const RESTARTS: u32 = 3;

/// Holds the sockets of a balancer, as systemd does for `bowline.socket`.
struct Manager {
    clients: TcpListener,
    admin: TcpListener,
    folder: Folder,
}

/// A process that was started with the sockets.
struct Activated {
    program: Program,
    log: Log,
}

impl Manager {
    /// Listens, with a configuration for these nodes.
    fn new(nodes: &[Node], more: &str) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, admin) = (listen(), listen());
        let folder = Folder::new("activation").unwrap();
        let more = more.replace("FOLDER", folder.path().to_str().unwrap());
        let (address, at) = (clients.local_addr().unwrap(), admin.local_addr().unwrap());
        let start = Start {
            more: &more,
            ..Start::default()
        };
        let text = configuration(&places(nodes), address, Some(at), &start);
        folder.write("bowline.yaml", &text).unwrap();
        Self {
            clients,
            admin,
            folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.clients.local_addr().unwrap()
    }

    /// Starts a balancer with both sockets as files 3 and 4.
    fn start(&self) -> Activated {
        self.start_with(&self.clients, &[])
    }

    /// The same with another socket for clients, and these variables.
    fn start_with(&self, clients: &TcpListener, environment: &[(&str, &str)]) -> Activated {
        let pass = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=bowline.socket:admin; \
                 exec \"$0\" run --config \"$1\" 3<&0 4<&1 </dev/null >/dev/null",
            ])
            .arg(bowline(None).unwrap())
            .arg(self.folder.path().join("bowline.yaml"))
            .stdin(pass(clients))
            .stdout(pass(&self.admin))
            .stderr(Stdio::piped())
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .env_remove("RUST_LOG");
        let mut program = Program::start(&mut command).unwrap();
        let log = Log::default();
        log.read(program.child.stderr.take().unwrap(), None);
        Activated { program, log }
    }

    async fn is_ready(&self) -> bool {
        let answer = admin::get(self.admin.local_addr().unwrap(), "/ready").await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    async fn until_ready(&self) {
        assert!(until(PATIENCE, async || self.is_ready().await).await);
    }
}

const MORE: &str = "log: { format: json }\nplacement: round-robin\n\
                    snapshot: { file: 'FOLDER/sessions', interval: 1s }\n\
                    limits: { creations_per_client: 100000, creations_burst: 100000 }";

#[tokio::test]
async fn restarts_under_load_refuse_no_connection_and_lose_no_session() {
    let restarts = std::env::var("BOWLINE_RESTARTS").ok();
    let restarts = restarts.map_or(RESTARTS, |number| number.parse().unwrap());
    let mut nodes = Vec::new();
    for number in 1..=3 {
        // The nodes share one thread with the clients: a stall of 3 ms would look like two requests that
        // come too close to each other.
        let profile = Profile::tigase(format!("t{number}")).collision(None);
        nodes.push(Node::start(profile).await.unwrap());
    }
    let manager = Manager::new(&nodes, MORE);
    let mut process = manager.start();
    manager.until_ready().await;
    let chats = Chats::start(manager.address(), 12);
    for _ in 0..restarts {
        process.program.signal("TERM").unwrap();
        let status = process.program.wait().await.unwrap();
        assert!(status.success(), "{}", process.log.text());
        process = manager.start();
        manager.until_ready().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let tally = chats.stop().await;
    println!("{restarts} restarts: {tally:?}");
    assert!(tally.is_clean(), "{tally:?}");
    assert!(tally.pings > 20 * restarts, "{tally:?}");
}

#[tokio::test]
async fn a_killed_process_leaves_its_socket_open_and_the_next_one_serves_who_waits() {
    let nodes = tigase_nodes(1).await;
    let manager = Manager::new(&nodes, MORE);
    let mut old = manager.start();
    manager.until_ready().await;
    let mut client = bowline::demo::client::Client::to(manager.address()).deadline(PATIENCE);
    client.create().await.unwrap();
    let saved = async || {
        let text = admin::get(manager.admin.local_addr().unwrap(), "/metrics").await;
        metrics::sum::<u64>(text.unwrap().text(), "bowline_snapshot_sessions") == 1
    };
    assert!(until(PATIENCE, saved).await);
    old.program.signal("KILL").unwrap();
    old.program.wait().await.unwrap();
    // No process serves, and the connection is made.
    client.hang_up();
    let waiting = client.begin_poll().await.unwrap();
    let _new = manager.start();
    let (node, sid) = (&nodes[0], client.sid().to_owned());
    let at_node = async || node.requests_of(&sid) > 0 && node.held() > 0;
    assert!(until(PATIENCE, at_node).await, "the poll reaches its node");
    node.push(&sid, "<message xmlns='jabber:client' id='m'/>");
    assert!(waiting.reply().await.unwrap().text().contains("id='m'"));
}

#[tokio::test]
async fn a_socket_without_a_listener_stops_the_start_and_the_message_says_what_to_change() {
    let nodes = tigase_nodes(1).await;
    let manager = Manager::new(&nodes, "log: { format: json }");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = manager.start_with(&other, &[]);
    let status = process.program.wait().await.unwrap();
    assert_eq!(status.code(), Some(78));
    let wanted = format!(
        "`bowline.socket` passes a socket on {}, and no listener has this address",
        other.local_addr().unwrap()
    );
    let found = process
        .log
        .find("the error", |line| line.text.contains(&wanted));
    found.await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_listening_socket_stops_the_start() {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a; exec \"$0\" run --config none 3</dev/null",
        ])
        .arg(bowline(None).unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("the service manager passes `a`, which is no listening stream socket"),
        "{said}"
    );
}

#[tokio::test]
async fn sockets_for_another_process_are_left_alone() {
    let mut command = Command::new(bowline(None).unwrap());
    command
        .args(["run", "--config", "none"])
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("service manager"), "{said}");
}

#[tokio::test]
async fn the_watchdog_gets_a_sign_of_life_twice_in_its_time() {
    let nodes = tigase_nodes(1).await;
    let manager = Manager::new(&nodes, "log: { format: json }\nthreads: 2");
    let path = manager.folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let _process = manager.start_with(
        &manager.clients,
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "400000"),
        ],
    );
    let signs = tokio::task::spawn_blocking(move || {
        let mut signs = Vec::new();
        while signs.len() < 4 {
            let mut bytes = [0; 64];
            let length = notify.recv(&mut bytes).unwrap();
            if &bytes[..length] == b"WATCHDOG=1" {
                signs.push(tokio::time::Instant::now());
            }
        }
        signs
    });
    let signs = signs.await.unwrap();
    let time = *signs.last().unwrap() - signs[0];
    assert!(time < 3 * Duration::from_millis(400), "{time:?}");
}

#[test]
fn the_shipped_units_hold_the_addresses_of_the_shipped_configuration() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path| std::fs::read_to_string(root.join(path)).unwrap();
    let unit = read("deploy/systemd/bowline.socket");
    let lines = unit.lines();
    let mut held: Vec<SocketAddr> = lines
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .map(|address| address.parse().unwrap())
        .collect();
    let settings = bowline::config::load(&root.join("config/bowline.yaml")).unwrap();
    let listen = settings
        .listen
        .iter()
        .map(|listen| listen.address.tcp().unwrap());
    let mut configured: Vec<_> = listen
        .chain(settings.admin.iter().map(|admin| admin.address))
        .collect();
    held.sort();
    configured.sort();
    assert_eq!(held, configured);
    assert!(read("deploy/systemd/bowline.service").contains("\nSockets=bowline.socket\n"));
}
