//! `PUT /nodes/NAME/state` and `PUT /states`: what the operator wants of a node, or of several.
//!
//! For one node the state comes in a JSON body, `{"state":"drain","force":true}`, or in the query,
//! `?state=drain&force=true`; not in both. For several it comes in a JSON body,
//! `{"state":"drain","nodes":["t1","t2"]}` or `{"state":"drain","all":true}`, and is set for all of them or
//! for none.

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

/// The largest body for one node, in bytes.
const MAX_BODY: usize = 1024;
/// The largest body for several: 1024 names of 64 characters, and more than JSON needs around them.
const MAX_BODY_OF_SEVERAL: usize = 128 * 1024;
/// The most names that an error lists.
const MOST_NAMES: usize = 20;
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

/// What a request asks for of several nodes.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedOfSeveral {
    state: String,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    nodes: Vec<String>,
    #[serde(default)]
    all: bool,
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

/// A refusal: the status, and the reason in words.
type Refused = (StatusCode, String);

/// Does what a request asks for of the node `name`, and says what became of it.
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
    let done = async {
        let node = node(state, name)?;
        let wanted = read(query, body).await?;
        let mut changed = set(state, &[node], &wanted.state, wanted.force, asker)?;
        Ok(changed.remove(0))
    };
    answer(done.await)
}

/// The same for several nodes.
pub(super) async fn run_several<B>(
    state: &AdminState,
    body: B,
    asker: &Asker,
) -> (StatusCode, Value)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |what: String| (StatusCode::BAD_REQUEST, what);
    let done = async {
        let body = whole(body, MAX_BODY_OF_SEVERAL).await?;
        let wanted: WantedOfSeveral = serde_json::from_slice(&body).map_err(|error| {
            bad(format!(
                "the body is no {{\"state\":…,\"nodes\":[…]}}: {error}"
            ))
        })?;
        let all;
        let nodes: Vec<&Node> = match (wanted.nodes.as_slice(), wanted.all) {
            ([], true) => {
                all = state.cluster.nodes();
                all.members().iter().map(|node| &**node).collect()
            }
            ([], false) | ([_, ..], true) => {
                return Err(bad("either `nodes` or `\"all\":true` is wanted".into()));
            }
            (names, false) => {
                let mut names = names.to_vec();
                names.sort_unstable();
                names.dedup();
                let nodes = names.iter().map(|name| node(state, name));
                nodes.collect::<Result<_, _>>()?
            }
        };
        let changed = set(state, &nodes, &wanted.state, wanted.force, asker)?;
        Ok(json!({ "nodes": changed }))
    };
    answer(done.await)
}

fn answer(done: Result<Value, Refused>) -> (StatusCode, Value) {
    match done {
        Ok(told) => (StatusCode::OK, told),
        Err((status, what)) => (status, json!({ "error": what })),
    }
}

/// The node called `name`.
fn node<'a>(state: &'a AdminState, name: &str) -> Result<&'a Node, Refused> {
    let found = state.cluster.named(name);
    found.ok_or_else(|| (StatusCode::NOT_FOUND, unknown(state, name)))
}

/// What is said of a name that no node has.
pub(super) fn unknown(state: &AdminState, name: &str) -> String {
    let nodes = state.cluster.nodes();
    let known = names(nodes.iter().map(|node| node.name.as_str()));
    format!("there is no node {name}; the nodes are {known}")
}

/// Some names with commas, the first of many.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = all.len().saturating_sub(MOST_NAMES);
    let mut names: Vec<_> = all.take(MOST_NAMES).map(str::to_owned).collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// Sets the state of `nodes`, of all or of none, and says what it was.
fn set(
    state: &AdminState,
    nodes: &[&Node],
    word: &str,
    force: bool,
    asker: &Asker,
) -> Result<Vec<Value>, Refused> {
    let Some(to) = OperatorState::of_word(word) else {
        let what = format!("a state is ready, drain or maint, not {word:?}");
        return Err((StatusCode::BAD_REQUEST, what));
    };
    let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
    let now = SystemTime::now();
    let done = (state.cluster).set_states(&ids, to, force, asker.name(), now);
    let before = done.map_err(|last| {
        let names = names(nodes.iter().map(|node| node.name.as_str()));
        let what = format!("{}; use --force to do it anyway", last.words(&names));
        info!(nodes = %names, state = to.word(), peer = %asker.peer, token = asker.token(),
            reason = %what, "operator state refused");
        (StatusCode::CONFLICT, what)
    })?;
    let changed = nodes.iter().zip(before).map(|(node, before)| {
        log(node, before, to, force, asker);
        json!({
            "node": node.name,
            "before": before.word(),
            "state": to.word(),
            "sessions": node.sessions.get(),
            "held": node.held.get(),
        })
    });
    Ok(changed.collect())
}

fn log(node: &Node, before: OperatorState, to: OperatorState, forced: bool, asker: &Asker) {
    if before == to {
        return;
    }
    info!(node = %node.name, before = before.word(), state = to.word(), forced,
        peer = %asker.peer, token = asker.token(), sessions = node.sessions.get(),
        "operator state set");
}

/// A whole body of at most `most` bytes.
async fn whole<B>(body: B, most: usize) -> Result<Bytes, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => {
            let what = format!("the body cannot be read: {error}");
            Err((StatusCode::BAD_REQUEST, what))
        }
        Err(_) => {
            let what = "the body did not come in time".to_owned();
            Err((StatusCode::REQUEST_TIMEOUT, what))
        }
    }
}

async fn read<B>(query: Option<&str>, body: B) -> Result<Wanted, (StatusCode, String)>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |what: String| (StatusCode::BAD_REQUEST, what);
    let body = whole(body, MAX_BODY).await?;
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
