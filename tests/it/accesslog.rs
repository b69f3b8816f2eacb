//! One line for each request: what stands in it, each end state, and that a log that nobody takes
//! holds up nothing.

use std::time::Duration;

use bowline::demo::node::{Ending, Fault, Kind, Node, Profile, Seen};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::balancer::{PATIENCE, tigase_nodes};
use crate::process::{Process, Start, full};
use crate::support::{logfmt, metrics};

/// Probes once and never again, so that nothing but the request path acts.
const QUIET: &str = "health: { interval: 24h, timeout: 1s, rise: 1 }\n\
    log: { access: on }\n";

fn quietly(more: &str) -> String {
    format!("{QUIET}{more}")
}

async fn quiet(nodes: &[Node], more: &str) -> Process {
    let more = quietly(more);
    let start = Start {
        more: &more,
        ..Start::default()
    };
    Process::start(nodes, &start).await
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {line}"))
}

fn preflights(count: usize) -> Vec<u8> {
    "OPTIONS /http-bind HTTP/1.1\r\nHost: localhost\r\n\r\n"
        .repeat(count)
        .into_bytes()
}

#[tokio::test]
async fn a_session_can_be_followed_without_its_sid() {
    let nodes = tigase_nodes(1).await;
    let start = Start {
        filter: Some("trace"),
        ..Start::default()
    };
    let mut process = Process::start(&nodes, &start).await;
    let mut sids = Vec::new();
    for round in 0..2 {
        let mut client = process.client();
        client.create().await.unwrap();
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        client.ping("1").await.unwrap();
        poll.reply().await.unwrap();
        client.terminate().await.unwrap();
        sids.push(client.sid().to_owned());
        assert_eq!(round + 1, sids.len());
    }
    process.terminate();
    assert!(process.wait().await.success());
    let requests = process.requests();
    assert_eq!(requests.len(), 8, "{requests:?}");
    for (lines, sid) in requests.chunks(4).zip(&sids) {
        let name = text(&lines[0], "session");
        assert_eq!(name.len(), 6);
        assert!(!sid.contains(name), "{name} of {sid}");
        let mut kinds: Vec<&str> = lines.iter().map(|line| text(line, "kind")).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["creation", "poll", "send", "terminate"]);
        for line in lines {
            assert_eq!(text(line, "session"), name, "{line}");
            assert_eq!(text(line, "client"), "127.0.0.1");
            assert_eq!(text(line, "node"), "t1");
            assert_eq!(text(line, "outcome"), "ok");
            assert_eq!(text(line, "end"), "--");
            assert_eq!(line["status"], 200);
            assert!(line["bytes"].as_u64().unwrap() > 40, "{line}");
            assert!(line["ms"].as_u64().unwrap() >= line["held_ms"].as_u64().unwrap());
            assert!(line["cause"].is_null() && line["tries"].is_null(), "{line}");
        }
        let poll = lines.iter().find(|line| line["kind"] == "poll").unwrap();
        assert!(poll["held_ms"].as_u64().unwrap() >= 30, "{poll}");
    }
    assert_ne!(requests[0]["session"], requests[4]["session"]);
    for line in process.lines() {
        for sid in &sids {
            assert!(!line.to_string().contains(sid.as_str()), "{line}");
        }
    }
}

#[tokio::test]
async fn balancers_with_the_same_key_name_a_session_alike() {
    let nodes = tigase_nodes(1).await;
    let mut names = Vec::new();
    for key in ["0f".repeat(16), "0f".repeat(16), "f0".repeat(16)] {
        let more = format!("log: {{ format: json, access: on, session_key: \"{key}\" }}");
        let start = Start {
            more: &more,
            ..Start::default()
        };
        let process = Process::start(&nodes, &start).await;
        let mut client = process.client();
        client.adopt("8a8f2a2e-9e37-4b5a-8c3d-00000000002a", 7);
        client.poll().await.unwrap();
        let line = process.ended("--").await;
        names.push(text(&line, "session").to_owned());
    }
    assert_eq!(names[0], names[1]);
    assert_ne!(names[0], names[2]);
}

#[tokio::test]
async fn what_did_not_end_well_is_never_sampled_away() {
    let nodes = tigase_nodes(1).await;
    for access in ["{ sample: 1000000 }", "failures"] {
        let more = format!("log: {{ format: json, access: {access} }}");
        let start = Start {
            more: &more,
            ..Start::default()
        };
        let mut process = Process::start(&nodes, &start).await;
        let mut client = process.client();
        client.create().await.unwrap();
        client.ping("1").await.unwrap();
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        drop(poll);
        nodes[0].wait_until(|node| node.held() == 0).await.unwrap();
        process.client().post("<nothing/>").await.unwrap();
        process.terminate();
        process.wait().await;
        let ends: Vec<String> = process
            .requests()
            .iter()
            .map(|line| text(line, "end").to_owned())
            .collect();
        // One session in a million may be this one.
        assert!(
            ends == ["CH", "PR"] || ends.len() == 4,
            "{access}: {ends:?}"
        );
    }
}

#[tokio::test]
async fn off_is_off_unless_the_filter_asks_for_it() {
    let nodes = tigase_nodes(1).await;
    let cases = [
        ("off", None, 0),
        ("off", Some("debug"), 0),
        ("off", Some("info,bowline::access=debug"), 1),
        ("on", Some("info"), 1),
        ("on", Some("info,bowline::access=off"), 0),
    ];
    for (access, filter, expected) in cases {
        let more = format!("log: {{ format: json, access: {access} }}");
        let start = Start {
            more: &more,
            filter,
            ..Start::default()
        };
        let mut process = Process::start(&nodes, &start).await;
        process.client().post("<nothing/>").await.unwrap();
        process.terminate();
        process.wait().await;
        assert_eq!(process.requests().len(), expected, "{access}, {filter:?}");
    }
}

#[tokio::test]
async fn what_the_balancer_answers_itself() {
    let nodes = tigase_nodes(1).await;
    let process = quiet(&nodes, "timeouts: { body: 50ms }\nlimits: { sessions: 1 }").await;
    let client = process.client();
    client.post_raw(&preflights(1)).await.unwrap();
    let line = process.ended("L-").await;
    assert_eq!(text(&line, "kind"), "preflight");
    assert!(
        line["node"].is_null() && line["session"].is_null(),
        "{line}"
    );

    client.post("<nothing/>").await.unwrap();
    let line = process.ended("PR").await;
    assert_eq!(
        (text(&line, "outcome"), text(&line, "cause")),
        ("rejected", "malformed")
    );
    assert_eq!(line["status"], 400);

    let slow = b"POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n<body";
    assert_eq!(client.post_raw(slow).await.unwrap().status, 408);
    assert_eq!(text(&process.ended("cR").await, "cause"), "body_timeout");

    let mut first = process.client().most(20);
    first.create().await.unwrap();
    assert!(process.client().create().await.is_err());
    let line = process.ended("RQ").await;
    assert_eq!(
        (text(&line, "kind"), text(&line, "cause")),
        ("creation", "full")
    );

    let mut polls = Vec::new();
    for number in 0..13 {
        // Far apart, so that each waits for those before it.
        let sid = first.sid().to_owned();
        first.adopt(&sid, first.rid() + 10);
        polls.push(first.begin_poll().await.unwrap());
        if number == 12 {
            break;
        }
    }
    let line = process.ended("PQ").await;
    assert_eq!(text(&line, "cause"), "too_many");
    assert_eq!(text(&line, "session").len(), 6);
}

#[tokio::test]
async fn a_client_that_goes_away_has_a_line_that_says_where_its_request_was() {
    let nodes = tigase_nodes(1).await;
    let process = quiet(&nodes, "upstream: { connects_per_second: 1 }").await;
    let mut client = process.client();
    client.create().await.unwrap();

    let mut stream = TcpStream::connect(process.address).await.unwrap();
    let half = b"POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n<body";
    stream.write_all(half).await.unwrap();
    drop(stream);
    let line = process.ended("CR").await;
    assert_eq!(text(&line, "outcome"), "client_gone");
    assert_eq!((&line["status"], &line["bytes"]), (&0.into(), &0.into()));

    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    drop(poll);
    let line = process.ended("CH").await;
    assert_eq!((text(&line, "node"), text(&line, "kind")), ("t1", "poll"));
    assert_eq!(text(&line, "session").len(), 6);

    // It waits for a rid that never comes.
    let sid = client.sid().to_owned();
    client.adopt(&sid, client.rid() + 1);
    let received = "bowline_client_received_bytes_total";
    let before = process.metric(received).await;
    let early = client.begin_poll().await.unwrap();
    while process.metric(received).await == before {}
    drop(early);
    assert_eq!(text(&process.ended("CQ").await, "kind"), "poll");

    // It waits for its connection: one in a second is allowed.
    let mut others = Vec::new();
    while process.metric("bowline_upstream_connects_waiting").await == 0 {
        others.push(process.client().begin_post(CREATION).await.unwrap());
    }
    drop(others);
    let line = process.ended("CC").await;
    assert_eq!(
        (text(&line, "node"), text(&line, "kind")),
        ("t1", "creation")
    );
    let page = process.admin("/metrics").await;
    let gone = "bowline_requests_total{kind=\"other\",outcome=\"client_gone\"}";
    assert_eq!(metrics::sum::<u64>(page.text(), gone), 1);
}

/// What the client did not get is not an ordinary end, and is never sampled away.
#[tokio::test]
async fn an_answer_that_did_not_arrive_has_a_line_that_says_so() {
    let nodes = tigase_nodes(1).await;
    let more = "timeouts: { write_stall: 1s }\n\
        log: { format: json, access: { sample: 1000000 } }\n\
        health: { interval: 24h, timeout: 1s, rise: 1 }\n";
    let start = Start {
        more,
        ..Start::default()
    };
    let process = Process::start(&nodes, &start).await;
    for (state, leaves) in [("CD", true), ("cD", false)] {
        let mut client = process.client();
        client.create().await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Little room for an answer that is not read.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(process.address).await.unwrap();
        let poll = crate::clients::post(client.sid(), client.rid() + 1);
        stream.write_all(poll.as_bytes()).await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        let large = format!(
            "<message xmlns='jabber:client'>{}</message>",
            "x".repeat(3 << 20)
        );
        assert!(nodes[0].push(client.sid(), large));
        let mut line = [0; 15];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 200 OK");
        if leaves {
            drop(stream);
        }
        let line = process.ended(state).await;
        assert_eq!((text(&line, "node"), text(&line, "kind")), ("t1", "poll"));
        assert_eq!(
            (text(&line, "outcome"), &line["status"]),
            ("ok", &200.into())
        );
        assert!(line["bytes"].as_u64().unwrap() > 3 << 20, "{line}");
    }
}

const CREATION: &str = "<body xmlns='http://jabber.org/protocol/httpbind' to='example.com' rid='9' \
    wait='1' hold='1' ver='1.6'/>";

#[tokio::test]
async fn nodes_that_fail() {
    let nodes = tigase_nodes(1).await;
    let process = quiet(&nodes, "placement_wait: 100ms").await;
    let mut client = process.client();
    client.create().await.unwrap();

    let sid = client.sid().to_owned();
    let of_client = move |seen: &Seen| seen.sid.as_ref() == Some(&sid);
    nodes[0].misbehave(Fault::answering_status(413).on(of_client.clone()).once());
    client.poll().await.unwrap();
    let line = process.ended("SD").await;
    assert_eq!(text(&line, "cause"), "request_failed");

    // Sent three times, and the node is well.
    nodes[0].misbehave(Fault::resetting().on(of_client.clone()).times(3));
    client.poll().await.unwrap();
    let line = process.ended("SH").await;
    assert_eq!(
        (text(&line, "cause"), line["tries"].as_u64()),
        ("request_failed", Some(3))
    );

    nodes[0].misbehave(Fault::answering_status(502).on(of_client.clone()).times(3));
    client.poll().await.unwrap();
    let errors = |line: &Value| line["cause"] == "node_error";
    let line = process.line("cause=node_error", errors).await;
    assert_eq!(
        (text(&line, "end"), line["status"].as_u64()),
        ("SD", Some(503))
    );

    nodes[0].misbehave(Fault::answering_rubbish("SSH-2.0-x\r\n").on(of_client));
    client.poll().await.unwrap();
    let garbage = |line: &Value| line["cause"] == "node_garbage";
    let line = process.line("cause=node_garbage", garbage).await;
    assert_eq!((text(&line, "end"), text(&line, "node")), ("SD", "t1"));
    nodes[0].behave();

    // Sent once more on a connection of its own.
    client.create().await.unwrap();
    nodes[0].misbehave(Fault::closing_reused().once());
    nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
    client.poll().await.unwrap();
    let again = |line: &Value| line["tries"] == 2;
    assert_eq!(text(&process.line("tries=2", again).await, "end"), "--");

    // A terminate that the node closes on is answered in its stead.
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    nodes[0].misbehave(Fault::losing_the_answer().on(|seen| seen.kind == Kind::Terminate));
    assert!(client.terminate().await.unwrap().is_terminate());
    let line = process.ended("LH").await;
    assert_eq!(
        (text(&line, "outcome"), text(&line, "kind")),
        ("ok", "terminate")
    );
    drop(poll);
    nodes[0].behave();

    nodes[0].kill(Ending::Eof).await;
    assert!(process.client().create().await.is_err());
    let line = process.ended("sQ").await;
    assert_eq!(
        (text(&line, "cause"), line["status"].as_u64()),
        ("no_node", Some(503))
    );
}

#[tokio::test]
async fn a_node_that_does_not_answer() {
    let nodes = [Node::start(Profile::tigase("t1")).await.unwrap()];
    let process = quiet(&nodes, "").await;
    nodes[0].misbehave(Fault::never_answering().on(|seen| seen.kind == Kind::Create));
    // A wait of none, and ten seconds.
    let mut client = process.client().wait(0);
    assert!(client.create().await.is_err());
    let line = process.ended("sH").await;
    assert_eq!(text(&line, "cause"), "creation_failed");
    assert!(line["held_ms"].as_u64().unwrap() >= 10_000, "{line}");
}

#[tokio::test]
async fn a_machine_without_descriptors() {
    let nodes = tigase_nodes(1).await;
    let more = quietly("timeouts: { connect: 100ms }");
    let start = Start {
        more: &more,
        files: Some(48),
        ..Start::default()
    };
    let process = Process::start(&nodes, &start).await;
    let mut first = TcpStream::connect(process.address).await.unwrap();
    first.write_all(&preflights(1)).await.unwrap();
    assert!(first.read(&mut [0; 1024]).await.unwrap() > 0);
    // Places for clients are fitted to the descriptors; but a session keeps a connection to its node,
    // and one client may make many.
    let length = CREATION.len();
    let head = format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let creation = format!("{head}{CREATION}");
    let mut answer = String::new();
    for _ in 0..48 {
        first.write_all(creation.as_bytes()).await.unwrap();
        answer = crate::clients::read_response(&mut first).await;
        if !answer.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let line = process.ended("RC").await;
    assert_eq!(text(&line, "cause"), "overloaded");
}

#[tokio::test]
async fn what_the_end_cuts_has_its_line() {
    let nodes = tigase_nodes(1).await;
    let more = "timeouts: { drain: 100ms }\nupstream: { connects_per_second: 2, release: keep }";
    let mut process = quiet(&nodes, more).await;
    let mut client = process.client().most(3);
    client.create().await.unwrap();
    let poll = client.begin_poll().await.unwrap();
    nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
    let sid = client.sid().to_owned();
    client.adopt(&sid, client.rid() + 1);
    let early = client.begin_poll().await.unwrap();
    let mut others = Vec::new();
    while process.metric("bowline_upstream_connects_waiting").await == 0 {
        others.push(process.client().begin_post(CREATION).await.unwrap());
    }
    process.terminate();
    assert!(process.wait().await.success());
    for state in ["KH", "KQ", "KC"] {
        let line = process.ended(state).await;
        assert_eq!(text(&line, "outcome"), "cut", "{state}");
    }
    drop((poll, early, others));
}

#[tokio::test]
async fn the_queue_is_written_before_the_end() {
    let nodes = tigase_nodes(1).await;
    let mut process = Process::start(&nodes, &Start::default()).await;
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    stream.write_all(&preflights(500)).await.unwrap();
    answers(&mut stream, 500).await;
    process.terminate();
    assert!(process.wait().await.success());
    assert_eq!(process.requests().len(), 500);
    let drained = process.lines().into_iter().next_back().unwrap();
    assert_eq!(text(&drained, "message"), "drained");
}

/// Reads so many answers without a body.
async fn answers(stream: &mut TcpStream, count: usize) {
    let (mut seen, mut found) = (Vec::new(), 0);
    let mut buffer = vec![0; 65536];
    while found < count {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await;
        let some = read.expect("traffic goes on").unwrap();
        assert_ne!(some, 0, "the connection stays");
        seen.extend_from_slice(&buffer[..some]);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            found += 1;
        }
    }
}

#[tokio::test]
async fn a_full_disk_stops_nothing() {
    let nodes = tigase_nodes(1).await;
    let mut process = Process::mute(&nodes, &Start::default(), full()).await;
    let mut client = process.client();
    client.create().await.unwrap();
    client.ping("1").await.unwrap();
    client.terminate().await.unwrap();
    let dropped = async {
        // What the start says, and three requests.
        while process.metric("bowline_log_dropped_lines_total").await < 6 {}
    };
    timeout(PATIENCE, dropped).await.expect("lines are counted");
    process.terminate();
    assert!(process.wait().await.success());
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_stops_nothing_and_the_log_says_what_it_lost() {
    let nodes = tigase_nodes(1).await;
    let (mut log, stderr) = std::io::pipe().unwrap();
    let mut process = Process::mute(&nodes, &Start::default(), stderr).await;
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    let mut sent = 0;
    while process.metric("bowline_log_dropped_lines_total").await == 0 {
        // Some 170 bytes of log each, 4 MiB of which have room.
        stream.write_all(&preflights(500)).await.unwrap();
        answers(&mut stream, 500).await;
        sent += 500;
        assert!(sent < 100_000, "nothing is ever dropped");
    }
    let mut client = process.client();
    client.create().await.unwrap();
    client.ping("1").await.unwrap();

    // Somebody reads again.
    let told = std::thread::spawn(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(&mut log));
        let told = lines.find(|line| line.as_ref().unwrap().contains("log lines were dropped"));
        // To the end, so that nothing waits any more.
        let rest = lines.count();
        (told, rest)
    });
    process.terminate();
    assert!(process.wait().await.success());
    let (told, _) = told.join().unwrap();
    let told = logfmt::read(&told.unwrap().unwrap()).unwrap();
    assert!(told["lines"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["level"], "WARN");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_does_not_hold_up_the_end() {
    let nodes = tigase_nodes(1).await;
    let (log, stderr) = std::io::pipe().unwrap();
    let mut process = Process::mute(&nodes, &Start::default(), stderr).await;
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    // More than a pipe holds.
    stream.write_all(&preflights(1000)).await.unwrap();
    answers(&mut stream, 1000).await;
    drop(stream);
    process.terminate();
    assert!(process.wait().await.success());
    drop(log);
}
