//! The metrics of TLS with clients.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{CERTIFICATE_RELOADS, CertificateLabels, HANDSHAKES, ResultLabels};
use super::{ByName, by_name};

/// The metrics of TLS with clients.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Handshakes, by how they ended.
    pub handshakes: ByName,
    /// Looks at files of certificates that found others, by whether those could be used.
    pub reloads: ByName,
    expiry: Family<CertificateLabels, Gauge>,
}

impl TlsMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let expiry = Family::<CertificateLabels, Gauge>::default();
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate or one of its issuers expires, in seconds since 1970",
            Unit::Seconds,
            expiry.clone(),
        );
        Self {
            handshakes: by_name::<ResultLabels>(
                registry,
                "tls_handshakes",
                "TLS handshakes with clients, by how they ended",
                HANDSHAKES,
            ),
            reloads: by_name::<ResultLabels>(
                registry,
                "certificate_reloads",
                "Changed files of certificates, by whether they could be used",
                CERTIFICATE_RELOADS,
            ),
            expiry,
        }
    }

    /// Shows no certificate any more, until the next [`set_expiry`](Self::set_expiry).
    pub fn forget_expiry(&self) {
        self.expiry.clear();
    }

    /// Tells when a certificate expires, in seconds since 1970.
    pub fn set_expiry(&self, listener: &str, certificate: &str, expiry: u64) {
        let labels = CertificateLabels {
            listener: listener.to_owned(),
            certificate: certificate.to_owned(),
        };
        let expiry = i64::try_from(expiry).unwrap_or(i64::MAX);
        self.expiry.get_or_create(&labels).set(expiry);
    }
}
