//! Clients that cut their connections at any byte of an answer, or both connections at any moment, in front
//! of a Tigase node. Each stanza arrives exactly once, in order. Without kept answers, stanzas are lost.
//!
//! `CUTS` sets the number of cuts (1,000 here, 10,000 in a full run), and `CUTS_WITHOUT_MEMORY` that of the
//! run without kept answers (100 here).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::demo::client::Client;
use bowline::demo::node::Node;
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::balancer::*;
use crate::clients::post;
use crate::kept::ping;

const SESSIONS: usize = 50;

/// What all sessions of a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) cuts: usize,
    pub(crate) stanzas: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) swapped: usize,
    pub(crate) stuck: usize,
}

pub(crate) struct Session {
    pub(crate) balancer: SocketAddr,
    pub(crate) node: Arc<[Node]>,
    pub(crate) sid: String,
    pub(crate) rid: u64,
    pub(crate) rng: Rng,
    /// It cuts connections.
    pub(crate) cuts: bool,
    /// After this long without an answer, the test pushes a stanza, since the node may hold the request.
    /// After that time once more it asks again.
    pub(crate) patience: Duration,
    /// What each answer brought.
    pub(crate) heard: BTreeMap<u64, Vec<u64>>,
    /// Stanzas that the node has to deliver: numbers, even for pings and odd for messages.
    pub(crate) due: Vec<u64>,
    pub(crate) tally: Tally,
}

/// The numbers of the stanzas in an answer, and of the results of pings.
pub(crate) fn stanzas_in(answer: &str) -> Vec<u64> {
    let parts = answer.split("id=").skip(1);
    let number = |part: &str| part.get(1..)?.split(['"', '\'']).next()?.parse().ok();
    parts.filter_map(number).collect()
}

impl Session {
    /// The session that `client` has made, in front of one node.
    pub(crate) fn new(
        balancer: SocketAddr,
        node: &Arc<[Node]>,
        client: &Client,
        number: usize,
    ) -> Self {
        Self {
            balancer,
            node: Arc::clone(node),
            sid: client.sid().to_owned(),
            rid: client.rid(),
            rng: Rng::with_seed(number as u64),
            cuts: true,
            patience: Duration::from_millis(500),
            heard: BTreeMap::new(),
            due: Vec::new(),
            tally: Tally::default(),
        }
    }

    async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.balancer).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Reads an answer, or no more than `most` bytes of it.
    async fn read(stream: &mut TcpStream, most: usize) -> Option<String> {
        let mut seen = Vec::new();
        loop {
            let text = std::str::from_utf8(&seen).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.lines();
                let length = lines.find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.unwrap().parse().unwrap() {
                    assert!(!body.contains("terminate"), "{body}");
                    return Some(body.to_owned());
                }
            }
            let mut byte = [0; 512];
            let room = byte
                .len()
                .min(most.checked_sub(seen.len()).filter(|room| *room > 0)?);
            let read = stream.read(&mut byte[..room]).await.unwrap();
            assert_ne!(read, 0, "closed after {text:?}");
            seen.extend_from_slice(&byte[..read]);
        }
    }

    /// Reads on new connections, and cuts some of them, until the answer is there.
    async fn until_answered(&mut self, rid: u64, request: &str, mut stream: TcpStream) {
        let mut has_pushed = false;
        loop {
            let cut = self.cuts && self.rng.u8(..) < 150;
            let most = if cut {
                self.rng.usize(..350)
            } else {
                usize::MAX
            };
            match timeout(self.patience, Self::read(&mut stream, most)).await {
                Ok(Some(answer)) => {
                    self.heard.insert(rid, stanzas_in(&answer));
                    return;
                }
                Ok(None) => {
                    self.tally.cuts += 1;
                    if self.rng.bool() {
                        let linger = socket2::SockRef::from(&stream);
                        linger.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    drop(stream);
                    self.pause(4000).await;
                }
                Err(_) => {
                    self.tally.stuck += 1;
                    has_pushed = !has_pushed;
                    if has_pushed {
                        assert!(self.node[0].push(&self.sid, "<m xmlns='jabber:client'/>"));
                        continue;
                    }
                }
            }
            stream = self.connect(request).await;
        }
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_micros(self.rng.u64(..most))).await;
    }

    pub(crate) fn next(&mut self, pings: bool) -> (u64, String) {
        self.rid += 1;
        if !pings {
            return (self.rid, post(&self.sid, self.rid));
        }
        let number = self.due.len() as u64 * 2;
        self.due.push(number);
        (self.rid, ping(&self.sid, self.rid, &number.to_string()))
    }

    pub(crate) fn push(&mut self) {
        let number = self.due.len() as u64 * 2 + 1;
        self.due.push(number);
        let text = "y".repeat(self.rng.usize(..200));
        let message = format!("<message xmlns='jabber:client' id='{number}'>{text}</message>");
        assert!(self.node[0].push(&self.sid, message));
    }

    async fn step(&mut self) {
        match self.rng.u8(..3) {
            0 => {
                let (rid, request) = self.next(true);
                let stream = self.connect(&request).await;
                self.until_answered(rid, &request, stream).await;
            }
            1 => {
                let (rid, request) = self.next(false);
                let stream = self.connect(&request).await;
                self.pause(8000).await;
                self.push();
                self.until_answered(rid, &request, stream).await;
            }
            _ => self.both().await,
        }
    }

    /// A poll and a ping on two connections. Both are cut, and sent again, as Strophe.js does.
    async fn both(&mut self) {
        let (low, high) = (self.next(false), self.next(true));
        let streams = (self.connect(&low.1).await, {
            self.pause(10_000).await;
            self.connect(&high.1).await
        });
        self.pause(12_000).await;
        let streams = if self.rng.bool() {
            self.tally.cuts += 2;
            drop(streams);
            self.pause(4000).await;
            let low = self.connect(&low.1).await;
            self.pause(4000).await;
            (low, self.connect(&high.1).await)
        } else {
            streams
        };
        self.until_answered(low.0, &low.1, streams.0).await;
        // The node holds the higher one until there is something to say.
        self.push();
        self.until_answered(high.0, &high.1, streams.1).await;
    }

    /// What the session came to.
    pub(crate) fn count(mut self) -> Tally {
        let heard: Vec<u64> = self.heard.into_values().flatten().collect();
        self.tally.stanzas = self.due.len();
        for number in &self.due {
            match heard.iter().filter(|one| *one == number).count() {
                0 => self.tally.lost += 1,
                times => self.tally.doubled += times - 1,
            }
        }
        // A message may reach the node before a ping that was sent earlier.
        for kind in 0..2 {
            let of_kind: Vec<_> = heard.iter().filter(|one| *one % 2 == kind).collect();
            self.tally.swapped += of_kind.windows(2).filter(|two| two[0] > two[1]).count();
        }
        self.tally
    }
}

/// Whether answers are kept, and a request waits for a lost one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    On,
    Off,
}

/// Cuts this often in all.
async fn run(cuts: usize, memory: Memory) -> Tally {
    let nodes: Arc<[Node]> = close_pairs_matter().await.into();
    let mut settings = patient(&nodes);
    let mut patience = Duration::from_millis(500);
    match memory {
        Memory::On => settings.timeouts.retry = Duration::from_secs(9),
        Memory::Off => {
            (settings.limits.answer_memory, settings.timeouts.retry) = (0, Duration::ZERO);
            // Most requests that are sent again stay without an answer of their own.
            patience = Duration::from_millis(100);
        }
    }
    let balancer = Balancer::start(&settings).await;
    let mut running = JoinSet::new();
    for number in 0..SESSIONS {
        let client = balancer.session().await;
        let mut session = Session::new(balancer.address(), &nodes, &client, number);
        session.patience = patience;
        running.spawn(async move {
            while session.tally.cuts < cuts / SESSIONS {
                session.step().await;
            }
            // What was not delivered yet comes with the last ones.
            session.cuts = false;
            for _ in 0..2 {
                let (rid, request) = session.next(true);
                let stream = session.connect(&request).await;
                let last = session.until_answered(rid, &request, stream);
                timeout(PATIENCE, last).await.unwrap();
            }
            session.count()
        });
    }
    let mut all = Tally::default();
    for one in running.join_all().await {
        all.cuts += one.cuts;
        all.stanzas += one.stanzas;
        all.lost += one.lost;
        all.doubled += one.doubled;
        all.swapped += one.swapped;
        all.stuck += one.stuck;
    }
    let replayed = balancer.metric("bowline_answers_replayed_total");
    println!("{all:?}, {replayed} replayed");
    all
}

/// What an environment variable says, or the usual number.
pub(crate) fn number(variable: &str, usual: usize) -> usize {
    let set = std::env::var(variable);
    set.map_or(usual, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn clients_that_cut_their_connections_lose_nothing() {
    let cuts = number("CUTS", 1000);
    let all = run(cuts, Memory::On).await;
    assert!(all.cuts >= cuts && all.stanzas > cuts / 2);
    assert_eq!((all.lost, all.doubled, all.swapped), (0, 0, 0), "{all:?}");
}

/// The same run sees what is lost where nothing is kept.
#[tokio::test]
async fn without_kept_answers_the_same_cuts_lose_stanzas() {
    let cuts = number("CUTS_WITHOUT_MEMORY", 100);
    let all = run(cuts, Memory::Off).await;
    assert!(all.cuts >= cuts && all.lost > cuts / 20, "{all:?}");
}
