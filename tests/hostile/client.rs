//! A client that writes bytes as they are, and reads what comes back as strictly as it can.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::corpus::Piece;

/// By when an answer, or the end of a connection, must have come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// One answer, or the end of the connection.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Answer),
    End,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header field; none if it is absent, and a panic if it is there twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1);
        let mut values = fields.filter_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let first = values.next();
        assert!(values.next().is_none(), "{name} twice in {}", self.head);
        first
    }

    /// The names of the header fields, in small letters.
    pub(crate) fn names(&self) -> Vec<String> {
        let fields = self.head.lines().skip(1);
        let names = fields.filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    pub(crate) fn closes(&self) -> bool {
        let kept = self.field("connection") == Some("keep-alive");
        self.field("connection") == Some("close") || (self.head.starts_with("HTTP/1.0") && !kept)
    }

    /// An attribute of the wrapper.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let tag = self.body.split('>').next()?;
        let value = tag.split_once(&format!(" {name}='"))?.1;
        Some(value.split_once('\'')?.0)
    }
}

/// A connection to the balancer.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) patience: Duration,
}

impl Wire {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            patience: DEADLINE,
        }
    }

    /// Writes; what the other side refuses to take shows in what it answers.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await;
    }

    pub(crate) async fn play(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => self.write(bytes).await,
                Piece::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
                Piece::Fin => {
                    let _ = self.stream.shutdown().await;
                }
            }
        }
    }

    /// The next answer; interim ones are passed over.
    ///
    /// # Errors
    /// What is no answer, in words.
    pub(crate) async fn hear(&mut self, bodiless: bool) -> Result<Heard, String> {
        loop {
            let heard = self.one(bodiless).await?;
            match heard {
                Heard::Answer(answer) if answer.status < 200 => {}
                other => return Ok(other),
            }
        }
    }

    /// Posts a body and hears its answer.
    pub(crate) async fn post(&mut self, body: &str) -> Result<Answer, String> {
        self.write(&post(body)).await;
        match self.hear(false).await? {
            Heard::Answer(answer) => Ok(answer),
            Heard::End => Err("closed in place of an answer".to_owned()),
        }
    }

    async fn one(&mut self, bodiless: bool) -> Result<Heard, String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(Heard::End)
                } else {
                    Err(format!("cut in an answer's head: {}", self.seen()))
                };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).map_err(|_| "a head that is not UTF-8")?;
        let status = head
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.strip_prefix(['0', '1'])?.strip_prefix(' '))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("no status line: {head:?}"))?;
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = match answer.field("content-length") {
            Some(length) => length.parse().map_err(|_| "a length that is none")?,
            None if status < 200 => 0,
            None => return Err(format!("no length: {:?}", answer.head)),
        };
        let length: usize = if bodiless { 0 } else { length };
        while self.buffer.len() < length {
            if self.more().await? == 0 {
                return Err(format!("cut in a body: {}", self.seen()));
            }
        }
        let body = self.buffer.drain(..length).collect();
        answer.body = String::from_utf8(body).map_err(|_| "a body that is not UTF-8")?;
        Ok(Heard::Answer(answer))
    }

    async fn more(&mut self) -> Result<usize, String> {
        match timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => Err(format!(
                "neither answered nor closed in time{}",
                self.seen()
            )),
            Ok(Ok(some)) => Ok(some),
            Ok(Err(error)) => Err(format!("{error}{}", self.seen())),
        }
    }

    fn seen(&self) -> String {
        let seen = String::from_utf8_lossy(&self.buffer);
        format!("; so far {seen:?}")
    }
}

/// An ordinary request.
pub(crate) fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /http-bind HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
