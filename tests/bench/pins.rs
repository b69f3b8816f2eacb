//! A table of pins in this process: what a pin takes, how long a sweep is, and how long a sweep
//! keeps a look-up waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::cluster::{Cluster, NodeId};
use bowline::config::{NodeSettings, Settings};
use bowline::observe::metrics::Metrics;
use bowline::sessions::{Insert, Sessions, Terms, Time};
use tokio::time::Instant;

use crate::Result;
use crate::support::program::Usage;

/// How long look-ups go on, with sweeps and without.
const LEAST: Duration = Duration::from_secs(1);

const TERMS: Terms = Terms {
    wait: 60,
    inactivity: 60,
    maxpause: 120,
    hold: 1,
    legacy: false,
};

/// Look-ups that went on beside something else.
#[derive(Debug)]
struct Finds {
    count: u64,
    longest: Duration,
    /// The time that one of 10,000 exceeded.
    rare: Duration,
    span: Duration,
}

/// Makes `count` pins and prints one row of the table.
pub(crate) fn measure(count: usize) -> Result<()> {
    let sessions = table(count);
    let process = Usage(std::process::id());
    let empty = process.resident()?;
    let now = Time::after(Duration::from_secs(1));
    for number in 0..count {
        let node = NodeId(u16::from(number % 2 == 1));
        let made = sessions.insert(&sid(number), node, TERMS, (1, None), now);
        if !matches!(made, Insert::Made(_)) {
            return Err("a pin was not taken".into());
        }
    }
    let made = process.resident()?;
    for number in 0..count {
        request(&sessions, &sid(number), now)?;
    }
    sessions.sweep(now);
    let used = process.resident()?;

    let quiet = beside(&sessions, count, |over| {
        let begun = Instant::now();
        while begun.elapsed() < LEAST {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    })?;
    let (mut swept, mut sweeps) = (Duration::ZERO, 0);
    let sweeping = beside(&sessions, count, |over| {
        let begun = Instant::now();
        while begun.elapsed() < LEAST {
            sessions.sweep(now);
            sweeps += 1;
        }
        swept = begun.elapsed();
        over.store(true, Ordering::Relaxed);
    })?;
    if sessions.len() != count {
        return Err("a sweep took a pin that had not expired".into());
    }
    let each = |bytes: u64| (bytes - empty) as f64 / count as f64;
    println!(
        "| {count} | {:.0} | {:.0} | {:.2} | {:.1} / {:.0} | {:.1} / {:.0} | {:.0} |",
        each(made),
        each(used),
        swept.as_secs_f64() * 1e3 / f64::from(sweeps),
        micros(quiet.rare),
        micros(quiet.longest),
        micros(sweeping.rare),
        micros(sweeping.longest),
        sweeping.count as f64 / sweeping.span.as_secs_f64(),
    );
    Ok(())
}

fn table(limit: usize) -> Arc<Sessions> {
    let node = |number: u16| NodeSettings::new(format!("t{number}"), format!("127.0.0.1:{number}"));
    let settings = Settings::for_nodes(vec![node(1), node(2)]);
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(&settings, &metrics));
    Arc::new(Sessions::new(limit, cluster, metrics))
}

/// As long as the sids of Tigase and Prosody.
fn sid(number: usize) -> String {
    format!("{number:08x}-9e37-4b5a-8c3d-{:012x}", number * 7919)
}

/// What a request does with a pin.
fn request(sessions: &Sessions, sid: &str, now: Time) -> Result<()> {
    let session = sessions.find(sid).ok_or("a pin is lost")?;
    let begun = session.begin(2, None);
    let place = begun.map_err(|refusal| format!("{refusal:?}"))?.place;
    session.turn(&place, true);
    session.go(&place, now);
    session.sent(&place, false, now);
    sessions.end(&session, &place, now);
    Ok(())
}

/// Looks pins up, one after the other, in a thread of its own until `work` says that it is over.
fn beside(sessions: &Arc<Sessions>, count: usize, work: impl FnOnce(&AtomicBool)) -> Result<Finds> {
    let over = Arc::new(AtomicBool::new(false));
    let finder = {
        let (sessions, over) = (Arc::clone(sessions), Arc::clone(&over));
        let sids: Vec<String> = (0..count.min(10_000))
            .map(|number| sid(number * (count / count.min(10_000))))
            .collect();
        std::thread::spawn(move || find(&sessions, &sids, &over))
    };
    work(&over);
    finder.join().map_err(|_| "a look-up panicked".into())
}

fn find(sessions: &Sessions, sids: &[String], over: &AtomicBool) -> Finds {
    let begun = Instant::now();
    let mut times = Vec::new();
    for sid in sids.iter().cycle() {
        let asked = Instant::now();
        if sessions.find(sid).is_some() {
            times.push(asked.elapsed());
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    let span = begun.elapsed();
    times.sort_unstable();
    let from_end = |place: usize| times.iter().rev().nth(place).copied().unwrap_or_default();
    Finds {
        count: times.len() as u64,
        longest: from_end(0),
        rare: from_end(times.len() / 10_000),
        span,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
