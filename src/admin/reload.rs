//! `PUT /config`: reads the configuration again, or takes another one.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::AdminState;
use super::change::Asker;
use crate::config::{MAX_FILE, Reload};
use crate::observe::events::{Event, EventKind};

/// How long a body may take, and how long the reload.
const LIMIT: Duration = Duration::from_secs(5);

/// A request for a reload.
#[derive(Debug)]
pub struct ReloadRequest {
    /// The configuration; none to read the file again.
    pub text: Option<String>,
    /// The name of the token of who asks; none if requests need no token.
    pub by: Option<Arc<str>>,
    /// Takes what the reload came to, or why it was refused.
    pub reply: oneshot::Sender<Result<Reload, String>>,
}

impl AdminState {
    /// Shows how a reload ended that was asked for `by` a token of this name, or by a signal or the file.
    pub fn reloaded(&self, outcome: &Result<Reload, String>, by: Option<&str>) {
        let mut refused = self
            .refused_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let text = match outcome {
            Ok(step) => {
                self.metrics.reloads.inc();
                self.metrics.reload_ok.set(1);
                *refused = None;
                if step.needs_restart.is_empty() {
                    info!(
                        token = by,
                        changed = step.changed.join(", "),
                        "configuration reloaded"
                    );
                } else {
                    warn!(
                        token = by,
                        changed = step.changed.join(", "),
                        needs_restart = step.needs_restart.join(", "),
                        "configuration reloaded in part"
                    );
                }
                if step.changed.is_empty() && step.needs_restart.is_empty() {
                    return;
                }
                let by = by.map_or_else(String::new, |by| format!(" by {by}"));
                format!("configuration reloaded{by}: {}", step.words())
            }
            Err(why) => {
                self.metrics.reload_failures.inc();
                self.metrics.reload_ok.set(0);
                *refused = Some(why.clone());
                error!(token = by, reason = %why, "the new configuration is refused, and the old one stays");
                let of = by.map_or_else(String::new, |by| format!(" of {by}"));
                format!("the new configuration{of} was refused, and the old one stays")
            }
        };
        self.cluster
            .events
            .add(Event::new(EventKind::Reload, now, text));
    }

    /// Why the last reload was refused; none if it was not.
    pub(super) fn refused_reload(&self) -> Option<String> {
        let refused = self.refused_reload.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Has the configuration in `body` applied, or the file read again if that is empty.
pub(super) async fn run<B>(state: &AdminState, body: B, asker: &Asker) -> (StatusCode, Value)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let error = |status, what: &str| (status, json!({ "error": what }));
    let body = match timeout(LIMIT, Limited::new(body, MAX_FILE).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let what = "the configuration is larger than 256 KiB, or was cut off";
            return error(StatusCode::BAD_REQUEST, what);
        }
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return error(StatusCode::BAD_REQUEST, "the configuration is not UTF-8");
    };
    let (reply, replied) = oneshot::channel();
    let request = ReloadRequest {
        text: (!text.is_empty()).then_some(text),
        by: asker.token.clone(),
        reply,
    };
    if state.reloads.try_send(request).is_err() {
        let what = "this balancer takes no reload now";
        return error(StatusCode::SERVICE_UNAVAILABLE, what);
    }
    match timeout(LIMIT, replied).await {
        Ok(Ok(Ok(step))) => {
            let told = json!({
                "changed": step.changed,
                "needs_restart": step.needs_restart,
            });
            (StatusCode::OK, told)
        }
        Ok(Ok(Err(why))) => error(StatusCode::UNPROCESSABLE_ENTITY, &why),
        _ => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the reload did not end in time",
        ),
    }
}
