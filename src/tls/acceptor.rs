//! What a listener's handshakes are made with, exchanged when its files change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use super::certificate::Certificate;
use super::files::{Contents, LoadError, Loaded};
use super::resolver::Resolver;
use crate::config::{Listen, Tls};

/// The protocols that are offered, by their names in ALPN (RFC 7301), the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS of one listener.
#[derive(Debug)]
pub struct Acceptor {
    /// The address of the listener, as it is configured.
    pub(super) listener: String,
    tls: Tls,
    provider: Arc<CryptoProvider>,
    config: ArcSwap<ServerConfig>,
    state: Mutex<State>,
}

/// What a look at the files has brought.
#[derive(Debug)]
struct State {
    certificates: Vec<Certificate>,
    /// Of the files that are in use.
    digest: u128,
    /// Of the authorities for clients that are in use.
    clients: Option<u128>,
    ticketer: Arc<dyn ProducesTickets>,
    /// Why the files cannot be used as they are now.
    failing: Option<Failing>,
}

/// Files that cannot be used.
#[derive(Debug, Clone)]
struct Failing {
    /// Of their contents; none if they cannot be read.
    digest: Option<u128>,
    why: String,
    /// It was so twice in a row. Once may be a file that is being written.
    certain: bool,
}

/// What a look at the files has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Nothing,
    /// Others are in use from now on.
    Exchanged,
    /// They cannot be used, for this reason, and the ones before stay.
    Refused(String),
    /// They are again what is in use.
    Restored,
}

impl Acceptor {
    /// Reads the files of a listener with TLS.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(listen: &Listen, tls: &Tls) -> Result<Self, LoadError> {
        let provider = provider();
        let contents = Contents::read(tls)?;
        let loaded = contents.load(tls, &provider)?;
        let ticketer = ticketer(tls)?;
        let config = config(&loaded, &provider, &ticketer);
        Ok(Self {
            listener: listen.address.to_string(),
            tls: tls.clone(),
            provider,
            config: ArcSwap::from_pointee(config),
            state: Mutex::new(State {
                digest: contents.digest(),
                clients: loaded.clients.map(|(_, digest)| digest),
                certificates: loaded.certificates,
                ticketer,
                failing: None,
            }),
        })
    }

    /// Whether it is what this listener's handshakes are made with.
    pub(super) fn is_of(&self, listen: &Listen, tls: &Tls) -> bool {
        self.tls == *tls && self.listener == listen.address.to_string()
    }

    /// What the next handshake is made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// The certificates in use.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.state().certificates.clone()
    }

    /// What is amiss with the files or the certificates as of `now`, a sentence each.
    pub fn reasons(&self, now: SystemTime) -> Vec<String> {
        let (state, listener) = (self.state(), &self.listener);
        let failing = state.failing.as_ref().filter(|failing| failing.certain);
        let failing = failing.map(|failing| {
            let why = &failing.why;
            format!("listener {listener} keeps its old certificates: {why}")
        });
        let expiry = state.certificates.iter().filter_map(|certificate| {
            let (file, expiry) = (certificate.file.display(), certificate.expiry(now)?);
            Some(format!("the certificate in {file} {expiry}"))
        });
        failing.into_iter().chain(expiry).collect()
    }

    /// Reads the files again, and takes what is in them if that has changed and can be used.
    pub(super) fn look(&self) -> Change {
        let contents = Contents::read(&self.tls);
        let digest = contents.as_ref().ok().map(Contents::digest);
        let mut state = self.state();
        if digest == Some(state.digest) {
            let failing = state.failing.take();
            return match failing {
                Some(failing) if failing.certain => Change::Restored,
                _ => Change::Nothing,
            };
        }
        if let Some(failing) = state.failing.as_mut().filter(|one| one.digest == digest) {
            let again = std::mem::replace(&mut failing.certain, true);
            if again {
                return Change::Nothing;
            }
            return Change::Refused(failing.why.clone());
        }
        let loaded = contents.and_then(|contents| {
            let loaded = contents.load(&self.tls, &self.provider)?;
            Ok((contents.digest(), loaded))
        });
        match loaded.and_then(|(digest, loaded)| self.exchange(&mut state, digest, loaded)) {
            Ok(()) => Change::Exchanged,
            Err(error) => {
                state.failing = Some(Failing {
                    digest,
                    why: error.to_string(),
                    certain: false,
                });
                Change::Nothing
            }
        }
    }

    fn exchange(&self, state: &mut State, digest: u128, loaded: Loaded) -> Result<(), LoadError> {
        let clients = loaded.clients.as_ref().map(|(_, digest)| *digest);
        if clients != state.clients {
            // A ticket stands for a client's certificate that other authorities have signed.
            state.ticketer = ticketer(&self.tls)?;
        }
        let config = config(&loaded, &self.provider, &state.ticketer);
        self.config.store(Arc::new(config));
        state.digest = digest;
        state.clients = clients;
        state.certificates = loaded.certificates;
        state.failing = None;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What makes tickets, with a key of its own that changes every six hours.
fn ticketer(tls: &Tls) -> Result<Arc<dyn ProducesTickets>, LoadError> {
    let file = &tls.certificates[0].certificate;
    aws_lc_rs::Ticketer::new()
        .map_err(|error| LoadError::new(file, "has no keys for tickets").with(error))
}

fn config(
    loaded: &Loaded,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions");
    let builder = match &loaded.clients {
        Some((verifier, _)) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let resolver = Resolver::new(&loaded.certificates);
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.ticketer = Arc::clone(ticketer);
    // Tickets carry everything. A session kept here would be found by one balancer only.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // The strongest suite that both have. Clients name their suites in an order that may be old.
    config.ignore_client_order = true;
    // What a client sends early can be replayed by others.
    config.max_early_data_size = 0;
    config
}
