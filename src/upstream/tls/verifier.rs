//! What verifies the certificates of nodes: authorities of a file, or nothing.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use xxhash_rust::xxh3::xxh3_128;

use super::TlsLoadError;
use crate::config::NodeTls;

/// The largest file of authorities that is read, in bytes. Those of Linux systems have about 220 KB.
const MOST: u64 = 4 * 1024 * 1024;

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora, openSUSE, BSD.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The verifiers in use, by a digest of their file: nodes with the same authorities share one.
static IN_USE: Mutex<Vec<(u128, Weak<WebPkiServerVerifier>)>> = Mutex::new(Vec::new());

/// The cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What verifies a node with these settings.
///
/// # Errors
/// Its file cannot be used.
pub(super) fn of(settings: &NodeTls) -> Result<Arc<dyn ServerCertVerifier>, TlsLoadError> {
    static UNVERIFIED: Mutex<Option<Arc<Unverified>>> = Mutex::new(None);
    if !settings.verify {
        let mut one = UNVERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
        let one = one.get_or_insert_with(|| Arc::new(Unverified(provider())));
        return Ok(Arc::clone(one) as Arc<dyn ServerCertVerifier>);
    }
    let file = match &settings.ca {
        Some(file) => file.clone(),
        None => system_file()?,
    };
    let text = read(&file).map_err(|error| fault(&file, "cannot be read", error))?;
    let digest = xxh3_128(&text);
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|(_, verifier)| verifier.strong_count() > 0);
    let mut known = in_use.iter().filter(|(known, _)| *known == digest);
    if let Some(verifier) = known.find_map(|(_, verifier)| verifier.upgrade()) {
        return Ok(verifier);
    }
    let verifier = verifier(&file, &text, settings.ca.is_none())?;
    in_use.push((digest, Arc::downgrade(&verifier)));
    Ok(verifier)
}

fn system_file() -> Result<PathBuf, TlsLoadError> {
    let mut files = SYSTEM.iter().map(PathBuf::from);
    files.find(|file| file.is_file()).ok_or_else(|| {
        TlsLoadError(format!(
            "needs `ca`: this system keeps no authorities in {}",
            SYSTEM.join(", ")
        ))
    })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// A verifier that trusts the authorities in `text`. Those of a system may be of a kind that is not
/// understood here; one that the operator has chosen may not.
fn verifier(
    file: &Path,
    text: &[u8],
    lenient: bool,
) -> Result<Arc<WebPkiServerVerifier>, TlsLoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| fault(file, "is no PEM", error))?;
        match roots.add(certificate) {
            Err(error) if !lenient => return Err(fault(file, "cannot be used", error)),
            _ => {}
        }
    }
    if roots.is_empty() {
        let file = file.display();
        return Err(TlsLoadError(format!("{file} has no certificate (PEM)")));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| fault(file, "cannot be used", error))
}

fn fault(file: &Path, what: &str, error: impl Display) -> TlsLoadError {
    TlsLoadError(format!("{} {what}: {error}", file.display()))
}

/// Takes any certificate, as long as the node has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
