//! TLS towards nodes: what a node's certificate is held to, and what a failed handshake means.
//!
//! A client whose files cannot be read opens no connection. It never falls back to plain bytes.

mod fault;
mod verifier;

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{DnsName, ServerName};

pub use fault::TlsFault;

use super::Error;
use super::stream::NodeStream;
use crate::config::{NodeSettings, NodeTls, host_of};
use crate::transport::{HandshakeError, NodeTlsStream, Stream};

/// Sessions that one node can go on with. Each takes 8 tickets at most.
const RESUMABLE: usize = 64;

/// What connects to one node over TLS.
pub struct TlsClient {
    settings: NodeTls,
    name: String,
    ready: Result<Ready, TlsLoadError>,
}

/// What a handshake is made with.
struct Ready {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
}

/// Why the TLS of a node cannot be used, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsLoadError(String);

impl fmt::Display for TlsLoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsLoadError {}

/// Whether the TLS of these nodes can be used.
///
/// # Errors
/// The first one that cannot, with the name of its node.
pub fn check_tls(nodes: &[NodeSettings]) -> Result<(), TlsLoadError> {
    for node in nodes {
        let Some(tls) = &node.tls else { continue };
        let client = TlsClient::new(tls, &node.address);
        if let Err(error) = client.check() {
            let name = &node.name;
            return Err(TlsLoadError(format!("`tls` of node {name}: {error}")));
        }
    }
    Ok(())
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("settings", &self.settings)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The same if connections of both verify nodes in the same way.
impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.ready, &other.ready) {
            (Ok(ready), Ok(other)) => Arc::ptr_eq(&ready.verifier, &other.verifier),
            (Err(error), Err(other)) => error == other,
            _ => false,
        };
        same && self.settings == other.settings && self.name == other.name
    }
}

impl Eq for TlsClient {}

impl TlsClient {
    /// A client for the node at `address` (`host:port`). Reads the file of its authorities.
    pub fn new(settings: &NodeTls, address: &str) -> Self {
        let address = host_of(address);
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = settings.server_name.as_deref().unwrap_or(host);
        Self {
            settings: settings.clone(),
            name: name.to_owned(),
            ready: Ready::new(settings, name),
        }
    }

    /// Why no handshake can be made.
    ///
    /// # Errors
    /// [`TlsLoadError`].
    pub fn check(&self) -> Result<(), &TlsLoadError> {
        self.ready.as_ref().map(drop)
    }

    /// Shakes hands over a connection that has just opened.
    pub(super) async fn shake_hands(&self, stream: Stream) -> Result<NodeStream, Error> {
        let ready = match &self.ready {
            Ok(ready) => ready,
            Err(error) => return Err(TlsFault::Settings(error.to_string()).into()),
        };
        let (config, name) = (Arc::clone(&ready.config), ready.name.clone());
        let tls = NodeTlsStream::new(stream, config, name)
            .map_err(|error| TlsFault::of(HandshakeError::Tls(error)))?;
        let mut tls = Box::new(tls);
        match poll_fn(|context| tls.poll_handshake(context)).await {
            Ok(()) => Ok(NodeStream::Tls(tls)),
            Err(error) => Err(TlsFault::of(error).into()),
        }
    }
}

impl Ready {
    fn new(settings: &NodeTls, name: &str) -> Result<Self, TlsLoadError> {
        let verifier = verifier::of(settings)?;
        let mut config = ClientConfig::builder_with_provider(verifier::provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| TlsLoadError(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(RESUMABLE);
        Ok(Self {
            config: Arc::new(config),
            name: server_name(name)?,
            verifier,
        })
    }
}

/// A host as a certificate names it. An IPv6 address may stand in brackets.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsLoadError> {
    let bare = host.trim_matches(['[', ']']).trim_end_matches('.');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    let name = DnsName::try_from(bare.to_owned());
    name.map(ServerName::DnsName).map_err(|_| {
        TlsLoadError(format!(
            "no certificate can name `{host}`: set `server_name`"
        ))
    })
}
