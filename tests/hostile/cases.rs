//! Runs `requests.txt` and `bodies.txt`.

use std::collections::HashSet;

use crate::client::{Answer, Heard, Wire};
use crate::corpus::{Case, Expect, Outcome, Words, cases};
use crate::judge::Expected;
use crate::world::{Session, World, is_for, is_reject};

const REQUESTS: &str = include_str!("requests.txt");
const BODIES: &str = include_str!("bodies.txt");

#[tokio::test]
async fn requests_smuggle_nothing() {
    let cases = cases(REQUESTS);
    assert!(cases.len() >= 200, "{} requests", cases.len());
    run(cases).await;
}

#[tokio::test]
async fn bodies_are_seen_alike_or_refused() {
    let mut cases = cases(BODIES);
    assert!(cases.len() >= 150, "{} bodies", cases.len());
    for case in &mut cases {
        let body = &case.script;
        case.script = format!("{{post}}Content-Length: {{len:{body}}}\\r\\n\\r\\n{body}");
    }
    run(cases).await;
}

/// Runs the cases, or those whose names contain `HOSTILE_CASE`, one after the other before one
/// balancer; the faults of all of them come at the end.
async fn run(mut cases: Vec<Case>) {
    let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");
    if let Ok(only) = std::env::var("HOSTILE_CASE") {
        cases.retain(|case| case.name.contains(&only));
    }
    let mut world = World::new(1).await;
    world.nodes[0].news();
    let mut faults = Vec::new();
    for case in &cases {
        if let Err(fault) = run_one(case, &mut world).await {
            faults.push(format!("{}\n    {}\n    {fault}", case.name, case.script));
            world.nodes[0].news();
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} cases:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
}

async fn run_one(case: &Case, world: &mut World) -> Result<(), String> {
    let (session, _) = world.session().await?;
    let mut expected = Expected::default();
    expected.add(None, session.rid - 1);
    let words = Words {
        sid: session.sid.clone(),
        rid: session.rid,
        victim: world.canary.sid.clone(),
    };
    let mut wire = Wire::to(world.address()).await;
    wire.play(&words.fill(&case.script)).await;
    let outcome = hear(case, &mut wire, session, &mut expected).await?;
    if !outcome.closes {
        world
            .canary(Some(&mut wire), &mut expected)
            .await
            .map_err(|fault| format!("canary on the same connection: {fault}"))?;
    }
    let canary = world.canary(None, &mut expected).await;
    canary.map_err(|fault| format!("canary on another connection: {fault}"))?;
    world.judge(expected)
}

/// Hears what comes back until one of the outcomes is complete.
async fn hear<'a>(
    case: &'a Case,
    wire: &mut Wire,
    mut session: Session,
    expected: &mut Expected,
) -> Result<&'a Outcome, String> {
    let mut left: Vec<&Outcome> = case.outcomes.iter().collect();
    let mut heard = 0;
    loop {
        let complete = left
            .iter()
            .position(|outcome| outcome.answers.len() == heard);
        if let Some(at) = complete {
            let outcome = left.swap_remove(at);
            return if outcome.closes {
                ends(wire).await.map(|()| outcome)
            } else {
                Ok(outcome)
            };
        }
        let bodiless = left
            .iter()
            .any(|outcome| outcome.answers.get(heard) == Some(&Expect::Head));
        let answer = match wire.hear(bodiless).await? {
            Heard::Answer(answer) => answer,
            Heard::End => return Err(format!("closed after {heard} answers")),
        };
        let mut faults = Vec::new();
        left.retain(|outcome| {
            let last = outcome.answers.len() == heard + 1;
            let fits = fits(&answer, outcome.answers[heard], &session);
            let fits = fits.and_then(|()| says_whether_it_closes(&answer, last, outcome.closes));
            fits.map_err(|fault| faults.push(fault)).is_ok()
        });
        let Some(one) = left.first() else {
            return Err(faults.join("; "));
        };
        match one.answers[heard] {
            Expect::Pass => {
                expected.add(Some(&session.sid), session.rid);
                session.rid += 1;
            }
            Expect::Created => expected.add(None, session.rid),
            _ => {}
        }
        heard += 1;
    }
}

/// Nothing more comes but the end.
async fn ends(wire: &mut Wire) -> Result<(), String> {
    match wire.hear(false).await? {
        Heard::End => Ok(()),
        Heard::Answer(answer) => Err(format!("one answer too many: {answer:?}")),
    }
}

fn fits(answer: &Answer, expect: Expect, session: &Session) -> Result<(), String> {
    let good = match expect {
        Expect::Pass => return is_for(answer, Some(&session.sid), session.rid),
        Expect::Created => return is_for(answer, None, session.rid),
        Expect::Reject(status) => return is_reject(answer, status),
        Expect::About => answer.status == 200 && answer.body.contains("BOSH service"),
        Expect::Head => answer.status == 200 && answer.body.is_empty(),
        Expect::Preflight => {
            answer.status == 200 && answer.field("access-control-allow-methods").is_some()
        }
    };
    if good {
        Ok(())
    } else {
        Err(format!("not {expect:?}: {answer:?}"))
    }
}

/// An answer says that the connection closes if it does.
fn says_whether_it_closes(answer: &Answer, last: bool, closes: bool) -> Result<(), String> {
    if answer.closes() == (last && closes) {
        Ok(())
    } else {
        Err(format!(
            "closes: {}, in the wrong place: {answer:?}",
            answer.closes()
        ))
    }
}
