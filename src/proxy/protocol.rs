//! The protocols that a client speaks, as its lines in the log name them.

/// The protocols of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The version of HTTP.
    pub http: HttpVersion,
    /// The version of TLS; none on a plain connection.
    pub tls: Option<TlsVersion>,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Protocol {
    /// HTTP/1.1 over a plain connection.
    pub const PLAIN: Self = Self {
        http: HttpVersion::Http11,
        tls: None,
    };
}

impl HttpVersion {
    /// Its name, as other proxies write it in their logs.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

impl TlsVersion {
    /// Its name, as OpenSSL and the logs of other proxies have it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}
