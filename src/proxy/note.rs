//! What is remembered of one request, to count it and to log one line when it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, debug, warn};

use super::answer::Answer;
use crate::metrics::{Kind, Metrics, Outcome};

/// One request, counted once: when it is answered, or when it is dropped because its client went
/// away.
#[derive(Debug)]
pub struct Note {
    metrics: Arc<Metrics>,
    kind: Kind,
    client: IpAddr,
    begun: Instant,
    /// Time spent at nodes, in nanoseconds.
    at_nodes: AtomicU64,
    counted: bool,
}

impl Note {
    /// A request of `kind` that begins now.
    pub fn new(metrics: Arc<Metrics>, kind: Kind, client: IpAddr) -> Self {
        Self {
            metrics,
            kind,
            client,
            begun: Instant::now(),
            at_nodes: AtomicU64::new(0),
            counted: false,
        }
    }

    /// When the request began.
    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// What the request is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Notes that the request was at a node for so long: that is not the balancer's doing.
    pub fn at_node(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.at_nodes.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Counts and logs the answer. `node` is who gave it.
    pub fn finish(mut self, answer: &Answer, node: Option<&str>) {
        let outcome = match answer.cause {
            Some(cause) => {
                self.metrics.count_reject(cause.row().label);
                Outcome::Rejected
            }
            None => Outcome::Ok,
        };
        self.metrics.count_request(self.kind, outcome);
        let length = u64::try_from(answer.body.len()).unwrap_or(0);
        self.metrics.client_sent_bytes.inc_by(length);
        if node.is_some() && answer.cause.is_none() {
            let at_nodes = Duration::from_nanos(self.at_nodes.load(Ordering::Relaxed));
            let added = self.begun.elapsed().saturating_sub(at_nodes);
            self.metrics.overhead_seconds.observe(added);
        }
        self.counted = true;
        self.log(answer, outcome, node);
    }

    fn log(&self, answer: &Answer, outcome: Outcome, node: Option<&str>) {
        let client = self.client;
        let kind = self.kind.label();
        let cause = answer.cause.map(|cause| cause.row().label);
        if let Some(cause) = answer.cause
            && cause.row().level == Level::WARN
        {
            warn!(%client, kind, node, cause = cause.row().label, "rejected");
        }
        debug!(
            target: "bowline::access",
            %client,
            node,
            kind,
            outcome = outcome.label(),
            cause,
            status = answer.status,
            bytes = answer.body.len(),
            ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if !self.counted {
            self.metrics.count_request(self.kind, Outcome::ClientGone);
        }
    }
}
