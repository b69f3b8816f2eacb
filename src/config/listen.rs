//! The listeners: where clients connect, and what comes in front of their requests.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::read::{Section, Value};
use super::sections::{MOST_ENTRIES, networks, socket_address};
use super::settings::Tls;
use super::tls;

/// One listening address.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether clients may speak HTTP/2 without TLS, by prior knowledge; false by default.
    pub h2c: bool,
    /// TLS with clients; none by default.
    pub tls: Option<Tls>,
    /// Whether each request is answered with a redirect to `https`; only without `tls`.
    pub redirect_to_https: bool,
    /// Which peers begin with a header of the PROXY protocol; none by default.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The PROXY protocol of a listener, versions 1 and 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The proxies: 1 to 256 networks, host bits zero. Each of their connections must begin with a header,
    /// and no other may.
    pub from: Vec<IpNet>,
}

impl Listen {
    /// A listener with every default.
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            h2c: false,
            tls: None,
            redirect_to_https: false,
            proxy_protocol: None,
        }
    }

    /// Whether connections of `peer`, in its canonical form, begin with a PROXY header.
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        let proxies = self.proxy_protocol.as_ref();
        proxies.is_some_and(|proxies| proxies.from.iter().any(|net| net.contains(&peer)))
    }
}

pub(super) fn listen(value: &Value<'_>) -> Vec<Listen> {
    let mut listen: Vec<Listen> = Vec::new();
    for item in value.list(1..=MOST_ENTRIES) {
        let Some(section) = item.section() else {
            continue;
        };
        let h2c = section.flag("h2c", false);
        let proxy_protocol = section.get("proxy_protocol");
        let proxy_protocol = proxy_protocol.and_then(|value| proxies(&value));
        let (tls, redirect_to_https) = tls::listen(&section);
        let Some(value) = section.need("address") else {
            continue;
        };
        let Some(address) = socket_address(&value) else {
            continue;
        };
        let taken = listen.iter().any(|other| other.address == address);
        if taken && address.port() != 0 {
            value.refuse::<()>(format!("{address} is listed twice"));
        }
        listen.push(Listen {
            h2c,
            tls,
            redirect_to_https,
            proxy_protocol,
            ..Listen::new(address)
        });
    }
    listen
}

/// The value of `proxy_protocol`.
fn proxies(value: &Value<'_>) -> Option<ProxyProtocol> {
    if value.is_off() {
        return None;
    }
    if value.is_on() || value.is_null() {
        return value.refuse(
            "needs the addresses of your proxies: `proxy_protocol: { from: [10.0.0.0/8] }`",
        );
    }
    let section: Section<'_> = value.clone().section_or("a mapping or `off`")?;
    Some(ProxyProtocol {
        from: networks(&section.need("from")?, 1),
    })
}
