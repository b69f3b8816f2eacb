//! Finds out which nodes there are: from a file that is watched, or from the DNS.
//!
//! Says what it found, and decides nothing: the server makes the found nodes the members of the cluster.
//! What cannot be read, or looked up, changes nothing.

#[cfg(feature = "dns")]
mod dns;
mod file;

use std::io;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{ConfigErrors, Discovery, NodeSettings};

/// Findings that wait to be taken.
const WAITING: usize = 1;

/// What a look at the source has brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// These are the nodes from now on.
    Nodes(Vec<NodeSettings>),
    /// The look failed for this reason, and the nodes stay. Said once for each reason.
    Failed(String),
    /// A look has passed again.
    Recovered,
}

/// A task that looks for nodes, until dropped.
#[derive(Debug)]
pub struct Finder {
    source: Discovery,
    found: mpsc::Receiver<Finding>,
    task: JoinHandle<()>,
}

impl Finder {
    /// Looks for the nodes of `source` from now on. A file is read at once.
    ///
    /// # Errors
    /// [`FinderError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(source: &Discovery) -> Result<Self, FinderError> {
        let (report, found) = mpsc::channel(WAITING);
        let reports = Reports {
            report,
            failing: None,
        };
        let task = match source {
            Discovery::File(path) => {
                let watched = file::Watched::open(path).map_err(FinderError::File)?;
                tokio::spawn(watched.run(reports))
            }
            #[cfg(feature = "dns")]
            Discovery::Dns(dns) => {
                let look_up = dns::LookUp::new(dns).map_err(FinderError::Dns)?;
                tokio::spawn(look_up.run(reports))
            }
            #[cfg(not(feature = "dns"))]
            Discovery::Dns(_) => return Err(FinderError::Dns(io::ErrorKind::Unsupported.into())),
        };
        Ok(Self {
            source: source.clone(),
            found,
            task,
        })
    }

    /// Where it looks.
    pub const fn source(&self) -> &Discovery {
        &self.source
    }

    /// What is found next: first the nodes there are, then each change. Loses nothing if it is dropped and
    /// asked again.
    pub async fn next(&mut self) -> Finding {
        match self.found.recv().await {
            Some(finding) => finding,
            // The task never ends.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the findings go.
struct Reports {
    report: mpsc::Sender<Finding>,
    failing: Option<String>,
}

impl Reports {
    /// A look has passed; `nodes` if they are others than before.
    async fn passed(&mut self, nodes: Option<Vec<NodeSettings>>) {
        if self.failing.take().is_some() {
            self.send(Finding::Recovered).await;
        }
        if let Some(nodes) = nodes {
            self.send(Finding::Nodes(nodes)).await;
        }
    }

    /// A look has failed.
    async fn failed(&mut self, why: String) {
        if self.failing.as_ref() != Some(&why) {
            self.failing = Some(why.clone());
            self.send(Finding::Failed(why)).await;
        }
    }

    async fn send(&self, finding: Finding) {
        // Without a receiver this task is about to end.
        let _ = self.report.send(finding).await;
    }
}

/// Why no look is made at all.
#[derive(Debug)]
pub enum FinderError {
    /// The file of nodes is wrong.
    File(ConfigErrors),
    /// There is no resolver.
    Dns(io::Error),
}

impl std::fmt::Display for FinderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(errors) => write!(f, "{errors}"),
            Self::Dns(source) => write!(f, "the nodes cannot be looked up in the DNS: {source}"),
        }
    }
}

impl std::error::Error for FinderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(errors) => Some(errors),
            Self::Dns(source) => Some(source),
        }
    }
}
