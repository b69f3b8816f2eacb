//! Order and distance, on a clock that the test turns.

use tokio::sync::oneshot::error::TryRecvError;

use super::*;

fn at(millis: u64) -> Time {
    Time::after(Duration::from_millis(millis))
}

/// When a request that is alone with the clock may be written, which it then is.
fn send(order: &mut RidOrder, place: &Place, now: Time) -> Time {
    assert!(matches!(order.ask(place, true), Turn::Now), "{place:?}");
    let then = match order.go(place, now) {
        Turn::Now => now,
        Turn::At(then) => {
            assert!(matches!(order.go(place, then), Turn::Now), "{place:?}");
            then
        }
        waits => panic!("{waits:?}"),
    };
    order.sent(place, then);
    then
}

fn behind(turn: Turn) -> oneshot::Receiver<()> {
    match turn {
        Turn::Behind(lower) => lower,
        other => panic!("{other:?}"),
    }
}

fn missing(turn: Turn) -> oneshot::Receiver<()> {
    match turn {
        Turn::Missing(lower) => lower,
        other => panic!("{other:?}"),
    }
}

fn waits(receiver: &mut oneshot::Receiver<()>) -> bool {
    receiver.try_recv() == Err(TryRecvError::Empty)
}

#[test]
fn the_next_rid_goes_at_once() {
    let mut order = RidOrder::after(Some(100));
    let next = order.begin(101, 0);
    assert_eq!(send(&mut order, &next, at(10)), at(10));
}

#[test]
fn two_unanswered_requests_are_never_close_together() {
    let mut order = RidOrder::after(Some(100));
    let [first, second, again] = [101, 102, 102].map(|rid| order.begin(rid, 0));
    assert_eq!(send(&mut order, &first, at(2)), at(2));
    assert_eq!(send(&mut order, &second, at(3)), at(2) + SPACING);
    let third = send(&mut order, &again, at(3));
    assert_eq!(third, at(2) + 2 * SPACING, "a repeat keeps its distance");
    for place in [&first, &second] {
        order.answered();
        order.end(place, true, at(0));
    }
    order.answered();
    order.end(&again, true, at(0));
    let next = order.begin(103, 0);
    assert_eq!(send(&mut order, &next, third), third);
}

#[test]
fn a_rid_waits_for_a_lower_one_that_is_in_the_balancer_without_a_limit() {
    let mut order = RidOrder::after(Some(100));
    let [lower, higher] = [101, 102].map(|rid| order.begin(rid, 0));
    assert!(matches!(order.ask(&lower, true), Turn::Now));
    // It waits for a connection, and the patience of the other one is at its end.
    let mut waiting = behind(order.ask(&higher, false));
    assert!(waits(&mut waiting));
    assert!(matches!(order.go(&lower, at(9_800)), Turn::Now));
    order.sent(&lower, at(9_800));
    assert!(!waits(&mut waiting), "it may ask again");
    let then = send(&mut order, &higher, at(9_800));
    assert_eq!(then, at(9_800) + SPACING);
}

#[test]
fn requests_that_are_sent_again_keep_their_order_and_their_distance() {
    let mut order = RidOrder::after(Some(100));
    let [first, second] = [101, 102].map(|rid| order.begin(rid, 0));
    send(&mut order, &first, at(101));
    send(&mut order, &second, at(110));
    // Their node died: the later one comes first, and waits.
    order.again(&second);
    order.again(&first);
    let mut later = behind(order.ask(&second, true));
    assert!(waits(&mut later));
    assert_eq!(send(&mut order, &first, at(501)), at(501));
    assert!(!waits(&mut later));
    let then = send(&mut order, &second, at(501));
    assert_eq!(then, at(501) + SPACING);
    let next = order.begin(103, 0);
    let then = send(&mut order, &next, at(600));
    assert_eq!(then, at(600), "the next is not held up");
}

#[test]
fn a_request_given_up_holds_no_other_one_up() {
    let mut order = RidOrder::after(Some(100));
    let [first, second] = [101, 102].map(|rid| order.begin(rid, 0));
    send(&mut order, &first, at(1));
    send(&mut order, &second, at(10));
    order.again(&first);
    order.again(&second);
    let mut later = behind(order.ask(&second, true));
    order.end(&first, true, at(0));
    assert!(!waits(&mut later));
    assert_eq!(send(&mut order, &second, at(21)), at(21));
}

#[test]
fn one_of_two_copies_that_ends_leaves_the_place_of_the_other() {
    let mut order = RidOrder::after(Some(100));
    let [held, copy, higher] = [101, 101, 102].map(|rid| order.begin(rid, 0));
    send(&mut order, &held, at(1));
    order.end(&held, true, at(0));
    let mut waiting = behind(order.ask(&higher, true));
    assert!(waits(&mut waiting));
    send(&mut order, &copy, at(20));
    assert!(!waits(&mut waiting));
    send(&mut order, &higher, at(40));
}

#[test]
fn who_is_late_does_not_meet_the_next() {
    let mut order = RidOrder::after(Some(100));
    let [first, second] = [101, 102].map(|rid| order.begin(rid, 0));
    assert!(matches!(order.go(&first, at(13)), Turn::Now));
    // The write took a while.
    order.sent(&first, at(50));
    assert!(matches!(order.go(&second, at(51)), Turn::At(then) if then == at(50) + SPACING));
}

#[test]
fn a_rid_that_overtook_waits_for_the_one_before_it() {
    let mut order = RidOrder::after(Some(100));
    let early = order.begin(102, 0);
    let mut waiting = missing(order.ask(&early, true));
    assert!(waits(&mut waiting));
    assert!(matches!(order.ask(&early, false), Turn::Now), "no patience");
    let lower = order.begin(101, 0);
    // It has a connection by now, and the lower one has come meanwhile.
    drop(behind(order.go(&early, at(10))));
    assert_eq!(send(&mut order, &lower, at(11)), at(11));
    assert!(!waits(&mut waiting));
    assert_eq!(send(&mut order, &early, at(12)), at(11) + SPACING);
}

#[test]
fn who_waits_for_one_that_is_there_asks_anew_when_another_is_missing() {
    let mut order = RidOrder::after(Some(100));
    let [lower, early] = [101, 103].map(|rid| order.begin(rid, 0));
    let mut waiting = behind(order.ask(&early, true));
    send(&mut order, &lower, at(10));
    assert!(!waits(&mut waiting), "102 is waited for with patience");
    drop(missing(order.ask(&early, true)));
}

#[test]
fn an_old_or_a_wild_rid_is_the_nodes_to_judge() {
    let mut order = RidOrder::after(Some(100));
    for rid in [50, 100_000] {
        let place = order.begin(rid, 0);
        send(&mut order, &place, at(rid));
        order.end(&place, true, at(0));
    }
}

#[test]
fn the_first_rid_of_an_adopted_session_sets_the_order() {
    let mut order = RidOrder::default();
    let [first, later] = [7, 9].map(|rid| order.begin(rid, 0));
    send(&mut order, &first, at(1));
    drop(missing(order.ask(&later, true)));
}

#[test]
fn the_list_of_requests_takes_as_many_as_there_are() {
    let mut order = RidOrder::after(Some(100));
    let places: Vec<_> = (101..113).map(|rid| order.begin(rid, 0)).collect();
    for (place, now) in places.iter().zip(0..) {
        send(&mut order, place, at(now * 100));
    }
    for place in places {
        order.end(&place, true, at(0));
    }
    assert!(order.crossing.is_none() && order.few == [0, 0]);
}

#[test]
fn those_who_gave_up_waiting_take_no_room() {
    let mut order = RidOrder::after(Some(100));
    let _lower = order.begin(101, 0);
    let higher = order.begin(102, 0);
    for _ in 0..100 {
        drop(order.ask(&higher, true));
    }
    let crossing = order.crossing.expect("one waits");
    assert!(crossing.waiting.len() <= 1);
}

/// The time `retry` in these tests.
const RETRY: Duration = Duration::from_secs(9);

/// An order in which the request 101 was sent and its client went away at `gone`, and the request 102 on a
/// connection that opened at `connected`.
fn behind_a_lost_one(gone: Time, connected: Option<Time>) -> (RidOrder, Place) {
    let mut order = RidOrder::after(Some(99));
    let [poll, lost] = [100, 101].map(|rid| order.begin(rid, 0));
    send(&mut order, &poll, at(60_000));
    send(&mut order, &lost, at(60_010));
    order.end(&poll, true, at(60_020));
    order.went_away(101, gone, Some(RETRY));
    order.end(&lost, true, gone);
    order.came(102, connected);
    let next = order.begin(102, 1);
    (order, next)
}

#[test]
fn a_request_on_a_new_connection_waits_for_the_lost_one() {
    let gone = at(70_000);
    let (mut order, next) = behind_a_lost_one(gone, Some(at(70_100)));
    let Turn::Away(mut lower, until) = order.ask(&next, true) else {
        panic!("it does not wait");
    };
    assert_eq!(until, gone + RETRY);
    assert!(waits(&mut lower));
    let again = order.begin(101, 0);
    assert!(order.came(101, None), "it was missed");
    assert!(matches!(order.ask(&next, true), Turn::Behind(_)));
    send(&mut order, &again, at(78_000));
    assert!(matches!(order.ask(&next, true), Turn::Now));
}

/// The end of a connection is noticed up to 250 ms late.
#[test]
fn a_request_on_an_old_connection_does_not_wait() {
    let gone = at(70_000);
    for (connected, does_wait) in [(69_700, false), (69_800, true)] {
        let (mut order, next) = behind_a_lost_one(gone, Some(at(connected)));
        let turn = order.ask(&next, true);
        assert_eq!(matches!(turn, Turn::Away(..)), does_wait, "{turn:?}");
    }
    let (mut order, next) = behind_a_lost_one(gone, None);
    assert!(matches!(order.ask(&next, true), Turn::Now), "a poll");
}

#[test]
fn nothing_waits_for_an_idle_client() {
    for (last, does_wait) in [(9_000, false), (11_000, true)] {
        let mut order = RidOrder::after(Some(100));
        let [poll, ping] = [101, 102].map(|rid| order.begin(rid, rid));
        send(&mut order, &poll, at(10));
        send(&mut order, &ping, at(last));
        let gone = at(70_000);
        order.went_away(102, gone, Some(RETRY));
        order.came(103, Some(gone));
        let next = order.begin(103, 1);
        let turn = order.ask(&next, true);
        assert_eq!(matches!(turn, Turn::Away(..)), does_wait, "{turn:?}");
    }
}

/// A page that is loaded again, and again.
#[test]
fn a_client_that_has_moved_on_has_one_connection() {
    let gone = at(70_000);
    let (mut order, next) = behind_a_lost_one(gone, None);
    let sent = send(&mut order, &next, gone);
    order.went_away(102, sent, Some(RETRY));
    order.end(&next, true, sent);
    order.came(103, Some(sent));
    let last = order.begin(103, 1);
    assert!(matches!(order.ask(&last, true), Turn::Now));
}

/// Prosody never answers a request that comes at the moment when the one before it ends.
#[test]
fn a_request_keeps_its_distance_from_one_whose_client_went_away() {
    for retry in [None, Some(RETRY)] {
        let mut order = RidOrder::after(Some(100));
        let lost = order.begin(101, 0);
        send(&mut order, &lost, at(10));
        order.went_away(101, at(500), retry);
        order.came(102, None);
        let next = order.begin(102, 1);
        assert_eq!(send(&mut order, &next, at(500)), at(500) + SPACING);
    }
}
