//! A small BOSH client, for the demo, the tests and the benchmarks. It connects through TCP, or
//! through the network in memory of its thread.
//!
//! It keeps at most two connections and lends one to each request, so that a poll can be held while
//! something is sent. It speaks its own minimal HTTP/1.1, never resends by itself, and bounds every
//! wait by a deadline.

mod reply;

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use crate::transport::{self, ConnectError, Stream};
pub use reply::Reply;
use reply::read_reply;

/// How long a request may take, unless said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(70);

/// Why a request has no answer.
#[derive(Debug)]
pub enum Error {
    /// The socket failed: refused, reset.
    Io(io::Error),
    /// The connection was closed after this much of an answer.
    Closed(Bytes),
    /// The answer was no HTTP.
    Malformed(Bytes),
    /// Nothing came in time.
    Deadline,
    /// Both connections are busy.
    Busy,
    /// There is no session yet, or a creation was answered without a sid.
    NoSession,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Closed(seen) => write!(f, "closed after {} bytes of an answer", seen.len()),
            Self::Malformed(seen) => write!(f, "no HTTP in {} bytes", seen.len()),
            Self::Deadline => f.write_str("no answer in time"),
            Self::Busy => f.write_str("every connection is busy"),
            Self::NoSession => f.write_str("no session"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NoSocket(error) | ConnectError::Failed(error) => Self::Io(error),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The connections that a client has, lent to its requests.
#[derive(Debug)]
struct Pool {
    idle: Vec<Stream>,
    lent: usize,
}

type Shared = Arc<Mutex<Pool>>;

/// A lent connection; counts as free again when it is dropped.
struct Loan {
    pool: Shared,
    stream: Option<Stream>,
}

impl Loan {
    fn give_back(mut self) {
        if let Some(stream) = self.stream.take() {
            self.pool
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .idle
                .push(stream);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lent -= 1;
    }
}

/// A request under way. Dropping it closes its connection.
pub struct Pending {
    loan: Loan,
    until: Instant,
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Where none comes in time, or none that is whole.
    pub async fn reply(mut self) -> Result<Reply, Error> {
        let stream = self.loan.stream.as_mut().ok_or(Error::Busy)?;
        let read = timeout_at(self.until, read_reply(stream)).await;
        let (reply, reusable) = read.map_err(|_| Error::Deadline)??;
        if reusable {
            self.loan.give_back();
        }
        Ok(reply)
    }
}

/// A BOSH client with one session at most.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    path: String,
    domain: String,
    headers: String,
    deadline: Duration,
    wait: u32,
    most: usize,
    pool: Shared,
    sid: Option<String>,
    rid: u64,
    last: String,
}

impl Client {
    /// A client of whatever listens there, with its first connection open.
    ///
    /// # Errors
    /// If the connection is refused or takes too long.
    pub async fn connect(address: SocketAddr) -> Result<Self, Error> {
        let client = Self::to(address);
        let loan = client.lend().await?;
        loan.give_back();
        Ok(client)
    }

    /// A client that connects with its first request.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            path: "/http-bind".to_owned(),
            domain: "example.com".to_owned(),
            headers: String::new(),
            deadline: DEADLINE,
            wait: 30,
            most: 2,
            pool: Arc::new(Mutex::new(Pool {
                idle: Vec::new(),
                lent: 0,
            })),
            sid: None,
            rid: fastrand::u64(1_000..1_000_000_000),
            last: String::new(),
        }
    }

    /// Asking at this path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Asking for this domain.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        domain.clone_into(&mut self.domain);
        self
    }

    /// Sending this header with every request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Giving up after so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asking for this `wait`, in seconds.
    #[must_use]
    pub fn wait(mut self, seconds: u32) -> Self {
        self.wait = seconds;
        self
    }

    /// Sets how many connections it keeps at most.
    #[must_use]
    pub fn most(mut self, connections: usize) -> Self {
        self.most = connections;
        self
    }

    /// The sid; empty while there is no session.
    #[must_use]
    pub fn sid(&self) -> &str {
        self.sid.as_deref().unwrap_or_default()
    }

    /// The rid of the last request.
    #[must_use]
    pub fn rid(&self) -> u64 {
        self.rid
    }

    /// Goes on as this session, made elsewhere; `rid` is that of its last request.
    pub fn adopt(&mut self, sid: &str, rid: u64) {
        self.sid = Some(sid.to_owned());
        self.rid = rid;
    }

    /// Creates a session, with no XMPP stream in it: nothing comes that was not asked for.
    ///
    /// # Errors
    /// Where there is no answer, or one without a sid.
    pub async fn create(&mut self) -> Result<Reply, Error> {
        self.create_with("").await
    }

    /// Creates a session with further attributes, `from='…'` or `xmpp:version='1.0'` say.
    ///
    /// # Errors
    /// Where there is no answer, or one without a sid.
    pub async fn create_with(&mut self, attributes: &str) -> Result<Reply, Error> {
        self.rid += 1;
        let (rid, domain, wait) = (self.rid, &self.domain, self.wait);
        let body = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' to='{domain}' rid='{rid}' wait='{wait}' hold='1' ver='1.6' content='text/xml; charset=utf-8' {attributes}/>"
        );
        let reply = self.post(&body).await?;
        self.sid = Some(reply.attribute("sid").ok_or(Error::NoSession)?);
        Ok(reply)
    }

    /// Polls, and waits for the answer.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn poll(&mut self) -> Result<Reply, Error> {
        self.begin("", "").await?.reply().await
    }

    /// Sends stanzas, and waits for the answer to that request.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn send(&mut self, stanzas: &str) -> Result<Reply, Error> {
        self.begin("", stanzas).await?.reply().await
    }

    /// Sends an XMPP ping, whose result comes with one of the next answers.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn ping(&mut self, id: &str) -> Result<Reply, Error> {
        let stanza = format!(
            "<iq type='get' id='{id}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        self.send(&stanza).await
    }

    /// Ends the session.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn terminate(&mut self) -> Result<Reply, Error> {
        self.begin("type='terminate'", "").await?.reply().await
    }

    /// Starts a poll; its answer is to be waited for.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub async fn begin_poll(&mut self) -> Result<Pending, Error> {
        self.begin("", "").await
    }

    /// Starts a request of the session, with the next rid.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub async fn begin(&mut self, attributes: &str, stanzas: &str) -> Result<Pending, Error> {
        let sid = self.sid.as_deref().ok_or(Error::NoSession)?;
        self.rid += 1;
        let rid = self.rid;
        self.last = format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{sid}' {attributes}>{stanzas}</body>"
        );
        self.begin_post(&self.last).await
    }

    /// Sends the last request of the session again, rid and all.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn repeat(&mut self) -> Result<Reply, Error> {
        self.begin_post(&self.last).await?.reply().await
    }

    /// Posts a body, and waits for the answer.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn post(&self, body: &str) -> Result<Reply, Error> {
        self.begin_post(body).await?.reply().await
    }

    /// Starts to post a body.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub async fn begin_post(&self, body: &str) -> Result<Pending, Error> {
        let (path, address, headers) = (&self.path, self.address, &self.headers);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/xml; charset=utf-8\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.begin_raw(request.as_bytes()).await
    }

    /// Writes these bytes, and reads one answer.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn post_raw(&self, bytes: &[u8]) -> Result<Reply, Error> {
        self.begin_raw(bytes).await?.reply().await
    }

    /// Writes these bytes, as a request.
    ///
    /// # Errors
    /// Where they cannot be sent.
    pub async fn begin_raw(&self, bytes: &[u8]) -> Result<Pending, Error> {
        let until = Instant::now() + self.deadline;
        let send = async {
            let mut loan = self.lend().await?;
            if let Some(stream) = &mut loan.stream {
                stream.write_all(bytes).await?;
            }
            Ok::<_, Error>(Pending { loan, until })
        };
        timeout_at(until, send).await.map_err(|_| Error::Deadline)?
    }

    /// Closes the idle connections.
    pub fn hang_up(&self) {
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .idle
            .clear();
    }

    /// Lends an idle connection, the last one used first, or a new one.
    async fn lend(&self) -> Result<Loan, Error> {
        let mut loan = {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            if pool.lent >= self.most {
                return Err(Error::Busy);
            }
            pool.lent += 1;
            let stream = loop {
                match pool.idle.pop() {
                    Some(stream) if is_stale(&stream) => {}
                    stream => break stream,
                }
            };
            Loan {
                pool: Arc::clone(&self.pool),
                stream,
            }
        };
        if loan.stream.is_none() {
            let until = Instant::now() + self.deadline;
            let connect = timeout_at(until, transport::connect(self.address)).await;
            let stream = connect.map_err(|_| Error::Deadline)??;
            loan.stream = Some(stream);
        }
        Ok(loan)
    }
}

/// Whether an idle connection was closed, or has bytes without a request.
fn is_stale(stream: &Stream) -> bool {
    // The kernel is asked: what tokio knows may be older.
    let peeked = match stream.socket() {
        Some(socket) => SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]),
        None => stream.peek(),
    };
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
