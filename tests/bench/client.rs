//! One BOSH client with one connection: creates a session, sends, polls, terminates.
//!
//! Every answer is checked: its status, its kind, and that a payload that was sent came back to
//! the byte. The rid is part of the payload, so an answer that belongs to another request is seen.
//!
//! The other suites use `bowline::demo::client`. This one keeps its buffers and reads nothing twice,
//! since what it takes is missing from the load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::tls;
use crate::wire::{self, Read};

/// Why a request failed.
pub(crate) type Failure = String;

/// How many source addresses the clients have: enough that no address runs out of ports, and that
/// whatever chooses a node by address spreads them.
const ADDRESSES: usize = 200;

/// Where a client connects to, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Over TLS.
    pub(crate) encrypted: bool,
}

/// A client's connection.
#[derive(Debug)]
enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Line {
    /// The connection itself.
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    async fn read_buf(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(into).await,
            Self::Tls(stream) => stream.read_buf(into).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Line,
    sid: String,
    rid: u64,
    /// What each message carries.
    payload: usize,
    body: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    /// Connects to `target`. `number` chooses the source address.
    pub(crate) async fn connect(
        target: Target,
        number: usize,
        payload: usize,
    ) -> Result<Self, Failure> {
        let last = u8::try_from(number % ADDRESSES + 1).unwrap_or(1);
        let connected = async {
            let socket = TcpSocket::new_v4()?;
            // A source port only has to be free towards this target.
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::new(127, 0, 1, last), 0).into())?;
            let stream = socket.connect(target.address).await?;
            stream.set_nodelay(true)?;
            if !target.encrypted {
                return io::Result::Ok(Line::Plain(stream));
            }
            let name = ServerName::try_from(tls::NAME).map_err(io::Error::other)?;
            let stream = tls::connector().connect(name, stream).await?;
            Ok(Line::Tls(Box::new(stream)))
        };
        Ok(Self {
            stream: connected
                .await
                .map_err(|error| format!("connect: {error}"))?,
            sid: String::new(),
            rid: fastrand::u64(1_000_000..1_000_000_000_000),
            payload,
            body: String::new(),
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Connects as [`Self::connect`] does and makes a session.
    pub(crate) async fn with_session(
        target: Target,
        number: usize,
        payload: usize,
    ) -> Result<Self, Failure> {
        let mut client = Self::connect(target, number, payload).await?;
        client.create().await?;
        Ok(client)
    }

    /// Makes a session.
    pub(crate) async fn create(&mut self) -> Result<(), Failure> {
        self.body = format!(
            "<body content='text/xml; charset=utf-8' hold='1' rid='{}' to='bench.example' \
             ver='1.6' wait='60' xml:lang='en' xmpp:version='1.0' \
             xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh'/>",
            self.rid
        );
        let (status, start, end) = self.exchange().await?;
        let body = &self.answer[start..end];
        let sid = wire::parts(body).and_then(|(tag, _)| wire::attribute(tag, b" sid="));
        match sid {
            Some(sid) if status == 200 => {
                self.sid = String::from_utf8_lossy(sid).into_owned();
                Ok(())
            }
            _ => Err(self.unwanted("a creation", start)),
        }
    }

    /// Sends a message and gets it back.
    pub(crate) async fn send(&mut self) -> Result<(), Failure> {
        self.rid += 1;
        self.open("");
        let inside = self.body.len();
        let rid = self.rid;
        let text = format!("<message id='{rid}' to='room@bench.example'><body>");
        self.body.push_str(&text);
        const END: &str = "</body></message>";
        let full = inside + self.payload.max(text.len() + END.len()) - END.len();
        while self.body.len() < full {
            let most = (full - self.body.len()).min(FILL.len());
            self.body.push_str(&FILL[..most]);
        }
        self.body.push_str(END);
        self.body.push_str("</body>");
        let (status, start, end) = self.exchange().await?;
        let sent = &self.body.as_bytes()[inside..];
        if status == 200 && self.answer[start..end].ends_with(sent) {
            Ok(())
        } else {
            Err(self.unwanted("a message", start))
        }
    }

    /// Ends the session.
    pub(crate) async fn terminate(&mut self) -> Result<(), Failure> {
        self.rid += 1;
        self.open(" type='terminate'");
        self.body.push_str("</body>");
        let (status, start, end) = self.exchange().await?;
        let ended = wire::parts(&self.answer[start..end])
            .is_some_and(|(tag, _)| wire::attribute(tag, b" type=") == Some(b"terminate"));
        if status == 200 && ended {
            Ok(())
        } else {
            Err(self.unwanted("a terminate", start))
        }
    }

    /// Sends a poll, which the node holds, and does not wait for its answer.
    pub(crate) async fn poll(&mut self) -> Result<(), Failure> {
        self.rid += 1;
        self.open("");
        self.body.push_str("</body>");
        self.write().await
    }

    /// Whether the connection is open and silent, as it has to be while a poll is held.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let read = self.stream.tcp().try_read(&mut byte);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Opens a WebSocket.
    pub(crate) async fn open_tunnel(&mut self) -> Result<(), Failure> {
        const UPGRADE: &[u8] = b"GET /xmpp-websocket HTTP/1.1\r\nHost: bench.example\r\n\
            Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";
        let written = self.stream.write_all(UPGRADE).await;
        written.map_err(|error| format!("write: {error}"))?;
        self.answer.clear();
        while !self.answer.ends_with(b"\r\n\r\n") {
            match self.stream.read_buf(&mut self.answer).await {
                Ok(0) => return Err("the connection ended without an answer".into()),
                Ok(_) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        if self.answer.starts_with(b"HTTP/1.1 101 ") {
            return Ok(());
        }
        Err(self.unwanted("an upgrade", 0))
    }

    fn open(&mut self, more: &str) {
        use std::fmt::Write as _;
        self.body.clear();
        // Writing to a String does not fail.
        let _ = write!(
            self.body,
            "<body rid='{}' sid='{}'{more} xmlns='http://jabber.org/protocol/httpbind'>",
            self.rid, self.sid
        );
    }

    /// Sends the body and reads the answer: its status, and where its body is.
    async fn exchange(&mut self) -> Result<(u16, usize, usize), Failure> {
        self.write().await?;
        self.answer.clear();
        self.answer.reserve(4096);
        loop {
            match self.stream.read_buf(&mut self.answer).await {
                Ok(0) => return Err("the connection ended without an answer".into()),
                Ok(_) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
            match wire::read(&self.answer) {
                Read::Partial => {}
                Read::Broken => return Err(self.unwanted("a request", 0)),
                Read::Whole(message) if message.end < self.answer.len() => {
                    return Err("bytes behind the answer".into());
                }
                Read::Whole(message) => {
                    let code = self.answer.get(9..12).unwrap_or_default();
                    let status = std::str::from_utf8(code).ok();
                    let status = status.and_then(|code| code.parse().ok()).unwrap_or(0);
                    return Ok((status, message.body, message.end));
                }
            }
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        use std::io::Write as _;
        self.request.clear();
        // Writing to a Vec does not fail.
        let _ = write!(
            self.request,
            "POST /http-bind HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bowline-bench\r\n\
             Accept: */*\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            self.body.len()
        );
        self.request.extend_from_slice(self.body.as_bytes());
        let written = self.stream.write_all(&self.request).await;
        written.map_err(|error| format!("write: {error}"))
    }

    fn unwanted(&self, to: &str, from: usize) -> Failure {
        let line = self.answer.split(|byte| *byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        let body = String::from_utf8_lossy(&self.answer[from..]);
        let start: String = body.chars().take(120).collect();
        format!("the answer to {to}: {line}: {start}")
    }
}

const FILL: &str = "the quick brown fox jumps over the lazy dog and then sits down to rest \
                    under the old oak tree while the afternoon turns to evening, ";
