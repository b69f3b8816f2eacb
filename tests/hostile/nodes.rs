//! Nodes that misbehave: runs `nodes.txt`.

use std::collections::HashSet;
use std::time::Duration;

use bowline::demo::node::{self, Ending};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::client::{Answer, Wire};
use crate::corpus::{Words, closing, creation, poll};
use crate::invariants::{Expected, none_of};
use crate::node::Asked;
use crate::world::{Session, World, is_for, settings};

const NODES: &str = include_str!("nodes.txt");

/// How much an endless node writes before it gives up, so that a balancer without bounds fails
/// instead of filling the memory.
const ENDLESS: usize = 64 * 1024 * 1024;

/// By when an answer must have come where the balancer gives the node time: it waits for 11 s for the
/// first byte of one, for 30 s for its last, and once more.
const SLOW: Duration = Duration::from_secs(45);

/// How a node misbehaves, and in answer to what.
#[derive(Debug, Clone)]
pub(crate) struct Misbehaviour {
    /// A creation, or a request of this session.
    sid: Option<String>,
    left: u32,
    steps: Vec<Step>,
    words: Words,
}

/// A part of what a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Text(String),
    /// Before any byte of a request, or after a part of it.
    Early,
    Half,
    Pause,
    Close,
    Reset,
    Stall,
    Endless(String),
    Trickle(String),
}

impl Misbehaviour {
    fn new(case: &Case, sid: Option<String>, words: Words) -> Self {
        Self {
            sid,
            left: if case.is("always") { u32::MAX } else { 1 },
            steps: steps(&case.script),
            words,
        }
    }

    /// What `script` says, each time that a creation or a request of the session `sid` comes.
    pub(crate) fn always(sid: Option<String>, script: &str, words: Words) -> Self {
        Self {
            sid,
            left: u32::MAX,
            steps: steps(script),
            words,
        }
    }

    pub(crate) fn is_early(&self) -> bool {
        self.steps.contains(&Step::Early)
    }

    pub(crate) fn is_half(&self) -> bool {
        self.steps.contains(&Step::Half)
    }

    /// Whether it is what the node does with this request, now that it is whole.
    pub(crate) fn fits(&self, asked: &Asked) -> bool {
        asked.sid == self.sid && !self.is_early() && !self.is_half()
    }

    /// The misbehaviour, if the node has not done it often enough.
    pub(crate) fn take(&mut self) -> Option<Self> {
        self.left = self.left.checked_sub(1)?;
        Some(self.clone())
    }

    /// How often the node is to do it from now on.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// What the node does; `own` is the right answer's body, `mark` tells it from others.
    pub(crate) fn steps(&self, mark: &str, own: &str) -> Vec<node::Step> {
        let bytes = |text: &str| {
            let text = text.replace("{own}", own).replace("{mark}", mark);
            Bytes::from(self.words.bytes(&text))
        };
        let step = |step: &Step| match step {
            Step::Early | Step::Half => None,
            Step::Text(text) => Some(node::Step::Bytes(bytes(text))),
            Step::Pause => Some(node::Step::Pause(Duration::from_millis(30))),
            Step::Close => Some(node::Step::End(Ending::Eof)),
            Step::Reset => Some(node::Step::End(Ending::Reset)),
            Step::Stall => Some(node::Step::Stall),
            Step::Endless(text) => {
                let piece = bytes(text).repeat(1 + 16 * 1024 / text.len());
                Some(node::Step::Repeat {
                    times: ENDLESS / piece.len(),
                    bytes: piece.into(),
                    pause: Duration::ZERO,
                })
            }
            Step::Trickle(text) => Some(node::Step::Repeat {
                bytes: bytes(text),
                times: usize::MAX,
                pause: Duration::from_millis(50),
            }),
        };
        self.steps.iter().filter_map(step).collect()
    }
}

fn steps(script: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut text = String::new();
    let mut rest = script;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        let from = &rest[at..];
        let end = closing(from);
        let (word, argument) = match from[1..end].split_once(':') {
            Some((word, argument)) => (word, argument),
            None => (&from[1..end], ""),
        };
        let step = match word {
            "early" => Some(Step::Early),
            "half" => Some(Step::Half),
            "pause" => Some(Step::Pause),
            "close" => Some(Step::Close),
            "reset" => Some(Step::Reset),
            "stall" => Some(Step::Stall),
            "endless" => Some(Step::Endless(argument.to_owned())),
            "trickle" => Some(Step::Trickle(argument.to_owned())),
            _ => None,
        };
        match step {
            Some(step) => {
                steps.push(Step::Text(std::mem::take(&mut text)));
                steps.push(step);
            }
            None => text.push_str(&from[..=end]),
        }
        rest = &from[end + 1..];
    }
    text.push_str(rest);
    steps.push(Step::Text(text));
    steps.retain(|step| !matches!(step, Step::Text(text) if text.is_empty()));
    steps
}

/// One line of `nodes.txt`.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    at: Vec<String>,
    outcomes: Vec<String>,
    script: String,
}

impl Case {
    fn is(&self, word: &str) -> bool {
        self.at.iter().any(|at| at == word)
    }
}

fn cases() -> Vec<Case> {
    let lines = NODES.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases = lines.map(|line| {
        let columns: Vec<&str> = line.splitn(4, " | ").map(str::trim).collect();
        let [name, at, outcomes, script] = columns[..] else {
            panic!("four columns: {line}");
        };
        Case {
            name: name.to_owned(),
            at: at.split(' ').map(str::to_owned).collect(),
            outcomes: outcomes.split(" or ").map(str::to_owned).collect(),
            script: script.to_owned(),
        }
    });
    cases.collect()
}

#[tokio::test]
async fn hostile_nodes_hurt_their_own_sessions_at_most() {
    let mut cases = cases();
    assert!(cases.len() >= 70, "{} misbehaviours", cases.len());
    let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");
    if let Ok(only) = std::env::var("HOSTILE_CASE") {
        cases.retain(|case| case.name.contains(&only));
    }
    let mut faults = Vec::new();
    // Those that the balancer gives time run beside each other and the rest.
    let mut slow = JoinSet::new();
    for case in cases.iter().filter(|case| case.is("slow")).cloned() {
        slow.spawn(async move {
            let mut world = world().await;
            let done = run_one(&case, &mut world).await;
            done.and_then(|()| stays_apart(&world))
                .map_err(|fault| format!("{}\n    {fault}", case.name))
        });
    }
    let mut world = world().await;
    for case in cases.iter().filter(|case| !case.is("slow")) {
        if let Err(fault) = run_one(case, &mut world).await {
            faults.push(format!("{}\n    {fault}", case.name));
        }
    }
    faults.extend(stays_apart(&world).err());
    while let Some(done) = slow.join_next().await {
        faults.extend(done.unwrap().err());
    }
    none_of(cases.len(), &faults);
}

/// Two nodes; all clients, being at one address, begin at the same of them.
async fn world() -> World {
    let nodes = vec![
        crate::node::Node::start().await,
        crate::node::Node::start().await,
    ];
    let mut settings = settings(&nodes);
    settings.bosh.max_answer = 1024 * 1024;
    World::with(nodes, &settings).await
}

/// No connection to a node carried requests of two sessions.
fn stays_apart(world: &World) -> Result<(), String> {
    for recording in world.nodes.iter().flat_map(|node| node.everything()) {
        if recording.sids.len() > 1 {
            return Err(format!("sessions share a connection: {recording:?}"));
        }
    }
    Ok(())
}

async fn run_one(case: &Case, world: &mut World) -> Result<(), String> {
    let home = world.home();
    let mut wire = Wire::to(world.address()).await;
    if case.is("slow") {
        wire.patience = SLOW;
    }
    let rid = fastrand::u64(1_000..1_000_000_000);
    let mut words = Words {
        sid: String::new(),
        rid,
        victim: world.canary.sid.clone(),
    };
    let outcome = if case.is("creation") {
        world.nodes[home].misbehave(Some(Misbehaviour::new(case, None, words)));
        let answer = wire.post(&creation(rid)).await;
        world.nodes[home].misbehave(None);
        let answer = answer?;
        stolen(&answer, world)?;
        creation_outcome(&answer, rid, &mut wire).await?
    } else {
        world.nodes[home].close_after_creations(case.is("fresh"));
        let created = crate::world::create(&mut wire).await;
        world.nodes[home].close_after_creations(false);
        let mut session = created?;
        words.sid.clone_from(&session.sid);
        words.rid = session.rid;
        let armed = Misbehaviour::new(case, Some(session.sid.clone()), words);
        world.nodes[home].misbehave(Some(armed));
        let answer = wire.post(&poll(&session.sid, session.rid)).await;
        world.nodes[home].misbehave(None);
        let answer = answer?;
        stolen(&answer, world)?;
        session.rid += 1;
        if case.is("later") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        poll_outcome(&answer, &mut session, &mut wire).await?
    };
    if !case.outcomes.iter().any(|fits| fits == outcome) {
        return Err(format!("{outcome} in place of {:?}", case.outcomes));
    }
    let canary = world.canary(None, &mut Expected::default()).await;
    canary.map_err(|fault| format!("canary: {fault}"))?;
    if !world.balancer.proxy().cluster.nodes()[home].is_up() {
        return Err("one client has had the node called down".to_owned());
    }
    Ok(())
}

/// Nothing of another session, nor an error that a client does not understand.
fn stolen(answer: &Answer, world: &World) -> Result<(), String> {
    let busy = answer.status == 503
        && answer.field("retry-after").is_some()
        && answer.attribute("condition") == Some("system-shutdown");
    let well = (answer.status == 200 || busy)
        && answer.body.starts_with("<body ")
        && answer.field("access-control-allow-origin") == Some("*")
        && !answer.body.contains(&world.canary.sid);
    const FIELDS: &[&str] = &[
        "content-type",
        "content-length",
        "access-control-allow-origin",
        "date",
        "retry-after",
    ];
    let known = answer.names().iter().all(|name| FIELDS.contains(&&**name));
    if well && known {
        Ok(())
    } else {
        Err(format!("the client sees {answer:?}"))
    }
}

async fn creation_outcome(
    answer: &Answer,
    rid: u64,
    wire: &mut Wire,
) -> Result<&'static str, String> {
    if answer.attribute("condition") == Some("internal-server-error") {
        return Ok("failed");
    }
    is_for(answer, None, rid)?;
    let sid = answer.attribute("sid").ok_or("a creation without a sid")?;
    let mut session = Session {
        sid: sid.to_owned(),
        rid: rid + 1,
    };
    session.poll(wire).await?;
    Ok("created")
}

/// What became of the session; whatever it was, its client goes on.
async fn poll_outcome(
    answer: &Answer,
    session: &mut Session,
    wire: &mut Wire,
) -> Result<&'static str, String> {
    if is_for(answer, Some(&session.sid), session.rid - 1).is_ok() {
        session.poll(wire).await?;
        return Ok("answer");
    }
    if answer.attribute("for") == Some("early") {
        session.poll(wire).await?;
        return Ok("early");
    }
    let nothing = "<body xmlns='http://jabber.org/protocol/httpbind'/>";
    if answer.status == 503 || answer.body == nothing {
        session.poll(wire).await?;
        return Ok(if answer.status == 503 {
            "busy"
        } else {
            "alone"
        });
    }
    let outcome = match (answer.attribute("type"), answer.attribute("condition")) {
        (Some("terminate"), Some("item-not-found")) => "gone",
        (Some("terminate"), _) => "terminate",
        _ => return Err(format!("the client sees {answer:?}")),
    };
    crate::world::create(wire).await?.poll(wire).await?;
    Ok(outcome)
}
