//! The listeners: where clients connect, and what comes in front of their requests.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::check;
use super::read::{Section, Value};
use super::sections::{MOST_ENTRIES, networks, socket_address};
use super::settings::Tls;
use super::tls;

/// The permissions of a Unix socket where none are set: its user and group may connect.
const UNIX_MODE: u32 = 0o660;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket with this absolute path, at most 107 bytes.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The IP address and the port; none for a Unix socket.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether a second listener cannot have it too.
    fn is_exclusive(&self) -> bool {
        self.tcp().is_none_or(|address| address.port() != 0)
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<PathBuf> for ListenAddress {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{}{}", check::UNIX, path.display()),
        }
    }
}

/// One listening address.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Where it is.
    pub address: ListenAddress,
    /// The permissions of a Unix socket, as chmod(2) takes them; 0660 by default.
    pub mode: u32,
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
    pub fn new(address: impl Into<ListenAddress>) -> Self {
        Self {
            address: address.into(),
            mode: UNIX_MODE,
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
        let mode = section.get("mode").and_then(|value| mode_of(&value));
        let h2c = section.flag("h2c", false);
        let proxy_protocol = section.get("proxy_protocol");
        let proxy_protocol = proxy_protocol.and_then(|value| proxies(&value));
        let (tls, redirect_to_https) = tls::listen(&section);
        let Some(value) = section.need("address") else {
            continue;
        };
        let Some(address) = address_of(&value) else {
            continue;
        };
        if address.tcp().is_some() {
            section.refuse("mode", "has no effect without a Unix socket");
        }
        let taken = listen.iter().any(|other| other.address == address);
        if taken && address.is_exclusive() {
            value.refuse::<()>(format!("{address} is listed twice"));
        }
        listen.push(Listen {
            mode: mode.unwrap_or(UNIX_MODE),
            h2c,
            tls,
            redirect_to_https,
            proxy_protocol,
            ..Listen::new(address)
        });
    }
    listen
}

fn address_of(value: &Value<'_>) -> Option<ListenAddress> {
    let Some(path) = value.word().and_then(|text| text.strip_prefix(check::UNIX)) else {
        return socket_address(value).map(ListenAddress::Tcp);
    };
    match check::unix_path(path) {
        Ok(()) => Some(ListenAddress::Unix(path.into())),
        Err(must) => value.must(must),
    }
}

/// Permissions, which YAML reads as text only with a zero in front, or in quotes.
fn mode_of(value: &Value<'_>) -> Option<u32> {
    const FORM: &str = "be an octal mode from `0000` to `0777`, such as `0660`";
    let text = value.word().unwrap_or_default();
    let octal = text.len() == 4 && text.starts_with('0');
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
    mode.or_else(|| value.must(FORM))
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
