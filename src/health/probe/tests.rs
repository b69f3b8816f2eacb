//! Each kind of probe against nodes that behave and nodes that do not, over real sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::cluster::tests::settings;
use crate::config::Placement;
use crate::observe::metrics::Metrics;

const T1: NodeId = NodeId(0);

const WRAPPER: &str = "HTTP/1.1 404 Invalid SID\r\nContent-Type: text/xml; charset=utf-8\r\n\
    Content-Length: 95\r\nConnection: close\r\n\r\n\
    <body type='terminate' condition='item-not-found' xmlns='http://jabber.org/protocol/httpbind'/>";

/// A node that answers every request with the same bytes (and closes), and shows what it got.
struct Fake {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Fake {
    /// Answers with `answer`; with nothing, it closes without a word.
    async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                // The test may be over.
                let _ = sender.send(request);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, requests }
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        });
        if whole || count == 0 {
            return text;
        }
    }
}

/// A listener that accepts nothing: connections open (in its backlog) and stay silent.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nothing listens, and nothing will while the socket is kept.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn http() -> Probe {
    Probe::Http {
        path: "/up?now".into(),
    }
}

/// One node, called t1.example.com:5280 and found at `addresses`, and the probe of it.
fn node(probe: Probe, addresses: &[SocketAddr]) -> (Prober, Arc<Cluster>) {
    let mut settings = settings(1, Placement::ClientIp);
    settings.health.probe = probe;
    settings.health.timeout = Duration::from_millis(300);
    settings.nodes[0].address = "t1.example.com:5280".into();
    let cluster = Cluster::new(&settings, &Metrics::new());
    cluster.node(T1).resolved(addresses.into());
    (Prober::new(&settings), Arc::new(cluster))
}

async fn ask_node(prober: &Prober, cluster: &Arc<Cluster>) -> Result<(), String> {
    let deadline = Instant::now() + prober.timeout;
    let asked = prober.ask(cluster, T1, deadline).await;
    asked.map_err(|failure| failure.to_string())
}

async fn ask_all(probe: Probe, addresses: &[SocketAddr]) -> Result<(), String> {
    let (prober, cluster) = node(probe, addresses);
    ask_node(&prober, &cluster).await
}

async fn ask(probe: Probe, address: SocketAddr) -> Result<(), String> {
    ask_all(probe, &[address]).await
}

fn failed(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

#[tokio::test]
async fn bosh_takes_a_wrapper_whatever_its_status() {
    let mut node = Fake::answering(WRAPPER).await;
    assert_eq!(ask(Probe::Bosh, node.address).await, Ok(()));
    let ok = WRAPPER.replace("404 Invalid SID", "200 OK");
    assert_eq!(
        ask(Probe::Bosh, Fake::answering(ok).await.address).await,
        Ok(())
    );

    let request = node.requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /http-bind HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nHost: t1.example.com:5280\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/xml; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(bosh::read_request(body.as_bytes()).is_ok(), "{body}");
    assert!(body.contains(" rid='") && body.contains(" sid='"), "{body}");
}

#[tokio::test]
async fn bosh_wants_a_wrapper_back() {
    let page = Fake::answering("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>").await;
    let expected = failed("the answer is not a BOSH wrapper (status 200)");
    assert_eq!(ask(Probe::Bosh, page.address).await, expected);

    let error = Fake::answering("<stream:error xmlns:stream='x'/>").await;
    assert_eq!(
        ask(Probe::Bosh, error.address).await,
        failed("the answer is not HTTP")
    );

    let closing = Fake::answering("").await;
    let expected = failed("the connection was closed without an answer");
    assert_eq!(ask(Probe::Bosh, closing.address).await, expected);

    let cut = Fake::answering(&WRAPPER[..WRAPPER.len() - 20]).await;
    assert!(ask(Probe::Bosh, cut.address).await.is_err());

    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_ANSWER + 1));
    let endless = Fake::answering(endless).await;
    assert_eq!(
        ask(Probe::Bosh, endless.address).await,
        failed("the answer is too large")
    );
}

#[tokio::test]
async fn http_wants_a_status_below_400() {
    for (line, expected) in [
        ("204 No Content", Ok(())),
        ("302 Found", Ok(())),
        ("404 Not Found", failed("the answer has status 404")),
        (
            "503 Service Unavailable",
            failed("the answer has status 503"),
        ),
    ] {
        let node = Fake::answering(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
        let mut node = node.await;
        assert_eq!(ask(http(), node.address).await, expected);
        let request = node.requests.recv().await.unwrap();
        assert!(request.starts_with("GET /up?now HTTP/1.1\r\n"), "{request}");
    }
}

#[tokio::test]
async fn http_does_not_wait_for_the_body() {
    let node = Fake::answering("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    assert_eq!(ask(http(), node.address).await, Ok(()));
}

#[tokio::test]
async fn a_node_that_is_silent_fails_all_but_tcp() {
    let (_listener, address) = silent().await;
    let expected = failed("no answer within 300ms");
    assert_eq!(ask(Probe::Tcp, address).await, Ok(()));
    assert_eq!(ask(Probe::Bosh, address).await, expected);
    assert_eq!(ask(http(), address).await, expected);
}

#[tokio::test]
async fn a_node_that_refuses_fails_every_probe() {
    let (_socket, address) = refusing();
    for probe in [Probe::Tcp, Probe::Bosh, http()] {
        assert_eq!(
            ask(probe, address).await,
            failed("the connection was refused")
        );
    }
}

#[tokio::test]
async fn one_address_that_passes_is_enough() {
    let (_listener, address) = silent().await;
    let (_socket, refusing) = refusing();
    let addresses = [refusing, address];
    assert_eq!(ask_all(Probe::Tcp, &addresses).await, Ok(()));
    let none = failed("the node's name has no address");
    assert_eq!(ask_all(Probe::Tcp, &[]).await, none);
}

#[tokio::test]
async fn an_address_that_fails_later_than_another_passes_rests_too() {
    let (_listener, silent) = silent().await;
    let fake = Fake::answering(WRAPPER).await;
    let (prober, cluster) = node(Probe::Bosh, &[silent, fake.address]);
    let node = cluster.node(T1);
    let begun = Instant::now();
    assert_eq!(ask_node(&prober, &cluster).await, Ok(()));
    assert!(begun.elapsed() < prober.timeout, "the first pass is enough");
    assert_eq!(node.candidates(Instant::now()).resting, 0);
    let rests = async {
        while node.candidates(Instant::now()).resting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(prober.timeout * 20, rests)
        .await
        .expect("the silent address rests");
    let candidates = node.candidates(Instant::now());
    assert_eq!(*candidates.addresses, [fake.address, silent]);
    drop(prober);
    let gone = async {
        while Arc::strong_count(&cluster) > 1 {
            tokio::task::yield_now().await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
    gone.expect("no probe outlives the prober");
}

#[tokio::test]
async fn when_every_address_fails_the_one_that_worked_last_decides_and_silence_otherwise() {
    let (_listener, silent) = silent().await;
    let (_socket, refusing) = refusing();
    let addresses = [silent, refusing];
    let (prober, cluster) = node(Probe::Bosh, &addresses);
    let silence = failed("no answer within 300ms");
    assert_eq!(ask_node(&prober, &cluster).await, silence);
    // A node that refuses where it worked is gone, whatever its other address does.
    cluster.node(T1).connected(refusing, true, Instant::now());
    let refused = failed("the connection was refused");
    assert_eq!(ask_node(&prober, &cluster).await, refused);
    cluster.node(T1).connected(silent, true, Instant::now());
    assert_eq!(ask_node(&prober, &cluster).await, silence);
}

#[tokio::test]
async fn both_probes_that_ask_send_the_configured_host() {
    for (probe, answer) in [
        (Probe::Bosh, WRAPPER),
        (http(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut fake = Fake::answering(answer).await;
        let mut settings = settings(1, Placement::ClientIp);
        settings.health.probe = probe;
        settings.health.host = Some("chat.example.com".into());
        settings.nodes[0].address = fake.address.to_string();
        let cluster = Arc::new(Cluster::new(&settings, &Metrics::new()));
        assert_eq!(ask_node(&Prober::new(&settings), &cluster).await, Ok(()));
        let request = fake.requests.recv().await.unwrap().to_ascii_lowercase();
        let line = "\r\nhost: chat.example.com\r\n";
        assert!(request.contains(line), "{request}");
    }
}

#[test]
fn a_made_up_sid_is_a_random_uuid() {
    for _ in 0..1000 {
        let uuid = uuid();
        let parts: Vec<&str> = uuid.split('-').collect();
        assert_eq!(
            parts.iter().map(|p| p.len()).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert!(
            parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']),
            "{uuid}"
        );
        assert!(uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit()));
        assert_ne!(uuid, super::uuid());
    }
}
