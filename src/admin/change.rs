//! `PUT /nodes/NAME/state`: what the operator wants of a node.
//!
//! The state comes in a JSON body, `{"state":"drain","force":true}`, or in the query,
//! `?state=drain&force=true`; not in both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use super::AdminState;
use crate::cluster::{Node, OPERATOR, OperatorState};

/// The largest body, in bytes.
const MAX_BODY: usize = 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request asks for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: String,
    #[serde(default)]
    force: bool,
}

/// Who asks: for the log and the events.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    /// The other end of the connection.
    pub(super) peer: SocketAddr,
    /// The name of its token; none if requests need no token.
    pub(super) token: Option<Arc<str>>,
}

impl Asker {
    /// Its name in events.
    pub(super) fn name(&self) -> &str {
        self.token.as_deref().unwrap_or(OPERATOR)
    }

    /// The name of its token in log lines.
    pub(super) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or("none")
    }
}

/// Does what a request asks for, and says what became of it.
pub(super) async fn run<B>(
    state: &AdminState,
    name: &str,
    query: Option<&str>,
    body: B,
    asker: &Asker,
) -> (StatusCode, Value)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let error = |status, what: String| (status, json!({ "error": what }));
    let Some(node) = state.cluster.named(name) else {
        return error(StatusCode::NOT_FOUND, format!("there is no node {name}"));
    };
    let wanted = match read(query, body).await {
        Ok(wanted) => wanted,
        Err((status, what)) => return error(status, what),
    };
    let Some(to) = OperatorState::of_word(&wanted.state) else {
        let what = format!("a state is ready, drain or maint, not {:?}", wanted.state);
        return error(StatusCode::BAD_REQUEST, what);
    };
    let now = SystemTime::now();
    let done = state
        .cluster
        .set_states(&[node.id], to, wanted.force, asker.name(), now);
    match done {
        Ok(before) => {
            let before = before[0];
            log(node, before, to, wanted.force, asker);
            let told = json!({
                "node": node.name,
                "before": before.word(),
                "state": to.word(),
                "sessions": node.sessions.get(),
                "held": node.held.get(),
            });
            (StatusCode::OK, told)
        }
        Err(last) => {
            let what = format!("{}; use force to do it anyway", last.words(&node.name));
            info!(node = %node.name, state = to.word(), peer = %asker.peer, token = asker.token(),
                reason = %what, "operator state refused");
            error(StatusCode::CONFLICT, what)
        }
    }
}

fn log(node: &Node, before: OperatorState, to: OperatorState, forced: bool, asker: &Asker) {
    if before == to {
        return;
    }
    info!(node = %node.name, before = before.word(), state = to.word(), forced,
        peer = %asker.peer, token = asker.token(), sessions = node.sessions.get(),
        "operator state set");
}

async fn read<B>(query: Option<&str>, body: B) -> Result<Wanted, (StatusCode, String)>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |what: String| (StatusCode::BAD_REQUEST, what);
    let whole = Limited::new(body, MAX_BODY).collect();
    let body = match timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(bad(format!("the body cannot be read: {error}"))),
        Err(_) => {
            let what = "the body did not come in time".to_owned();
            return Err((StatusCode::REQUEST_TIMEOUT, what));
        }
    };
    match (query, body.is_empty()) {
        (None, true) => Err(bad(
            "a state is wanted, as the body {\"state\":\"drain\"} or as ?state=drain".into(),
        )),
        (None, false) => serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the body is no {{\"state\":…}}: {error}"))),
        (Some(query), true) => in_query(query).map_err(bad),
        (Some(_), false) => Err(bad("either a body or a query, not both".into())),
    }
}

fn in_query(query: &str) -> Result<Wanted, String> {
    let (mut state, mut force) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (key, value) {
            ("state", value) if state.is_none() => state = Some(value.to_owned()),
            ("force", "" | "true" | "1") if force.is_none() => force = Some(true),
            ("force", "false" | "0") if force.is_none() => force = Some(false),
            _ => {
                return Err(format!(
                    "{pair:?} is not understood; ?state=drain&force=true is"
                ));
            }
        }
    }
    let state = state.ok_or("the query has no state")?;
    let force = force.unwrap_or(false);
    Ok(Wanted { state, force })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let wanted = |state: &str, force| {
            let state = state.to_owned();
            Ok(Wanted { state, force })
        };
        assert_eq!(in_query("state=drain"), wanted("drain", false));
        assert_eq!(in_query("force&state=maint"), wanted("maint", true));
        assert_eq!(in_query("state=ready&force=false"), wanted("ready", false));
        for wrong in [
            "",
            "force",
            "state=a&state=b",
            "state=drain&force=yes",
            "x=1&state=drain",
        ] {
            assert!(in_query(wrong).is_err(), "{wrong}");
        }
    }
}
