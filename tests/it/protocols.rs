//! What clients speak: the line that the log has where it is the wrong protocol, and its name in the lines
//! about requests.

use bowline::demo::node::Node;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::balancer::{PATIENCE, tigase_nodes};
use crate::process::{Process, Start};
use crate::support::http2::Http2;
use crate::support::tls::{Authority, connect};

const NAME: &str = "chat.example.com";

/// What a browser's handshake begins with.
const CLIENT_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// What an HTTP/2 client sends first, and its settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const GET: &str = "GET /http-bind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The keys of a listener with TLS.
fn tls(authority: &Authority) -> String {
    let files = authority.files(NAME);
    let (certificate, key) = (files.certificate.display(), files.key.display());
    format!(", tls: {{ certificates: [{{ certificate: '{certificate}', key: '{key}' }}] }}")
}

async fn start(nodes: &[Node], listen: &str) -> Process {
    let start = Start {
        listen,
        ..Start::default()
    };
    Process::start(nodes, &start).await
}

/// Sends `bytes`, and waits for the end of the connection and for the line about it.
async fn refused(process: &Process, bytes: &[u8], says: &str) {
    for _ in 0..2 {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _: std::io::Result<usize> = ended.expect("closed at once");
        assert_eq!(answer, b"");
    }
    let line = process.line(says, |line| line["message"] == says).await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["listener"], "127.0.0.1:0", "as it is configured");
    let lines = process.lines();
    let count = lines.iter().filter(|line| line["message"] == says).count();
    assert_eq!(count, 1, "once a minute");
}

#[tokio::test]
async fn tls_on_a_plain_listener_is_closed_with_a_line() {
    let nodes = tigase_nodes(1).await;
    for keys in ["", ", h2c: true"] {
        let process = start(&nodes, keys).await;
        let says = "a client speaks TLS on a listener without TLS";
        refused(&process, CLIENT_HELLO, says).await;
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_listener_is_closed_with_a_line() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    for bytes in [GET.as_bytes(), PREFACE] {
        let process = start(&nodes, &tls(&authority)).await;
        let says = "a client does not speak TLS on a listener with TLS";
        refused(&process, bytes, says).await;
    }
}

#[tokio::test]
async fn http_2_on_a_listener_without_it_is_closed_with_a_line() {
    let nodes = tigase_nodes(1).await;
    let process = start(&nodes, "").await;
    let says = "a client speaks HTTP/2 on a listener without h2c";
    refused(&process, PREFACE, says).await;
}

#[tokio::test]
async fn http_2_that_alpn_did_not_choose_is_closed_with_a_line() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let process = start(&nodes, &tls(&authority)).await;
    let client = authority.client(&[&TLS13], None);
    let mut stream = connect(&client, process.address, NAME).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert_eq!(read.expect("closed at once").unwrap(), 0);
    let says = "a client speaks HTTP/2 that ALPN did not choose";
    let line = process.line(says, |line| line["message"] == says).await;
    assert_eq!(line["level"], "WARN");
}

/// The protocols in the line about the `count`th request.
async fn spoken(process: &Process, count: usize) -> (Value, Value) {
    let written = async || process.requests().len() == count;
    assert!(crate::support::waiting::until(PATIENCE, written).await);
    let line = process.requests().pop().unwrap();
    (line["protocol"].clone(), line["tls"].clone())
}

#[tokio::test]
async fn lines_about_requests_name_the_versions_of_http_and_tls() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let process = start(&nodes, ", h2c: true").await;
    for (number, version) in ["HTTP/1.1", "HTTP/1.0"].into_iter().enumerate() {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        let request = GET.replace("HTTP/1.1", version);
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let (protocol, tls) = spoken(&process, number + 1).await;
        assert_eq!((protocol, tls), (version.into(), Value::Null));
    }
    let mut client = Http2::to(process.address).await;
    client.post("no wrapper").await;
    let (protocol, tls) = spoken(&process, 3).await;
    assert_eq!((protocol, tls), ("HTTP/2".into(), Value::Null));

    let process = start(&nodes, &self::tls(&authority)).await;
    for (number, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let name = ["TLSv1.2", "TLSv1.3"][number];
        let client = authority.client(&[version], None);
        let mut stream = connect(&client, process.address, NAME).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let (protocol, tls) = spoken(&process, 2 * number + 1).await;
        assert_eq!((protocol, tls), ("HTTP/1.1".into(), name.into()));

        let client = authority.client_of(b"h2", &[version], None);
        let stream = connect(&client, process.address, NAME).await.unwrap();
        let mut client = Http2::over(stream, &h2::client::Builder::new()).await;
        client.post("no wrapper").await;
        let (protocol, tls) = spoken(&process, 2 * number + 2).await;
        assert_eq!((protocol, tls), ("HTTP/2".into(), name.into()));
    }
}
