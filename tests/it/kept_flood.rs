//! What kept answers take when all sessions have as many as they may, and what others notice.
//!
//! `ANSWER_SESSIONS` sets the number of sessions (2,000 here, 100,000 in a full run).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::cluster::{Cluster, NodeId};
use bowline::config::{NodeSettings, Settings};
use bowline::observe::metrics::Metrics;
use bowline::sessions::{Asked, KeptAnswer, Session, Sessions, Start, Terms, Time};
use bytes::Bytes;
use tokio::time::Instant;

use crate::cuts::number;

const BUDGET: usize = 64 * 1024 * 1024;

/// The largest body that is kept.
const LARGE: usize = 64 * 1024;

/// What the sessions of others have.
const SMALL: usize = 300;

const TERMS: Terms = Terms {
    wait: 60,
    inactivity: 60,
    maxpause: 120,
    hold: 1,
    legacy: false,
};

/// A table with this many sessions.
struct Table {
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    all: Vec<Arc<Session>>,
    others: Vec<Arc<Session>>,
}

impl Table {
    fn new(count: usize) -> Self {
        let node = NodeSettings::new("t1".to_owned(), "127.0.0.1:1".to_owned());
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(&Settings::for_nodes(vec![node]), &metrics));
        let sessions = Sessions::new(count + 100, cluster, Arc::clone(&metrics));
        let sessions = Arc::new(sessions.keeping_answers(BUDGET));
        let insert = |number: usize| {
            let sid = format!("{number:08x}-9e37-4b5a-8c3d-{:012x}", number * 7919);
            sessions.insert(&sid, NodeId(0), TERMS, (1, None), Time::default());
            sessions.find(&sid).unwrap()
        };
        let mut all: Vec<_> = (0..count + 100).map(insert).collect();
        let others = all.split_off(count);
        Self {
            sessions,
            metrics,
            all,
            others,
        }
    }

    fn metric(&self, name: &str) -> u64 {
        self.sessions.measure_kept();
        let text = self.metrics.exposition();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }
}

/// A request, its answer of `size` bytes, and its end.
fn exchange(sessions: &Sessions, session: &Arc<Session>, rid: u64, size: usize) {
    let asked = Asked {
        rid,
        hash: sessions.hash(&rid.to_le_bytes()),
        is_poll: false,
        ack: 0,
    };
    let connected = Some(Time::default());
    let start = sessions
        .begin(session, asked, (None, connected, false))
        .unwrap();
    let Start::Begun(begun) = start else {
        panic!("{start:?}")
    };
    session.sent(&begun.place, true, Time::default());
    if sessions.may_keep(size) {
        let answer = KeptAnswer {
            body: Bytes::from(vec![b'y'; size].into_boxed_slice()),
            head: None,
        };
        sessions.keep(session, (rid, asked.hash), answer);
    }
    sessions.end(session, &begun.place, Time::default());
}

/// Rounds of exchanges of the others, while it `goes_on`, and how long each exchange took.
fn others(table: &Table, first: u64, goes_on: impl Fn(u64) -> bool) -> Vec<Duration> {
    let mut took = Vec::new();
    for rid in first.. {
        for session in &table.others {
            let begun = Instant::now();
            exchange(&table.sessions, session, rid, SMALL);
            took.push(begun.elapsed());
        }
        if !goes_on(rid - first) {
            break;
        }
    }
    took.sort_unstable();
    took
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn full_caches_of_many_sessions_stay_within_the_budget() {
    let count = number("ANSWER_SESSIONS", 2_000);
    let table = Table::new(count);
    let each = |before: usize| resident().saturating_sub(before) / count;
    let empty = resident();
    for rid in [2, 3] {
        for session in &table.all {
            exchange(&table.sessions, session, rid, SMALL);
        }
    }
    let counted = table.metric("bowline_kept_answers_bytes ") / count as u64;
    println!(
        "two answers of {SMALL} bytes: {counted} bytes of each session counted, {} measured",
        each(empty)
    );

    let alone = others(&table, 10, |round| round < 1_000);
    let before = resident();
    let over = AtomicBool::new(false);
    let (beside, most) = std::thread::scope(|scope| {
        let running =
            scope.spawn(|| others(&table, 1_000_000_000, |_| !over.load(Ordering::Relaxed)));
        let mut most = 0;
        for (number, session) in table.all.iter().enumerate() {
            exchange(&table.sessions, session, 4, LARGE);
            exchange(&table.sessions, session, 5, LARGE);
            if number % 256 == 0 {
                most = most.max(resident());
            }
        }
        over.store(true, Ordering::Relaxed);
        (running.join().unwrap(), most.max(resident()))
    });
    let quantile = |took: &[Duration], part: usize| took[(took.len() - 1) * part / 100];
    println!(
        "{count} sessions were offered two answers of {LARGE} bytes: {} MiB more at most; others: median \
         {:?}, 99 % {:?} without, {:?}, {:?} beside it",
        most.saturating_sub(before) / (1024 * 1024),
        quantile(&alone, 50),
        quantile(&alone, 99),
        quantile(&beside, 50),
        quantile(&beside, 99),
    );
    let kept = table.metric("bowline_kept_answers_bytes ");
    assert!(kept <= BUDGET as u64 && kept > BUDGET as u64 / 2, "{kept}");
    assert!(table.metric("bowline_answers_evicted_total ") > count as u64 / 2);
    if count > 2_000 {
        // No other test runs in this process. As much again for free entries and what the allocator holds.
        let growth = most.saturating_sub(empty);
        println!("{} MiB in all, of 64 MiB", growth / (1024 * 1024));
        assert!(growth < 2 * BUDGET, "{growth}");
    }
}
