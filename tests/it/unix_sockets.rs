//! Unix sockets as listeners: who may connect, what becomes of the file, and who the client is. And nodes that
//! are reached by one.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bowline::config::{Listen, Probe, ProxyProtocol, Settings};
use bowline::demo::node::Node;
use bowline::server::Server;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::balancer::*;
use crate::proxy_protocol::{clients, request};
use crate::support::folder::Folder;
use crate::support::http2::Http2;
use crate::support::tls::{Authority, listener};

/// Settings of one listener on a Unix socket in this folder.
fn at(folder: &Folder, nodes: &[Node]) -> (PathBuf, Settings) {
    let path = folder.path().join("http.sock");
    let mut settings = settings(nodes);
    settings.listen = vec![Listen::new(path.clone())];
    (path, settings)
}

/// Sends a session creation with `Connection: close` over `stream`. Returns the response.
async fn create(mut stream: impl AsyncRead + AsyncWrite + Unpin, before: &[u8]) -> String {
    let request = request().replace("Host: a\r\n", "Host: a\r\nConnection: close\r\n");
    let whole = [before, request.as_bytes()].concat();
    stream.write_all(&whole).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    let _ = read.expect("an answer in time");
    answer
}

async fn serves(path: &Path) {
    let stream = UnixStream::connect(path).await.unwrap();
    let answer = create(stream, b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn clients_are_served_on_a_unix_socket_that_goes_with_its_process() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let (path, settings) = at(&folder, &nodes);
    let balancer = Balancer::start(&settings).await;
    assert_eq!(mode(&path), 0o660);
    assert!(balancer.server.addresses().is_empty());
    serves(&path).await;
    assert_eq!(clients(&nodes[0]), ["127.0.0.1"]);
    // A client that goes away ends its poll, as over TCP.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(request().as_bytes()).await.unwrap();
    let mut answer = vec![0; 64 * 1024];
    let count = timeout(PATIENCE, stream.read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..count.unwrap().unwrap()]).into_owned();
    let sid = answer.split(" sid=").nth(1).unwrap();
    let sid = sid[1..].split(['"', '\'']).next().unwrap();
    let poll = crate::clients::post(sid, 2);
    stream.write_all(poll.as_bytes()).await.unwrap();
    eventually("the poll is held", || balancer.held() == 1).await;
    drop(stream);
    eventually("the poll has ended", || balancer.held() == 0).await;
    timeout(PATIENCE, balancer.server.drain()).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let (path, settings) = at(&folder, &nodes);
    // Its process has left it behind.
    drop(UnixListener::bind(&path).unwrap());
    let balancer = Balancer::start(&settings).await;
    serves(&path).await;
    let refused = Server::start(&settings).unwrap_err().to_string();
    let name = format!("cannot listen on unix:{}: ", path.display());
    assert!(refused.starts_with(&name), "{refused}");
    assert!(refused.contains("in use"), "{refused}");
    serves(&path).await;
    drop(balancer);
    eventually("its file has gone", || !path.exists()).await;
    fs::write(&path, "precious").unwrap();
    let refused = Server::start(&settings).unwrap_err().to_string();
    assert!(refused.contains("is no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_process_leaves_the_socket_of_its_successor() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let (path, settings) = at(&folder, &nodes);
    let old = Balancer::start(&settings).await;
    fs::remove_file(&path).unwrap();
    let _new = Balancer::start(&settings).await;
    timeout(PATIENCE, old.server.drain()).await.unwrap();
    serves(&path).await;
}

#[tokio::test]
async fn a_reload_opens_a_socket_changes_its_mode_and_closes_it() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let (path, with) = at(&folder, &nodes);
    let without = settings(&nodes);
    let balancer = Balancer::start(&without).await;
    let name = format!("listener unix:{}", path.display());
    let mut new = without.clone();
    new.listen.extend(with.listen);
    let step = balancer.server.reload(&new).unwrap();
    assert_eq!(step.words(), format!("{name} opens"));
    serves(&path).await;
    new.listen[1].mode = 0o600;
    let step = balancer.server.reload(&new).unwrap();
    assert_eq!((step.words(), mode(&path)), (name.clone(), 0o600));
    serves(&path).await;
    let step = balancer.server.reload(&without).unwrap();
    assert_eq!(step.words(), format!("{name} closes"));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_unix_socket_carries_headers_of_proxies_tls_and_http2() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let authority = Authority::new();
    let (path, mut settings) = at(&folder, &nodes);
    let encrypted = folder.path().join("https.sock");
    settings.listen[0].h2c = true;
    settings.listen[0].proxy_protocol = Some(ProxyProtocol {
        from: vec!["127.0.0.1/32".parse().unwrap()],
    });
    let mut tls = Listen::new(encrypted.clone());
    tls.tls = listener(vec![authority.files("a.example")]).tls;
    tls.mode = 0o777;
    settings.listen.push(tls);
    let _balancer = Balancer::start(&settings).await;
    assert_eq!(mode(&encrypted), 0o777);
    assert!(fs::metadata(&encrypted).unwrap().file_type().is_socket());
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n";
    let stream = UnixStream::connect(&path).await.unwrap();
    assert!(create(stream, header).await.starts_with("HTTP/1.1 200 "));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(header).await.unwrap();
    let mut http2 = Http2::over(stream, &h2::client::Builder::new()).await;
    let reply = http2.post(&crate::routing::creation()).await;
    assert!(reply.body.contains("sid="), "{reply:?}");
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(create(stream, b"").await, "");
    let client = authority.client(&[&TLS13], None);
    let stream = UnixStream::connect(&encrypted).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let stream = timeout(PATIENCE, client.connect(name, stream)).await;
    let answer = create(stream.unwrap().unwrap(), b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let expected = ["203.0.113.7", "203.0.113.7", "127.0.0.1"];
    assert_eq!(clients(&nodes[0]), expected);
}

/// Carries connections of a Unix socket to a node, until dropped.
struct Behind(tokio::task::JoinHandle<()>);

impl Behind {
    fn start(path: &Path, node: std::net::SocketAddr) -> Self {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        Self(tokio::spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                carried.spawn(async move {
                    let mut node = tokio::net::TcpStream::connect(node).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut node).await;
                });
            }
        }))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn a_node_on_a_unix_socket_is_probed_and_serves_sessions() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let path = folder.path().join("node.sock");
    let probes = [
        Probe::Tcp,
        Probe::Bosh,
        Probe::Http {
            path: "/".to_owned(),
        },
    ];
    for probe in probes {
        let behind = Behind::start(&path, nodes[0].address());
        let mut settings = settings(&nodes);
        settings.nodes[0].address = format!("unix:{}", path.display());
        settings.health.probe = probe.clone();
        let balancer = Balancer::start(&settings).await;
        let node = balancer.proxy().cluster.named("t1").unwrap();
        assert!(node.is_up(), "{probe:?}: {:?}", node.last_failure());
        let mut client = balancer.session().await;
        assert_goes_on(&client.ping("one").await.unwrap());
        let poll = client.begin_poll().await.unwrap();
        nodes[0].wait_until(|node| node.held() == 1).await.unwrap();
        nodes[0].push(client.sid(), "<message xmlns='jabber:client' id='m'/>");
        assert!(poll.reply().await.unwrap().text().contains("id='m'"));
        // A socket without a process refuses, and one that is back is found.
        drop(behind);
        eventually("the node is down", || !node.is_up()).await;
        fs::remove_file(&path).unwrap();
        let _behind = Behind::start(&path, nodes[0].address());
        eventually("the node is up", || node.is_up()).await;
        balancer.session().await;
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_reload_moves_a_node_to_a_unix_socket_and_back() {
    let (nodes, folder) = (tigase_nodes(1).await, Folder::new("unix").unwrap());
    let path = folder.path().join("node.sock");
    let _behind = Behind::start(&path, nodes[0].address());
    let mut settings = settings(&nodes);
    let balancer = Balancer::start(&settings).await;
    let mut client = balancer.session().await;
    let tcp = settings.nodes[0].address.clone();
    for address in [format!("unix:{}", path.display()), tcp] {
        settings.nodes[0].address = address;
        balancer.server.reload(&settings).unwrap();
        assert_goes_on(&client.ping("one").await.unwrap());
        balancer.session().await;
    }
}
