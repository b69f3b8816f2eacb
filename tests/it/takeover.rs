//! A process that takes over from another one: sockets, sessions and held polls, and what becomes of a takeover
//! that fails.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use bowline::demo::client::{Client, Pending};
use bowline::demo::node::{Node, Profile};
use bowline::handover::{self, Channel, Kind};
use tokio::net::UnixStream;

use crate::balancer::*;
use crate::process::Start;
use crate::support::chat::Chats;
use crate::support::folder::Folder;
use crate::support::log::{Line, Log};
use crate::support::process::{configuration, places};
use crate::support::program::{Program, bowline, must};
use crate::support::waiting::until;
use crate::support::{admin, metrics};

/// How often the load test takes over. `BOWLINE_TAKEOVERS` sets another number.
const TAKEOVERS: u32 = 2;

const MORE: &str = "log: { format: json, access: failures }\nplacement: round-robin\nthreads: 2\n\
                    takeover: 'FOLDER/takeover.sock'\nsnapshot: { file: 'FOLDER/sessions', interval: 1s }\n\
                    limits: { creations_per_client: 100000, creations_burst: 100000 }";

/// A configuration that one process after the other serves.
struct Place {
    folder: Folder,
}

/// One of the processes.
struct Served {
    program: Program,
    log: Log,
}

impl Place {
    fn new(nodes: &[Node], more: &str) -> Self {
        let folder = Folder::new("takeover").unwrap();
        let place = Self { folder };
        place.configure(nodes, more);
        place
    }

    fn configure(&self, nodes: &[Node], more: &str) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let more = more.replace("FOLDER", self.folder.path().to_str().unwrap());
        let start = Start {
            more: &more,
            ..Start::default()
        };
        let text = configuration(&places(nodes), any, Some(any), &start);
        self.folder.write("bowline.yaml", &text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("takeover.sock")
    }

    /// Starts a process that takes over if there is one to take over from.
    fn launch(&self) -> Served {
        self.launch_by(Command::new(bowline(None).unwrap()))
    }

    /// The same by this command.
    fn launch_by(&self, mut command: Command) -> Served {
        command
            .args(["run", "--takeover", "--config"])
            .arg(self.folder.path().join("bowline.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG");
        let mut program = Program::start(&mut command).unwrap();
        let log = Log::default();
        log.read(program.child.stderr.take().unwrap(), None);
        Served { program, log }
    }

    /// Starts the first process, and waits until it is ready.
    async fn first(&self) -> Served {
        let process = self.launch();
        process.says("no process to take over from").await;
        process.until_ready().await;
        process
    }

    /// Starts a process that takes over, and waits until it has.
    async fn next(&self) -> Served {
        let process = self.launch();
        process.says("took over from another process").await;
        process
    }
}

impl Served {
    async fn says(&self, text: &str) -> serde_json::Value {
        let says = |line: &Line| {
            let fields = line.fields().unwrap_or_default();
            (fields["message"].as_str()).is_some_and(|said| said.starts_with(text))
        };
        let found = self.log.find(text, says).await;
        let line = found.unwrap_or_else(|error| panic!("{error}: {}", self.log.text()));
        line.fields().unwrap()
    }

    async fn address(&self) -> SocketAddr {
        self.log.address("listening").await.unwrap()
    }

    async fn admin(&self) -> SocketAddr {
        self.log.address("admin listening").await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::to(self.address().await).deadline(PATIENCE)
    }

    async fn until_ready(&self) {
        let at = self.admin().await;
        let ready = async || {
            let answer = admin::get(at, "/ready").await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        assert!(until(PATIENCE, ready).await, "{}", self.log.text());
    }

    async fn metric(&self, series: &str) -> u64 {
        let text = admin::get(self.admin().await, "/metrics").await.unwrap();
        metrics::sum(text.text(), series)
    }

    /// A client of the process, and its poll that `node` holds.
    async fn held_poll(&self, node: &Node) -> (Client, Pending) {
        let mut client = self.client().await;
        client.create().await.unwrap();
        let held = client.begin_poll().await.unwrap();
        node.wait_until(|node| node.held() == 1).await.unwrap();
        (client, held)
    }

    async fn ends(mut self) -> ExitStatus {
        let status = self.program.wait().await;
        status.unwrap_or_else(|error| panic!("{error}: {}", self.log.text()))
    }
}

/// A process has written this. Its log may be read after its end.
async fn wrote(log: &Log, text: &str) {
    log.find(text, |line| line.text.contains(text))
        .await
        .unwrap();
}

async fn chatting_nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=3 {
        // The nodes share one thread with the clients: a stall of 3 ms would look like two requests that
        // come too close to each other.
        let profile = Profile::tigase(format!("t{number}")).collision(None);
        nodes.push(Node::start(profile).await.unwrap());
    }
    nodes
}

#[tokio::test]
async fn takeovers_under_load_refuse_no_connection_and_lose_no_session() {
    let takeovers = std::env::var("BOWLINE_TAKEOVERS").ok();
    let takeovers = takeovers.map_or(TAKEOVERS, |number| number.parse().unwrap());
    let nodes = chatting_nodes().await;
    let place = Place::new(&nodes, MORE);
    let mut process = place.first().await;
    let chats = Chats::start(process.address().await, 12);
    let mut replaced = Vec::new();
    let mut paused = Vec::new();
    for _ in 0..takeovers {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let next = place.next().await;
        paused.push(process.says("another process has taken over").await["paused_ms"].clone());
        replaced.push(std::mem::replace(&mut process, next));
    }
    for old in replaced {
        old.says("the last connection has ended").await;
        let log = old.log.clone();
        let status = old.ends().await;
        assert!(status.success(), "{}", log.text());
    }
    let tally = chats.stop().await;
    println!("{takeovers} takeovers, paused for {paused:?} ms: {tally:?}");
    assert!(tally.is_clean(), "{tally:?}");
    assert!(tally.pings > 20 * takeovers, "{tally:?}");
    assert_eq!(process.metric("bowline_connections_refused_total").await, 0);
}

#[tokio::test]
async fn a_held_poll_is_answered_by_the_old_process_and_the_next_request_by_the_new_one() {
    let nodes = tigase_nodes(2).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let mut client = old.client().await;
    client.create().await.unwrap();
    client.ping("before").await.unwrap();
    let held = client.begin_poll().await.unwrap();
    let node = nodes.iter().find(|node| node.owns(client.sid())).unwrap();
    node.wait_until(|node| node.held() == 1).await.unwrap();

    let new = place.next().await;
    assert_eq!(new.address().await, old.address().await);
    assert_eq!(new.metric("bowline_sessions_restored_total").await, 1);
    node.push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    let answer = held.reply().await.unwrap();
    assert!(answer.text().contains("id='m'"), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(old.ends().await.success());

    client.hang_up();
    assert_goes_on(&client.ping("after").await.unwrap());
    assert_eq!(new.metric("bowline_unknown_sids_total").await, 0);
    // The socket of the takeover is that of the first process.
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut new = new;
    new.program.signal("TERM").unwrap();
    assert!(new.program.wait().await.unwrap().success());
    assert!(!place.socket().exists(), "it goes with the last process");
}

/// Goes through the steps of a takeover, and stops behind this many.
async fn take_steps(place: &Place, steps: usize) -> Option<Channel> {
    if steps == 0 {
        drop(UnixStream::connect(place.socket()).await.unwrap());
        return None;
    }
    let predecessor = handover::connect(&place.socket()).await.unwrap();
    let mut channel = predecessor.expect("a process listens").channel;
    for step in 1..steps {
        match step {
            1 => channel
                .send(Kind::Ready, b"", None, PATIENCE)
                .await
                .unwrap(),
            2 => while channel.receive().await.unwrap().0 != Kind::All {},
            3 => channel
                .send(Kind::Loaded, b"", None, PATIENCE)
                .await
                .unwrap(),
            4 => drop(channel.expect(Kind::Yours, PATIENCE).await.unwrap()),
            _ => channel.send(Kind::Mine, b"", None, PATIENCE).await.unwrap(),
        }
    }
    Some(channel)
}

#[tokio::test]
async fn a_takeover_that_ends_at_any_step_leaves_the_old_process_serving() {
    let nodes = chatting_nodes().await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let chats = Chats::start(old.address().await, 6);
    for steps in 0..=6 {
        let before = old.log.lines().len();
        drop(take_steps(&place, steps).await);
        let wanted = if steps < 6 {
            "no takeover: this process goes on"
        } else {
            "the process that took over has crashed"
        };
        let said = async || {
            old.log.lines()[before..]
                .iter()
                .any(|line| line.text.contains(wanted))
        };
        assert!(until(PATIENCE, said).await, "{steps}: {}", old.log.text());
        // It serves, and its admin listener too.
        let mut client = old.client().await;
        client.create().await.unwrap();
        assert_goes_on(&client.ping("one").await.unwrap());
        old.until_ready().await;
    }
    let tally = chats.stop().await;
    assert!(tally.is_clean(), "{tally:?}");
    // And another one takes over as if nothing had been.
    let new = place.next().await;
    assert!(old.ends().await.success());
    drop(new);
}

#[tokio::test]
async fn a_process_that_cannot_start_leaves_the_old_one_serving_and_says_why() {
    let nodes = chatting_nodes().await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let chats = Chats::start(old.address().await, 4);
    place.configure(&nodes, &format!("{MORE}\nunknown: 1"));
    let new = place.launch();
    let log = new.log.clone();
    assert_eq!(new.ends().await.code(), Some(78), "{}", log.text());

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let probes = format!("admin: {{ address: 127.0.0.1:0, probes: {{ address: '{address}' }} }}");
    let text = fs::read_to_string(place.folder.path().join("bowline.yaml")).unwrap();
    let text = text.replace("\nunknown: 1", "");
    let text = text.replace("admin: { address: '127.0.0.1:0' }", &probes);
    place.folder.write("bowline.yaml", &text).unwrap();
    let new = place.launch();
    let log = new.log.clone();
    assert_eq!(new.ends().await.code(), Some(71), "{}", log.text());
    let said = old.says("no takeover: this process goes on").await;
    let why = format!("the other process refuses: cannot listen on {address}: ");
    assert!(said["error"].as_str().unwrap().starts_with(&why), "{said}");
    let tally = chats.stop().await;
    assert!(tally.is_clean(), "{tally:?}");
}

#[tokio::test]
async fn of_two_takeovers_at_once_the_second_is_refused() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    // The first stands still, and the old process serves.
    let first = take_steps(&place, 1).await;
    let second = place.launch();
    let log = second.log.clone();
    assert_eq!(second.ends().await.code(), Some(71));
    let why = "no takeover: the other process refuses: another process takes over at present";
    wrote(&log, why).await;
    let mut client = old.client().await;
    client.create().await.unwrap();
    drop(first);
    old.says("no takeover: this process goes on").await;
    let _new = place.next().await;
    assert!(old.ends().await.success());
}

#[tokio::test]
async fn a_new_process_that_is_killed_leaves_its_clients_to_the_old_one_as_long_as_that_is_there() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let (client, held) = old.held_poll(&nodes[0]).await;
    let mut new = place.next().await;
    new.program.signal("KILL").unwrap();
    new.program.wait().await.unwrap();
    old.says("the process that took over has crashed").await;
    let mut other = old.client().await;
    other.create().await.unwrap();
    assert_goes_on(&other.ping("one").await.unwrap());
    old.until_ready().await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    assert!(held.reply().await.unwrap().text().contains("id='m'"));
    assert!(place.socket().exists());
    let _new = place.next().await;
    assert!(old.ends().await.success());
}

#[tokio::test]
async fn a_new_process_that_stops_takes_the_old_one_with_it() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let (_client, held) = old.held_poll(&nodes[0]).await;
    let new = place.next().await;
    new.program.signal("TERM").unwrap();
    assert!(new.ends().await.success());
    assert!(held.reply().await.unwrap().is_empty(), "it is released");
    assert!(old.ends().await.success());
}

/// A request of this client's session: its rid is the last one plus `ahead`.
fn request(client: &Client, ahead: u64, stanzas: &str) -> String {
    let (rid, sid) = (client.rid() + ahead, client.sid());
    format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{sid}'>{stanzas}</body>"
    )
}

const PING: &str = "<iq type='get' id='p' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>";

#[tokio::test]
async fn answers_that_the_old_process_gave_are_kept_by_the_new_one() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let mut client = old.client().await;
    client.create().await.unwrap();
    let (ping, poll) = (request(&client, 1, PING), request(&client, 2, ""));
    let pong = client.post(&ping).await.unwrap();
    assert!(pong.text().contains("\"result\""), "{pong:?}");
    let held = client.begin_post(&poll).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let new = place.next().await;
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    // This one was on its way when the sessions were sent.
    let message = held.reply().await.unwrap();
    assert!(message.text().contains("id='m'"), "{message:?}");
    assert!(old.ends().await.success());
    new.says("the process before has ended").await;

    let before = nodes[0].requests_of(client.sid());
    for (body, wanted) in [(&ping, &pong), (&poll, &message)] {
        client.hang_up();
        let again = client.post(body).await.unwrap();
        assert_eq!(again.text(), wanted.text());
    }
    assert_eq!(
        nodes[0].requests_of(client.sid()),
        before,
        "its node saw nothing"
    );
    assert_eq!(new.metric("bowline_answers_replayed_total").await, 2);
}

#[tokio::test]
async fn requests_at_the_new_process_go_on_in_the_order_of_the_old_one() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let mut client = old.client().await.most(4);
    client.create().await.unwrap();
    let first = client.rid() + 1;
    let held = client.begin_post(&request(&client, 1, "")).await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let new = place.next().await;
    client.hang_up();
    let later = client.begin_post(&request(&client, 3, PING)).await.unwrap();
    let arrived = async || new.metric("bowline_connections ").await == 1;
    assert!(until(PATIENCE, arrived).await);
    client.hang_up();
    let sooner = client.begin_post(&request(&client, 2, PING)).await.unwrap();
    for answer in [held, sooner, later] {
        nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
        assert_goes_on(&answer.reply().await.unwrap());
    }
    let rids: Vec<u64> = seen_of(&nodes[0], client.sid())
        .iter()
        .filter_map(|seen| seen.rid)
        .collect();
    assert_eq!(rids, [first, first + 1, first + 2]);
    assert!(old.ends().await.success());
}

#[tokio::test]
async fn what_the_operator_decided_goes_along() {
    let nodes = tigase_nodes(2).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let at = old.admin().await;
    let mut drain = Command::new(bowline(None).unwrap());
    drain.args(["drain", "t1", "--admin", &at.to_string()]);
    must(&mut drain).unwrap();
    let _new = place.next().await;
    assert!(old.ends().await.success());
    let states = admin::get(at, "/nodes").await.unwrap();
    assert!(states.text().contains("\"drain\""), "{states:?}");
}

#[tokio::test]
async fn a_process_of_another_user_is_refused() {
    const OTHER_USER: &str = "65534";
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    if !is_root {
        println!("skipped: only root can start a process of another user");
        return;
    }
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, MORE);
    let old = place.first().await;
    let readable = |path: PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    readable(place.folder.path().to_owned(), 0o755).unwrap();
    readable(place.folder.path().join("bowline.yaml"), 0o644).unwrap();
    // The other user may not reach the folder of the build.
    let program = place.folder.path().join("bowline");
    fs::copy(bowline(None).unwrap(), &program).unwrap();
    // The file alone keeps it out.
    let launch = || {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            OTHER_USER,
            "--regid",
            OTHER_USER,
            "--clear-groups",
        ]);
        command.arg(&program);
        place.launch_by(command)
    };
    let stranger = launch();
    let log = stranger.log.clone();
    assert_eq!(stranger.ends().await.code(), Some(71), "{}", log.text());
    wrote(&log, "Permission denied").await;
    // And so does each of the two, if the file does not.
    readable(place.socket(), 0o666).unwrap();
    let stranger = launch();
    let log = stranger.log.clone();
    assert_eq!(stranger.ends().await.code(), Some(71), "{}", log.text());
    let why = "no takeover: the other process belongs to user 0, and this one does not";
    wrote(&log, why).await;
    let said = old.says("no takeover: this process goes on").await;
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("belongs to user 65534"),
        "{said}"
    );
    let mut client = old.client().await;
    client.create().await.unwrap();
}

#[tokio::test]
async fn without_the_key_or_with_sockets_of_a_service_manager_there_is_no_takeover() {
    let nodes = tigase_nodes(1).await;
    let place = Place::new(&nodes, "log: { format: json }");
    let process = place.launch();
    let log = process.log.clone();
    assert_eq!(process.ends().await.code(), Some(78));
    wrote(&log, "--takeover needs the key `takeover` in").await;

    place.configure(&nodes, MORE);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=bowline.socket; exec \"$0\" run --takeover --config \"$1\" 3<&0",
        ])
        .arg(bowline(None).unwrap())
        .arg(place.folder.path().join("bowline.yaml"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("restart the service instead"), "{said}");
}
