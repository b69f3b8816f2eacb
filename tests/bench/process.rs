//! What the kernel says of a process, and of who else is at work.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;

/// A running process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// What its threads have used of the cores. A thread that has ended is no longer counted; no
    /// balancer ends one while it is measured.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.0))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let on_core = text.split(' ').next().unwrap_or_default();
            nanos += on_core.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Its resident memory in KiB. `smaps_rollup` counts pages; the counters in `status` are
    /// behind by what each core has not yet told.
    pub(crate) fn resident(self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = text.lines().find(|line| line.starts_with("Rss:"));
        let figure = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(figure.ok_or("no Rss in smaps_rollup")?.parse()?)
    }

    /// Its resident memory once that has stayed the same for half a second.
    pub(crate) async fn settled(self) -> Result<u64> {
        const SAME: u32 = 10;
        const MOST: u32 = 200;
        let mut last = self.resident()?;
        let mut same = 0;
        for _ in 0..MOST {
            sleep(Duration::from_millis(50)).await;
            let now = self.resident()?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if same == SAME {
                break;
            }
        }
        Ok(last)
    }
}

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
