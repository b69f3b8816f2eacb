//! What is remembered of one request, to count it and to log one line when it ends.

use std::net::IpAddr;
use std::sync::Arc;

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
            counted: false,
        }
    }

    /// When the request began.
    pub const fn begun(&self) -> Instant {
        self.begun
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
