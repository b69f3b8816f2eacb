//! One probe of one node: `bosh`, `http` or `tcp`. Opens a connection of its own, asks once,
//! closes it. Decides nothing: a failure is a reason in words, the verdict is the streak's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use crate::config::Probe;

const HTTPBIND: &str = "http://jabber.org/protocol/httpbind";

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
        let stream = self.connect(addresses, deadline).await?;
        let asked = async {
            match &self.probe {
                Probe::Tcp => Ok(()),
                Probe::Http { path } => ask_http(stream, host, path).await,
                Probe::Bosh => ask_bosh(stream, host, &self.bosh_path).await,
            }
        };
        timeout_at(deadline, asked)
            .await
            .unwrap_or_else(|_| Err(Failure::NoAnswer(self.timeout)))
    }

    /// Opens a connection to the first address that takes one. Each address gets an equal part
    /// of what is left of the time, so that one that never answers does not hide the next.
    async fn connect(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<TcpStream, Failure> {
        let mut last = Failure::Connect(std::io::ErrorKind::AddrNotAvailable.into());
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let now = Instant::now();
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(now) / left;
            match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Failure::Connect(error),
                Err(_) => last = Failure::ConnectTimeout(self.timeout),
            }
        }
        Err(last)
    }
}

async fn ask_http(stream: TcpStream, host: &str, path: &str) -> Result<(), Failure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Full::default())
        .map_err(Failure::Request)?;
    let (status, _) = exchange(stream, request, false).await?;
    if status < 400 {
        Ok(())
    } else {
        Err(Failure::Status(status))
    }
}

async fn ask_bosh(stream: TcpStream, host: &str, path: &str) -> Result<(), Failure> {
    let request = Request::post(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "text/xml; charset=utf-8")
        .header(CONNECTION, "close")
        .body(Full::from(wrapper_of_nobody()))
        .map_err(Failure::Request)?;
    let (status, body) = exchange(stream, request, true).await?;
    if is_wrapper(&body) {
        Ok(())
    } else {
        Err(Failure::NoWrapper(status))
    }
}

/// A wrapper of a session that no node knows: it goes through the node's parser and its session
/// manager, and creates nothing.
fn wrapper_of_nobody() -> String {
    let rid = fastrand::u32(1_000_000..);
    format!("<body rid='{rid}' sid='{}' xmlns='{HTTPBIND}'/>", uuid())
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

/// Sends `request` on `stream` and reads the answer: its status, and its body if that is wanted.
async fn exchange(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    with_body: bool,
) -> Result<(u16, Bytes), Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = if with_body {
            read(answer.into_body()).await?
        } else {
            Bytes::new()
        };
        Ok((status, body))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection's own error reaches the answer, too.
        _ = connection => answer.await,
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Failure::from(*error),
            Err(_) => Failure::TooLarge,
        }),
    }
}

/// Whether `answer` begins with a `body` element of BOSH; the rest is not looked at.
fn is_wrapper(answer: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(answer) else {
        return false;
    };
    let mut reader = NsReader::from_str(text);
    loop {
        match reader.read_resolved_event() {
            Ok((namespace, Event::Start(element) | Event::Empty(element))) => {
                let bound = ResolveResult::Bound(Namespace(HTTPBIND));
                return namespace == bound && element.local_name().as_ref() == "body";
            }
            Ok((_, Event::Decl(_))) => {}
            Ok((_, Event::Text(text))) if text.trim_ascii().is_empty() => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
