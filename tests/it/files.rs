//! The real binary with few open files: it says what fits, keeps the last ones for the operator, and
//! serves on when a flood is over.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::balancer::{assert_goes_on, tigase_nodes};
use crate::narration::message;
use crate::process::{Process, Start};
use crate::routing::creation;
use crate::support::admin;

#[tokio::test]
async fn a_flood_of_connections_with_few_open_files_leaves_the_operator_some_and_does_not_spin() {
    let nodes = tigase_nodes(1).await;
    let start = Start {
        more: "log: { format: json }\nthreads: 2",
        files: Some(256),
        ..Start::default()
    };
    let process = Process::start(&nodes, &start).await;
    let lowered =
        |line: &Value| message(line).contains("limits.connections is lowered from 100000");
    let lowered = process.line("a lower limit", lowered).await;
    assert_eq!(lowered["open_files"], 256, "{lowered}");

    // Twice as many as there are files, with half a head each: not idle, so they stay for a while.
    let mut flood = Vec::new();
    for _ in 0..512 {
        let stream = TcpStream::connect(process.address).unwrap();
        std::io::Write::write_all(&mut &stream, b"POST /http-bind HTTP/1.1\r\n").unwrap();
        flood.push(stream);
    }
    let cpu = || process.program.usage().cpu().unwrap();
    let (begun, before) = (Instant::now(), cpu());
    for _ in 0..20 {
        let asked = admin::get(process.admin, "/ready");
        let asked = timeout(Duration::from_secs(5), asked)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            asked.status, 200,
            "the operator and probes have files of their own"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let part = (cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(part < 0.5, "it spins: {part} of a core");

    drop(flood);
    let begun = Instant::now();
    let mut client = process.client();
    client.create().await.unwrap();
    assert_goes_on(&client.ping("p").await.unwrap());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    // The same with connections that say nothing: they are given up for who asks.
    let _hoard: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(process.address).unwrap())
        .collect();
    let answer = process.client().post(&creation()).await.unwrap();
    assert_eq!(answer.status, 200);
}
