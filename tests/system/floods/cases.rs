//! The cases: what is started, what is thrown at it, what must hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::attack::{What, flood};
use super::balancer::{Bowline, Launch, Nodes};
use super::honest::{self, Honest};
use super::report::{Report, mib, p99};
use super::slow::{Deadlines, Ends, Manner, keep};
use crate::Result;

const MIB: u64 = 1024 * 1024;

/// What all cases have in common.
pub(super) struct Context {
    pub(super) binary: PathBuf,
    pub(super) quick: bool,
}

impl Context {
    fn seconds(&self, full: u64, quick: u64) -> Duration {
        Duration::from_secs(if self.quick { quick } else { full })
    }

    fn count(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// The deadlines, and the lines that set them; the defaults in a full run.
    fn deadlines(&self) -> (Deadlines, &'static str) {
        let seconds = Duration::from_secs;
        let of = |[head, body, write_stall, idle]: [u64; 4]| Deadlines {
            head: seconds(head),
            body: seconds(body),
            write_stall: seconds(write_stall),
            idle: seconds(idle),
        };
        if self.quick {
            let lines = "timeouts: { head: 2s, body: 3s, write_stall: 3s, idle: 4s }";
            (of([2, 3, 3, 4]), lines)
        } else {
            (of([10, 15, 30, 75]), "")
        }
    }
}

/// Slow connections that are kept up until this is dropped.
struct Slow {
    ends: Arc<Ends>,
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<()>,
}

impl Slow {
    fn start(bowline: &Bowline, deadlines: Deadlines, parts: &[(Manner, u64)]) -> Self {
        let ends = Arc::<Ends>::default();
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = tokio::task::JoinSet::new();
        for (manner, count) in parts {
            for _ in 0..*count {
                let shared = (Arc::clone(&ends), Arc::clone(&stop));
                tasks.spawn(keep(bowline.address, *manner, deadlines, shared));
            }
        }
        Self { ends, stop, tasks }
    }

    /// Ends them all at once.
    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.abort_all();
    }
}

/// Slow heads, slow bodies, answers that nobody reads, connections that say nothing.
pub(super) async fn slow(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let (deadlines, config) = context.deadlines();
    let launch = Launch {
        config,
        ..Launch::default()
    };
    let bowline = Bowline::start(&context.binary, &nodes, &launch).await?;
    let honest = Honest::start(bowline.address, 50).await?;
    sleep(context.seconds(10, 3)).await;
    let before = honest.since(Instant::now() - context.seconds(10, 3));
    report.figure("honest before", before);

    let count = context.count(4000, 1000);
    let parts = [
        (Manner::Head, count * 4 / 8),
        (Manner::Body, count * 2 / 8),
        (Manner::Nothing, count / 8),
        (Manner::Read, count / 8),
    ];
    let own = bowline.overhead().await?;
    let begun = Instant::now();
    let cpu = bowline.cpu()?;
    let slow = Slow::start(&bowline, deadlines, &parts);
    sleep(context.seconds(90, 10)).await;
    let during = honest.since(begun);
    let open = bowline.metric("bowline_connections ").await?;
    report.figure("slow connections at the end", open);
    report.figure("honest meanwhile", during);
    report.figure(
        "Bowline's part of all that nodes answered",
        p99(&own, &bowline.overhead().await?),
    );
    let part = (bowline.cpu()? - cpu) / begun.elapsed().as_secs_f64();
    report.figure("processor", format!("{:.0} % of a core", part * 100.0));
    report.figure("memory at most", mib(bowline.peak()?));
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let ends = &slow.ends;
    report.figure(
        "slow connections",
        format!(
            "{} begun, {} ended; the longest after its deadline (ms): {:?}",
            get(&ends.begun),
            get(&ends.ended),
            ends.beyond
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        ),
    );
    report.must("all honest requests are served", during.all_served());
    report.must("slow connections are there", open >= count as f64 * 0.5);
    report.must(
        "each is ended within its deadline",
        get(&ends.late) == 0 && get(&ends.ended) > 0,
    );
    slow.stop();
    recovered(&bowline, report).await;
    Ok(())
}

/// Sids that nobody made.
pub(super) async fn sids(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let bowline = Bowline::start(&context.binary, &nodes, &Launch::default()).await?;
    let honest = Honest::start(bowline.address, 50).await?;
    let calm = context.seconds(30, 3);
    sleep(calm).await;
    let before = honest.since(Instant::now() - calm);
    report.figure("honest before", before);

    let count = context.count(1_000_000, 20_000);
    let span = context.seconds(300, 6);
    let (resident, cpu, begun) = (bowline.resident()?, bowline.cpu()?, Instant::now());
    let own = bowline.overhead().await?;
    let upstream = bowline.metric("bowline_upstream_answers_total").await?;
    let answers = flood(bowline.address, What::Sid, count, span).await;
    let during = honest.since(begun);
    let asked = bowline.metric("bowline_upstream_answers_total").await? - upstream;
    let grown = bowline.peak()?.saturating_sub(resident);
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let sent = get(&answers.sent);
    let flood_asked = asked - during.asked as f64;
    report.figure(
        "made-up sids",
        format!("{sent} in {:.0} s", begun.elapsed().as_secs_f64()),
    );
    report.figure("answered item-not-found", get(&answers.not_found));
    report.figure("of these asked for at nodes", format!("{flood_asked:.0}"));
    let beyond = bowline
        .metric("bowline_rejects_total{cause=\"unknown_budget\"}")
        .await?;
    report.figure("beyond the budget", beyond);
    report.figure("honest meanwhile", during);
    report.figure(
        "Bowline's part of all that nodes answered",
        p99(&own, &bowline.overhead().await?),
    );
    report.figure(
        "memory",
        format!("{}, at most {} more meanwhile", mib(resident), mib(grown)),
    );
    let part = (bowline.cpu()? - cpu) / begun.elapsed().as_secs_f64();
    report.figure("processor", format!("{:.0} % of a core", part * 100.0));
    report.must(
        "every one is told item-not-found",
        get(&answers.not_found) == sent,
    );
    report.must(
        "at most 1.01 requests at nodes for each",
        flood_asked <= sent as f64 * 1.01,
    );
    report.must(
        "no session is made of them",
        bowline.metric("bowline_sessions{").await? <= 50.0,
    );
    report.must("memory grows by at most 32 MiB", grown <= 32 * MIB);
    report.must("all honest requests are served", during.all_served());
    if !context.quick {
        let bound = before.p99.mul_f64(2.0).max(Duration::from_millis(2));
        report.must(
            "honest p99 at most twice that before, or 2 ms",
            during.p99 <= bound,
        );
    }
    Ok(())
}

/// More creations than the table has room for.
pub(super) async fn creations(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let limit = context.count(10_000, 4_000);
    let config = format!("limits: {{ sessions: {limit} }}");
    let launch = Launch {
        config: &config,
        ..Launch::default()
    };
    let bowline = Bowline::start(&context.binary, &nodes, &launch).await?;
    let honest = Honest::start(bowline.address, 50).await?;
    sleep(Duration::from_secs(2)).await;
    let own = bowline.overhead().await?;
    let begun = Instant::now();
    let span = context.seconds(60, 8);
    let count = context.count(60_000, 8_000);
    let answers = flood(bowline.address, What::Creation, count, span).await;
    let during = honest.since(begun);
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    report.figure("creations", get(&answers.sent));
    report.figure("made", get(&answers.created));
    report.figure("refused with 503", get(&answers.refused));
    report.figure("honest meanwhile", during);
    report.figure(
        "Bowline's part of all that nodes answered",
        p99(&own, &bowline.overhead().await?),
    );
    report.figure("memory at most", mib(bowline.peak()?));
    report.must(
        "the table is not exceeded",
        bowline
            .metric("bowline_table_entries{table=\"sessions\"}")
            .await?
            <= limit as f64,
    );
    report.must("the limit was met", get(&answers.refused) > 0);
    report.must(
        "each refusal has a wrapper and Retry-After",
        get(&answers.rude) == 0,
    );
    report.must("all honest requests are served", during.all_served());
    let over = Instant::now();
    let give_up = over + Duration::from_secs(20);
    let mut welcome = false;
    while !welcome && Instant::now() < give_up {
        let mut newcomer = honest::client(bowline.address, 70_000);
        welcome = newcomer.create().await.is_ok();
        sleep(Duration::from_millis(50)).await;
    }
    let waited = over.elapsed().as_secs_f64();
    report.figure("the first newcomer is in after", format!("{waited:.1} s"));
    report.must("a newcomer is in within 13 s", welcome && waited < 13.0);
    Ok(())
}

/// More connections than open files.
pub(super) async fn files(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let (deadlines, config) = context.deadlines();
    let launch = Launch {
        files: Some(256),
        config,
        ..Launch::default()
    };
    let mut bowline = Bowline::start(&context.binary, &nodes, &launch).await?;
    let limit = bowline.metric("bowline_connections_limit ").await?;
    report.figure("ulimit -n 256 leaves client connections", limit);
    let honest = Honest::start(bowline.address, 10).await?;
    let begun = Instant::now();
    let hoard = Slow::start(&bowline, deadlines, &[(Manner::Nothing, 1000)]);
    sleep(context.seconds(20, 5)).await;
    let during = honest.since(begun);
    report.figure("honest with 1000 silent connections", during);
    report.must("all honest requests are served", during.all_served());
    hoard.stop();
    drop(honest);
    recovered(&bowline, report).await;

    let slow = Slow::start(&bowline, deadlines, &[(Manner::Head, 1000)]);
    sleep(Duration::from_secs(1)).await;
    let (cpu, begun) = (bowline.cpu()?, Instant::now());
    let mut ready = true;
    while begun.elapsed() < context.seconds(20, 5) {
        ready &= bowline.is_ready().await;
        sleep(Duration::from_millis(200)).await;
    }
    let part = (bowline.cpu()? - cpu) / begun.elapsed().as_secs_f64();
    let open = bowline.metric("process_open_fds ").await?;
    report.figure("open files with 1000 slow heads", open);
    report.figure(
        "processor meanwhile",
        format!("{:.0} % of a core", part * 100.0),
    );
    report.must("it does not spin", part < 0.25);
    report.must("probes and the operator have files of their own", ready);
    slow.stop();
    recovered(&bowline, report).await;
    report.must("it runs", bowline.runs());
    Ok(())
}

/// Slow and large requests in a memory cgroup of 128 MiB.
pub(super) async fn memory(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let (deadlines, timeouts) = context.deadlines();
    let config = format!("{timeouts}\nlimits: {{ connections: 2000, body_memory: 16MiB }}\n");
    let launch = Launch {
        config: &config,
        memory: Some(128 * MIB),
        ..Launch::default()
    };
    let mut bowline = match Bowline::start(&context.binary, &nodes, &launch).await {
        Ok(bowline) => bowline,
        Err(error) => {
            report.figure("without the cgroup", error);
            let launch = Launch {
                memory: None,
                ..launch
            };
            Bowline::start(&context.binary, &nodes, &launch).await?
        }
    };
    let honest = Honest::start(bowline.address, 50).await?;
    let begun = Instant::now();
    let parts = [
        (Manner::LargeHead, 700),
        (Manner::LargeBody, 700),
        (Manner::Head, 400),
    ];
    let slow = Slow::start(&bowline, deadlines, &parts);
    let span = context.seconds(30, 6);
    let count = context.count(100_000, 10_000);
    let answers = flood(bowline.address, What::Sid, count, span).await;
    report.must("it runs", bowline.runs());
    report.figure("made-up sids", answers.sent.load(Ordering::Relaxed));
    report.figure(
        "bodies refused",
        bowline
            .metric("bowline_rejects_total{cause=\"body_memory\"}")
            .await?,
    );
    let during = honest.since(begun);
    report.figure("honest meanwhile", during);
    report.figure("memory at most", mib(bowline.peak()?));
    if let Some(times) = bowline.at_memory_limit() {
        report.figure("times at the cgroup's limit", times);
    }
    report.must("all honest requests are served", during.all_served());
    report.must("memory stays below 128 MiB", bowline.peak()? < 128 * MIB);
    slow.stop();
    recovered(&bowline, report).await;
    Ok(())
}

/// A log that takes nothing: a full disk.
pub(super) async fn log(context: &Context, report: &mut Report) -> Result<()> {
    let nodes = Nodes::start(2)?;
    let launch = Launch {
        config: "log: { filter: debug }\n",
        full_log: true,
        ..Launch::default()
    };
    let mut bowline = Bowline::start(&context.binary, &nodes, &launch).await?;
    let honest = Honest::start(bowline.address, 50).await?;
    let (cpu, begun) = (bowline.cpu()?, Instant::now());
    sleep(context.seconds(20, 4)).await;
    let seen = honest.since(begun);
    report.figure("honest with a full log disk", seen);
    let part = (bowline.cpu()? - cpu) / begun.elapsed().as_secs_f64();
    report.figure("processor", format!("{:.0} % of a core", part * 100.0));
    report.must("all honest requests are served", seen.all_served());
    report.must("it runs and does not spin", bowline.runs() && part < 0.5);
    Ok(())
}

/// How soon somebody can log in and is answered, now that the flood is over.
async fn recovered(bowline: &Bowline, report: &mut Report) {
    let begun = Instant::now();
    let mut client = honest::client(bowline.address, 80_000);
    let served = client.create().await.is_ok() && client.ping("p").await.is_ok();
    let took = begun.elapsed();
    report.figure(
        "served after the flood within",
        format!("{:.0} ms", took.as_secs_f64() * 1000.0),
    );
    report.must(
        "it recovers within a second",
        served && took <= Duration::from_secs(1),
    );
}
