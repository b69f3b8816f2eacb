//! Discovery in a running balancer: the nodes that a file or the DNS names.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, warn};

use crate::config::{Discovery, Settings};
use crate::discovery::{Finder, FinderError, Finding};
use crate::server::Server;

/// How long the start waits for the first answer.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// What looks for nodes, if the configuration asks for that.
#[derive(Debug, Default)]
pub(super) struct Discovering {
    finder: Option<Finder>,
    /// What was found during the start, and is to be shown.
    first: Option<Finding>,
}

impl Discovering {
    /// Begins to look, and waits for the first nodes. Without an answer in time the start goes on without
    /// nodes.
    pub(super) async fn start(settings: &mut Settings) -> Result<Self, FinderError> {
        let Some(source) = &settings.discovery else {
            return Ok(Self::default());
        };
        let mut finder = Finder::start(source)?;
        let mut first = None;
        match timeout(FIRST_WITHIN, finder.next()).await {
            Ok(Finding::Nodes(nodes)) => settings.nodes = nodes,
            Ok(finding) => first = Some(finding),
            Err(_) => warn!("discovery has no answer yet: starting without nodes"),
        }
        Ok(Self {
            finder: Some(finder),
            first,
        })
    }

    /// What is found next; never returns without discovery.
    pub(super) async fn next(&mut self) -> Finding {
        if let Some(first) = self.first.take() {
            return first;
        }
        match &mut self.finder {
            Some(finder) => finder.next().await,
            None => std::future::pending().await,
        }
    }

    /// What looks at `source` from now on, for [`Discovering::exchange`]; none if it is what looks already.
    pub(super) fn prepare(&self, source: Option<&Discovery>) -> Result<Option<Self>, FinderError> {
        if self.finder.as_ref().map(Finder::source) == source {
            return Ok(None);
        }
        Ok(Some(Self {
            finder: source.map(Finder::start).transpose()?,
            first: None,
        }))
    }

    /// Takes what [`Discovering::prepare`] has made.
    pub(super) fn exchange(&mut self, prepared: Option<Self>, server: &Server) {
        if let Some(prepared) = prepared {
            *self = prepared;
            server.discovery_failed(None);
        }
    }
}

/// Takes what was found.
pub(super) fn take(server: &Server, finding: Finding) {
    match finding {
        Finding::Nodes(nodes) => {
            if let Err(error) = server.set_nodes(nodes) {
                error!(%error, "the nodes that discovery found are refused, and the last ones stay");
            }
        }
        Finding::Failed(why) => server.discovery_failed(Some(&why)),
        Finding::Recovered => server.discovery_failed(None),
    }
}
