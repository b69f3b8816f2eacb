//! HTTP/2 as raw frames: a client that can break each of its rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 32;

/// The largest payload of a frame without a setting.
pub(crate) const MAX_FRAME: usize = 16_384;

/// What may be sent on a stream, and on the connection, at first.
const WINDOW: i64 = 65_535;

/// How long the other side may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What has come back on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) status: Option<u16>,
    pub(crate) body: String,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

/// A connection.
pub(crate) struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    /// What may be sent: by stream, and on the connection as stream 0.
    windows: BTreeMap<u32, i64>,
    /// Pings that were answered.
    pub(crate) pongs: Vec<[u8; 8]>,
    /// Settings that were taken.
    pub(crate) acks: usize,
    /// The error of the last GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// The other side has closed.
    pub(crate) closed: bool,
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals that no table keeps (RFC 7541 §6.2.2).
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(text.len(), 7, &mut block);
            block.extend(text);
        }
    }
    block
}

/// An integer with a prefix of `bits` bits (RFC 7541 §5.1).
fn integer(mut value: usize, bits: u32, into: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        into.push(u8::try_from(value).unwrap());
        return;
    }
    into.push(u8::try_from(most).unwrap());
    value -= most;
    while value >= 128 {
        into.push(u8::try_from(value % 128 + 128).unwrap());
        value /= 128;
    }
    into.push(u8::try_from(value).unwrap());
}

impl Frames {
    /// A connection whose settings were exchanged. The other side keeps no table of fields.
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address).await;
        frames.write(PREFACE).await;
        // SETTINGS_HEADER_TABLE_SIZE
        frames.frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]).await;
        frames.until(|frames| frames.acks == 1).await;
        frames
    }

    /// A connection on which nothing was written.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            streams: BTreeMap::new(),
            windows: BTreeMap::new(),
            pongs: Vec::new(),
            acks: 0,
            goaway: None,
            closed: false,
        }
    }

    /// Writes; what the other side refuses to take shows in what comes back.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await;
    }

    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// A head, split into frames of the largest size.
    pub(crate) async fn head(&mut self, stream: u32, block: &[u8], ended: bool) {
        let mut parts = block.chunks(MAX_FRAME).peekable();
        let mut kind = HEADERS;
        let mut bytes = Vec::new();
        while let Some(part) = parts.next() {
            let mut flags = if parts.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            if kind == HEADERS && ended {
                flags |= END_STREAM;
            }
            bytes.extend(frame(kind, flags, stream, part));
            kind = CONTINUATION;
        }
        self.write(&bytes).await;
    }

    /// A body, split into frames, as the windows let them through, and as long as it is
    /// wanted.
    pub(crate) async fn body(&mut self, stream: u32, body: &[u8], ended: bool) {
        let mut left = body;
        loop {
            self.until(|frames| frames.window(stream) > 0 || frames.is_over(stream))
                .await;
            if self.closed || self.is_over(stream) {
                return;
            }
            let most = usize::try_from(self.window(stream)).unwrap();
            let (part, rest) = left.split_at(left.len().min(MAX_FRAME).min(most));
            let flags = if rest.is_empty() && ended {
                END_STREAM
            } else {
                0
            };
            self.frame(DATA, flags, stream, part).await;
            for place in [0, stream] {
                let sent = i64::try_from(part.len()).unwrap();
                *self.windows.entry(place).or_insert(WINDOW) -= sent;
            }
            left = rest;
            if left.is_empty() {
                return;
            }
        }
    }

    fn window(&self, stream: u32) -> i64 {
        let window = |place| self.windows.get(&place).copied().unwrap_or(WINDOW);
        window(0).min(window(stream))
    }

    fn is_over(&self, stream: u32) -> bool {
        self.goaway.is_some_and(|error| error != 0)
            || self
                .streams
                .get(&stream)
                .is_some_and(|one| one.ended || one.reset.is_some())
    }

    /// Reads until `condition` holds, or the other side has closed.
    pub(crate) async fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        let reading = async {
            while !condition(self) && !self.closed {
                self.read().await;
            }
        };
        if timeout(DEADLINE, reading).await.is_err() {
            panic!("not in time: {:?}, {:?}", self.streams, self.goaway);
        }
    }

    /// What becomes of a stream: until it has ended, or its connection has.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Stream {
        self.until(|frames| frames.is_over(stream)).await;
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Waits until the other side has closed, and says why.
    pub(crate) async fn error(&mut self) -> Option<u32> {
        self.until(|_| false).await;
        self.goaway
    }

    async fn read(&mut self) {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => self.closed = true,
        }
        while let Some(head) = self.buffer.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let end = 9 + usize::try_from(length).unwrap();
            if self.buffer.len() < end {
                return;
            }
            let frame: Vec<u8> = self.buffer.drain(..end).collect();
            self.take(kind, flags, stream, &frame[9..]);
        }
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let one = self.streams.entry(stream);
        match kind {
            HEADERS => {
                let one = one.or_default();
                let status = status(payload);
                // An interim answer is not the last one.
                one.status = Some(status);
                one.ended |= flags & END_STREAM != 0;
            }
            DATA => {
                let one = one.or_default();
                one.body.push_str(std::str::from_utf8(payload).unwrap());
                one.ended |= flags & END_STREAM != 0;
            }
            RST_STREAM => one.or_default().reset = Some(number(payload)),
            SETTINGS if flags & ACK != 0 => self.acks += 1,
            PING if flags & ACK != 0 => self.pongs.push(payload.try_into().unwrap()),
            WINDOW_UPDATE => {
                *self.windows.entry(stream).or_insert(WINDOW) += i64::from(number(payload));
            }
            GOAWAY => self.goaway = Some(number(&payload[4..])),
            _ => {}
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

/// The status of an answer: its first field (RFC 9113 §8.3.2), from the static table or a literal.
fn status(block: &[u8]) -> u16 {
    // The other side says that its table is empty.
    let block = block.strip_prefix(&[0x20]).unwrap_or(block);
    match *block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [0x48 | 0x08, length, ref rest @ ..] if length & 0x80 != 0 => {
            let bits = rest[..usize::from(length & 0x7f)].iter();
            digits(&bits.map(|byte| format!("{byte:08b}")).collect::<String>())
        }
        [0x48 | 0x08, 3, ref rest @ ..] => {
            std::str::from_utf8(&rest[..3]).unwrap().parse().unwrap()
        }
        _ => panic!("no status: {block:?}"),
    }
}

/// Three digits in Huffman code (RFC 7541, Appendix B).
fn digits(mut bits: &str) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let length = if bits.starts_with("00") { 5 } else { 6 };
        let (code, rest) = bits.split_at(length);
        let code = u16::from_str_radix(code, 2).unwrap();
        let digit = if length == 5 {
            code
        } else {
            code - 0b011001 + 3
        };
        assert!(digit < 10, "a digit: {bits}");
        number = number * 10 + digit;
        bits = rest;
    }
    number
}
