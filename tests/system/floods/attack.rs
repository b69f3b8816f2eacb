//! Quick floods: many small requests over a few connections, at a rate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Connections of a flood.
const CONNECTIONS: u64 = 32;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A made-up sid; every other one from the same address, the rest from addresses at random.
    Sid,
    /// A new session, from addresses at random.
    Creation,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) sent: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) not_found: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Refused without `Retry-After` or without a wrapper.
    pub(super) rude: AtomicU64,
}

/// Sends `count` requests in `span`, evenly.
pub(super) async fn flood(
    address: SocketAddr,
    what: What,
    count: u64,
    span: Duration,
) -> Arc<Answers> {
    let answers = Arc::<Answers>::default();
    let every = span.mul_f64(CONNECTIONS as f64 / count as f64);
    let end = Instant::now() + span;
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let answers = Arc::clone(&answers);
        tasks.push(tokio::spawn(async move {
            let mut tick = interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut stream = None;
            while Instant::now() < end && answers.sent.load(Ordering::Relaxed) < count {
                tick.tick().await;
                let number = answers.sent.fetch_add(1, Ordering::Relaxed);
                match one(address, &mut stream, &request(what, number)).await {
                    Ok(answer) => judge(&answers, &answer),
                    Err(_) => {
                        answers.broken.fetch_add(1, Ordering::Relaxed);
                        stream = None;
                    }
                }
            }
        }));
    }
    for task in tasks {
        // A task that panicked has said so.
        let _ = task.await;
    }
    answers
}

fn request(what: What, number: u64) -> String {
    let anybody = Ipv4Addr::from(fastrand::u32(0x0b00_0000..0x7e00_0000));
    let (from, body) = match what {
        What::Sid => {
            let from = if number.is_multiple_of(2) {
                Ipv4Addr::new(203, 0, 113, 1)
            } else {
                anybody
            };
            let sid = fastrand::u128(..);
            (
                from,
                format!(
                    "<body xmlns='http://jabber.org/protocol/httpbind' rid='7' sid='{sid:032x}'/>"
                ),
            )
        }
        What::Creation => (
            anybody,
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='example.com' wait='5' \
             hold='1' ver='1.6'/>"
                .to_owned(),
        ),
    };
    format!(
        "POST /http-bind HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One request and its answer, head and body.
async fn one(
    address: SocketAddr,
    stream: &mut Option<TcpStream>,
    request: &str,
) -> io::Result<String> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(super::balancer::connect(address).await?),
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 2048];
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            let length: usize = length
                .and_then(|length| length.trim().parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Ok(text.into_owned());
            }
        }
    }
}

fn judge(answers: &Answers, answer: &str) {
    let counter = if answer.starts_with("HTTP/1.1 503") {
        let head = answer.to_ascii_lowercase();
        if !head.contains("retry-after: ") || !answer.contains("type='terminate'") {
            answers.rude.fetch_add(1, Ordering::Relaxed);
        }
        &answers.refused
    } else if answer.contains("item-not-found") {
        &answers.not_found
    } else if answer.contains("sid=") {
        &answers.created
    } else {
        &answers.broken
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
