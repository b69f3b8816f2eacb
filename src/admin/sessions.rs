//! `/sessions`: the sessions in the table, and their end by the operator.
//!
//! A sid opens its session, so it is shown whole only to a caller whose token has the role `operate`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use super::change::{self, Asker};
use super::report::SCHEMA;
use super::{AdminState, rfc3339};
use crate::cluster::NodeId;
use crate::observe::events::{Event, EventKind};
use crate::proxy::Proxy;
use crate::sessions::{Session, Sessions, Summary, Time};

/// Entries of a page, unless the query says otherwise.
const PAGE: usize = 100;
/// The most entries of a page, and the most sessions that one request ends.
const MOST: usize = 1000;
/// Characters of a sid that everyone who may look sees.
const SHOWN: usize = 6;

/// The sessions, and their clock.
pub struct SessionTable {
    sessions: Arc<Sessions>,
    now: Box<dyn Fn() -> Time + Send + Sync>,
    /// Takes the number of sessions that are to end, and says how many of them may end now.
    may_end: Box<dyn Fn(usize) -> usize + Send + Sync>,
}

impl SessionTable {
    /// The sessions of `proxy`.
    pub fn of(proxy: &Arc<Proxy>) -> Self {
        let (clock, landing) = (Arc::clone(proxy), Arc::clone(proxy));
        Self {
            sessions: Arc::clone(&proxy.sessions),
            now: Box::new(move || clock.now()),
            may_end: Box::new(move |wanted| landing.may_end(wanted)),
        }
    }
}

/// A page of `/sessions`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionPage {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Sessions in the whole list.
    pub total: usize,
    /// Of these, those with a request under way.
    pub active: usize,
    /// When the last of the others is forgotten if their clients stay away; null without such.
    pub idle_until: Option<String>,
    /// The place of the first entry in the list.
    pub offset: usize,
    /// The entries: those that have been idle for longest first.
    pub sessions: Vec<SessionEntry>,
}

/// A session in `/sessions`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionEntry {
    /// The sid, whole or its first characters and an ellipsis.
    pub sid: String,
    /// Its node.
    pub node: String,
    /// Requests under way.
    pub requests: u8,
    /// Seconds since its last answer; 0 while a request is under way.
    pub idle_seconds: u32,
    /// Whether its client has asked for a pause.
    pub paused: bool,
    /// When it is forgotten if its client stays away; null while a request is under way.
    pub expires: Option<String>,
}

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    node: Option<String>,
    offset: usize,
    limit: Option<usize>,
    /// `limit=auto`: as many as the other nodes log in at the moment.
    auto: bool,
}

impl Query {
    fn read(query: Option<&str>) -> Result<Self, String> {
        let mut read = Self::default();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || value.parse::<usize>().ok();
            let understood = match key {
                "node" if read.node.is_none() => {
                    read.node = Some(value.to_owned());
                    true
                }
                "offset" => number().is_some_and(|number| {
                    read.offset = number;
                    true
                }),
                "limit" if value == "auto" => {
                    read.auto = true;
                    true
                }
                "limit" => number().is_some_and(|number| {
                    read.limit = Some(number.min(MOST));
                    true
                }),
                _ => false,
            };
            if !understood {
                return Err(format!(
                    "{pair:?} is not understood; ?node=t1&offset=0&limit=100 is"
                ));
            }
        }
        Ok(read)
    }
}

type Refused = (StatusCode, String);

fn answer(done: Result<Value, Refused>) -> (StatusCode, Value) {
    match done {
        Ok(told) => (StatusCode::OK, told),
        Err((status, what)) => (status, json!({ "error": what })),
    }
}

/// The query, and the node that it names.
fn asked(state: &AdminState, query: Option<&str>) -> Result<(Query, Option<NodeId>), Refused> {
    let query = Query::read(query).map_err(|what| (StatusCode::BAD_REQUEST, what))?;
    let node = match &query.node {
        None => None,
        Some(name) => {
            let node = state.cluster.named(name);
            let unknown = || (StatusCode::NOT_FOUND, change::unknown(state, name));
            Some(node.ok_or_else(unknown)?.id)
        }
    };
    Ok((query, node))
}

/// Does long work with the table on a thread of its own, one at a time.
async fn with_table<T: Send + 'static>(
    state: &Arc<AdminState>,
    work: impl FnOnce(&AdminState, &SessionTable, Time) -> T + Send + 'static,
) -> Result<T, Refused> {
    let unavailable = |what: &str| (StatusCode::SERVICE_UNAVAILABLE, what.to_owned());
    let one_at_a_time = Arc::clone(&state.listing).try_acquire_owned();
    let turn = one_at_a_time.map_err(|_| unavailable("another list is being made: ask again"))?;
    let state = Arc::clone(state);
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let table = state.sessions.as_ref()?;
        Some(work(&state, table, (table.now)()))
    });
    let done = done.await.ok().flatten();
    done.ok_or_else(|| unavailable("there is no table of sessions here"))
}

/// The pins, at one node or at all, in no order.
fn list(table: &SessionTable, node: Option<NodeId>, now: Time) -> Vec<(Summary, Arc<Session>)> {
    let mut found = Vec::new();
    table.sessions.each(|session| {
        if node.is_none_or(|node| session.node() == node)
            && let Some(summary) = session.summary(now)
        {
            found.push((summary, Arc::clone(session)));
        }
    });
    found
}

/// Those first that have been idle for longest.
fn sort(found: &mut [(Summary, Arc<Session>)]) {
    let key = |(summary, session): &(Summary, Arc<Session>)| {
        let Summary {
            under_way, idle, ..
        } = *summary;
        (
            under_way > 0,
            u32::MAX - idle,
            Arc::as_ptr(session) as usize,
        )
    };
    found.sort_unstable_by_key(key);
}

fn entry(state: &AdminState, session: &Session, summary: &Summary, whole: bool) -> SessionEntry {
    let sid = session.sid();
    SessionEntry {
        sid: if whole {
            sid.to_owned()
        } else {
            let start: String = sid.chars().take(SHOWN).collect();
            start + "…"
        },
        node: state.cluster.node(summary.node).name.clone(),
        requests: summary.under_way,
        idle_seconds: summary.idle,
        paused: summary.paused,
        expires: summary.expires.map(wall),
    }
}

fn wall(seconds: u32) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds.into()))
}

/// A page of the list. Sids are `whole` for those who may operate.
pub(super) async fn page(
    state: &Arc<AdminState>,
    query: Option<&str>,
    whole: bool,
) -> (StatusCode, Value) {
    let done = async {
        let (query, node) = asked(state, query)?;
        let page = with_table(state, move |state, table, now| {
            let mut all = list(table, node, now);
            if query.limit != Some(0) {
                sort(&mut all);
            }
            let expires = all.iter().filter_map(|(summary, _)| summary.expires);
            let shown = all.iter().skip(query.offset);
            let shown = shown.take(query.limit.unwrap_or(PAGE));
            SessionPage {
                schema: SCHEMA,
                total: all.len(),
                active: all.iter().filter(|(one, _)| one.under_way > 0).count(),
                idle_until: expires.max().map(wall),
                offset: query.offset,
                sessions: shown
                    .map(|(summary, session)| entry(state, session, summary, whole))
                    .collect(),
            }
        });
        Ok(json!(page.await?))
    };
    answer(done.await)
}

/// One session.
pub(super) fn one(state: &AdminState, sid: &str, whole: bool) -> (StatusCode, Value) {
    let done = find(state, sid).and_then(|(table, session)| {
        let summary = session.summary((table.now)()).ok_or_else(no_session)?;
        Ok(json!(entry(state, &session, &summary, whole)))
    });
    answer(done)
}

/// Ends one session.
pub(super) fn end(state: &AdminState, sid: &str, asker: &Asker) -> (StatusCode, Value) {
    let done = find(state, sid).and_then(|(table, session)| {
        let node = &state.cluster.node(session.node()).name;
        if !table.sessions.close(&session, (table.now)()) {
            return Err(no_session());
        }
        log(node, 1, asker);
        let text = format!("{} ended a session of {node}", asker.name());
        let event = Event::new(EventKind::SessionsEnded, SystemTime::now(), text);
        state.cluster.events.add(event.about(node).sessions(1));
        Ok(json!({ "ended": 1 }))
    });
    answer(done)
}

/// Ends sessions of one node, at most `limit`, those first that have been idle for longest.
pub(super) async fn end_some(
    state: &Arc<AdminState>,
    query: Option<&str>,
    asker: &Asker,
) -> (StatusCode, Value) {
    let done = async {
        let (Query { limit, auto, .. }, node) = asked(state, query)?;
        let limit = limit.or(auto.then_some(MOST));
        let (Some(limit), Some(node)) = (limit, node) else {
            let what = "a node and a limit are wanted: ?node=t1&limit=50, or limit=auto";
            return Err((StatusCode::BAD_REQUEST, what.to_owned()));
        };
        let asker = asker.clone();
        let told = with_table(state, move |state, table, now| {
            let mut all = list(table, Some(node), now);
            sort(&mut all);
            let limit = limit.min(all.len());
            let limit = if auto { (table.may_end)(limit) } else { limit };
            let first = all.iter().take(limit);
            let closed = first.filter(|(_, session)| table.sessions.close(session, now));
            let (closed, name) = (closed.count(), &state.cluster.node(node).name);
            let left = all.len().saturating_sub(limit);
            if closed > 0 {
                log(name, closed, &asker);
            }
            if closed > 0 && left == 0 {
                let text = format!("{} ended the last sessions of {name}", asker.name());
                let event = Event::new(EventKind::SessionsEnded, SystemTime::now(), text);
                let count = u64::try_from(closed).unwrap_or(u64::MAX);
                state.cluster.events.add(event.about(name).sessions(count));
            }
            json!({ "ended": closed, "left": left })
        });
        told.await
    };
    answer(done.await)
}

fn log(node: &str, sessions: usize, asker: &Asker) {
    info!(%node, sessions, peer = %asker.peer, token = asker.token(),
        "sessions ended by the operator");
}

fn find<'a>(state: &'a AdminState, sid: &str) -> Result<(&'a SessionTable, Arc<Session>), Refused> {
    let table = state.sessions.as_ref().ok_or_else(no_session)?;
    let session = table.sessions.find(sid).ok_or_else(no_session)?;
    Ok((table, session))
}

/// The sid is not repeated: it may be one of another balancer.
fn no_session() -> Refused {
    let what = "there is no such session; a sid is wanted whole";
    (StatusCode::NOT_FOUND, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let read = |query| Query::read(Some(query));
        let all = Query {
            node: Some("t1".into()),
            offset: 5,
            limit: Some(1000),
            auto: false,
        };
        assert_eq!(read("node=t1&offset=5&limit=5000"), Ok(all));
        assert_eq!(Query::read(None), Ok(Query::default()));
        assert!(read("node=t1&limit=auto").is_ok_and(|query| query.auto));
        for wrong in [
            "nodes=t1",
            "limit=-1",
            "limit=",
            "offset=x",
            "node=a&node=b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
