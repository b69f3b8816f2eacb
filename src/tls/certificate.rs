//! One certificate of a listener: for which names it is, until when, and what is odd about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::der;
use super::files::LoadError;

/// A certificate with less time left than this is reported, unless it was made for a short life.
const SOON: u64 = 14 * 24 * 60 * 60;

/// A certificate with a short life is reported when less than this part of it is left.
const LAST_PART: u64 = 6;

/// A certificate with its key, ready to serve.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The names that it is for, in lower case; they may begin with `*.`.
    pub(super) names: Vec<String>,
    /// Seconds since 1970 at which it, or the first of its issuers, expires.
    pub not_after: u64,
    /// When it was first valid.
    not_before: u64,
    /// A certificate whose issuer is not the next one in the file; none if the chain is whole.
    gap: Option<Gap>,
    pub(super) key: Arc<CertifiedKey>,
}

/// Where the chain of a certificate has a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// The file has one certificate, and another issued it.
    Alone,
    /// The certificate with this number, counted from 1, is not the issuer of the one in front of it.
    Order(usize),
}

/// Something about a certificate that clients or the operator may stumble over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: PathBuf,
    /// What.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl Certificate {
    /// Reads a certificate and its key from the text of their files.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn read(
        (file, chain): (&Path, &[u8]),
        (key_file, key): (&Path, &[u8]),
        provider: &CryptoProvider,
    ) -> Result<Self, LoadError> {
        let chain = certificates(file, chain)?;
        let fault = |what| LoadError::new(file, what);
        let read = |der| der::parts(der).ok_or_else(|| fault("has a part that is no certificate"));
        let parts = chain
            .iter()
            .map(|der| read(der))
            .collect::<Result<Vec<_>, _>>()?;
        let names = names(&chain[0]).map_err(|error| fault("is refused").with(error))?;
        let not_after = parts.iter().map(|part| part.not_after).min().unwrap_or(0);
        let (gap, not_before) = (gap(&parts), parts[0].not_before);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                LoadError::new(key_file, "has no private key (PEM, without a passphrase)")
            }
            error => LoadError::new(key_file, "is no PEM").with(error),
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let what = format!("is not the key of the certificate in {}", file.display());
                LoadError::new(key_file, what)
            }
            error => LoadError::new(key_file, "cannot be used").with(error),
        })?;
        Ok(Self {
            file: file.to_owned(),
            names,
            not_after,
            not_before,
            gap,
            key: Arc::new(key),
        })
    }

    /// What clients will not like about it as of `now`.
    pub fn warnings(&self, now: SystemTime) -> impl Iterator<Item = Warning> {
        let gap = self.gap.map(|gap| match gap {
            Gap::Alone => {
                "has no certificate of its issuer behind it: clients that do not know the issuer \
                 refuse it"
                    .to_owned()
            }
            Gap::Order(number) => {
                let before = number - 1;
                format!("its certificate {number} did not issue certificate {before}")
            }
        });
        let nameless = self
            .names
            .is_empty()
            .then(|| "is for no DNS name (subjectAltName): browsers refuse it".to_owned());
        let whats = [self.expiry(now), gap, nameless].into_iter().flatten();
        whats.map(|what| Warning {
            file: self.file.clone(),
            what,
        })
    }

    /// What is to be said of its expiry: it has expired, or it will soon.
    pub fn expiry(&self, now: SystemTime) -> Option<String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let when = UNIX_EPOCH + Duration::from_secs(self.not_after);
        let date = httpdate::fmt_http_date(when);
        if now > self.not_after {
            return Some(format!("expired on {date}"));
        }
        if now < self.not_before {
            let from = UNIX_EPOCH + Duration::from_secs(self.not_before);
            let from = httpdate::fmt_http_date(from);
            return Some(format!("is not valid yet, only from {from}"));
        }
        let life = self.not_after.saturating_sub(self.not_before);
        let soon = self.not_after - now < SOON.min(life / LAST_PART);
        soon.then(|| format!("expires on {date}"))
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(
    file: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| LoadError::new(file, "is no PEM").with(error))?;
    if chain.is_empty() {
        return Err(LoadError::new(file, "has no certificate (PEM)"));
    }
    Ok(chain)
}

/// The DNS names of a certificate.
fn names(der: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(der)?;
    let names = certificate.valid_dns_names();
    Ok(names.map(str::to_ascii_lowercase).collect())
}

fn gap(parts: &[der::Parts<'_>]) -> Option<Gap> {
    if let [only] = parts {
        return (only.issuer != only.subject).then_some(Gap::Alone);
    }
    let broken = parts
        .windows(2)
        .position(|pair| pair[0].issuer != pair[1].subject);
    broken.map(|at| Gap::Order(at + 2))
}
