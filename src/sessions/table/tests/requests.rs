//! The requests of a session that are under way.

use super::*;
use crate::sessions::SPACING;

#[test]
fn requests_of_one_session_are_bounded() {
    let table = table(10);
    let session = table.insert("a");
    let begun = (0..100)
        .take_while(|_| session.begin(2, None).is_ok())
        .count();
    assert!((3..=20).contains(&begun), "{begun}");
    assert_eq!(session.begin(2, None).err(), Some(Refusal::TooMany));
}

#[test]
fn a_node_reacts_to_stanzas_by_whichever_answer_comes_first() {
    let table = table(10);
    let session = table.insert("a");
    let second = Duration::from_secs(1);
    let send = |rid, asks, now| {
        let place = session.begin(rid, None).unwrap().place;
        session.sent(&place, asks, now);
    };
    send(2, true, at(1));
    assert_eq!(session.reacted(|| at(2)), None, "alone it may be held");
    send(3, false, at(3));
    assert_eq!(session.reacted(|| at(4)), None, "a poll asks for nothing");
    send(4, true, at(5));
    send(5, true, at(6));
    assert_eq!(session.reacted(|| at(7)), Some(2 * second));
    assert_eq!(session.reacted(|| at(8)), None);
    // Only half of the time is kept, and it goes round in between.
    let around = Duration::from_micros(1 << 32);
    let [before, after] = [around - second, around + second].map(Time::after);
    send(6, true, before);
    assert_eq!(session.reacted(|| after), Some(2 * second));
}

#[test]
fn only_an_unanswered_request_keeps_the_next_one_at_a_distance() {
    let table = table(10);
    let session = table.insert("a");
    let now = at(1);
    let later = now + SPACING;
    let send = |rid, expected: Time| {
        let place = session.begin(rid, None).unwrap().place;
        assert!(matches!(session.turn(&place, true), Turn::Now), "rid {rid}");
        let at = match session.go(&place, now) {
            Turn::At(at) => {
                assert!(matches!(session.go(&place, at), Turn::Now), "rid {rid}");
                at
            }
            _ => now,
        };
        assert_eq!(at, expected, "rid {rid}");
        session.sent(&place, true, expected);
        place
    };
    let answer = |place: Place| {
        place.answered();
        table.sessions.prove(&session, session.node(), false);
        table.sessions.end(&session, &place, now);
    };
    answer(send(2, now));
    let first = send(3, now);
    // A second one while the first is at its node.
    let second = send(4, later);
    answer(first);
    let third = send(5, later + SPACING);
    answer(second);
    answer(third);
    send(6, now);
}
