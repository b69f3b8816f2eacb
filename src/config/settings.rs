//! The settings in the form that the rest of the program uses: every value checked, every default
//! filled in, nothing left to look up.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

mod landing;
mod node;

use super::admin_listener::Admin;
pub use super::listen::{Listen, ListenAddress, ProxyProtocol};
use super::node_source::Discovery;
pub use landing::LandingMode;
pub use node::{NodeTls, ProxyVersion};

/// Everything that a configuration file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where clients are served; 1 to 256 entries, no address twice unless its port is 0.
    pub listen: Vec<Listen>,
    /// What counts as BOSH, and how much of it is taken.
    pub bosh: Bosh,
    /// What becomes of the name of its host that a node puts into its answers.
    pub host_attribute: HostAttribute,
    /// What keeps a client at its node.
    pub affinity: Affinity,
    /// How long a client's address stays tied to its node after its last request
    /// (`affinity: client-ip` only); 1 s to 24 h, 30 min by default.
    pub affinity_ttl: Duration,
    /// How the node of a new session is chosen.
    pub placement: Placement,
    /// How long a creation waits for a node when none is up; 0 to 24 h, 5 s by default.
    pub placement_wait: Duration,
    /// The zone whose nodes get new sessions first; none by default.
    pub zone: Option<String>,
    /// Peers whose `Forwarded` and `X-Forwarded-For` are believed; host bits are zero.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may use the service from a web page of another origin.
    pub cors: Cors,
    /// The list of nodes for clients that choose a node themselves; none by default.
    pub node_list: Option<NodeList>,
    /// WebSocket beside BOSH; off by default.
    pub websocket: Option<WebSocket>,
    /// The nodes, in the order of the file; 1 to 1024, names and addresses unique. With `discovery` those
    /// that were found last.
    pub nodes: Vec<NodeSettings>,
    /// What says which nodes there are, where the file does not list them.
    pub discovery: Option<Discovery>,
    /// How nodes are probed.
    pub health: Health,
    /// How connections to nodes are made.
    pub upstream: Upstream,
    /// The admin listener; none if the file switches it off (`admin: off`).
    pub admin: Option<Admin>,
    /// What may be held at the same time.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is logged, and how.
    pub log: Log,
    /// Whether the file's content is checked every second, and applied when it changes; false by default.
    pub reload_on_change: bool,
    /// Where pins and operator states are kept across restarts; nowhere by default.
    pub snapshot: Option<Snapshot>,
    /// The Unix socket by which `bowline run --takeover` takes over; none by default. An absolute path of at
    /// most 107 bytes.
    pub takeover: Option<PathBuf>,
    /// Where traces go; nowhere by default. Only with the cargo feature `otlp`.
    pub traces: Option<Traces>,
    /// Worker threads, 1 to 256; the number of cores by default.
    pub threads: usize,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificates, 1 to 256. The first serves names that no other has.
    pub certificates: Vec<CertificateFiles>,
    /// A PEM file with the authorities of which one must have signed a client's certificate. None, the
    /// default, asks clients for no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The two files of a certificate, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those of its issuers.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The BOSH service.
#[derive(Debug, Clone, PartialEq)]
pub struct Bosh {
    /// Paths that are BOSH; at least one, none twice. Each starts with `/` and has only characters
    /// that RFC 3986 allows in a path. A request may have one `/` more at the end.
    pub paths: Vec<String>,
    /// The largest request body, in bytes; 1 KiB to 16 MiB, 1 MiB by default.
    pub max_body: usize,
    /// The largest answer of a node, in bytes; 1 KiB to 64 MiB, 4 MiB by default.
    pub max_answer: usize,
    /// What becomes of the `from` of a creation.
    pub creation_from: CreationFrom,
    /// Whether nodes get the query of a request.
    pub query: QueryPolicy,
    /// Names of fields of a node's answer that its client gets, in lower case; at most 16, none twice,
    /// none by default.
    pub answer_headers: Vec<String>,
}

/// What becomes of the query of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryPolicy {
    /// It is left out.
    Drop,
    /// Nodes get it as it came.
    Pass,
}

/// What becomes of the `from` of a creation (XEP-0206 §3). Nodes do not need it, and a Tigase with
/// its default see-other-host never answers a creation that names a user of another node there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreationFrom {
    /// It is taken out.
    Strip,
    /// It passes.
    Pass,
}

/// What becomes of the attribute `host` of an answer (XEP-0124 §7.2): clients that honour it send
/// their next request there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAttribute {
    /// It is taken out.
    Strip,
    /// It passes.
    Pass,
    /// Its value becomes this host name. An answer without the attribute gets none.
    Rewrite(Box<str>),
}

/// What keeps a client at its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// The session: each sid is pinned to the node that made it.
    Sid,
    /// The address: all sessions of one client address (IPv4 /32, IPv6 /64) go to one node.
    ClientIp,
}

/// How the node of a new session is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Weighted rendezvous hash of the client's address: several balancers agree.
    ClientIp,
    /// Weighted rendezvous hash of the value of the query parameter with this name: several balancers
    /// agree. A request without the parameter is placed by its client's address. The name has 1 to 64
    /// of the characters `A-Z a-z 0-9 . _ ~ -`.
    Query(Box<str>),
    /// The node with the fewest sessions for its weight.
    LeastSessions,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Whose headers the answers of nodes have.
    pub owner: CorsOwner,
    /// The origins that may read answers.
    pub origins: Origins,
    /// Whether their pages may send credentials (`withCredentials`); false by default, and only with
    /// a list of origins.
    pub credentials: bool,
    /// Names of request headers that their pages may send besides `Content-Type`; at most 64, each
    /// a token of 1 to 64 characters, none twice in any spelling. No node gets them.
    pub headers: Vec<String>,
}

/// Whose CORS headers the answers of nodes have. Answers that the balancer writes have its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsOwner {
    /// The balancer's, in place of the node's. It answers `OPTIONS` itself.
    Own,
    /// The node's. Nodes get `Origin`, and `OPTIONS`.
    Pass,
}

/// Origins that may read answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Origins {
    /// Any: `Access-Control-Allow-Origin: *`.
    Any,
    /// These only, as a browser writes them (`https://chat.example.com`); an empty list is none.
    Only(Vec<String>),
}

/// The paths of XEP-0156's documents, in XML and in JSON.
pub const HOST_META_PATHS: [&str; 2] = ["/.well-known/host-meta", "/.well-known/host-meta.json"];

/// The list of nodes that clients are given, so that they choose a node themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeList {
    /// The path of the list on each client listener, under the rules of [`Bosh::paths`] and none of
    /// them.
    pub path: String,
    /// How long a client or a cache may keep it: whole seconds, 0 to 24 h, 5 s by default.
    pub max_age: Duration,
    /// Whether `/.well-known/host-meta` and `/.well-known/host-meta.json` (XEP-0156) say the same;
    /// true by default.
    pub host_meta: bool,
}

/// WebSocket (RFC 7395): tunnels to the nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct WebSocket {
    /// Paths that are WebSocket, under the rules of [`Bosh::paths`] and none of them.
    pub paths: Vec<String>,
    /// What becomes of the query of an upgrade.
    pub query: QueryPolicy,
    /// A client that has sent nothing for this long gets a ping; 10 ms to 24 h, 60 s by default.
    pub idle: Duration,
    /// How long it has for a byte after that; 10 ms to 24 h, 20 s by default.
    pub pong: Duration,
    /// The largest frame of a client, in bytes of its payload; 1 KiB to 64 MiB, 1 MiB by default.
    pub max_frame: usize,
}

/// Where a node takes WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    /// Whether it is `wss`: with the TLS of the node, which it has then.
    pub tls: bool,
    /// `host:port`. The host is that of the node's address, or an IP address.
    pub address: String,
    /// The path, under the rules of [`Bosh::paths`], without `&` and `'`.
    pub path: String,
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It takes new sessions.
    Ready,
    /// It keeps its sessions and gets no new ones.
    Drain,
    /// It has no sessions.
    Maint,
}

impl NodeState {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// Its name in logs and metrics: `[A-Za-z0-9._-]`, 1 to 64 characters.
    pub name: String,
    /// `host:port`, the port 1 to 65535; an IPv6 address stands in brackets. Or `unix:` and the absolute
    /// path of a Unix socket.
    pub address: String,
    /// Its share of new sessions, 1 to 256.
    pub weight: u32,
    /// Sessions that it may have before it gets no new ones; 0, the default, is any number.
    pub max_sessions: u32,
    /// It gets new sessions only when no ordinary node takes them; false by default.
    pub backup: bool,
    /// Its zone; none by default.
    pub zone: Option<String>,
    /// The operator's state at the start, and from the reload that changes it; none leaves it as it is.
    pub state: Option<NodeState>,
    /// Where clients reach its BOSH service without a balancer: an absolute `http` or `https` URL
    /// without query and fragment, at most 1024 characters, unique. A node without one is not in the
    /// list of nodes.
    pub public_url: Option<String>,
    /// Where it takes WebSocket; none for its address and the path `/xmpp-websocket`.
    pub websocket: Option<WebSocketUrl>,
    /// TLS towards it; none by default.
    pub tls: Option<NodeTls>,
    /// The header of the PROXY protocol that begins each connection to it; none by default.
    pub send_proxy: Option<ProxyVersion>,
}

impl NodeSettings {
    /// A node of weight 1, without a limit of sessions and without a public URL.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            weight: 1,
            max_sessions: 0,
            backup: false,
            zone: None,
            state: None,
            public_url: None,
            websocket: None,
            tls: None,
            send_proxy: None,
        }
    }
}

/// How nodes are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What is asked of the node.
    pub probe: Probe,
    /// The `Host` of the probes `http` and `bosh`, for nodes behind virtual hosts: a host with or
    /// without a port, at most 255 bytes. None, the default, for the node's own address.
    pub host: Option<String>,
    /// From one probe to the next at most; each comes up to a tenth earlier, at random. 10 ms to
    /// 24 h, 1 s by default.
    pub interval: Duration,
    /// The same while something is amiss: after a failed probe, while one waits for its answer,
    /// and while no node is up. 10 ms to `interval`, 200 ms by default.
    pub fast_interval: Duration,
    /// How long one probe may take; 10 ms to `interval`, 1 s by default.
    pub timeout: Duration,
    /// Passed probes in a row that make a node up, while another is; 1 to 100, 2 by default.
    pub rise: u32,
    /// Failed probes in a row that make a node down; 1 to 100, 3 by default.
    pub fall: u32,
    /// How long a node that answers nothing keeps its sessions, counted from its last byte or, if
    /// that is later, from the first probe that it left unanswered. `timeout` to 24 h, 5 s by
    /// default.
    pub silence: Duration,
    /// How long the share of new sessions of a node that came back grows, from a tenth to the
    /// whole; 0 (at once) to 24 h, 30 s by default.
    pub slow_start: Duration,
    /// How long a node that went down a second time must be well, behind `rise`, before it is up
    /// again; doubles with each further time. 0 (never) to `penalty_max`, 5 s by default.
    pub penalty: Duration,
    /// The longest penalty, and how long a node must be up for one time to be forgotten. 10 ms to
    /// 24 h, 5 min by default.
    pub penalty_max: Duration,
}

/// How connections to nodes are made; probes are apart from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Connections to one node that are being opened at a time; 1 to 10,000, 5 by default.
    pub connecting: usize,
    /// Connections to one node that are opened in any second; 0 (any number) to 100,000, 900 by
    /// default.
    pub connects_per_second: usize,
    /// What a stop does with the polls that nodes hold; `half-close` by default.
    pub release: Release,
}

/// What a stop does with the polls that nodes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Half-closes their connections and answers them with what the nodes still say.
    HalfClose,
    /// Leaves them at their nodes, and goes on accepting clients until they have ended.
    Keep,
}

/// What a probe asks of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A wrapper with a made-up sid to the first BOSH path; any wrapper is a pass.
    Bosh,
    /// `GET` of a path; a status below 400 is a pass.
    Http {
        /// The path asked for, under the rules of [`Bosh::paths`]; `/` by default.
        path: String,
    },
    /// A connection that opens.
    Tcp,
}

/// What may be held at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Client connections, over all listeners; 1 to 10 million, 100 000 by default.
    pub connections: usize,
    /// TLS handshakes under way, over all listeners; 1 to 100 000, 256 by default. Further ones wait.
    pub handshakes: usize,
    /// Client connections from one address; 0 to 10 million, 5 000 by default; 0 is any number.
    pub connections_per_client: usize,
    /// Requests under way on one HTTP/2 connection; 1 to 1 000, 128 by default.
    pub streams: usize,
    /// Memory for request bodies that are still coming, in bytes, over all connections; 1 MiB to
    /// 64 GiB, 64 MiB by default.
    pub body_memory: usize,
    /// Memory for the last answers of sessions, in bytes, for clients whose connection breaks; 0 (none
    /// are kept) to 64 GiB, 64 MiB by default.
    pub answer_memory: usize,
    /// Sessions in the table; 1 to 100 million, 1 million by default.
    pub sessions: usize,
    /// Sessions that one client may ask for in a second, in the long run; 0 to 1 million, 100 by
    /// default; 0 is any number.
    pub creations_per_client: u32,
    /// Sessions that one client may ask for at once; 1 to 10 million, 2 500 by default.
    pub creations_burst: u32,
    /// Requests in a second with a sid that no node knows, in the long run; 0 to 1 million, 500
    /// by default; 0 is any number.
    pub unknown_sids_per_second: u32,
    /// The same of one client; 0 to 1 million, 50 by default; 0 is any number.
    pub unknown_sids_per_client: u32,
    /// How fast sessions whose node is gone log in elsewhere; [`LandingMode::Auto`] by default.
    pub landing: LandingMode,
    /// Addresses that stand for many clients, or for none that could do harm: the limits of one
    /// client are not theirs. `trusted_proxies` are exempt in any case. Loopback by default.
    pub exempt: Vec<IpNet>,
}

/// How long things may take: 10 ms to 24 h each, the two of the drain from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// How long a request with stanzas on a new connection waits for one with the rid below whose client went
    /// away; 0 (it does not wait) to 24 h, 9 s by default.
    pub retry: Duration,
    /// A request head, from its first byte; 10 s by default.
    pub head: Duration,
    /// A request body, in all; 15 s by default.
    pub body: Duration,
    /// How long a client has for what it did not take of an answer at once, beside a second for each
    /// KiB that it then takes; 30 s by default.
    pub write_stall: Duration,
    /// A client connection with no request; 75 s by default.
    pub idle: Duration,
    /// Connecting to a node; 2 s by default.
    pub connect: Duration,
    /// From the stop signal until listeners close: `/ready` already says no. 0 by default.
    pub drain_notice: Duration,
    /// From the closing of the listeners until held requests are cut; 75 s by default.
    pub drain: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A filter as `RUST_LOG` takes it, known to parse; `RUST_LOG` overrides it.
    pub filter: String,
    /// Which requests have a line; off by default.
    pub access: AccessLog,
    /// The key under which lines name sessions; drawn at random at the start if there is none.
    pub session_key: Option<u128>,
}

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// All.
    On,
    /// Those that did not end as they should.
    Failures,
    /// Those, and all of one session in this number; 2 to a million.
    Sample(NonZeroU32),
}

/// The file that keeps pins and operator states across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The file. Its folder must be writable.
    pub file: PathBuf,
    /// From one snapshot to the next; 1 s to 24 h, 5 s by default.
    pub interval: Duration,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector's URL for traces, `http://host:port/path`.
    pub endpoint: String,
    /// Of requests that are no part of a trace already, one in this number begins one; 1 to a million,
    /// 1 by default.
    pub sample: u32,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
