//! Pins that become sessions, and sessions that give their pins back.

use std::time::SystemTime;

use tokio::time::Instant;

use super::*;
use crate::sessions::{Clock, Pause, Pin, PinState};

const T1: NodeId = NodeId(0);
const T2: NodeId = NodeId(1);
const TERMS: Terms = Terms {
    wait: 60,
    inactivity: 30,
    maxpause: 120,
    hold: 1,
    legacy: true,
};
/// In microseconds of a second, since expiry is rounded.
const EPOCH: Duration = Duration::from_micros(1_800_000_000_000_001);

fn at(seconds: u64) -> Time {
    Time::after(EPOCH + Duration::from_secs(seconds))
}

/// The seconds of an expiry at `at(seconds)`.
fn second(seconds: u32) -> u32 {
    1_800_000_001 + seconds
}

fn made() -> Session {
    let pin = Pin::made("a-secret-sid", T1, TERMS, (100, None), at(0));
    Session::from_pin(pin, Some(Epoch::of_number(2)))
}

fn request(session: &Session, rid: u64, pause: Option<u32>, now: Time) {
    let place = session.begin(rid, pause).unwrap().place;
    session.sent(&place, false, now);
    session.end(&place, now);
}

/// The pin of `session`, which is that of the session made from it too.
fn round_trip(session: &Session, now: Time) -> Pin {
    let pin = session.pin(now).unwrap();
    let copy = Session::from_pin(pin.clone(), None);
    assert_eq!(copy.pin(now).as_ref(), Some(&pin));
    pin
}

#[test]
fn the_pin_of_a_new_session_has_what_its_creation_said() {
    let pin = round_trip(&made(), at(1));
    let expected = Pin {
        sid: "a-secret-sid".into(),
        node: T1,
        owner: Some(T1),
        terms: TERMS,
        group: None,
        state: PinState::Live,
        fresh: true,
        last_rid: Some(100),
        pause: None,
        expires: second(30 + 5),
    };
    assert_eq!(pin, expected);
}

/// It is a credential.
#[test]
fn no_debug_output_of_a_pin_has_its_sid() {
    let debug = format!("{:?}", made().pin(at(0)));
    assert!(!debug.contains("secret"), "{debug}");
    assert!(debug.contains("last_rid: Some(100)"), "{debug}");
}

#[test]
fn a_pin_has_the_last_rid_and_the_pause_of_its_session() {
    let session = made();
    request(&session, 101, None, at(1));
    request(&session, 102, Some(100), at(2));
    let pin = round_trip(&session, at(3));
    assert_eq!((pin.last_rid, pin.fresh), (Some(102), false));
    let pause = Pause {
        seconds: 100,
        rid: 102,
    };
    assert_eq!(pin.pause, Some(pause));
    assert_eq!(pin.expires, second(2 + 100 + 5));

    let session = Session::from_pin(pin, None);
    request(&session, 101, None, at(4));
    let pin = round_trip(&session, at(4));
    assert_eq!(pin.pause, Some(pause), "an older request does not end it");
    assert_eq!(pin.expires, second(4 + 100 + 5));
    request(&session, 103, None, at(5));
    let pin = round_trip(&session, at(5));
    assert_eq!(pin.pause, None, "a later one does");
    assert_eq!(pin.expires, second(5 + 30 + 5));
}

#[test]
fn a_session_from_a_pin_goes_on_in_rid_order() {
    let session = Session::from_pin(made().pin(at(0)).unwrap(), None);
    let later = session.begin(102, None).unwrap().place;
    assert!(matches!(session.turn(&later, true), Turn::Missing(_)));
    let next = session.begin(101, None).unwrap().place;
    assert!(matches!(session.turn(&later, true), Turn::Behind(_)));
    assert!(matches!(session.turn(&next, true), Turn::Now));
    session.sent(&next, false, at(1));
    assert!(matches!(session.turn(&later, true), Turn::Now));

    let mut stale = made().pin(at(0)).unwrap();
    stale.last_rid = None;
    let session = Session::from_pin(stale, None);
    let ahead = session.begin(104, None).unwrap().place;
    assert!(
        matches!(session.turn(&ahead, true), Turn::Now),
        "nothing is known of 101 to 103"
    );
}

#[test]
fn a_pin_with_requests_under_way_outlasts_the_wait_and_the_absence_of_its_client() {
    let session = made();
    let _held = session.begin(101, None).unwrap().place;
    let pin = session.pin(at(1000)).unwrap();
    assert_eq!(pin.expires, second(1000 + 60 + 30 + 5));
    let _pause = session.begin(102, Some(u32::MAX)).unwrap().place;
    let pin = session.pin(at(1000)).unwrap();
    assert_eq!(pin.expires, second(1000 + 60 + 120 + 5));
    let copy = Session::from_pin(pin, None);
    assert_eq!(copy.under_way(), 0);
}

#[test]
fn the_pin_of_a_session_that_moved_names_both_nodes() {
    let session = made();
    session.move_to(T1, T2);
    let pin = round_trip(&session, at(1));
    assert_eq!((pin.node, pin.owner), (T2, Some(T1)));
    session.prove(T2, false);
    let pin = round_trip(&session, at(1));
    assert_eq!((pin.node, pin.owner), (T2, Some(T2)));
}

#[test]
fn a_session_is_made_in_an_epoch_of_this_process_only() {
    let session = made();
    assert_eq!(session.made_in(), Some(Epoch::of_number(2)));
    let copy = Session::from_pin(session.pin(at(0)).unwrap(), None);
    assert_eq!(copy.made_in(), None);
    let later = Epoch::of_number(4);
    assert!(!copy.lose(T1, later, at(1)), "its node may know it");
    assert!(session.lose(T1, later, at(1)));
}

#[test]
fn the_pin_of_an_ended_session_is_a_tombstone() {
    let session = made();
    assert_eq!(session.terminate(at(1)), Some(T1));
    let pin = round_trip(&session, at(1));
    assert_eq!((pin.state, pin.expires), (PinState::Ended, second(1 + 10)));
    let copy = Session::from_pin(pin, None);
    assert!(copy.is_leaving() && !copy.is_pinned());
    assert_eq!(copy.terminate(at(2)), None, "it ends once");
    assert!(copy.begin(101, None).unwrap().late);
    let pin = copy.pin(at(5)).unwrap();
    assert_eq!(pin.expires, second(1 + 10), "no request prolongs it");
}

#[test]
fn the_pin_of_a_lost_session_still_says_so() {
    let session = made();
    assert!(session.lose(T1, Epoch::of_number(4), at(1)));
    let pin = round_trip(&session, at(1));
    assert_eq!((pin.state, pin.expires), (PinState::Lost, second(126)));
    let copy = Session::from_pin(pin, None);
    assert!(copy.is_lost());
    assert_eq!(copy.begin(101, None).err(), Some(Refusal::Lost));
}

#[test]
fn a_provisional_session_has_no_pin_until_its_node_knows_it() {
    let session = Session::provisional("a", T2, at(0));
    assert_eq!(session.pin(at(0)), None);
    let place = session.begin(7, None).unwrap().place;
    session.sent(&place, false, at(0));
    assert_eq!(session.pin(at(0)), None);
    session.prove(T2, false);
    session.end(&place, at(1));
    let pin = round_trip(&session, at(1));
    assert_eq!((pin.node, pin.owner), (T2, Some(T2)));
    assert_eq!((pin.terms, pin.last_rid), (Terms::UNSEEN, Some(7)));
    assert_eq!(pin.expires, second(1 + 300 + 5));
}

#[test]
fn a_forgotten_session_has_no_pin() {
    let session = made();
    assert_eq!(session.forget(false, at(36)), Some(Stage::Pinned));
    assert_eq!(session.pin(at(36)), None);
}

/// The second process starts 20 s after the first one, and its clock has another anchor.
#[tokio::test(start_paused = true)]
async fn a_pin_expires_at_the_same_wall_time_in_another_process() {
    let wall = SystemTime::UNIX_EPOCH + EPOCH;
    let first = Clock::anchored(Instant::now(), wall);
    tokio::time::advance(Duration::from_secs(7)).await;
    let pin = Pin::made("a", T1, TERMS, (1, None), first.time_of(Instant::now()));

    let restart = Instant::now();
    let second = Clock::anchored(restart, wall + Duration::from_secs(7 + 20));
    let session = Session::from_pin(pin, None);
    let forget = |after| {
        let now = second.time_of(restart + Duration::from_secs(after));
        session.forget(false, now)
    };
    assert_eq!(forget(30 + 5 - 20), None, "inactivity and grace");
    assert_eq!(forget(30 + 5 - 20 + 1), Some(Stage::Pinned));
}

/// What is read from a file or from another process may be anything.
#[test]
fn no_value_of_a_pin_is_too_high() {
    let mut pin = made().pin(at(0)).unwrap();
    pin.last_rid = Some(u64::MAX);
    pin.expires = u32::MAX;
    pin.pause = Some(Pause {
        seconds: u16::MAX,
        rid: u64::MAX,
    });
    let session = Session::from_pin(pin, None);
    request(&session, 101, None, at(1));
    let pin = session.pin(at(1)).unwrap();
    assert_eq!(pin.expires, second(1 + 120 + 5));
}

/// One word more for each session is 8 MB for a million of them.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 144, "{}", size_of::<Session>());
}
