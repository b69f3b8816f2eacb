//! One probe of one node: `bosh`, `http` or `tcp`. Opens a connection of its own to each address,
//! asks once, closes it. Decides nothing: a failure is a reason in words, the verdict is the
//! streak's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::verdict::Outcome;
use crate::bosh;
use crate::cluster::{Cluster, NodeId};
use crate::config::{Probe, Settings, host_of};
use crate::upstream::{
    self, Authority, Connection, Error, NodeStream, Opening, Path, Proto, Query, RequestHead,
};

/// The largest answer that is read, in bytes; an answer to a probe has a few hundred.
const MAX_ANSWER: usize = 64 * 1024;

/// The probe of every node, ready to be sent.
#[derive(Debug)]
pub(super) struct Prober {
    /// What one probe may take, from the name's look-up to the last byte.
    pub(super) timeout: Duration,
    question: Arc<Question>,
    /// Probes of further addresses that go on when one has passed. They end when this is dropped.
    finishing: Mutex<JoinSet<()>>,
}

/// What is asked of one address.
#[derive(Debug)]
struct Question {
    probe: Probe,
    /// Where wrappers go: the first BOSH path.
    bosh_path: String,
    /// The `Host` of requests; none for the node's address.
    host: Option<String>,
    /// What one probe may take, for what a failure says.
    timeout: Duration,
}

/// How the probe of one address ended.
type AddressProbe = (SocketAddr, Result<(), Failure>);

impl Prober {
    /// The probe that `settings` ask for.
    pub(super) fn new(settings: &Settings) -> Self {
        let health = &settings.health;
        Self {
            timeout: health.timeout,
            question: Arc::new(Question {
                probe: health.probe.clone(),
                bosh_path: settings.bosh.paths.first().cloned().unwrap_or_default(),
                host: health.host.clone(),
                timeout: health.timeout,
            }),
            finishing: Mutex::default(),
        }
    }

    /// Asks every address of the node `id` once, all at the same time, until `deadline`. It passes
    /// as soon as one address does. Notes which addresses work.
    pub(super) async fn ask(
        &self,
        cluster: &Arc<Cluster>,
        id: NodeId,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let node = cluster.node(id);
        let addresses = node.addresses();
        match *addresses {
            [] => return Err(Error::NoAddress.into()),
            [address] => {
                let (name, opening) = (node.address(), node.opening());
                return self.question.ask(address, &name, opening, deadline).await;
            }
            _ => {}
        }
        let mut asked = JoinSet::new();
        for &address in addresses.iter() {
            let (question, cluster) = (Arc::clone(&self.question), Arc::clone(cluster));
            asked.spawn(async move {
                let node = cluster.node(id);
                let (name, opening) = (node.address(), node.opening());
                let result = question.ask(address, &name, opening, deadline).await;
                if !result.as_ref().is_err_and(Failure::is_ours) {
                    node.probed(address, result.is_ok(), Instant::now());
                }
                (address, result)
            });
        }
        let mut failures = Vec::new();
        while let Some(ended) = asked.join_next().await {
            match result_of(ended) {
                (_, Ok(())) => {
                    self.let_finish(asked);
                    return Ok(());
                }
                (address, Err(failure)) => failures.push((address, failure)),
            }
        }
        Err(decisive(failures, node.worked_last()))
    }

    /// Lets the probes of further addresses go on to their deadline.
    fn let_finish(&self, mut asked: JoinSet<AddressProbe>) {
        if asked.is_empty() {
            return;
        }
        let mut finishing = self
            .finishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = finishing.try_join_next() {
            result_of(ended);
        }
        finishing.spawn(async move {
            while let Some(ended) = asked.join_next().await {
                drop(result_of(ended));
            }
        });
    }
}

/// What a probe's task came to; a panic goes on here.
fn result_of<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => unreachable!("a probe is aborted by its owner only, at the owner's end"),
    })
}

/// The failure that says most about a node of which every address failed. The address that worked
/// last decides. If none ever worked, silence does: a second address family that refuses says
/// nothing about the first one.
fn decisive(failures: Vec<(SocketAddr, Failure)>, worked_last: Option<SocketAddr>) -> Failure {
    let weight = |(address, failure): &(SocketAddr, Failure)| {
        let silent = failure.outcome() == Outcome::Silent;
        let theirs = !failure.is_ours();
        (worked_last == Some(*address), theirs && silent, theirs)
    };
    let most = failures.into_iter().max_by_key(weight);
    most.map_or_else(|| Error::NoAddress.into(), |(_, failure)| failure)
}

impl Question {
    /// Asks one address of the node at `node_address`, until `deadline`.
    async fn ask(
        &self,
        address: SocketAddr,
        node_address: &str,
        opening: Opening,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let host = self.host.as_deref().unwrap_or(host_of(node_address));
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = match Connection::open_with(address, opening, left).await {
            Ok(connection) => connection,
            Err(Error::ConnectTimeout) => return Err(Failure::ConnectTimeout(self.timeout)),
            Err(error) => return Err(error.into()),
        };
        let asked = async {
            match &self.probe {
                Probe::Tcp => Ok(()),
                Probe::Http { path } => ask_http(connection.into_stream(), host, path).await,
                Probe::Bosh => self.ask_bosh(connection, host).await,
            }
        };
        timeout_at(deadline, asked)
            .await
            .unwrap_or_else(|_| Err(Failure::NoAnswer(self.timeout)))
    }

    /// Posts a wrapper of a session that no node knows: it goes through the node's parser and its
    /// session manager, and creates nothing. Any wrapper is a pass, with whatever status.
    async fn ask_bosh(&self, mut connection: Connection, host: &str) -> Result<(), Failure> {
        let (Some(path), Some(host)) = (Path::new(&self.bosh_path), Authority::new(host)) else {
            return Err(Failure::Request);
        };
        let head = RequestHead {
            path,
            query: Query::default(),
            host,
            forwarded_for: IpAddr::V4(Ipv4Addr::LOCALHOST),
            forwarded_proto: Proto::Http,
            forwarded_host: None,
            origin: None,
        };
        let request = upstream::write_request(&head, wrapper_of_unknown_sid().as_bytes());
        connection.send(&request, self.timeout).await?;
        let answer = connection.receive(MAX_ANSWER, self.timeout).await?;
        match bosh::read_response(&answer.body) {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::NoWrapper(answer.status)),
        }
    }
}

async fn ask_http(stream: NodeStream, host: &str, path: &str) -> Result<(), Failure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| Failure::Request)?;
    let status = status_of(stream, request).await?;
    if status < 400 {
        Ok(())
    } else {
        Err(Failure::Status(status))
    }
}

/// A wrapper with a sid that no node made.
fn wrapper_of_unknown_sid() -> String {
    let rid = fastrand::u32(1_000_000..);
    format!(
        "<body rid='{rid}' sid='{}' xmlns='{}'/>",
        uuid(),
        bosh::HTTPBIND
    )
}

/// A random UUID (version 4).
fn uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf_000c << 60) | 0x4_0008 << 60;
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// Sends `request` on `stream` and waits for the answer's status.
async fn status_of(stream: NodeStream, request: Request<Empty<Bytes>>) -> Result<u16, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection's own error reaches the answer, too.
        _ = connection => answer.await,
    };
    Ok(answer?.status().as_u16())
}

#[cfg(test)]
mod tests;
