//! Runs `requests.txt` and `bodies.txt`.

use std::collections::HashSet;

use crate::client::{Answer, Heard, Wire};
use crate::corpus::{Case, Expect, Outcome, Words, cases};
use crate::invariants::{Expected, none_of};
use crate::world::{Session, World, is_for, is_reject};

pub(crate) const REQUESTS: &str = include_str!("requests.txt");
pub(crate) const BODIES: &str = include_str!("bodies.txt");

/// Every section of the two files is a test, named after the threat.
macro_rules! sections {
    ($($test:ident: $file:ident, $title:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                run($file(&section($title))).await;
            }
        )*

        const SECTIONS: &[&str] = &[$($title,)*];
    };
}

sections! {
    ordinary_requests_pass: requests, "What has to work, or a refusal would prove nothing";
    smuggling_by_two_lengths: requests, "Two lengths (CL.TE, TE.CL, CL.CL)";
    smuggling_behind_an_empty_line: requests, "The same behind an empty line";
    smuggling_in_a_request_sent_ahead: requests, "The same in a request that was sent ahead";
    smuggling_by_lengths_that_are_none: requests, "Lengths that are none";
    smuggling_by_transfer_codings: requests, "Transfer codings";
    smuggling_by_chunks_and_trailers: requests, "Chunks";
    smuggling_by_hosts: requests, "Hosts";
    smuggling_by_request_lines: requests, "Request lines";
    smuggling_by_line_ends_and_folds: requests, "Lines and fields";
    xml_in_the_head: requests, "XML in the head";
    header_bombs: requests, "Heads that are large or do not end";
    slow_and_large_bodies: requests, "Sizes and times of bodies";
    spoofed_fields: requests, "Fields that nobody behind may see or believe";
    ordinary_bodies_pass: bodies, "Ordinary bodies";
    different_sids_by_a_second_root: bodies, "More than one root, or bytes around it";
    different_sids_by_declarations_and_comments: bodies, "Declarations, document types, instructions, comments";
    different_sids_by_sections: bodies, "Sections: Tigase ends them at the first '>'";
    different_sids_by_nested_wrappers: bodies, "Wrappers in wrappers";
    different_sids_by_attributes_given_twice: bodies, "The same attribute twice";
    different_sids_by_attributes_that_are_none: bodies, "Attributes that are none";
    different_sids_by_references_and_characters: bodies, "Sids that are none, or that readers see differently";
    different_rids: bodies, "Rids and other numbers";
    content_with_line_ends: bodies, "`content`, which Tigase copies into a head";
    different_sids_by_namespaces: bodies, "Names and namespaces";
    different_sids_by_broken_xml_and_encodings: bodies, "What is not well-formed";
    bombs_in_bodies: bodies, "Bombs";
}

/// The lines below `# -- title`, up to the next such line.
fn section(title: &str) -> String {
    let lines = REQUESTS.lines().chain(BODIES.lines());
    let head = format!("# -- {title}");
    let below = lines.skip_while(|line| *line != head).skip(1);
    let lines: Vec<_> = below
        .take_while(|line| !line.starts_with("# -- "))
        .collect();
    assert!(!lines.is_empty(), "no section {title}");
    lines.join("\n")
}

fn requests(section: &str) -> Vec<Case> {
    cases(section)
}

fn bodies(section: &str) -> Vec<Case> {
    let mut cases = cases(section);
    for case in &mut cases {
        let body = &case.script;
        case.script = format!("{{post}}Content-Length: {{len:{body}}}\\r\\n\\r\\n{body}");
    }
    cases
}

#[test]
fn every_case_is_in_a_section_that_is_run() {
    for (file, least) in [(REQUESTS, 200), (BODIES, 150)] {
        let all = cases(file);
        assert!(all.len() >= least, "{} cases", all.len());
        let names: HashSet<_> = all.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), all.len(), "names are unique");
        let titles = file.lines().filter_map(|line| line.strip_prefix("# -- "));
        let titles: Vec<_> = titles.collect();
        assert!(
            titles.iter().all(|title| SECTIONS.contains(title)),
            "{titles:?}"
        );
        let sections = titles.iter().map(|title| cases(&section(title)).len());
        assert_eq!(sections.sum::<usize>(), all.len());
    }
}

/// Runs the cases, or those whose names contain `HOSTILE_CASE`, one after the other before one
/// balancer; the faults of all of them come at the end.
async fn run(mut cases: Vec<Case>) {
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
    none_of(cases.len(), &faults);
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
