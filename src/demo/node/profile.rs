//! Which server a node simulates: the rules of its sessions, and what may be set before a start.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Fault, Reaction};
use super::hub::Hub;
use super::record::Seen;

/// The servers that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Tigase 8.4: no HTTP parser, sockets tied to sessions.
    Tigase,
    /// Prosody 0.12: one server, a plain HTTP/1.1 parser.
    Prosody,
    /// ejabberd 23.01: like Prosody on the wire, sessions known in the whole cluster.
    Ejabberd,
}

/// How long things last at a node, in simulated seconds, and what it does out of the ordinary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) software: Software,
    pub(super) second: Duration,
    pub(super) wait_limit: u32,
    pub(super) inactivity: u32,
    pub(super) polling: u32,
    pub(super) maxpause: u32,
    /// How long a sid is still known after `terminate`.
    pub(super) lingers: Duration,
    /// A request of a session that comes so soon behind one that is unanswered is never answered.
    pub(super) collision: Option<Duration>,
    /// How long stanzas are collected before they are sent.
    pub(super) batching: Duration,
    /// Whether sockets belong to sessions and are closed with them.
    pub(super) ties_sockets: bool,
    /// Whether a held request is dropped when its client goes away.
    pub(super) notices_gone: bool,
    /// Whether requests are put in rid order, with answers kept for repetitions.
    pub(super) ordered: bool,
    /// Whether a wrong rid ends the session (where requests are ordered).
    pub(super) wrong_rid_ends: bool,
    /// Whether `host` names the node in every body.
    pub(super) names_host: bool,
}

impl Rules {
    fn tigase() -> Self {
        Self {
            software: Software::Tigase,
            second: Duration::from_secs(1),
            wait_limit: 30,
            inactivity: 10,
            polling: 10,
            maxpause: 10,
            lingers: Duration::from_millis(500),
            // Measured: requests 2 to 3 ms apart are lost, 5 ms apart they are not. Two that are
            // written 5 ms apart may be read a little closer.
            collision: Some(Duration::from_millis(4)),
            batching: Duration::ZERO,
            ties_sockets: true,
            notices_gone: true,
            ordered: false,
            wrong_rid_ends: false,
            names_host: true,
        }
    }

    fn prosody() -> Self {
        Self {
            software: Software::Prosody,
            wait_limit: 120,
            inactivity: 60,
            polling: 5,
            maxpause: 0,
            lingers: Duration::ZERO,
            collision: None,
            ties_sockets: false,
            ordered: true,
            names_host: false,
            ..Self::tigase()
        }
    }

    fn ejabberd() -> Self {
        Self {
            software: Software::Ejabberd,
            wait_limit: 300,
            inactivity: 30,
            polling: 2,
            maxpause: 120,
            notices_gone: false,
            wrong_rid_ends: true,
            ..Self::prosody()
        }
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reaction + Send + Sync>;

/// Everything that a node is started with.
#[derive(Clone)]
pub struct Profile {
    pub(super) name: String,
    pub(super) domain: String,
    pub(super) rules: Rules,
    pub(super) hub: Hub,
    pub(super) shares: bool,
    pub(super) outlive: bool,
    pub(super) address: SocketAddr,
    pub(super) in_memory: bool,
    pub(super) refusing: bool,
    pub(super) recording: bool,
    pub(super) bytes: bool,
    pub(super) seed: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) script: Option<Script>,
}

impl Profile {
    fn new(name: String, rules: Rules, hub: Hub) -> Self {
        Self {
            name,
            domain: "example.com".to_owned(),
            rules,
            hub,
            shares: false,
            outlive: false,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            in_memory: false,
            refusing: false,
            recording: true,
            bytes: false,
            seed: None,
            faults: Vec::new(),
            script: None,
        }
    }

    /// A Tigase node.
    #[must_use]
    pub fn tigase(name: impl Into<String>) -> Self {
        Self::new(name.into(), Rules::tigase(), Hub::default())
    }

    /// A Prosody server.
    #[must_use]
    pub fn prosody(name: impl Into<String>) -> Self {
        Self::new(name.into(), Rules::prosody(), Hub::default())
    }

    /// A node of a cluster that shares its sessions, as ejabberd does: a sid works at every node of
    /// `hub` that was started so.
    #[must_use]
    pub fn shared(name: impl Into<String>, hub: &Hub) -> Self {
        let shares = true;
        Self {
            shares,
            ..Self::new(name.into(), Rules::ejabberd(), hub.clone())
        }
    }

    /// In a cluster: messages reach the sessions of the hub's other nodes.
    #[must_use]
    pub fn in_hub(mut self, hub: &Hub) -> Self {
        self.hub = hub.clone();
        self
    }

    /// Listening there, rather than on a free port of the loopback address.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// In the network in memory of the thread that starts it, at this address. Start, use and drop
    /// such a node on one thread.
    #[must_use]
    pub fn in_memory(mut self, address: SocketAddr) -> Self {
        self.in_memory = true;
        self.at(address)
    }

    /// Serving this domain rather than `example.com`.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Refusing connections until [`Node::listen`](super::Node::listen).
    #[must_use]
    pub fn refusing(mut self) -> Self {
        self.refusing = true;
        self
    }

    /// Misbehaving from the start.
    #[must_use]
    pub fn misbehaving(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Asking `script` about every request that no fault is for.
    #[must_use]
    pub fn with_script(
        mut self,
        script: impl Fn(&Seen) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        self.script = Some(Arc::new(script));
        self
    }

    /// With a second that lasts so long: `wait`, `inactivity` and the like shrink with it.
    #[must_use]
    pub fn second(mut self, second: Duration) -> Self {
        self.rules.second = second;
        self
    }

    /// With this longest `wait`, in seconds.
    #[must_use]
    pub fn wait_limit(mut self, seconds: u32) -> Self {
        self.rules.wait_limit = seconds;
        self
    }

    /// With this `inactivity`, in seconds.
    #[must_use]
    pub fn inactivity(mut self, seconds: u32) -> Self {
        self.rules.inactivity = seconds;
        self
    }

    /// Collecting stanzas for so long before they are sent, as Tigase does for 100 ms.
    #[must_use]
    pub fn batching(mut self, pause: Duration) -> Self {
        self.rules.batching = pause;
        self
    }

    /// How close two requests of one session may come before one is never answered; `None` turns
    /// that off.
    #[must_use]
    pub fn collision(mut self, window: Option<Duration>) -> Self {
        self.rules.collision = window;
        self
    }

    /// Whether `host` names the node in every body of a Tigase node.
    #[must_use]
    pub fn names_host(mut self, names: bool) -> Self {
        self.rules.names_host = names;
        self
    }

    /// Sessions of a shared cluster that live on when their node is killed. (Those of a real
    /// ejabberd end with the node that made them.)
    #[must_use]
    pub fn sessions_outlive_nodes(mut self) -> Self {
        self.outlive = true;
        self
    }

    /// Keeping no record, only counts: for benchmarks.
    #[must_use]
    pub fn without_record(mut self) -> Self {
        self.recording = false;
        self
    }

    /// Keeping every byte that comes, requests or not.
    #[must_use]
    pub fn recording_bytes(mut self) -> Self {
        self.bytes = true;
        self
    }

    /// With a fixed seed for the attribute order, the sids and the rest that is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}
