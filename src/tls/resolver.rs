//! Which certificate a client gets: by the name that it asks for, and by what it can verify.

use std::sync::Arc;

use ahash::AHashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// The certificates of a listener, by name.
#[derive(Debug)]
pub(super) struct Resolver {
    by_name: AHashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All, in the order of the file.
    all: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: AHashMap<String, Vec<_>> = AHashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                let of_name = by_name.entry(name.clone()).or_default();
                of_name.push(Arc::clone(&certificate.key));
            }
        }
        let all = certificates.iter();
        Self {
            by_name,
            all: all.map(|one| Arc::clone(&one.key)).collect(),
        }
    }

    /// The certificates for a name: those that have it, else those with a `*` in place of its first
    /// label, else all.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.all };
        let wild = || {
            let (_, rest) = name.split_once('.')?;
            self.by_name.get(&format!("*.{rest}"))
        };
        let found = self.by_name.get(name).or_else(wild);
        found.unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let mut candidates = self.candidates(hello.server_name()).iter();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        candidates.find(fits).cloned()
    }
}
