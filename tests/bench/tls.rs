//! TLS of the benchmark: one certificate for all balancers, and clients that trust it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use rustls::version::TLS13;
use tokio_rustls::TlsConnector;

use crate::Result;
use crate::support::tls::{Authority, Issued};

/// The name in the certificate.
pub(crate) const NAME: &str = "bench.example";

/// A certificate (ECDSA, P-256), and clients with TLS 1.3.
struct Made {
    issued: Issued,
    connector: TlsConnector,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let authority = Authority::new();
    Made {
        issued: authority.issue(NAME),
        connector: authority.client(&[&TLS13], None),
    }
});

/// What shakes hands for all clients. They share its tickets.
pub(crate) fn connector() -> &'static TlsConnector {
    &MADE.connector
}

/// Writes certificate and key into `folder`: `tls.pem` and `tls.key`, and `both.pem` for HAProxy.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let Issued { certificate, key } = &MADE.issued;
    fs::write(folder.join("tls.pem"), certificate)?;
    fs::write(folder.join("tls.key"), key)?;
    fs::write(folder.join("both.pem"), format!("{certificate}{key}"))?;
    Ok(())
}
