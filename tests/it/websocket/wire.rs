//! WebSocket byte by byte: a node that does what its script says, and a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bowline::websocket::accept_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::balancer::PATIENCE;

pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub(super) const OPEN: &[u8] = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/>";
pub(super) const CLOSE: &[u8] = b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";

/// What a node does with an upgrade.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// Agrees, and sends these bytes behind its answer.
    Agree(Vec<u8>),
    /// Answers this, and closes.
    Say(String),
    /// Never answers.
    Silent,
}

/// A node.
pub(super) struct WebSocketNode {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
    tunnels: UnboundedReceiver<(String, TcpStream)>,
}

impl WebSocketNode {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::Agree(Vec::new())));
        let (opened, tunnels) = unbounded_channel();
        let scripted = Arc::clone(&script);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = scripted.lock().unwrap_or_else(PoisonError::into_inner);
                let (script, opened) = (script.clone(), opened.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(head) = head(&mut stream).await else {
                        return;
                    };
                    let answer = match script {
                        Script::Agree(early) => [agreement(&head).as_bytes(), &early].concat(),
                        Script::Say(answer) => {
                            let _ = stream.write_all(answer.as_bytes()).await;
                            return;
                        }
                        Script::Silent => Vec::new(),
                    };
                    stream.write_all(&answer).await.unwrap();
                    let _ = opened.send((head, stream));
                });
            }
        });
        Self {
            address,
            script,
            accepting,
            tunnels,
        }
    }

    pub(super) fn follow(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// The next connection that was agreed to: the head of its upgrade, and its stream.
    pub(super) async fn tunnel(&mut self) -> (String, Peer) {
        let tunnel = timeout(PATIENCE, self.tunnels.recv()).await;
        let (head, stream) = tunnel.expect("an upgrade in time").unwrap();
        (
            head,
            Peer {
                stream,
                masks: false,
            },
        )
    }

    /// Whether no upgrade has come.
    pub(super) fn is_untouched(&mut self) -> bool {
        self.tunnels.try_recv().is_err()
    }

    /// Refuses connections from now on.
    pub(super) fn stop(&self) {
        self.accepting.abort();
    }
}

impl Drop for WebSocketNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a node says to an upgrade that it agrees to.
pub(super) fn agreement(head: &str) -> String {
    let key = field(head, "sec-websocket-key").unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n",
        accept_key(&key)
    )
}

/// The value of a field.
pub(super) fn field(head: &str, name: &str) -> Option<String> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_owned())
}

/// Reads up to the end of a head; none if the connection ends before.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A frame with its header as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) first: u8,
    pub(super) payload: Vec<u8>,
}

/// A frame; a client masks it.
pub(super) fn frame(masks: bool, first: u8, payload: &[u8]) -> Vec<u8> {
    let bit = u8::from(masks) << 7;
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(bit | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if masks {
        let mask = [7, 99, 201, 42];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    } else {
        frame.extend(payload);
    }
    frame
}

/// One end of a WebSocket, as a client or as a node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    masks: bool,
}

impl Peer {
    /// A client on a connection on which nothing was sent.
    pub(super) const fn of(stream: TcpStream) -> Self {
        let masks = true;
        Self { stream, masks }
    }

    /// A client that has got its 101, and what the head of that was.
    pub(super) async fn connect(
        address: SocketAddr,
        request: &str,
    ) -> Result<(Self, String), String> {
        Self::connect_with(address, request.as_bytes()).await
    }

    pub(super) async fn connect_with(
        address: SocketAddr,
        request: &[u8],
    ) -> Result<(Self, String), String> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let read = timeout(PATIENCE, head(&mut stream)).await;
        let head = read.expect("an answer in time").ok_or("closed")?;
        if head.starts_with("HTTP/1.1 101 ") {
            let masks = true;
            return Ok((Self { stream, masks }, head));
        }
        let mut body = Vec::new();
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        body.resize(length, 0);
        stream.read_exact(&mut body).await.unwrap();
        Err(head + std::str::from_utf8(&body).unwrap())
    }

    pub(super) async fn send(&mut self, first: u8, payload: &[u8]) {
        let frame = frame(self.masks, first, payload);
        self.write(&frame).await;
    }

    pub(super) async fn text(&mut self, payload: &[u8]) {
        self.send(0x81, payload).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.expect("written in time").unwrap();
    }

    /// The next frame, without its mask; none at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let read = timeout(PATIENCE, self.read_frame()).await;
        read.expect("a frame or the end in time")
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let first = self.stream.read_u8().await.ok()?;
        let second = self.stream.read_u8().await.unwrap();
        assert_eq!(second & 0x80 != 0, !self.masks, "the mask of a frame");
        let length = match second & 0x7f {
            126 => self.stream.read_u16().await.unwrap().into(),
            127 => self.stream.read_u64().await.unwrap(),
            length => length.into(),
        };
        let mut mask = [0; 4];
        if !self.masks {
            self.stream.read_exact(&mut mask).await.unwrap();
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some(Frame { first, payload })
    }

    /// The next frame is this one.
    pub(super) async fn expect(&mut self, first: u8, payload: &[u8]) {
        let next = self.next().await.expect("a frame");
        assert_eq!(next.first, first, "{next:?}");
        assert!(next.payload == payload, "{} bytes", next.payload.len());
    }

    /// The next frame is a close frame with this code, and the connection ends behind it.
    pub(super) async fn expect_close(&mut self, code: u16) {
        self.expect(0x88, &code.to_be_bytes()).await;
        self.expect_end().await;
    }

    /// The connection ends, with or without a reset.
    pub(super) async fn expect_end(&mut self) {
        let mut rest = [0; 64];
        let read = timeout(PATIENCE, self.stream.read(&mut rest)).await;
        match read.expect("the end in time") {
            Ok(0) | Err(_) => {}
            Ok(bytes) => panic!("{:?} in place of the end", &rest[..bytes]),
        }
    }

    /// The next byte; none at the end.
    pub(super) async fn next_byte(&mut self) -> Option<u8> {
        let read = timeout(PATIENCE, self.stream.read_u8()).await;
        read.expect("a byte or the end in time").ok()
    }

    pub(super) async fn read_exactly(&mut self, bytes: &mut [u8]) {
        let read = timeout(PATIENCE, self.stream.read_exact(bytes)).await;
        read.expect("read in time").unwrap();
    }

    /// Bytes come that begin so and are no whole frame, and then the end.
    pub(super) async fn expect_half(&mut self, begin: &[u8]) {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        let _ = read.expect("the end in time");
        assert!(bytes.starts_with(begin), "{bytes:x?}");
    }
}
