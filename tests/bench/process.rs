//! What the kernel says of a process.

use std::time::Duration;

use tokio::time::sleep;

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
