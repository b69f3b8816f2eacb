//! A bare connection, and answers made comparable.

use std::time::Duration;

use bowline::demo::node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A bare connection to a node.
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) async fn to(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address())
            .await
            .expect("it listens");
        stream.set_nodelay(true).expect("a live socket");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("a live socket");
    }

    /// Posts a body as the recordings do.
    pub(super) async fn post(&mut self, body: &str) {
        self.say(post(body).as_bytes()).await;
    }

    /// One HTTP answer, framed by its length.
    pub(super) async fn hear(&mut self) -> String {
        loop {
            if let Some(end) = whole(&self.buffer) {
                let rest = self.buffer.split_off(end);
                let answer = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(answer).expect("UTF-8");
            }
            assert!(self.more().await > 0, "closed after {:?}", self.seen());
        }
    }

    /// Everything until EOF; a reset is no EOF.
    pub(super) async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        self.seen()
    }

    /// Everything until the end, EOF or reset, and whether it was a reset.
    pub(super) async fn was_reset(&mut self) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match timeout(PATIENCE, self.stream.read(&mut buffer))
                .await
                .expect("an end")
            {
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    /// Bytes until this text was seen.
    pub(super) async fn hear_until(&mut self, text: &str) -> String {
        while !self.seen().contains(text) {
            assert!(self.more().await > 0, "closed after {:?}", self.seen());
        }
        self.seen()
    }

    /// Whether nothing has come and it is open.
    pub(super) fn is_silent(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        self.buffer.is_empty()
            && matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    async fn more(&mut self) -> usize {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("something in time").expect("no reset")
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let length = text
        .split("Content-Length: ")
        .nth(1)?
        .split("\r\n")
        .next()?;
    let end = head + length.parse::<usize>().ok()?;
    (buffer.len() >= end).then_some(end)
}

/// A request as in the recordings.
pub(super) fn post(body: &str) -> String {
    format!(
        "POST /bosh HTTP/1.1\r\nHost: example.com\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An attribute of the answer's wrapper.
pub(super) fn attribute(answer: &str, name: &str) -> String {
    let found = answer
        .split(&format!(" {name}=\""))
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    found
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
        .to_owned()
}

/// An answer with everything taken out that differs from one run to the next: the order of the
/// wrapper's attributes, the sid, the authid, the length, which is checked instead.
pub(super) fn plain(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let head = head.replace(
        &format!("Content-Length: {}", body.len()),
        "Content-Length: *",
    );
    let Some(rest) = body.strip_prefix("<body ") else {
        return format!("{head}\r\n\r\n{body}");
    };
    let end = rest.find('>').expect("a start tag");
    let (tag, rest) = rest.split_at(end);
    let (tag, slash) = tag.strip_suffix('/').map_or((tag, ""), |tag| (tag, "/"));
    let mut attributes: Vec<String> = Vec::new();
    for piece in tag
        .split_inclusive(['"', '\''])
        .collect::<Vec<_>>()
        .chunks(2)
    {
        let attribute = piece.concat().trim().to_owned();
        let name = attribute.split('=').next().unwrap_or_default().to_owned();
        let masked = name == "sid" || name == "authid";
        attributes.push(if masked {
            format!("{name}=*")
        } else {
            attribute
        });
    }
    attributes.sort();
    format!("{head}\r\n\r\n<body {}{slash}{rest}", attributes.join(" "))
}
