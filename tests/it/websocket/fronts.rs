//! WebSocket over TLS, and rooms.

use bowline::config::Placement;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::{OPEN, field, frame};
use super::*;
use crate::process::{Process, Start};
use crate::support::tls::{Authority, connect, listener};

const NAME: &str = "chat.example.com";

#[tokio::test]
async fn a_tunnel_over_tls_carries_both_ways_and_ends_with_its_client() {
    let authority = Authority::new();
    let mut world = World::with(1, |settings| {
        settings.listen = vec![listener(vec![authority.files(NAME)])];
    })
    .await;
    let connector = authority.client(&[&TLS13], None);
    let stream = connect(&connector, world.balancer.address(), NAME).await;
    let mut stream = stream.unwrap();
    stream.write_all(upgrade("").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (asked, mut node) = world.websockets[0].tunnel().await;
    let proto = field(&asked, "x-forwarded-proto");
    assert_eq!(proto.as_deref(), Some("https"), "{asked}");
    stream.write_all(&frame(true, 0x81, OPEN)).await.unwrap();
    node.expect(0x81, OPEN).await;
    // Larger than one record of TLS.
    let long = vec![b'x'; 100_000];
    node.text(&long).await;
    let expected = frame(false, 0x81, &long);
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).await.unwrap();
    assert!(seen == expected);
    drop(stream);
    node.expect_end().await;
    eventually("it is counted no more", || world.open() == 0).await;
}

#[tokio::test]
async fn a_tunnel_has_one_line_in_the_access_log() {
    let nodes = tigase_nodes(1).await;
    let mut websocket = WebSocketNode::start().await;
    let authority = Authority::new();
    let files = authority.files(NAME);
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let start = Start {
        more: "log: { format: json, access: on }\nwebsocket: { paths: [/xmpp-websocket] }",
        listen: &format!(
            ", tls: {{ certificates: [{{ certificate: '{certificate}', key: '{key}' }}] }}"
        ),
        node: &format!(", websocket: 'ws://{}/ws'", websocket.address),
        ..Start::default()
    };
    let process = Process::start(&nodes, &start).await;
    let connector = authority.client(&[&TLS13], None);
    let mut stream = connect(&connector, process.address, NAME).await.unwrap();
    stream.write_all(upgrade("").as_bytes()).await.unwrap();
    let (_, mut node) = websocket.tunnel().await;
    stream.write_all(&frame(true, 0x81, OPEN)).await.unwrap();
    node.expect(0x81, OPEN).await;
    drop(stream);
    node.expect_end().await;
    let line = process
        .line("the line of the tunnel", |line| line["kind"] == "websocket")
        .await;
    assert_eq!(line["protocol"], "HTTP/1.1");
    assert_eq!(line["tls"], "TLSv1.3");
    assert_eq!(line["status"], 101);
    assert_eq!(line["outcome"], "ok");
    assert_eq!(line["node"], "t1");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(process.requests().len(), 1);
}

#[tokio::test]
async fn tunnels_of_a_room_go_to_one_node() {
    let world = World::with(3, |settings| {
        settings.placement = Placement::Query("room".into());
    })
    .await;
    for room in ["tea", "coffee", "milk"] {
        let mut home = None;
        for _ in 0..4 {
            let query = format!("GET /xmpp-websocket?room={room} ");
            let request = upgrade("").replacen("GET /xmpp-websocket ", &query, 1);
            let (client, _) = world.upgrade(&request).await.unwrap();
            let counts: Vec<u64> = (1..=3)
                .map(|node| {
                    let series = format!("bowline_websocket_opened_total{{node=\"t{node}\"}}");
                    world.balancer.metric(&series)
                })
                .collect();
            let before = home.replace(counts.clone());
            if let Some(before) = before {
                let changed = counts.iter().zip(&before).filter(|(now, old)| now != old);
                assert_eq!(changed.count(), 1);
            }
            drop(client);
        }
        let opened = home.unwrap();
        assert_eq!(opened.iter().sum::<u64>() % 4, 0);
        assert!(
            opened.iter().all(|count| count % 4 == 0),
            "{room}: {opened:?}"
        );
    }
}
