//! Two requests of a session on two connections, in either order and at any distance: the node reads them in
//! rid order, and answers each.
//!
//! `PAIRS` sets the number of pairs (400 here, 10,000 in a full run).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::demo::client::Client;
use bowline::demo::node::{Fate, Node, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::balancer::*;
use crate::cuts::{Session, number, stanzas_in};

const SESSIONS: usize = 20;

/// The longest distance of a pair, in microseconds.
const LONGEST: u64 = 20_000;

/// Bowline's distance between two requests of a session.
const DISTANCE: Duration = bowline::sessions::SPACING;

/// What all pairs of a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    pairs: usize,
    unanswered: usize,
    /// Stanzas that came behind a later one.
    stanzas_swapped: usize,
    lost_or_doubled: usize,
    /// Requests that the node read behind a later one, and at a distance from it. A node that had no turn for
    /// as long finds both, and reads them in any order.
    requests_swapped: usize,
    /// The client had to send its next request.
    went_on: usize,
    /// Pairs within a millisecond, and pairs whose higher rid came first.
    close: usize,
    turned: usize,
}

/// A session with two connections.
struct Pairs {
    session: Session,
    connections: [TcpStream; 2],
    /// After this long a client goes on, and after four times as long a request is unanswered.
    patience: Duration,
    tally: Tally,
}

impl Pairs {
    async fn pair(&mut self) {
        // At least one of them has a stanza, as with any client.
        let pings = [[true, true], [true, false], [false, true]][self.session.rng.usize(..3)];
        let [low, high] = pings.map(|pings| self.session.next(pings));
        // In any order, a quarter of them in one go.
        let turned = self.session.rng.bool();
        let together = self.session.rng.u8(..4) == 0;
        let apart = if together {
            0
        } else {
            self.session.rng.u64(..LONGEST)
        };
        self.tally.pairs += 1;
        self.tally.turned += usize::from(turned);
        self.tally.close += usize::from(apart < 1000);
        for at in if turned { [1, 0] } else { [0, 1] } {
            let request = [&low.1, &high.1][at];
            self.connections[at]
                .write_all(request.as_bytes())
                .await
                .unwrap();
            if apart > 0 && at == usize::from(turned) {
                sleep(Duration::from_micros(apart)).await;
            }
        }
        let mut answers = self.answer(0, low.0).await;
        if pings != [true, true] {
            // The node holds the other one until there is something to say.
            self.session.push();
        }
        answers &= self.answer(1, high.0).await;
        if !answers {
            let target = self.session.balancer;
            self.connections = [connect(target).await, connect(target).await];
        }
    }

    /// Waits for the answer on a connection. Says whether there is one.
    async fn answer(&mut self, at: usize, rid: u64) -> bool {
        let give_up = Instant::now() + 4 * self.patience;
        let mut further = Vec::new();
        loop {
            let answer = timeout(self.patience, read(&mut self.connections[at])).await;
            if let Ok(Some(answer)) = answer {
                self.session.heard.insert(rid, stanzas_in(&answer));
                break;
            }
            if answer.is_ok() || Instant::now() >= give_up {
                self.tally.unanswered += 1;
                return false;
            }
            // A request that is alone at its node may be held there.
            self.tally.went_on += 1;
            let (rid, request) = self.session.next(true);
            let mut stream = connect(self.session.balancer).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            further.push((rid, stream));
        }
        for (rid, mut stream) in further {
            self.session.push();
            if let Ok(Some(answer)) = timeout(PATIENCE, read(&mut stream)).await {
                self.session.heard.insert(rid, stanzas_in(&answer));
            }
        }
        true
    }

    /// What was not delivered yet comes with two more requests.
    async fn rest(&mut self) {
        for _ in 0..2 {
            let (rid, request) = self.session.next(true);
            self.connections[0] = connect(self.session.balancer).await;
            let written = self.connections[0].write_all(request.as_bytes()).await;
            written.unwrap();
            self.answer(0, rid).await;
        }
    }
}

/// The body of an answer; none if the connection ends in front of it.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1)?;
            if body.len() >= length.lines().next()?.parse().ok()? {
                return Some(body.to_owned());
            }
        }
        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn connect(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// This many pairs in all, sent to `target`.
async fn run(nodes: &Arc<[Node]>, target: SocketAddr, pairs: usize, patience: Duration) -> Tally {
    let mut running = JoinSet::new();
    for number in 0..SESSIONS {
        let mut client = Client::to(target);
        client.create().await.unwrap();
        let mut session = Pairs {
            session: Session::new(target, nodes, &client, number),
            connections: [connect(target).await, connect(target).await],
            patience,
            tally: Tally::default(),
        };
        running.spawn(async move {
            for _ in 0..pairs / SESSIONS {
                session.pair().await;
            }
            session.rest().await;
            let mut tally = session.tally;
            let mut read: Vec<Seen> = Vec::new();
            for seen in seen_of(&session.session.node[0], &session.session.sid) {
                if read.iter().all(|one| one.rid != seen.rid) {
                    read.push(seen);
                }
            }
            let swapped =
                |two: &&[Seen]| two[0].rid > two[1].rid && two[1].when - two[0].when > DISTANCE;
            tally.requests_swapped = read.windows(2).filter(swapped).count();
            let stanzas = session.session.count();
            tally.stanzas_swapped = stanzas.swapped;
            tally.lost_or_doubled = stanzas.lost + stanzas.doubled;
            tally
        });
    }
    let mut all = Tally::default();
    for one in running.join_all().await {
        all.pairs += one.pairs;
        all.unanswered += one.unanswered;
        all.stanzas_swapped += one.stanzas_swapped;
        all.lost_or_doubled += one.lost_or_doubled;
        all.requests_swapped += one.requests_swapped;
        all.went_on += one.went_on;
        all.close += one.close;
        all.turned += one.turned;
    }
    all
}

/// On one thread: a node that had no turn for a while finds what came meanwhile at the same moment.
#[tokio::test]
async fn two_requests_in_either_order_are_read_in_order_and_answered() {
    let nodes: Arc<[Node]> = close_pairs_matter().await.into();
    let balancer = Balancer::start(&patient(&nodes)).await;
    let pairs = number("PAIRS", 400);
    let all = run(&nodes, balancer.address(), pairs, Duration::from_secs(2)).await;
    let too_close = nodes[0].count(|seen| seen.fate == Fate::TooClose);
    let again = balancer.metric("bowline_upstream_resent_total{");
    println!("{all:?}; {too_close} read too close by the node, {again} sent again");
    assert!(all.pairs >= pairs && all.turned > pairs / 4 && all.close > pairs / 8);
    let wrong = (all.unanswered, all.requests_swapped, all.stanzas_swapped);
    assert_eq!((wrong, all.lost_or_doubled), ((0, 0, 0), 0), "{all:?}");
}

/// The same pairs straight to the node show what the test looks for.
#[tokio::test]
async fn pairs_straight_to_the_node_are_swapped_and_left_unanswered() {
    let nodes: Arc<[Node]> = close_pairs_matter().await.into();
    let target = nodes[0].address();
    let all = run(&nodes, target, 100, Duration::from_millis(50)).await;
    println!("{all:?}");
    assert!(all.requests_swapped > 20 && all.unanswered > 0, "{all:?}");
}
