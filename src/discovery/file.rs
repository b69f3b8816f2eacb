//! The nodes of a file, which is read again when its content changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Reports;
use crate::config::{self, ConfigErrors, NodeSettings};

/// From one look at the file to the next.
const EVERY: Duration = Duration::from_secs(1);

/// A file of nodes, and what was in it last.
pub(super) struct Watched {
    path: PathBuf,
    nodes: Vec<NodeSettings>,
}

impl Watched {
    pub(super) fn open(path: &Path) -> Result<Self, ConfigErrors> {
        Ok(Self {
            path: path.to_owned(),
            nodes: config::load_nodes(path)?,
        })
    }

    /// Reports the nodes, and again when they are others. Never returns.
    pub(super) async fn run(mut self, mut reports: Reports) {
        reports.passed(Some(self.nodes.clone())).await;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = self.path.clone();
            // A file may lie on a network.
            let read = tokio::task::spawn_blocking(move || config::load_nodes(&path)).await;
            match read {
                Ok(Ok(nodes)) => {
                    let others = nodes != self.nodes;
                    self.nodes.clone_from(&nodes);
                    reports.passed(others.then_some(nodes)).await;
                }
                Ok(Err(errors)) => reports.failed(errors.to_string()).await,
                Err(error) => reports.failed(error.to_string()).await,
            }
        }
    }
}
