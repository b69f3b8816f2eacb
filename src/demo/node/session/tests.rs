//! Sessions without sockets, on a clock that only the tests move.

use super::*;
use crate::demo::node::profile::Profile;

fn session(profile: &Profile, now: Instant) -> Session {
    let terms = Terms {
        wait: 10,
        hold: 1,
        content: None,
    };
    let mut session = Session::new("sid".into(), terms, "d".into(), profile.rules, now);
    session.created(Some(100), 1, false, &mut Vec::new());
    session
}

fn poll(line: Line, rid: u64) -> Request {
    let manner = Manner::default();
    let (terminate, restart) = (false, false);
    Request {
        line,
        read: 1,
        rid: Some(rid),
        stanzas: Vec::new(),
        terminate,
        restart,
        manner,
    }
}

/// The connections that were answered, and what their answers acknowledge.
fn answers(acts: &[Act]) -> Vec<(Line, Option<u64>)> {
    let answers = acts.iter().filter_map(|act| match act {
        Act::Answer { line, reply, .. } => Some((*line, reply.ack)),
        _ => None,
    });
    answers.collect()
}

fn closed(acts: &[Act]) -> Vec<Line> {
    let closed = acts.iter().filter_map(|act| match act {
        Act::Close { line, .. } => Some(*line),
        _ => None,
    });
    closed.collect()
}

#[test]
fn a_poll_is_held_for_its_wait_and_then_patience_begins() {
    let (now, mut acts) = (Instant::now(), Vec::new());
    let mut session = session(&Profile::tigase("t1"), now);
    session.take(poll(1, 101), now, &mut acts);
    let end = now + Duration::from_secs(10);
    assert_eq!(session.due(), end);
    session.tick(end, &mut acts);
    assert_eq!(answers(&acts), [(1, Some(101))]);
    assert_eq!(session.due(), end + Duration::from_secs(10));
    session.tick(session.due(), &mut acts);
    assert!(matches!(acts.last(), Some(Act::Gone)));
    assert_eq!(closed(&acts), [1]);
}

#[test]
fn five_milliseconds_apart_is_far_enough() {
    for (apart, fate) in [(3_999, Fate::TooClose), (4_000, Fate::Served)] {
        let (now, mut acts) = (Instant::now(), Vec::new());
        let mut session = session(&Profile::tigase("t1"), now);
        session.take(poll(1, 101), now, &mut acts);
        let later = now + Duration::from_micros(apart);
        assert_eq!(session.take(poll(2, 102), later, &mut acts), fate);
        assert_eq!(session.held().count(), 1);
    }
}

#[test]
fn an_answered_request_does_not_collide() {
    let (now, mut acts) = (Instant::now(), Vec::new());
    let mut session = session(&Profile::tigase("t1"), now);
    session.take(poll(1, 101), now, &mut acts);
    session.deliver("<message/>".to_owned(), now, &mut acts);
    let next = Request {
        read: 2,
        ..poll(1, 102)
    };
    assert_eq!(session.take(next, now, &mut acts), Fate::Served);
}

#[test]
fn batching_with_nobody_left_to_answer_does_not_spin() {
    let (now, mut acts) = (Instant::now(), Vec::new());
    let mut session = session(
        &Profile::tigase("t1").batching(Duration::from_millis(100)),
        now,
    );
    session.take(poll(2, 101), now, &mut acts);
    session.deliver("<message/>".to_owned(), now, &mut acts);
    session.line_gone(2, now);
    let later = now + Duration::from_millis(100);
    assert_eq!(session.due(), later);
    session.tick(later, &mut acts);
    assert!(session.due() > later);
    assert!(answers(&acts).is_empty());
}

#[test]
fn a_wrong_rid_ends_only_a_session_of_ejabberd() {
    let shared = Profile::shared("e1", &crate::demo::node::Hub::default());
    for (profile, ends) in [(Profile::prosody("p1"), false), (shared, true)] {
        let (now, mut acts) = (Instant::now(), Vec::new());
        let mut session = session(&profile, now);
        assert_eq!(session.take(poll(1, 107), now, &mut acts), Fate::Refused);
        assert_eq!(session.is_over(), ends);
    }
}

#[test]
fn a_repetition_of_a_held_request_takes_its_place() {
    let (now, mut acts) = (Instant::now(), Vec::new());
    let mut session = session(&Profile::prosody("p1"), now);
    session.take(poll(1, 101), now, &mut acts);
    assert_eq!(session.take(poll(2, 101), now, &mut acts), Fate::Repeated);
    assert_eq!(answers(&acts), [(1, None)]);
    assert_eq!(session.held().collect::<Vec<_>>(), [2]);
}

#[test]
fn prosody_holds_its_latest_request_again_when_the_first_one_lost_its_connection() {
    let (now, mut acts) = (Instant::now(), Vec::new());
    let mut session = session(&Profile::prosody("p1"), now);
    session.take(poll(1, 101), now, &mut acts);
    session.line_gone(1, now);
    assert_eq!(session.take(poll(2, 101), now, &mut acts), Fate::Repeated);
    assert_eq!(session.held().collect::<Vec<_>>(), [2]);
    session.take(poll(3, 102), now, &mut acts);
    assert_eq!(answers(&acts), [(2, None)], "it is answered in its turn");
    session.line_gone(3, now);
    assert_eq!(session.take(poll(4, 100), now, &mut acts), Fate::Refused);
}
