//! TLS for tests: an authority, its certificates as files, and clients that trust it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bowline::config::{CertificateFiles, Listen, Tls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::folder::Folder;

/// An authority, and a folder for the files of what it issues.
pub(crate) struct Authority {
    pub(crate) folder: Folder,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, both PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            folder: Folder::new("tls").unwrap(),
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for `name`, valid for ten years from 2026 unless `change` says otherwise.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2036, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    /// Issues a certificate for `name` into files.
    pub(crate) fn files(&self, name: &str) -> CertificateFiles {
        self.write(&name.replace('*', "any"), &self.issue(name))
    }

    /// Writes a certificate into files.
    pub(crate) fn write(&self, file: &str, issued: &Issued) -> CertificateFiles {
        let place = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let files = CertificateFiles {
            certificate: place("pem"),
            key: place("key"),
        };
        fs::write(&files.certificate, &issued.certificate).unwrap();
        fs::write(&files.key, &issued.key).unwrap();
        files
    }

    /// The authority's own certificate as a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.write("authority.pem", &self.pem).unwrap()
    }

    /// What a client trusts.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        roots
    }

    /// A client of these versions, with a certificate if there is one.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> TlsConnector {
        self.client_of(b"http/1.1", versions, own)
    }

    /// The same for another protocol, by its name in ALPN.
    pub(crate) fn client_of(
        &self,
        protocol: &[u8],
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> TlsConnector {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            Some(own) => {
                let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                let chain = vec![certificate.unwrap()];
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// A listener on a free port with these certificates.
pub(crate) fn listener(certificates: Vec<CertificateFiles>) -> Listen {
    let mut listen = Listen::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    listen.tls = Some(Tls {
        certificates,
        client_ca: None,
    });
    listen
}

/// Connects and shakes hands, with `name` for SNI.
pub(crate) async fn connect(
    client: &TlsConnector,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    client.connect(name, stream).await
}
