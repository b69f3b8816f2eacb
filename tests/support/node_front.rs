//! TLS in front of a simulated node, which speaks plain HTTP. It keeps what each connection began with.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::config::NodeTls;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::tls::{Authority, Issued};

/// What the front does with connections.
#[derive(Clone)]
struct Plan {
    /// None takes connections and says nothing.
    tls: Option<Arc<ServerConfig>>,
    target: SocketAddr,
    /// A header of the PROXY protocol comes first.
    header: bool,
}

/// A handshake that succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Shaken {
    /// The name that was asked for.
    pub(crate) name: Option<String>,
    pub(crate) version: Option<rustls::ProtocolVersion>,
    pub(crate) resumed: bool,
}

/// What the front has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections that were accepted.
    pub(crate) accepted: usize,
    /// Handshakes that failed.
    pub(crate) failed: usize,
    pub(crate) shaken: Vec<Shaken>,
    /// Headers of the PROXY protocol.
    pub(crate) headers: Vec<Vec<u8>>,
}

/// A running front.
pub(crate) struct NodeFront {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    seen: Arc<Mutex<Seen>>,
    accepting: JoinHandle<()>,
}

/// A server of these versions with this certificate.
pub(crate) fn server(
    issued: &Issued,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

/// What a node is held to that `authority` has issued a certificate for `name`.
pub(crate) fn trusting(authority: &Authority, name: &str) -> NodeTls {
    NodeTls {
        verify: true,
        ca: Some(authority.file()),
        server_name: Some(name.to_owned()),
    }
}

impl NodeFront {
    /// Starts one in front of `target`.
    pub(crate) async fn start(tls: Option<Arc<ServerConfig>>, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan {
            tls,
            target,
            header: false,
        }));
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = (Arc::clone(&plan), Arc::clone(&seen));
        let accepting = tokio::spawn(async move {
            let (plan, seen) = shared;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                own(&seen).accepted += 1;
                tokio::spawn(serve(stream, own(&plan).clone(), Arc::clone(&seen)));
            }
        });
        Self {
            address,
            plan,
            seen,
            accepting,
        }
    }

    /// Serves the next connections in this way.
    pub(crate) fn set(&self, tls: Option<Arc<ServerConfig>>) {
        own(&self.plan).tls = tls;
    }

    /// Takes the next connections to another address.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        own(&self.plan).target = target;
    }

    /// Has the next connections begin with a header of the PROXY protocol.
    pub(crate) fn expect_header(&self) {
        own(&self.plan).header = true;
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        own(&self.seen)
    }
}

impl Drop for NodeFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn own<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a header of either version.
async fn header(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = vec![stream.read_u8().await?];
    if header == b"P" {
        while !header.ends_with(b"\n") {
            header.push(stream.read_u8().await?);
        }
        return Ok(header);
    }
    header.resize(16, 0);
    stream.read_exact(&mut header[1..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await?;
    Ok(header)
}

async fn serve(mut stream: TcpStream, plan: Plan, seen: Arc<Mutex<Seen>>) {
    if plan.header {
        let Ok(header) = header(&mut stream).await else {
            return;
        };
        own(&seen).headers.push(header);
    }
    let Some(tls) = plan.tls else {
        // Until the peer goes.
        while stream.read_u8().await.is_ok() {}
        return;
    };
    let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await else {
        own(&seen).failed += 1;
        return;
    };
    let (_, session) = stream.get_ref();
    let shaken = Shaken {
        name: session.server_name().map(str::to_owned),
        version: session.protocol_version(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    own(&seen).shaken.push(shaken);
    if let Ok(mut node) = TcpStream::connect(plan.target).await {
        let _ = copy_bidirectional(&mut stream, &mut node).await;
    }
}
