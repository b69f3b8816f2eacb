//! The PROXY protocol on listeners: who the client is then, and what becomes of bad headers and of headers from
//! others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bowline::config::{Listen, ProxyProtocol, Settings};
use bowline::demo::node::Node;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::balancer::*;
use crate::clients::read_response;
use crate::routing::creation;
use crate::support::http2::Http2;
use crate::support::tls::{Authority, listener};

const NAME: &str = "chat.example.com";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The client that headers name.
const CLIENT: &str = "203.0.113.7";

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n").into_bytes()
}

fn v2(client: &str, more: &[u8]) -> Vec<u8> {
    let client: Ipv4Addr = client.parse().unwrap();
    let mut block = client.octets().to_vec();
    block.extend([192, 0, 2, 1, 0x12, 0x67, 1, 187]);
    block.extend(more);
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, 0x11], &length, &block].concat()
}

pub(crate) fn request() -> String {
    let body = creation();
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Settings of one listener that takes headers from loopback's first address only.
fn proxied(nodes: &[Node], mut listen: Listen) -> Settings {
    let mut settings = settings(nodes);
    listen.proxy_protocol = Some(ProxyProtocol {
        from: vec!["127.0.0.1/32".parse().unwrap()],
    });
    settings.listen = vec![listen];
    settings
}

fn plain() -> Listen {
    Listen::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn count(balancer: &Balancer, result: &str) -> u64 {
    balancer.metric(&format!(
        "bowline_proxy_headers_total{{result=\"{result}\"}}"
    ))
}

/// The addresses that the node heard of, one for each creation, in order.
pub(crate) fn clients(node: &Node) -> Vec<String> {
    let creations = node.record().into_iter().filter(|seen| {
        let raw = String::from_utf8_lossy(&seen.raw);
        raw.starts_with("POST") && seen.sid.is_none()
    });
    let client = |raw: &[u8]| {
        let raw = String::from_utf8_lossy(raw).to_ascii_lowercase();
        let line = raw
            .lines()
            .find_map(|line| line.strip_prefix("x-forwarded-for: "));
        line.unwrap_or("none").to_owned()
    };
    creations.map(|seen| client(&seen.raw)).collect()
}

/// Reads to the end, which must come.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = read.expect("closed in time");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_proxy_names_the_client_of_its_connection() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&proxied(&nodes, plain())).await;
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let v6 = b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec();
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n".to_vec();
    let cases = [
        (v1(CLIENT), CLIENT),
        (v2(CLIENT, &[]), CLIENT),
        (v2(CLIENT, &[4; 3000]), CLIENT),
        (v6, "2001:db8::7"),
        (mapped, CLIENT),
        (unknown, "127.0.0.1"),
        (local, "127.0.0.1"),
    ];
    let named = cases.iter().map(|(_, client)| *client);
    let expected: Vec<&str> = named.flat_map(|client| [client; 2]).collect();
    for (header, _) in &cases {
        for apart in [false, true] {
            let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            if apart {
                for piece in header.chunks(header.len().min(11)) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                stream.write_all(request().as_bytes()).await.unwrap();
            } else {
                let whole = [header.as_slice(), request().as_bytes()].concat();
                stream.write_all(&whole).await.unwrap();
            }
            let answer = timeout(PATIENCE, read_response(&mut stream)).await;
            assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
        }
    }
    assert_eq!(clients(&nodes[0]), expected);
    assert_eq!(count(&balancer, "client"), 10);
    assert_eq!(count(&balancer, "no_client"), 4);
}

#[tokio::test]
async fn a_trusted_proxy_behind_a_header_may_name_the_client_too() {
    let nodes = tigase_nodes(1).await;
    let mut settings = proxied(&nodes, plain());
    settings.trusted_proxies = vec!["203.0.113.0/24".parse().unwrap()];
    let balancer = Balancer::start(&settings).await;
    let forwarded = "Host: a\r\nX-Forwarded-For: 198.51.100.9\r\n";
    let request = request().replace("Host: a\r\n", forwarded);
    for client in [CLIENT, "192.0.2.9"] {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(&v1(client)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        timeout(PATIENCE, read_response(&mut stream)).await.unwrap();
    }
    assert_eq!(clients(&nodes[0]), ["198.51.100.9", "192.0.2.9"]);
}

#[tokio::test]
async fn a_header_stands_in_front_of_tls_and_of_http2_and_of_redirects() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = proxied(&nodes, listener(vec![authority.files(NAME)]));
    let from = settings.listen[0].proxy_protocol.clone();
    for number in 0..2 {
        let mut more = plain();
        more.proxy_protocol.clone_from(&from);
        more.h2c = number == 0;
        more.redirect_to_https = number == 1;
        settings.listen.push(more);
    }
    let balancer = Balancer::start(&settings).await;
    let addresses = balancer.server.addresses();
    let client = authority.client(&[&TLS13], None);
    let mut header = v2(CLIENT, &[]);
    for together in [true, false] {
        let mut stream = TcpStream::connect(addresses[0]).await.unwrap();
        // The kernel sends the header and the beginning of the handshake in one packet.
        SockRef::from(&stream).set_tcp_cork(together).unwrap();
        stream.write_all(&header).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let shaken = timeout(PATIENCE, client.connect(name, stream)).await;
        let mut stream = shaken.unwrap().unwrap();
        SockRef::from(stream.get_ref().0)
            .set_tcp_cork(false)
            .unwrap();
        stream.write_all(request().as_bytes()).await.unwrap();
        let mut status = [0; 12];
        let read = timeout(PATIENCE, stream.read_exact(&mut status)).await;
        read.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        header = v1(CLIENT);
    }
    let mut stream = TcpStream::connect(addresses[1]).await.unwrap();
    stream.write_all(&header).await.unwrap();
    let mut http2 = Http2::over(stream, &h2::client::Builder::new()).await;
    assert!(http2.post(&creation()).await.body.contains("sid="));
    let mut stream = TcpStream::connect(addresses[1]).await.unwrap();
    let whole = [header.as_slice(), request().as_bytes()].concat();
    stream.write_all(&whole).await.unwrap();
    timeout(PATIENCE, read_response(&mut stream)).await.unwrap();
    let mut stream = TcpStream::connect(addresses[2]).await.unwrap();
    let get = b"GET /a HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    stream
        .write_all(&[&header[..], get].concat())
        .await
        .unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 308 "));
    assert_eq!(clients(&nodes[0]), [CLIENT; 4]);
}

#[tokio::test]
async fn a_proxy_with_a_bad_header_or_none_is_closed() {
    let nodes = tigase_nodes(1).await;
    let mut settings = proxied(&nodes, plain());
    settings.timeouts.head = Duration::from_millis(300);
    let balancer = Balancer::start(&settings).await;
    let mut wrong_version = v2(CLIENT, &[]);
    wrong_version[12] = 0x31;
    for (bytes, result) in [
        (request().into_bytes(), "missing"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "missing"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "missing"),
        (b"PROXY TCP4 a b 1 2\r\n".to_vec(), "malformed"),
        (
            b"PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n".to_vec(),
            "malformed",
        ),
        ([&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(), "malformed"),
        (wrong_version, "malformed"),
        (v2(CLIENT, &[0; 4070]), "malformed"),
        (b"PROXY TCP4 203.0.113.7".to_vec(), "timeout"),
        (Vec::new(), "timeout"),
    ] {
        let before = count(&balancer, result);
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{bytes:x?}");
        assert_eq!(count(&balancer, result), before + 1, "{bytes:x?}");
    }
    let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
    stream.write_all(b"PROXY ").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    eventually("it is counted", || count(&balancer, "closed") == 1).await;
    assert_eq!(clients(&nodes[0]), [""; 0]);
}

#[tokio::test]
async fn a_header_of_another_peer_names_no_client() {
    let (nodes, authority) = (tigase_nodes(1).await, Authority::new());
    let mut settings = proxied(&nodes, plain());
    let tls = listener(vec![authority.files(NAME)]);
    settings.listen.push(tls);
    settings.listen.push(plain());
    settings.listen[2].h2c = true;
    let balancer = Balancer::start(&settings).await;
    let mut counted = 0;
    for address in balancer.server.addresses() {
        for header in [v1(CLIENT), v2(CLIENT, &[])] {
            let socket = TcpSocket::new_v4().unwrap();
            let own: IpAddr = [127, 0, 0, 2].into();
            socket.bind(SocketAddr::from((own, 0))).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            let whole = [header.as_slice(), request().as_bytes()].concat();
            stream.write_all(&whole).await.unwrap();
            assert_eq!(rest(&mut stream).await, "");
            counted += 1;
            eventually("it is counted", || count(&balancer, "refused") == counted).await;
        }
    }
    assert_eq!(clients(&nodes[0]), [""; 0]);
    // Without a header the peer is served as ever.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let mut stream = socket.connect(balancer.address()).await.unwrap();
    stream.write_all(request().as_bytes()).await.unwrap();
    timeout(PATIENCE, read_response(&mut stream)).await.unwrap();
    assert_eq!(clients(&nodes[0]), ["127.0.0.2"]);
}

#[tokio::test]
async fn connections_are_counted_for_the_client_and_not_for_the_proxy() {
    let nodes = tigase_nodes(1).await;
    let mut settings = proxied(&nodes, plain());
    settings.limits.connections_per_client = 1;
    settings.limits.exempt = Vec::new();
    let balancer = Balancer::start(&settings).await;
    let mut open = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_all(&v1(client)).await.unwrap();
        stream.write_all(request().as_bytes()).await.unwrap();
        timeout(PATIENCE, read_response(&mut stream)).await.unwrap();
        open.push(stream);
    }
    let again = async || {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        let whole = [v1("203.0.113.3"), request().into_bytes()].concat();
        stream.write_all(&whole).await.unwrap();
        stream
    };
    assert_eq!(rest(&mut again().await).await, "");
    assert_eq!(balancer.metric("bowline_connections_refused_total"), 1);
    drop(open.pop());
    let connections = || balancer.proxy().metrics.connections.get();
    eventually("its place is free", || connections() == 2).await;
    let answer = timeout(PATIENCE, read_response(&mut again().await)).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
}
