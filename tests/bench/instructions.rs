//! Instructions of a request, counted by callgrind, against a committed figure.
//!
//! The release binary serves a driver under callgrind, once with few requests and once with more;
//! the difference, divided by the difference of the requests, is what one request takes: all of
//! the balancer's user space from accept to the last write, with the runtime, hyper and libc, but
//! nothing of the kernel. One request is under way at a time, sessions take turns so that no
//! request waits for its session's, and probes are too rare to matter: so the figure repeats.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::balancer::{Launch, Running};
use crate::client::{Client, Failure};
use crate::nodes::Nodes;
use crate::options::Check;

/// How far a figure may be above the committed one.
const TOLERANCE: f64 = 0.03;

/// How often a case is counted before it is called regressed; the least count is taken. What
/// depends on time (the alarm of a connection rings 50 times a second, and under callgrind a second
/// has few requests) only ever adds.
const TRIES: usize = 3;

/// Sessions that take turns.
const SESSIONS: usize = 8;

/// What is counted.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    few: usize,
    many: usize,
    payload: usize,
    /// A session of its own, on a connection of its own, for each three requests.
    fresh: bool,
    /// What the configuration says beside the usual.
    more: &'static str,
}

const MESSAGE: Case = Case {
    name: "message",
    few: 400,
    many: 2_000,
    payload: 150,
    fresh: false,
    more: "",
};

const CASES: [Case; 6] = [
    MESSAGE,
    Case {
        name: "message-2k",
        payload: 2048,
        ..MESSAGE
    },
    // Lines of the log, the thread that writes them included.
    Case {
        name: "message-logged",
        more: "log: { access: on }\n",
        ..MESSAGE
    },
    Case {
        name: "message-json",
        more: "log: { access: on, format: json }\n",
        ..MESSAGE
    },
    Case {
        name: "message-sampled",
        more: "log: { access: { sample: 1000 } }\n",
        ..MESSAGE
    },
    Case {
        name: "session",
        few: 100,
        many: 500,
        fresh: true,
        ..MESSAGE
    },
];

/// Counts every case and compares, or writes what was counted.
pub(crate) async fn run(check: &Check) -> Result<()> {
    let before = fs::read_to_string(&check.figures).unwrap_or_default();
    let mut counted = Vec::new();
    for case in CASES {
        let most = committed(&before, case.name).map_or(u64::MAX, |figure| {
            (figure as f64 * (1.0 + TOLERANCE)) as u64
        });
        let mut least = u64::MAX;
        for _ in 0..TRIES {
            let few = count(check, case, case.few).await?;
            let many = count(check, case, case.many).await?;
            least = least.min((many - few) / (case.many - case.few) as u64);
            // When accepting, the least of all tries is the figure that repeats best.
            if least <= most && !check.accept {
                break;
            }
        }
        counted.push((case.name, least));
    }
    if check.accept {
        let lines: Vec<_> = counted
            .iter()
            .map(|(name, each)| format!("{name} {each}\n"))
            .collect();
        fs::write(&check.figures, lines.concat())?;
    }
    compare(&counted, &fs::read_to_string(&check.figures)?)
}

fn compare(counted: &[(&str, u64)], committed: &str) -> Result<()> {
    let mut regressed = false;
    println!("| case | instructions | committed | |\n|---|---|---|---|");
    for (name, now) in counted {
        let before = self::committed(committed, name);
        let before = before.ok_or_else(|| format!("no figure for {name}"))?;
        let change = *now as f64 / before as f64 - 1.0;
        let verdict = if change > TOLERANCE {
            regressed = true;
            "regressed"
        } else if change < -TOLERANCE {
            "better: commit it with --accept"
        } else {
            "as before"
        };
        println!(
            "| {name} | {now} | {before} | {:+.1} %, {verdict} |",
            change * 100.0
        );
    }
    if regressed {
        return Err("a request takes more instructions than was committed".into());
    }
    Ok(())
}

/// The committed figure of a case.
fn committed(figures: &str, name: &str) -> Option<u64> {
    let line = figures
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.parse().ok()
}

/// The instructions of a whole run with `units` of load.
async fn count(check: &Check, case: Case, units: usize) -> Result<u64> {
    let nodes = Nodes::start(2)?;
    let out = std::env::temp_dir().join(format!("bowline-callgrind-{}", std::process::id()));
    let launch = Launch {
        prefix: vec![
            "valgrind".into(),
            "--tool=callgrind".into(),
            format!("--callgrind-out-file={}", out.display()),
        ],
        program: check.bowline.clone(),
        arguments: &["run", "--config"],
        template: check.configurations.join("bowline-callgrind.yaml"),
        threads: 1,
        encrypted: false,
        more: case.more,
    };
    let mut running = Running::start(&launch, &nodes).await?;
    let driven = if case.fresh {
        sessions(&running, case, units).await
    } else {
        messages(&running, case, units).await
    };
    driven.map_err(|failure| format!("{}: {failure}", case.name))?;
    running.end()?;
    let total = total(&out);
    fs::remove_file(&out)?;
    total
}

async fn messages(running: &Running, case: Case, units: usize) -> std::result::Result<(), Failure> {
    let mut clients = Vec::new();
    for number in 0..SESSIONS {
        clients.push(Client::with_session(running.target, number, case.payload).await?);
    }
    for number in 0..units {
        clients[number % SESSIONS].send().await?;
    }
    Ok(())
}

async fn sessions(running: &Running, case: Case, units: usize) -> std::result::Result<(), Failure> {
    let mut clients = Vec::new();
    for number in 0..units {
        let mut client = Client::with_session(running.target, number, case.payload).await?;
        client.send().await?;
        clients.push(client);
        if clients.len() == SESSIONS {
            clients.remove(0).terminate().await?;
        }
    }
    Ok(())
}

/// The sum that callgrind has written.
fn total(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let sums = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "));
    let sums: Vec<u64> = sums
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    if sums.is_empty() {
        return Err("callgrind counted nothing".into());
    }
    Ok(sums.iter().sum())
}
