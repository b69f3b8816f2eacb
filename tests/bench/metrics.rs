//! What counting costs a request, and what a scrape costs everybody: in this process.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bowline::admin::{self, AccessControl, AdminState};
use bowline::cluster::{Cluster, NodeId};
use bowline::config::{NodeSettings, Settings};
use bowline::demo::client::Client;
use bowline::observe::metrics::{Kind, Metrics, NodeMetrics, Outcome};
use bowline::sessions::{Insert, Sessions, Terms, Time};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::Result;

/// Requests counted in each round, by each thread.
const REQUESTS: u32 = 2_000_000;
/// Rounds of which the fastest is told: others are at work on the machine.
const ROUNDS: usize = 5;
const SCRAPES: usize = 50;

/// Prints both tables.
pub(crate) fn measure(nodes: u16, sessions: usize) -> Result<()> {
    println!("| counting one request | 1 thread | 2 threads |\n|---|---|---|");
    let metrics = Arc::new(Metrics::new());
    let node = metrics.node("t1");
    let library = (histogram(), histogram());
    let plain = Arc::new(Plain::default());
    row("as it is", || {
        count(&metrics, &node);
        metrics.overhead_seconds.observe(TOOK);
        node.answer_seconds.observe(TOOK);
    })?;
    row("with the library's histograms", || {
        count(&metrics, &node);
        library.0.observe(TOOK.as_secs_f64());
        library.1.observe(TOOK.as_secs_f64());
    })?;
    row("bare atomics", || plain.count())?;
    row("reading the clock, twice", || {
        black_box((Instant::now(), Instant::now()));
    })?;
    scrapes(nodes, sessions)
}

const TOOK: Duration = Duration::from_micros(740);

fn histogram() -> Histogram {
    Histogram::new([
        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0,
    ])
}

/// What is counted at a request that a node answers, histograms aside.
fn count(metrics: &Metrics, node: &NodeMetrics) {
    metrics.client_received_bytes.inc_by(150);
    node.held.inc();
    node.answers.inc();
    node.sent_bytes.inc_by(400);
    node.received_bytes.inc_by(150);
    node.held.dec();
    metrics.count_request(Kind::Send, Outcome::Ok);
    metrics.client_sent_bytes.inc_by(150);
}

/// The same without any library.
#[derive(Default)]
struct Plain {
    counters: [AtomicU64; 6],
    held: AtomicI64,
    times: [[AtomicU64; 2]; 2],
}

impl Plain {
    fn count(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
        for counter in &self.counters {
            counter.fetch_add(150, Ordering::Relaxed);
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
        for time in self.times.iter().flatten() {
            time.fetch_add(740, Ordering::Relaxed);
        }
    }
}

fn row(name: &str, work: impl Fn() + Sync) -> Result<()> {
    let (one, two) = (fastest(1, &work)?, fastest(2, &work)?);
    println!("| {name} | {one:.0} ns | {two:.0} ns |");
    Ok(())
}

/// Nanoseconds of one call, on as many threads at once.
fn fastest(threads: usize, work: &(impl Fn() + Sync)) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let round = std::thread::scope(|scope| {
            let run = || {
                let begun = Instant::now();
                (0..REQUESTS).for_each(|_| work());
                begun.elapsed().as_secs_f64()
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running
                .into_iter()
                .map(|thread| thread.join())
                .collect::<std::result::Result<Vec<_>, _>>()
        });
        let round = round.map_err(|_| "a thread panicked")?;
        let longest = round.into_iter().fold(0.0, f64::max);
        best = best.min(longest * 1e9 / f64::from(REQUESTS));
    }
    Ok(best)
}

/// Scrapes an admin listener of so many nodes and sessions, while another thread uses the sessions.
fn scrapes(nodes: u16, count: usize) -> Result<()> {
    let settings = Settings::for_nodes(
        (1..=nodes)
            .map(|number| NodeSettings::new(format!("t{number}"), format!("127.0.0.1:{number}")))
            .collect(),
    );
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(&settings, &metrics));
    let table = Sessions::new(count, Arc::clone(&cluster), Arc::clone(&metrics));
    let table = Arc::new(table);
    for number in 0..count {
        let node = NodeId(u16::try_from(number % usize::from(nodes))?);
        let made = table.insert(
            &sid(number),
            node,
            Terms::UNSEEN,
            (1, None),
            Time::default(),
        );
        if !matches!(made, Insert::Made(_)) {
            return Err("a pin was not taken".into());
        }
    }
    let measured = {
        let (table, metrics) = (Arc::clone(&table), Arc::clone(&metrics));
        move || metrics.set_table(table.size())
    };
    let state = AdminState::new(
        Arc::clone(&cluster),
        Arc::clone(&metrics),
        AccessControl::default(),
        tokio::sync::mpsc::channel(1).0,
        measured,
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&table, &cluster, &metrics, count, &over));
        let quiet = Duration::from_secs(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let scraped = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            tokio::spawn(admin::serve(
                listener,
                admin::Scope::Admin,
                Arc::new(state),
                std::future::pending(),
            ));
            tokio::time::sleep(quiet).await;
            scrape(address).await
        });
        over.store(true, Ordering::Relaxed);
        let (before, while_scraped) = traffic.join().map_err(|_| "the traffic panicked")?;
        let (mut times, bytes) = scraped?;
        times.sort_unstable();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        println!(
            "\n| nodes | sessions | page | scrape ms, median / longest of {SCRAPES} | a request's \
             counting µs, p99.99 / longest, no scrapes | the same, while scraped |\n|---|---|---|---|---|---|\n\
             | {nodes} | {count} | {} KiB | {:.1} / {:.1} | {:.1} / {:.0} | {:.1} / {:.0} |",
            bytes / 1024,
            ms(SCRAPES / 2),
            ms(SCRAPES - 1),
            before.0,
            before.1,
            while_scraped.0,
            while_scraped.1,
        );
        Ok(())
    })
}

async fn scrape(address: SocketAddr) -> Result<(Vec<Duration>, usize)> {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let client = Client::to(address).deadline(Duration::from_secs(10));
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        let reply = client.post_raw(request).await?;
        times.push(begun.elapsed());
        bytes = reply.text().len();
    }
    Ok((times, bytes))
}

/// Looks sessions up and counts, in the first second without scrapes and then with them: the time
/// that one of 10,000 exceeds, and the longest, in microseconds.
fn traffic(
    table: &Sessions,
    cluster: &Cluster,
    metrics: &Metrics,
    count: usize,
    over: &AtomicBool,
) -> ((f64, f64), (f64, f64)) {
    let sids: Vec<String> = (0..count).step_by(97).map(sid).collect();
    let begun = Instant::now();
    let (mut before, mut scraped) = (Vec::new(), Vec::new());
    for sid in sids.iter().cycle() {
        let asked = Instant::now();
        if let Some(session) = table.find(sid) {
            let node = &cluster.node(session.node()).metrics;
            self::count(metrics, node);
            metrics.overhead_seconds.observe(TOOK);
            node.answer_seconds.observe(TOOK);
        }
        let took = asked.elapsed();
        let quiet = begun.elapsed() < Duration::from_secs(1);
        let times = if quiet { &mut before } else { &mut scraped };
        times.push(took);
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    let told = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        let from_end = |place: usize| {
            let time = times.iter().rev().nth(place).copied();
            time.unwrap_or_default().as_secs_f64() * 1e6
        };
        (from_end(times.len() / 10_000), from_end(0))
    };
    (told(&mut before), told(&mut scraped))
}

/// As long as the sids of Tigase and Prosody.
fn sid(number: usize) -> String {
    format!("{number:08x}-9e37-4b5a-8c3d-{:012x}", number * 7919)
}
