//! Load on a balancer: sessions one after the other on a number of connections.
//!
//! Closed loop: each connection sends its next request when the last one is answered. Open loop:
//! requests are due at a fixed rate whether or not answers come, and the time of a request counts
//! from when it was due, so that a stall is not hidden by the requests that it keeps from being
//! sent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::Result;
use crate::client::{Client, Failure, Target};
use crate::machine::Machine;
use crate::support::program::Usage;

/// Requests go out in the groups of one tick.
const TICK: Duration = Duration::from_millis(1);

/// A tick that is later than this counts from when it was due: the generator did not get its core.
const LATE: Duration = Duration::from_millis(2);

/// How long the last answers may take when the window is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// Failed requests in a row after which a connection gives up.
const MOST_FAILURES: u64 = 20;

/// What load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The balancer.
    pub(crate) target: Target,
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// Requests of a session, its creation and its end included; at least 2.
    pub(crate) per_session: usize,
    /// Bytes of the payload of each message.
    pub(crate) payload: usize,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// While everything is counted.
    pub(crate) window: Duration,
    /// Requests per second of an open loop; a closed one if None.
    pub(crate) rate: Option<u64>,
    /// The core of the balancer, if it has one.
    pub(crate) core: Option<usize>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answered requests within the window.
    pub(crate) requests: u64,
    /// Failed requests, before and after the window too.
    pub(crate) failures: u64,
    /// What the first failure was.
    pub(crate) first_failure: Option<Failure>,
    /// How long the window was.
    pub(crate) window: Duration,
    /// What the balancer used of its core within the window.
    pub(crate) cpu: Duration,
    /// The share of the balancer's core that went to others within the window; NaN if the
    /// balancer has no core of its own.
    pub(crate) others: f64,
    /// Microseconds from due to answered, in order.
    pub(crate) times: Vec<u32>,
}

impl Outcome {
    /// Microseconds of the balancer's core for one request.
    pub(crate) fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.window.as_secs_f64()
    }

    /// The time that `share` of the requests did not exceed, in microseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * share).ceil() as usize;
        self.times.get(at).copied().map_or(f64::NAN, f64::from)
    }
}

/// What all connections share.
#[derive(Debug, Default)]
struct Tally {
    counting: Cell<bool>,
    over: Cell<bool>,
    requests: Cell<u64>,
    failures: Cell<u64>,
    first_failure: RefCell<Option<Failure>>,
    times: RefCell<Vec<u32>>,
}

impl Tally {
    fn answered(&self, due: Instant) {
        if self.counting.get() {
            self.requests.set(self.requests.get() + 1);
            let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
            self.times.borrow_mut().push(micros);
        }
    }

    fn failed(&self, failure: Failure) {
        self.failures.set(self.failures.get() + 1);
        self.first_failure.borrow_mut().get_or_insert(failure);
    }
}

/// Puts load on the balancer whose process is `balancer`.
pub(crate) async fn run(plan: Plan, balancer: Option<Usage>) -> Result<Outcome> {
    let tally = Rc::new(Tally::default());
    LocalSet::new()
        .run_until(measure(plan, balancer, tally))
        .await
}

async fn measure(plan: Plan, balancer: Option<Usage>, tally: Rc<Tally>) -> Result<Outcome> {
    let mut workers = JoinSet::new();
    match plan.rate {
        None => {
            for number in 0..plan.connections {
                workers.spawn_local(closed(plan, number, Rc::clone(&tally)));
            }
        }
        Some(rate) => {
            let mut queues = Vec::new();
            for number in 0..plan.connections {
                let (queue, due) = mpsc::unbounded_channel();
                workers.spawn_local(open(plan, number, due, Rc::clone(&tally)));
                queues.push(queue);
            }
            workers.spawn_local(pace(rate, queues, Rc::clone(&tally)));
        }
    }
    let used = || balancer.map_or(Ok(Duration::ZERO), |process| process.cpu());
    sleep(plan.warm_up).await;
    let machine = || plan.core.map(|core| Machine::now(Some(core))).transpose();
    let (begun, before, calm) = (Instant::now(), used()?, machine()?);
    tally.counting.set(true);
    sleep(plan.window).await;
    tally.counting.set(false);
    let (window, cpu) = (begun.elapsed(), used()? - before);
    let busy = calm
        .zip(machine()?)
        .map(|(calm, now)| now.share_since(calm));
    let own = cpu.as_secs_f64() / window.as_secs_f64();
    let others = busy.map_or(f64::NAN, |busy| (busy - own).max(0.0));
    tally.over.set(true);
    let ended = async { while workers.join_next().await.is_some() {} };
    if timeout(PATIENCE, ended).await.is_err() {
        for _ in 0..workers.len() {
            tally.failed("never answered".into());
        }
        workers.abort_all();
    }
    let mut times = tally.times.take();
    times.sort_unstable();
    Ok(Outcome {
        requests: tally.requests.get(),
        failures: tally.failures.get(),
        first_failure: tally.first_failure.take(),
        window,
        cpu,
        others,
        times,
    })
}

/// One connection after the other, each with one session, until the load is over.
async fn closed(plan: Plan, number: usize, tally: Rc<Tally>) {
    // The first session of each is cut at random, so that sessions do not end all at once.
    let mut requests = fastrand::usize(2..=plan.per_session);
    let mut failures = 0;
    while !tally.over.get() && failures < MOST_FAILURES {
        match session(plan, number, requests, &tally).await {
            Ok(()) => failures = 0,
            Err(failure) => {
                failures += 1;
                tally.failed(failure);
            }
        }
        requests = plan.per_session;
    }
}

async fn session(
    plan: Plan,
    number: usize,
    requests: usize,
    tally: &Tally,
) -> std::result::Result<(), Failure> {
    let begun = Instant::now();
    let mut client = Client::with_session(plan.target, number, plan.payload).await?;
    tally.answered(begun);
    for _ in 2..requests {
        if tally.over.get() {
            break;
        }
        let begun = Instant::now();
        client.send().await?;
        tally.answered(begun);
    }
    let begun = Instant::now();
    client.terminate().await?;
    tally.answered(begun);
    Ok(())
}

/// One session that sends whenever a message is due.
async fn open(
    plan: Plan,
    number: usize,
    mut due: mpsc::UnboundedReceiver<Instant>,
    tally: Rc<Tally>,
) {
    let run = async {
        let mut client = Client::with_session(plan.target, number, plan.payload).await?;
        while let Some(due) = due.recv().await {
            if tally.over.get() {
                break;
            }
            client.send().await?;
            tally.answered(due);
        }
        client.terminate().await
    };
    if let Err(failure) = run.await {
        tally.failed(failure);
    }
}

/// Says to one session after the other when a message is due.
async fn pace(rate: u64, queues: Vec<mpsc::UnboundedSender<Instant>>, tally: Rc<Tally>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turns = queues.iter().cycle();
    let mut owed = 0.0;
    while !tally.over.get() {
        let planned = ticks.tick().await;
        let now = Instant::now();
        let due = if now - planned > LATE { planned } else { now };
        owed += rate as f64 * TICK.as_secs_f64();
        while owed >= 1.0 {
            owed -= 1.0;
            // A session that has failed has been counted; its messages are not sent.
            let _ = turns.next().map(|queue| queue.send(due));
        }
    }
}
