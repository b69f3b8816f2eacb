//! Clients that chat while balancers come and go: each holds a poll and pings at the same time, as Strophe does.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::demo::client::{Client, Error, Reply};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::waiting::PATIENCE;

/// From one ping of a client to its next, at most.
const PACE: u64 = 40;

/// What clients have seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pings whose result has come.
    pub(crate) pings: u32,
    /// Sessions created.
    pub(crate) created: u32,
    /// Connections refused.
    pub(crate) refused: u32,
    /// Requests on a connection that had served before, which was closed without a byte of an answer. A
    /// browser sends such a request again by itself, and so do these clients.
    pub(crate) sent_again: u32,
    /// Requests that failed, and why.
    pub(crate) failed: Vec<String>,
    /// Sessions that ended without their client's wish.
    pub(crate) lost: u32,
    /// Pings without a result.
    pub(crate) unanswered: u32,
}

impl Tally {
    /// Whether no client was harmed.
    pub(crate) fn is_clean(&self) -> bool {
        (self.refused, self.lost, self.unanswered) == (0, 0, 0) && self.failed.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.pings += other.pings;
        self.created += other.created;
        self.refused += other.refused;
        self.sent_again += other.sent_again;
        self.failed.extend(other.failed);
        self.lost += other.lost;
        self.unanswered += other.unanswered;
    }
}

/// Clients that chat until they are stopped.
pub(crate) struct Chats {
    done: Arc<AtomicBool>,
    clients: JoinSet<Tally>,
}

impl Chats {
    /// Starts clients of `address`: `talkers` that keep their session, half of which open a connection for
    /// each request, and one that creates a session, pings and ends it, again and again.
    pub(crate) fn start(address: SocketAddr, talkers: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..talkers {
            let chat = Chat::new(address, number % 2 == 0);
            clients.spawn(chat.talk(Arc::clone(&done)));
        }
        clients.spawn(come_and_go(address, Arc::clone(&done)));
        Self { done, clients }
    }

    /// Ends them. What they have seen.
    pub(crate) async fn stop(self) -> Tally {
        self.done.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for tally in self.clients.join_all().await {
            sum.add(tally);
        }
        sum
    }
}

async fn come_and_go(address: SocketAddr, done: Arc<AtomicBool>) -> Tally {
    let mut sum = Tally::default();
    while !done.load(Ordering::Relaxed) {
        let mut chat = Chat::new(address, true);
        if chat.create().await {
            chat.round(0).await;
            chat.end().await;
        }
        sum.add(chat.tally);
        sleep(Duration::from_millis(fastrand::u64(1..PACE))).await;
    }
    sum
}

struct Chat {
    client: Client,
    /// It opens a connection for each request.
    fresh: bool,
    rid: u64,
    tally: Tally,
    /// Pings whose result has not come.
    open: Vec<String>,
}

impl Chat {
    fn new(address: SocketAddr, fresh: bool) -> Self {
        Self {
            // A node may answer a poll with the result of a ping, and then holds the ping.
            client: Client::to(address).deadline(PATIENCE).wait(1),
            fresh,
            rid: 0,
            tally: Tally::default(),
            open: Vec::new(),
        }
    }

    async fn talk(mut self, done: Arc<AtomicBool>) -> Tally {
        if !self.create().await {
            return self.tally;
        }
        let mut number = 0;
        while !done.load(Ordering::Relaxed) && self.tally.lost == 0 {
            number += 1;
            self.round(number).await;
        }
        self.end().await;
        self.tally
    }

    async fn create(&mut self) -> bool {
        self.client.hang_up();
        match self.client.create().await {
            Ok(_) => {
                self.rid = self.client.rid();
                self.tally.created += 1;
                true
            }
            Err(error) => {
                self.fail("create", &error);
                false
            }
        }
    }

    /// A poll is held, a ping goes out, and both are answered.
    async fn round(&mut self, number: u32) {
        let id = format!("p{number}");
        let ping = format!(
            "<iq type='get' id='{id}' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        let (poll, ping) = (self.request("", ""), self.request("", &ping));
        let held = self.begin(&poll).await;
        sleep(Duration::from_millis(fastrand::u64(1..PACE))).await;
        self.open.push(id);
        let sent = self.begin(&ping).await;
        self.finish(&ping, sent).await;
        self.finish(&poll, held).await;
    }

    /// Polls for what is open, and ends the session.
    async fn end(&mut self) {
        let mut polls = 0;
        while !self.open.is_empty() && self.tally.lost == 0 && polls < 3 {
            let poll = self.request("", "");
            let held = self.begin(&poll).await;
            self.finish(&poll, held).await;
            polls += 1;
        }
        self.tally.unanswered += u32::try_from(self.open.len()).unwrap();
        if self.tally.lost == 0 {
            let last = self.request("type='terminate'", "");
            let sent = self.begin(&last).await;
            let reply = self.reply(&last, sent).await;
            if let Err(error) = reply {
                self.fail("terminate", &error);
            }
        }
    }

    /// The next request of the session.
    fn request(&mut self, attributes: &str, stanzas: &str) -> String {
        self.rid += 1;
        let (rid, sid) = (self.rid, self.client.sid());
        format!(
            "<body xmlns='http://jabber.org/protocol/httpbind' rid='{rid}' sid='{sid}' {attributes}>{stanzas}</body>"
        )
    }

    async fn begin(&self, body: &str) -> Result<bowline::demo::client::Pending, Error> {
        if self.fresh {
            self.client.hang_up();
        }
        self.client.begin_post(body).await
    }

    /// The answer. A request on a connection that had served before is sent again if that was closed.
    async fn reply(
        &mut self,
        body: &str,
        sent: Result<bowline::demo::client::Pending, Error>,
    ) -> Result<Reply, Error> {
        let error = match sent {
            Ok(pending) => match pending.reply().await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let without_a_byte = match &error {
            Error::Closed(seen) => seen.is_empty(),
            Error::Io(error) => {
                matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                )
            }
            _ => false,
        };
        if self.fresh || !without_a_byte {
            return Err(error);
        }
        self.tally.sent_again += 1;
        self.client.hang_up();
        self.client.post(body).await
    }

    async fn finish(&mut self, body: &str, sent: Result<bowline::demo::client::Pending, Error>) {
        let reply = match self.reply(body, sent).await {
            Ok(reply) => reply,
            Err(error) => return self.fail(body, &error),
        };
        let text = reply.text();
        if text.contains("terminate") {
            self.tally.lost += 1;
            self.tally.failed.push(format!("lost with {body}: {text}"));
        }
        if reply.status != 200 {
            self.tally.failed.push(format!("{}: {text}", reply.status));
        }
        let before = self.open.len();
        self.open.retain(|id| {
            !text.contains(&format!("id='{id}'")) && !text.contains(&format!("id=\"{id}\""))
        });
        self.tally.pings += u32::try_from(before - self.open.len()).unwrap();
    }

    fn fail(&mut self, what: &str, error: &Error) {
        if let Error::Io(error) = error
            && error.kind() == ErrorKind::ConnectionRefused
        {
            self.tally.refused += 1;
        }
        self.tally.failed.push(format!("{what}: {error}"));
    }
}
