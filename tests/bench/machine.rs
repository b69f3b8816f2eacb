//! What the kernel says of the load on the whole machine.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;

/// How long the cores have been at work and how long they could have been, each since the start of
/// the machine, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy: u64,
    all: u64,
}

impl Machine {
    /// Of one core, or of all of them.
    pub(crate) fn now(core: Option<usize>) -> Result<Self> {
        let name = core.map_or("cpu".to_owned(), |core| format!("cpu{core}"));
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
        let ticks: Vec<u64> = line
            .ok_or("no such core in /proc/stat")?
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        // user nice system idle iowait irq softirq steal; guests are in user already
        let all = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self {
            busy: all - idle,
            all,
        })
    }

    /// The share of the time since `earlier` that was spent at work.
    pub(crate) fn share_since(self, earlier: Self) -> f64 {
        (self.busy - earlier.busy) as f64 / (self.all - earlier.all).max(1) as f64
    }
}

/// Waits until nobody else uses the machine, but no longer than `patience`. Says whether that came.
pub(crate) async fn calm(patience: Duration) -> Result<bool> {
    const LOOK: Duration = Duration::from_millis(200);
    const CALM: f64 = 0.1;
    let begun = Instant::now();
    loop {
        let before = Machine::now(None)?;
        sleep(LOOK).await;
        if Machine::now(None)?.share_since(before) < CALM {
            return Ok(true);
        }
        if begun.elapsed() >= patience {
            return Ok(false);
        }
    }
}
