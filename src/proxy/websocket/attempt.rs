//! One try to open a tunnel to one node: connect, send the upgrade, check the answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::PendingUpgrade;
use super::tunnel::Tunnel;
use crate::cluster::{Node, NodeId};
use crate::http1::HeadEnd;
use crate::upstream::{NodeStream, Path, Priority};
use crate::websocket::{AnswerFault, check_answer};

use super::super::shared::Proxy;
use super::super::termination_state::Phase;

/// How long a node may take from the connect to its answer: it answers an upgrade at once.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The most bytes taken by one read.
const READ: usize = 4096;

/// What a try at one node came to.
pub(super) enum Try {
    Opened(Opened),
    /// The node took no connection: the upgrade was not written.
    Untouched,
    /// The node did not agree, or not in time.
    Refused,
    /// This machine could open no connection.
    Local,
}

/// A node's end of a tunnel.
pub(super) struct Opened {
    pub(super) stream: NodeStream,
    /// What the node sent behind its answer.
    pub(super) early: Vec<u8>,
    pub(super) tunnel: Tunnel,
}

/// Why the handshake failed.
enum Fault {
    Answer(AnswerFault),
    Broken(std::io::Error),
    Closed,
    /// The node was not to be waited for: it takes no new sessions any more.
    Left,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(fault) => write!(f, "{fault}"),
            Self::Broken(error) => write!(f, "an upgrade broke: {error}"),
            Self::Closed => f.write_str("an upgrade was closed without an answer"),
            Self::Left => f.write_str("the node takes no new sessions"),
        }
    }
}

/// Asks the node `id`.
pub(super) async fn run(proxy: &Arc<Proxy>, id: NodeId, upgrade: &PendingUpgrade) -> Try {
    let node = proxy.cluster.node(id);
    let give_up = Instant::now() + HANDSHAKE;
    let target = node.tunnel_target();
    let Some(path) = Path::new(target.path()) else {
        return Try::Refused;
    };
    upgrade.record.goes_to(id);
    upgrade.record.enters(Phase::Connect);
    let others = target.addresses.as_ref();
    let client = upgrade.record.client();
    let open = proxy.open_at(node, others, None, client, Priority::Creation, give_up);
    let connection = match Box::pin(open).await {
        Ok(connection) => connection,
        Err(error) if error.is_local() => return Try::Local,
        Err(_) => return Try::Untouched,
    };
    let mut stream = connection.into_stream();
    let stay = upgrade.record.at_node(Instant::now());
    let head = upgrade.head(path);
    let handshake = async {
        tokio::select! {
            biased;
            done = shake_hands(&mut stream, node, &head, &upgrade.key) => done,
            () = left_up(node) => Err(Fault::Left),
        }
    };
    let done = timeout_at(give_up, handshake).await;
    let took = stay.end(Instant::now());
    match done {
        Ok(Ok(early)) => {
            node.metrics.answer_seconds.observe(took);
            upgrade.record.enters(Phase::Answer);
            let tunnel = Tunnel::begin(Arc::clone(proxy), id);
            Try::Opened(Opened {
                stream,
                early,
                tunnel,
            })
        }
        Ok(Err(Fault::Left)) => Try::Untouched,
        Ok(Err(fault)) => {
            debug!(node = %node.name, %fault, "an upgrade failed");
            node.metrics.exchange_failures.inc();
            upgrade.record.enters(Phase::Answer);
            node.suspect(fault.to_string(), SystemTime::now());
            Try::Refused
        }
        Err(_) => {
            node.metrics.exchange_failures.inc();
            node.suspect("an upgrade was not answered in time", SystemTime::now());
            Try::Refused
        }
    }
}

/// Returns when the node takes no new sessions.
async fn left_up(node: &Node) {
    let mut left = std::pin::pin!(node.left_up.notified());
    // Enabled before the look: a change in between still wakes us.
    left.as_mut().enable();
    if node.takes_new() {
        left.await;
    }
}

/// Sends the upgrade and reads the answer. Gives what the node sent behind it.
async fn shake_hands(
    stream: &mut NodeStream,
    node: &Node,
    head: &str,
    key: &str,
) -> Result<Vec<u8>, Fault> {
    stream
        .write_all(head.as_bytes())
        .await
        .map_err(Fault::Broken)?;
    stream.flush().await.map_err(Fault::Broken)?;
    let mut end = HeadEnd::of_answer();
    let mut answer = Vec::new();
    loop {
        let before = answer.len();
        answer.reserve(READ);
        if stream.read_buf(&mut answer).await.map_err(Fault::Broken)? == 0 {
            return Err(Fault::Closed);
        }
        node.heard.note();
        let new = answer.get(before..).unwrap_or_default();
        let found = end.find(new);
        let found = found.map_err(|_| Fault::Answer(AnswerFault::Invalid("it is not HTTP")))?;
        if let Some(at) = found {
            let early = answer.split_off(before + at);
            check_answer(&answer, key).map_err(Fault::Answer)?;
            return Ok(early);
        }
    }
}
