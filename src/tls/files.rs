//! The files of a listener: what is in them, whether that has changed, and what they make.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use xxhash_rust::xxh3::Xxh3;

use super::certificate::{Certificate, Warning, certificates};
use crate::config::Tls;

/// The largest file that is read, in bytes.
const MOST: u64 = 1024 * 1024;

/// Others than the owner and the group may read the file.
const OTHERS_READ: u32 = 0o004;

/// Why the files of a listener cannot be used.
#[derive(Debug)]
pub struct LoadError {
    file: PathBuf,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LoadError {
    pub(super) fn new(file: &Path, what: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn with(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            source: Some(Box::new(source)),
            ..self
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file.display(), self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// What is in the files of a listener.
#[derive(Debug)]
pub(super) struct Contents {
    /// Each certificate with its key.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

/// What the files of a listener make.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) certificates: Vec<Certificate>,
    /// What verifies clients, and a digest of its file.
    pub(super) clients: Option<(Arc<dyn ClientCertVerifier>, u128)>,
}

impl Contents {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(super) fn read(tls: &Tls) -> Result<Self, LoadError> {
        let pairs = tls.certificates.iter();
        Ok(Self {
            pairs: pairs
                .map(|files| Ok((read(&files.certificate)?, read(&files.key)?)))
                .collect::<Result<_, LoadError>>()?,
            client_ca: tls.client_ca.as_deref().map(read).transpose()?,
        })
    }

    /// A number that is another one when a file has changed.
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        let pairs = self.pairs.iter().flat_map(|(chain, key)| [chain, key]);
        for file in pairs.chain(&self.client_ca) {
            hash.update(&file.len().to_le_bytes());
            hash.update(file);
        }
        hash.digest128()
    }

    /// Makes certificates of them.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn load(
        &self,
        tls: &Tls,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Loaded, LoadError> {
        let certificate = |(files, (chain, key)): (&crate::config::CertificateFiles, _)| {
            let (chain, key): (&Vec<u8>, &Vec<u8>) = (chain, key);
            Certificate::read((&files.certificate, chain), (&files.key, key), provider)
        };
        let pairs = self.pairs.iter().map(|(chain, key)| (chain, key));
        let certificates = tls.certificates.iter().zip(pairs).map(certificate);
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let client_ca = tls.client_ca.as_deref().zip(self.client_ca.as_deref());
        let clients = client_ca.map(|(file, text)| clients(file, text, provider));
        Ok(Loaded {
            certificates,
            clients: clients.transpose()?,
        })
    }
}

/// What verifies the certificates of clients.
fn clients(
    file: &Path,
    text: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, u128), LoadError> {
    let fault = |error| LoadError::new(file, "cannot be used").with(error);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, text)? {
        roots.add(certificate).map_err(fault)?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = builder
        .build()
        .map_err(|error| LoadError::new(file, "cannot be used").with(error))?;
    let mut hash = Xxh3::new();
    hash.update(text);
    Ok((verifier, hash.digest128()))
}

fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let taken: io::Result<usize> =
        File::open(file).and_then(|open| open.take(MOST + 1).read_to_end(&mut bytes));
    match taken {
        Ok(length) if length as u64 > MOST => Err(LoadError::new(file, "is larger than 1 MiB")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(LoadError::new(file, "cannot be read").with(error)),
    }
}

/// What is odd about the files of a listener as of `now`, though they can be used.
///
/// # Errors
/// They cannot.
pub fn warnings_of(tls: &Tls, now: SystemTime) -> Result<Vec<Warning>, LoadError> {
    let provider = super::acceptor::provider();
    let loaded = Contents::read(tls)?.load(tls, &provider)?;
    let mut warnings: Vec<Warning> = Vec::new();
    for certificate in &loaded.certificates {
        warnings.extend(certificate.warnings(now));
    }
    let open = |file: &PathBuf| {
        let mode = file.metadata().ok()?.permissions().mode();
        (mode & OTHERS_READ != 0).then(|| Warning {
            file: file.clone(),
            what: format!("can be read by every user (mode {:03o})", mode & 0o777),
        })
    };
    let keys = tls.certificates.iter().map(|files| &files.key);
    warnings.extend(keys.filter_map(open));
    Ok(warnings)
}
