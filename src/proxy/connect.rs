//! A connection to a node: it waits for its permit, is opened, timed and counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::attempt;
use super::shared::Proxy;
use crate::cluster::Node;
use crate::observe::metrics::NodeMetrics;
use crate::sessions::Session;
use crate::upstream::{Candidates, ConnectPermit, Connection, Error, Priority};

/// How often a connection is tried again that this machine itself could not make.
const LOCAL_RETRY: Duration = Duration::from_millis(100);

/// A connection that waits for its permit, counted until dropped.
struct WaitingCount<'a>(&'a NodeMetrics);

impl<'a> WaitingCount<'a> {
    fn at(node: &'a Node) -> Self {
        node.metrics.connects_waiting.inc();
        Self(&node.metrics)
    }
}

impl Drop for WaitingCount<'_> {
    fn drop(&mut self) {
        self.0.connects_waiting.dec();
    }
}

impl Proxy {
    /// Opens a connection to `node` once it has a permit. A failure asks for a probe at once. The wait for
    /// a permit ends at `give_up` with [`Error::Queue`], which is not the node's failure. It ends with a
    /// failure of the node when the node goes down, or has lost the session that the connection is `of`.
    /// The node may get the address of the `client` in a PROXY header.
    pub(super) fn open(
        self: &Arc<Self>,
        node: &Node,
        of: Option<&Session>,
        client: IpAddr,
        priority: Priority,
        give_up: Instant,
    ) -> impl Future<Output = Result<Box<Connection>, Error>> + Send {
        self.open_at(node, None, of, client, priority, give_up)
    }

    /// The same, at other addresses than the node's own where there are `others`.
    pub(super) async fn open_at(
        self: &Arc<Self>,
        node: &Node,
        others: Option<&Candidates>,
        of: Option<&Session>,
        client: IpAddr,
        priority: Priority,
        give_up: Instant,
    ) -> Result<Box<Connection>, Error> {
        let limit = self.live().connect;
        let mut local_since = None;
        let (opened, begun) = loop {
            let permit = match node.connect_limiter.try_permit(Instant::now()) {
                Some(permit) => permit,
                None => Box::pin(await_permit(node, of, priority, give_up)).await?,
            };
            let (begun, epoch) = (Instant::now(), node.restart_detector.epoch());
            let record = |address, opened| node.connected(address, opened, Instant::now());
            let own = || node.candidates(begun);
            let mut candidates = others.cloned().unwrap_or_else(own);
            candidates.opening.set_client(client);
            let opened = Connection::open_any(&candidates, limit, record).await;
            let opened = opened.and_then(|connection| self.below_ceiling(connection));
            match &opened {
                Err(Error::Refused(_)) => {
                    permit.forgive();
                    // Another port says nothing about the node's sessions.
                    if others.is_none() {
                        node.restart_detector.broke(epoch, Instant::now());
                    }
                }
                _ => drop(permit),
            }
            // Out of descriptors or ports here: the node is not to be blamed, and a moment helps.
            let local = matches!(&opened, Err(error) if error.is_local());
            if local {
                self.short_of_files();
            }
            if !local || local_since.get_or_insert(begun).elapsed() > limit {
                break (opened, begun);
            }
            sleep(LOCAL_RETRY).await;
        };
        let mut opened = opened;
        match &mut opened {
            Ok(connection) => {
                connection.report_to(&node.heard);
                node.metrics.connects.inc();
                node.metrics
                    .connect_seconds
                    .observe(begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                node.metrics.connect_failures.inc();
                if !error.is_local() {
                    attempt::suspect(node, error);
                }
            }
        }
        opened.map(Box::new)
    }

    /// The connection, unless its file is one of those that are kept for probes and the operator.
    fn below_ceiling(&self, connection: Connection) -> Result<Connection, Error> {
        if connection.file() < self.ceiling {
            return Ok(connection);
        }
        let source = std::io::Error::other("the last open files are kept back");
        Err(Error::Local(source))
    }
}

/// Waits for a permit to open a connection to `node`, until `give_up`, and only while the node is up
/// and has the session that the connection is `of`.
async fn await_permit<'a>(
    node: &'a Node,
    of: Option<&Session>,
    priority: Priority,
    give_up: Instant,
) -> Result<ConnectPermit<'a>, Error> {
    let _waiting = WaitingCount::at(node);
    let mut down = std::pin::pin!(node.went_down.notified());
    down.as_mut().enable();
    if !node.serves() {
        return Err(Error::ConnectTimeout);
    }
    let mut permit = std::pin::pin!(node.connect_limiter.permit(priority));
    loop {
        let mut forgot = std::pin::pin!(node.restart_detector.forgot.notified());
        forgot.as_mut().enable();
        if of.is_some_and(Session::is_lost) {
            return Err(Error::ConnectTimeout);
        }
        tokio::select! {
            biased;
            permit = permit.as_mut() => return permit.ok_or(Error::Queue),
            () = down.as_mut() => return Err(Error::ConnectTimeout),
            () = forgot.as_mut() => {}
            () = sleep_until(give_up) => return Err(Error::Queue),
        }
    }
}
