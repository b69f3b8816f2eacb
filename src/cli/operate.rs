//! `bowline drain|ready|maint NODE...`: what the operator wants of nodes.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::ask::{AskError, Whom, ask};
use super::{complain, exit};
use crate::cluster::OperatorState;
use crate::config::one_line;

/// The answer to a change of one node.
#[derive(Debug, Deserialize)]
pub(super) struct Changed {
    node: String,
    before: String,
    state: String,
    sessions: u64,
    held: u64,
}

/// The answer to a change of several nodes.
#[derive(Debug, Deserialize)]
struct AllChanged {
    nodes: Vec<Changed>,
}

/// Sets the state of these nodes, or of all nodes if there is none.
#[must_use]
pub fn operate(nodes: &[String], state: OperatorState, force: bool, whom: &Whom) -> ExitCode {
    super::block_on(async {
        match set(nodes, state, force, whom).await {
            Ok((code, _)) => code,
            Err(failure) => {
                complain(&failure);
                failure.code()
            }
        }
    })
}

/// Asks for the change of nodes, or of all nodes if there is none.
///
/// # Errors
/// There is no answer, or not one of Bowline.
pub(super) async fn request(
    nodes: &[String],
    state: OperatorState,
    force: bool,
    whom: &Whom,
) -> Result<Result<Vec<Changed>, Refusal>, AskError> {
    let mut body = json!({ "state": state.word(), "force": force });
    if nodes.is_empty() {
        body["all"] = true.into();
    } else {
        body["nodes"] = nodes.into();
    }
    let reply = ask(whom, "/states", Some(body.to_string())).await?;
    match (reply.status, reply.error()) {
        (200, _) => Ok(Ok(reply.json::<AllChanged>()?.nodes)),
        (404 | 409, Some(why)) => Ok(Err(Refusal {
            is_unknown: reply.status == 404,
            why,
        })),
        (404 | 409, None) => Err(AskError::Foreign(reply.url, "no reason given".into())),
        (status, why) => {
            let why = why.unwrap_or_else(|| format!("status {status}"));
            Err(AskError::Foreign(reply.url, why))
        }
    }
}

/// Why a change is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Whether there is no such node.
    is_unknown: bool,
    /// The reason, in the balancer's words.
    pub(super) why: String,
}

/// Sets it, and says what changed. With the exit code come the names of the nodes, if it was done.
pub(super) async fn set(
    nodes: &[String],
    state: OperatorState,
    force: bool,
    whom: &Whom,
) -> Result<(ExitCode, Option<Vec<String>>), AskError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let is_name = |node: &&String| !node.is_empty() && node.bytes().all(known);
    if let Some(node) = nodes.iter().find(|node| !is_name(node)) {
        complain(&format_args!("{node:?} is not a node name"));
        return Ok((exit::USAGE.into(), None));
    }
    match request(nodes, state, force, whom).await? {
        Ok(changed) => {
            let mut out = io::stdout();
            for changed in &changed {
                if writeln!(out, "{}", one_line(&told(changed))).is_err() {
                    return Ok((exit::IO.into(), None));
                }
            }
            let names = changed.into_iter().map(|changed| changed.node);
            Ok((exit::OK, Some(names.collect())))
        }
        Err(Refusal { is_unknown, why }) => {
            complain(&why);
            let code = if is_unknown {
                exit::USAGE
            } else {
                exit::REFUSED
            };
            Ok((code.into(), None))
        }
    }
}

/// What a change did, in words.
pub(super) fn told(changed: &Changed) -> String {
    let Changed {
        node,
        before,
        state,
        sessions,
        held,
    } = changed;
    if before == state {
        return format!("{node} is already in {state} ({sessions} sessions, {held} requests held)");
    }
    let then = match (state.as_str(), sessions) {
        ("ready", _) => "it takes new sessions when it is up".to_owned(),
        (_, 0) => "it has no sessions".to_owned(),
        ("drain", 1) => "its 1 session stays".to_owned(),
        ("drain", _) => format!("its {sessions} sessions stay"),
        ("maint", 1) => "its 1 session moves to another node".to_owned(),
        ("maint", _) => format!("its {sessions} sessions move to other nodes"),
        (_, _) => format!("it has {sessions} sessions"),
    };
    format!("{node}: {before} -> {state}; {then}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let told = |before: &str, state: &str, sessions| {
            told(&Changed {
                node: "t1".into(),
                before: before.into(),
                state: state.into(),
                sessions,
                held: 0,
            })
        };
        let expected = "t1: ready -> drain; its 7 sessions stay";
        assert_eq!(told("ready", "drain", 7), expected);
        assert_eq!(
            told("drain", "maint", 1),
            "t1: drain -> maint; its 1 session moves to another node"
        );
        assert_eq!(
            told("ready", "maint", 0),
            "t1: ready -> maint; it has no sessions"
        );
        assert_eq!(
            told("maint", "ready", 0),
            "t1: maint -> ready; it takes new sessions when it is up"
        );
        let expected = "t1 is already in ready (0 sessions, 0 requests held)";
        assert_eq!(told("ready", "ready", 0), expected);
    }
}
