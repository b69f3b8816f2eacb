//! Growth: the same figures with more of everything.
//!
//! Held sessions from 1,000 to 9,000; pins from 10,000 to 1,000,000, each number in a process of
//! its own; and the cost of a request with two threads against one.

use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::balancer::{Balancer, Running};
use crate::figures::Spread;
use crate::load::{self, Plan};
use crate::memory::{self, Stay};
use crate::nodes::Nodes;
use crate::options::Run;

/// Runs all of it and tells the figures.
pub(crate) async fn run(run: &Run) -> Result<()> {
    held(run).await?;
    pins(run)?;
    threads(run).await
}

async fn held(run: &Run) -> Result<()> {
    let counts: &[usize] = if run.quick {
        &[200, 400]
    } else {
        &[1_000, 4_000, 9_000]
    };
    println!(
        "\nKiB a held session, growing:\n\n| sessions | bowline | haproxy-right |\n|---|---|---|"
    );
    for &count in counts {
        let mut cells = Vec::new();
        for balancer in [Balancer::Bowline, Balancer::HaproxyRight] {
            if !balancer.is_installed(run) {
                cells.push(String::new());
                continue;
            }
            let nodes = Nodes::start(2)?;
            let core = run.balancer_core.to_string();
            let running = Running::start(&balancer.launch(run, 1, &core), &nodes).await?;
            let growth = memory::grow(&running, &nodes, count, Stay::Held).await?;
            let failed = match growth.first_failure {
                None => String::new(),
                Some(first) => format!(" ({} failed: {first})", growth.failures),
            };
            cells.push(format!("{:.2}{failed}", growth.each));
        }
        println!("| {count} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn pins(run: &Run) -> Result<()> {
    let counts: &[usize] = if run.quick {
        &[10_000]
    } else {
        &[10_000, 100_000, 1_000_000]
    };
    println!(
        "\nPins:\n\n| pins | bytes a pin | bytes after a request | sweep ms | find µs, p99.99 / longest, no sweep | \
         p99.99 / longest, sweeping | finds/s, sweeping |\n|---|---|---|---|---|---|---|"
    );
    for count in counts {
        let program = std::env::current_exe()?;
        // The sweep and the finds have a core each where there are two.
        let mut command = if run.unpinned {
            Command::new(program)
        } else {
            let mut command = Command::new("taskset");
            command.args(["-c", &run.all_cores()]).arg(program);
            command
        };
        let status = command
            .args(["pins", "--count", &count.to_string()])
            .status()?;
        if !status.success() {
            return Err("the pins could not be measured".into());
        }
    }
    Ok(())
}

/// The CPU time of a request with one thread and with two, both free to use every core. Where load
/// and balancer share two cores, requests per second say nothing; what two threads add to the cost
/// of a request does.
async fn threads(run: &Run) -> Result<()> {
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..run.rounds() {
        for threads in [1, 2] {
            let nodes = Nodes::start(2)?;
            let launch = Balancer::Bowline.launch(run, threads, &run.all_cores());
            let running = Running::start(&launch, &nodes).await?;
            let plan = Plan {
                target: running.target,
                connections: run.connections,
                per_session: 200,
                payload: 150,
                warm_up: Duration::from_millis(300),
                window: run.span(),
                rate: None,
                core: None,
            };
            let outcome = load::run(plan, running.process()).await?;
            if let Some(failure) = outcome.first_failure {
                return Err(format!("{} failed requests: {failure}", outcome.failures).into());
            }
            costs[threads - 1].push(outcome.cpu_per_request());
        }
    }
    let [one, two] = costs;
    let gains = one.iter().zip(&two).map(|(one, two)| 2.0 * one / two);
    let gain = Spread::of(gains).ok_or("no round")?;
    println!(
        "\nRequests that two threads can serve for each one of one thread, by the CPU time of a \
         request: {:.2} ({:.2}–{:.2})",
        gain.median, gain.least, gain.most
    );
    Ok(())
}
