//! What one process hears of another one's sessions.

use super::*;
use crate::sessions::Change;

fn keeping() -> Table {
    let Table {
        sessions,
        cluster,
        metrics,
    } = table(10);
    Table {
        sessions: sessions.keeping_answers(1 << 20),
        cluster,
        metrics,
    }
}

#[test]
fn a_follower_hears_of_changes_until_it_leaves() {
    let table = keeping();
    table.insert("before");
    let mut changes = table.sessions.follow(8);
    let session = table.insert("a");
    table.sessions.sent(&session, 7);
    table.sessions.keep_passed("a", (7, 9), b"<body/>");
    assert!(matches!(changes.try_recv(), Ok(Change::Made(made)) if made.sid() == "a"));
    assert!(matches!(changes.try_recv(), Ok(Change::Sent(_, 7))));
    assert!(matches!(changes.try_recv(), Ok(Change::Kept(_, (7, 9), body)) if body == "<body/>"));
    table.sessions.unfollow();
    table.insert("after");
    assert!(changes.try_recv().is_err());
}

#[test]
fn answers_of_two_processes_are_found_by_one_key_and_an_older_one_displaces_none() {
    let (old, new) = (keeping(), keeping());
    assert!(!new.sessions.take_answers_key(b"short"));
    let key = old.sessions.answers_key().expect("answers are kept");
    assert!(new.sessions.take_answers_key(key));
    assert_eq!(old.sessions.hash(b"a"), new.sessions.hash(b"a"));
    let session = new.insert("a");
    for (rid, body) in [(5, "five"), (6, "six"), (4, "four")] {
        new.sessions.keep_passed("a", (rid, rid), body.as_bytes());
    }
    new.sessions.keep_passed("unknown", (1, 1), b"one");
    let mut kept = new.sessions.kept_answers(&session);
    kept.sort();
    let wanted = [(5, 5, "five".into()), (6, 6, "six".into())];
    assert_eq!(kept, wanted);
}

#[test]
fn a_rid_that_another_process_has_sent_is_waited_for_no_longer() {
    let table = table(10);
    let session = table.insert("a");
    let place = session.begin(3, None).unwrap().place;
    let Turn::Missing(mut lower) = session.turn(&place, true) else {
        panic!("2 has not come");
    };
    assert_eq!(lower.try_recv(), Err(TryRecvError::Empty));
    session.sent_elsewhere(2);
    assert_eq!(lower.try_recv(), Err(TryRecvError::Closed));
    assert!(matches!(session.turn(&place, true), Turn::Now));
    session.went_away_elsewhere((4, at(1), at(9)));
    assert_eq!(session.away(), [(4, at(1), at(9))]);
    let place = session.begin(5, None).unwrap().place;
    session.sent_elsewhere(4);
    assert!(matches!(session.turn(&place, true), Turn::Behind(_)));
}
