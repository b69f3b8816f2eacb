//! The clients of the chaos suite: they hold polls, send, end sessions, go away, come back and send
//! again, and write down everything that a real client would not like.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::demo::client::{Client, Error, Reply};
use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::log::now;

/// The `wait` that clients ask for, in seconds.
pub(crate) const WAIT: u32 = 4;
/// As long as an answer may take, whatever happens.
const DEADLINE: Duration = Duration::from_secs(45);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By its client, which said so or went away.
    Own,
    /// By a terminate that its client did not ask for.
    Told(String),
    /// Without a terminate; there is a [`Mishap`] for it.
    Broken,
}

/// One session as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) client: usize,
    pub(crate) sid: String,
    /// The rid of its creation.
    pub(crate) rid: u64,
    pub(crate) born: u64,
    pub(crate) end: Option<(u64, End)>,
}

/// What a client got in place of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// An HTTP error without a wrapper.
    Bare(u16),
    /// An HTTP error with a wrapper in it.
    Wrapped(u16),
    /// A reset, or an end of the connection.
    Cut(String),
    /// Nothing, until the deadline.
    Silence,
    /// A creation answered with a terminate.
    Refused(String),
}

/// Something that a client did not like.
#[derive(Clone, Debug)]
pub(crate) struct Mishap {
    pub(crate) client: usize,
    pub(crate) asked: u64,
    pub(crate) seen: u64,
    /// Of which session, or a creation.
    pub(crate) sid: Option<String>,
    pub(crate) trouble: Trouble,
}

/// Everything that the clients wrote down.
#[derive(Default)]
pub(crate) struct Notebook {
    pub(crate) stories: Vec<Story>,
    pub(crate) mishaps: Vec<Mishap>,
    pub(crate) answers: u64,
    /// The longest that an answer took, in microseconds.
    pub(crate) slowest: u64,
}

/// The clients.
pub(crate) struct Crowd {
    book: Arc<Mutex<Notebook>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts so many.
    pub(crate) fn start(count: usize, address: SocketAddr, rng: &mut Rng) -> Self {
        let book = Arc::<Mutex<Notebook>>::default();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let person = Person {
                number,
                address,
                rng: rng.fork(),
                book: Arc::clone(&book),
                stopped: stopped.clone(),
            };
            tasks.spawn(person.live());
        }
        Self { book, stop, tasks }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Notebook> {
        lock(&self.book)
    }

    /// How many clients have a session.
    pub(crate) fn alive(&self) -> usize {
        let book = self.book();
        book.stories
            .iter()
            .filter(|story| story.end.is_none())
            .count()
    }

    /// Sends them away: every other one ends its session, the rest just goes.
    pub(crate) async fn leave(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn lock(book: &Mutex<Notebook>) -> MutexGuard<'_, Notebook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client.
struct Person {
    number: usize,
    address: SocketAddr,
    rng: Rng,
    book: Arc<Mutex<Notebook>>,
    stopped: watch::Receiver<bool>,
}

/// A session that is over, since when, and why.
struct Over(u64, End);

impl Person {
    async fn live(mut self) {
        let mut stopped = self.stopped.clone();
        let stop = async move {
            // An error means that the crowd is gone: the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if self.number.is_multiple_of(2) {
            self.sessions().await;
        } else {
            tokio::select! { () = stop => {}, () = self.sessions() => {} }
        }
    }

    async fn sessions(&mut self) {
        while !*self.stopped.borrow() {
            let Some((mut client, at)) = self.log_in().await else {
                sleep(PAUSE).await;
                continue;
            };
            let Over(at_last, end) = loop {
                if let Err(over) = self.step(&mut client).await {
                    break over;
                }
            };
            let broken = end == End::Broken;
            lock(&self.book).stories[at].end = Some((at_last, end));
            if broken {
                sleep(PAUSE).await;
            }
        }
    }

    /// A session, and the place of its story.
    async fn log_in(&mut self) -> Option<(Client, usize)> {
        let (high, low) = (self.number / 256 % 256, self.number % 256);
        let mut client = Client::to(self.address)
            .deadline(DEADLINE)
            .header("X-Forwarded-For", &format!("198.18.{high}.{low}"));
        let rid = self.rng.u64(1_000_000..1 << 50);
        let asked = now();
        let reply = client.post(&creation(rid, WAIT)).await;
        let reply = self.judge(asked, None, reply).ok()?;
        let Some(sid) = reply.attribute("sid") else {
            let condition = reply.condition().unwrap_or_default();
            self.note(asked, None, Trouble::Refused(condition));
            return None;
        };
        client.adopt(&sid, rid);
        let mut book = lock(&self.book);
        book.stories.push(Story {
            client: self.number,
            sid,
            rid,
            born: now(),
            end: None,
        });
        Some((client, book.stories.len() - 1))
    }

    /// One thing that a client does.
    async fn step(&mut self, client: &mut Client) -> Result<(), Over> {
        if *self.stopped.borrow() {
            return self.terminate(client).await;
        }
        match self.rng.u8(..100) {
            0..3 => self.terminate(client).await,
            3..5 => self.go_away(client).await,
            5..9 => self.send_again(client).await,
            9..30 => {
                sleep(Duration::from_secs_f64(self.rng.f64())).await;
                self.poll(client).await
            }
            _ => self.poll(client).await,
        }
    }

    async fn terminate(&mut self, client: &mut Client) -> Result<(), Over> {
        let asked = now();
        let reply = client.terminate().await;
        self.judge(asked, Some(client.sid()), reply)?;
        Err(Over(now(), End::Own))
    }

    /// Leaves without a word, in the middle of a poll.
    async fn go_away(&mut self, client: &mut Client) -> Result<(), Over> {
        let asked = now();
        let pending = client.begin_poll().await;
        let pending = self.begun(asked, client, pending)?;
        sleep(Duration::from_secs_f64(self.rng.f64())).await;
        drop(pending);
        client.hang_up();
        Err(Over(now(), End::Own))
    }

    /// Loses a connection, and sends the same request again: it cannot know whether the first one
    /// has reached the node.
    async fn send_again(&mut self, client: &mut Client) -> Result<(), Over> {
        let asked = now();
        let pending = client.begin_poll().await;
        let pending = self.begun(asked, client, pending)?;
        sleep(Duration::from_secs_f64(self.rng.f64())).await;
        drop(pending);
        let reply = client.repeat().await;
        self.goes_on(asked, client.sid(), reply)
    }

    /// Polls; sends something meanwhile if no answer comes soon.
    async fn poll(&mut self, client: &mut Client) -> Result<(), Over> {
        let asked = now();
        let pending = client.begin_poll().await;
        let pending = self.begun(asked, client, pending)?;
        let mut poll = Box::pin(pending.reply());
        let patience = Duration::from_secs_f64(self.rng.f64() * 8.0);
        if let Ok(reply) = timeout(patience, &mut poll).await {
            return self.goes_on(asked, client.sid(), reply);
        }
        let sent = now();
        // A client is told when the first of them says so.
        let sid = client.sid().to_owned();
        let first = async { self.goes_on(asked, &sid, poll.await) };
        let second = async { self.goes_on(sent, &sid, client.ping("p").await) };
        match tokio::join!(first, second) {
            (Err(first), Err(second)) if second.0 < first.0 => Err(second),
            (first, second) => first.and(second),
        }
    }

    fn begun<T>(&self, asked: u64, client: &Client, begun: Result<T, Error>) -> Result<T, Over> {
        begun.map_err(|error| {
            self.note(asked, Some(client.sid()), trouble(&error));
            Over(now(), End::Broken)
        })
    }

    fn goes_on(&self, asked: u64, sid: &str, reply: Result<Reply, Error>) -> Result<(), Over> {
        let reply = self.judge(asked, Some(sid), reply)?;
        if reply.is_terminate() {
            return Err(Over(
                now(),
                End::Told(reply.condition().unwrap_or_default()),
            ));
        }
        Ok(())
    }

    /// An answer that a client can live with, or the end.
    fn judge(
        &self,
        asked: u64,
        sid: Option<&str>,
        reply: Result<Reply, Error>,
    ) -> Result<Reply, Over> {
        let what = match reply {
            Ok(reply) if reply.status == 200 => {
                let mut book = lock(&self.book);
                book.answers += 1;
                book.slowest = book.slowest.max(now() - asked);
                return Ok(reply);
            }
            Ok(reply) if reply.text().contains("http://jabber.org/protocol/httpbind") => {
                Trouble::Wrapped(reply.status)
            }
            Ok(reply) => Trouble::Bare(reply.status),
            Err(error) => trouble(&error),
        };
        self.note(asked, sid, what);
        Err(Over(now(), End::Broken))
    }

    fn note(&self, asked: u64, sid: Option<&str>, trouble: Trouble) {
        lock(&self.book).mishaps.push(Mishap {
            client: self.number,
            asked,
            seen: now(),
            sid: sid.map(str::to_owned),
            trouble,
        });
    }
}

fn trouble(error: &Error) -> Trouble {
    match error {
        Error::Deadline => Trouble::Silence,
        other => Trouble::Cut(other.to_string()),
    }
}

/// The wrapper that asks for a session.
pub(crate) fn creation(rid: u64, wait: u32) -> String {
    format!(
        "<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' \
         to='example.com' rid='{rid}' wait='{wait}' hold='1' ver='1.6' \
         content='text/xml; charset=utf-8'/>"
    )
}
