//! One probe of one node: `bosh`, `http` or `tcp`. Opens a connection of its own, asks once,
//! closes it. Decides nothing: a failure is a reason in words, the verdict is the streak's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use crate::bosh;
use crate::config::Probe;
use crate::upstream::{self, Authority, Connection, Error, Path, Proto, RequestHead, Stream};

/// The largest answer that is read, in bytes; an answer to a probe has a few hundred.
const MAX_ANSWER: usize = 64 * 1024;

/// What is asked of a node, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Prober {
    /// What a probe is.
    pub(super) probe: Probe,
    /// Where wrappers go: the first BOSH path.
    pub(super) bosh_path: String,
    /// What one probe may take, from the name's look-up to the last byte.
    pub(super) timeout: Duration,
}

impl Prober {
    /// Asks the node behind `addresses` (called `host` in the request), once, until `deadline`.
    pub(super) async fn ask(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = match Connection::open(addresses, left).await {
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
            host,
            forwarded_for: IpAddr::V4(Ipv4Addr::LOCALHOST),
            forwarded_proto: Proto::Http,
            forwarded_host: None,
        };
        let request = upstream::write_request(&head, wrapper_of_nobody().as_bytes());
        connection.send(&request, self.timeout).await?;
        let answer = connection.receive(MAX_ANSWER, self.timeout).await?;
        match bosh::read_answer(&answer.body) {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::NoWrapper(answer.status)),
        }
    }
}

async fn ask_http(stream: Stream, host: &str, path: &str) -> Result<(), Failure> {
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

/// A wrapper with a sid that nobody made.
fn wrapper_of_nobody() -> String {
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
async fn status_of(stream: Stream, request: Request<Empty<Bytes>>) -> Result<u16, Failure> {
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
