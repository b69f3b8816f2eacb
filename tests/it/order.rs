//! Requests of one session that come close together: their order, their distance, and what is done about
//! one that its node leaves unanswered.

use std::time::Duration;

use bowline::demo::client::{Client, Pending};
use bowline::demo::node::{Fate, Fault, Node};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::balancer::{
    Balancer, PATIENCE, assert_goes_on, close_pairs_matter, patient, seen_of, tigase_nodes,
};

/// A request of a pair: its rid, and when the client had written it.
#[derive(Debug, Clone, Copy)]
struct Written {
    rid: u64,
    at: Instant,
}

const PING: &str = "<iq type='get' id='p' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>";

/// A poll and, `apart` later, a ping on another connection. Both are answered.
async fn pair(client: &mut Client, apart: Duration) -> [Written; 2] {
    let written = |client: &Client| Written {
        rid: client.rid(),
        at: Instant::now(),
    };
    let poll = client.begin_poll().await.unwrap();
    let first = written(client);
    if !apart.is_zero() {
        sleep(apart).await;
    }
    let ping = client.begin("", PING).await.unwrap();
    let second = written(client);
    answered(client, poll).await;
    answered(client, ping).await;
    [first, second]
}

/// Waits for an answer. A request that is alone at its node may be held there; then the client goes on,
/// as clients do.
async fn answered(client: &mut Client, pending: Pending) {
    let mut reply = std::pin::pin!(pending.reply());
    let give_up = Instant::now() + PATIENCE;
    let reply = loop {
        match timeout(Duration::from_secs(1), reply.as_mut()).await {
            Ok(reply) => break reply,
            Err(_) => assert_goes_on(&client.send(PING).await.unwrap()),
        }
        assert!(Instant::now() < give_up, "unanswered");
    };
    assert_goes_on(&reply.unwrap());
}

/// From the client's write to the node's read.
fn way(node: &Node, sid: &str, written: Written) -> Duration {
    let seen = seen_of(node, sid);
    let came = seen.iter().find(|seen| seen.rid == Some(written.rid));
    came.unwrap().when.saturating_duration_since(written.at)
}

/// The one at `part` thousandths of all.
fn quantile(times: &mut [Duration], part: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * part / 1000]
}

/// Tigase leaves one of two requests unanswered that come less than 5 ms apart: so did the node here
/// when Bowline kept 2 ms. And the second one of a pair waited for a timer that was another's.
#[tokio::test]
async fn pairs_of_requests_are_answered_in_order_and_in_time() {
    const SESSIONS: usize = 2;
    const PAIRS: usize = 250;
    let nodes = close_pairs_matter().await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    let mut running = JoinSet::new();
    for session in 0..SESSIONS {
        let mut client = balancer.session().await.most(3);
        running.spawn(async move {
            let mut pairs = Vec::new();
            for number in 0..PAIRS {
                let apart = (session + number * SESSIONS) * 20_000 / (SESSIONS * PAIRS);
                let apart = Duration::from_micros(u64::try_from(apart).unwrap());
                pairs.push(pair(&mut client, apart).await);
            }
            (client.sid().to_owned(), pairs)
        });
    }
    let (mut close, mut apart) = (Vec::new(), Vec::new());
    for (sid, pairs) in running.join_all().await {
        for [first, second] in pairs {
            let needs_distance = second.at - first.at < Duration::from_millis(5);
            let ways = if needs_distance {
                &mut close
            } else {
                &mut apart
            };
            ways.push(way(&nodes[0], &sid, second));
            apart.push(way(&nodes[0], &sid, first));
        }
        let mut first_seen = Vec::new();
        for seen in seen_of(&nodes[0], &sid) {
            if !first_seen.contains(&seen.rid) {
                first_seen.push(seen.rid);
            }
        }
        assert!(first_seen.is_sorted(), "{first_seen:?}");
    }
    let most =
        [500, 900, 1000].map(|part| (quantile(&mut close, part), quantile(&mut apart, part)));
    println!(
        "{} pairs of 500 are less than 5 ms apart; from client to node, with and without the need of a \
         distance: median {:?}, 90 % {:?}, most {:?}; {} sent again",
        close.len(),
        most[0],
        most[1],
        most[2],
        again(&balancer)
    );
    // A busy machine gives the node its turn late, and some pairs are closer there than they were sent: 34
    // of 500 with a load of 16. Without a distance of 5 ms, a fourth of the pairs is unanswered.
    let unanswered = nodes[0].count(|seen| seen.fate == Fate::TooClose);
    assert!(unanswered <= 60, "{unanswered} unanswered of 500 pairs");
    let added = most[0].0.saturating_sub(most[0].1);
    assert!(added <= Duration::from_millis(6), "{added:?}");
}

/// How many requests were sent again since their node left them unanswered.
fn again(balancer: &Balancer) -> usize {
    let series = "bowline_upstream_resent_total{";
    usize::try_from(balancer.metric(series)).unwrap()
}

/// Whatever the distance, the node reads one of two requests and does nothing about it.
#[tokio::test]
async fn of_two_requests_the_one_that_its_node_leaves_unanswered_is_sent_again() {
    let nodes = tigase_nodes(1).await;
    let balancer = Balancer::start(&patient(&nodes)).await;
    // Without the first one, the second is answered at once, and the first is in doubt. Without the second
    // one, the first is sent again in vain, and the second then.
    for (lost, resent) in [(1, 1), (2, 2)] {
        let mut client = balancer.session().await.most(3);
        let before = again(&balancer);
        let rid = client.rid() + lost;
        let fault = Fault::never_answering().on(move |seen| seen.rid == Some(rid));
        nodes[0].misbehave(fault.once());
        pair(&mut client, Duration::from_millis(20)).await;
        assert_eq!(
            again(&balancer) - before,
            resent,
            "request {lost} of the pair"
        );
        assert_goes_on(&client.ping("on").await.unwrap());
        client.terminate().await.unwrap();
    }
    assert_eq!(balancer.metric("bowline_upstream_failures_total{"), 0);
    assert_eq!(balancer.metric("bowline_sessions_terminated_total{"), 2);
}
