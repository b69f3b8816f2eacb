//! The window of landing control.

use std::num::NonZeroU32;

use super::*;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn auto() -> Landing {
    let mut landing = Landing::new(LandingMode::Auto);
    for _ in 0..100 {
        landing.login_began(at(0));
        landing.created(0, Some(at(40)), at(0));
        landing.login_over();
    }
    landing
}

/// Asks every millisecond; says how many were released. Each has a login after half a second that takes
/// `latency`.
fn releases(landing: &mut Landing, from: u64, to: u64, latency: u64) -> usize {
    let mut events: VecDeque<(u64, bool)> = VecDeque::new();
    let mut released = 0;
    for now in from..to {
        while landing.release(u64::MAX, at(now)) {
            released += 1;
            landing.ended(at(now));
            events.push_back((now + 500, true));
        }
        while events.front().is_some_and(|(when, _)| *when <= now) {
            let (when, begins) = events.pop_front().unwrap();
            if begins {
                landing.login_began(at(now));
                let ends = (when + latency, false);
                let place = events.partition_point(|event| event.0 <= ends.0);
                events.insert(place, ends);
            } else {
                landing.created(0, Some(at(latency)), at(now));
                landing.login_over();
            }
        }
    }
    released
}

#[test]
fn the_sessions_of_a_small_node_go_at_once() {
    let mut landing = auto();
    let released = (0..200).filter(|_| landing.release(100, at(5000))).count();
    assert_eq!(released, 100);
}

#[test]
fn those_of_a_large_node_are_spread_and_then_wait_for_logins() {
    let mut landing = auto();
    let mut released = 0;
    for now in 5000..7000 {
        while landing.release(101, at(now)) {
            landing.ended(at(now));
            released += 1;
        }
        if now == 5500 {
            assert!((40..60).contains(&released), "{released}");
        }
    }
    assert_eq!(released, 100, "no client came back");
    for _ in 0..5 {
        landing.login_began(at(7000));
    }
    assert!(!landing.release(101, at(7000)), "they are under way");
    (0..5).for_each(|_| landing.login_over());
    let more = (7001..7900)
        .filter(|now| landing.release(101, at(*now)))
        .count();
    assert_eq!(more, 5);
}

#[test]
fn clients_that_do_not_come_back_hold_up_the_others_for_seconds_only() {
    let mut landing = auto();
    let released = (5000..15_000).filter(|now| {
        let may = landing.release(u64::MAX, at(*now));
        if may {
            landing.ended(at(*now));
        }
        may
    });
    let released = released.count();
    assert!((200..=400).contains(&released), "{released}");
}

#[test]
fn the_window_grows_while_logins_are_as_fast_as_in_calm_and_shrinks_when_they_are_slow() {
    let mut landing = auto();
    let first = releases(&mut landing, 5000, 15_000, 40);
    assert!(landing.window() > 4.0 * BURST, "{}", landing.window());
    assert!(first > 2000, "{first}");
    let mut landing = auto();
    releases(&mut landing, 5000, 15_000, 70);
    assert!(landing.window() < BURST / 2.0, "{}", landing.window());
    assert!(landing.window() >= LEAST);
}

#[test]
fn a_slow_node_does_not_stop_the_landing_for_good() {
    let mut landing = auto();
    releases(&mut landing, 5000, 300_000, 1000);
    assert!(landing.window() > LEAST, "its latency is the new calm");
}

#[test]
fn nothing_is_held_back_when_sessions_go_on_at_the_survivors() {
    let mut landing = auto();
    let mut now = 5000;
    for _ in 0..SHARED {
        while !landing.release(u64::MAX, at(now)) {
            now += 1;
        }
        landing.went_on();
    }
    assert!((0..5000).all(|_| landing.release(u64::MAX, at(now))));
    landing.ended(at(now));
    assert!(!landing.release(u64::MAX, at(now)), "one has to log in");
}

#[test]
fn a_rate_is_kept_and_off_holds_nothing_back() {
    let rate = LandingMode::PerSecond(NonZeroU32::new(50).unwrap());
    let mut landing = Landing::new(rate);
    let released = (0..10_000).filter(|now| landing.release(1, at(*now)));
    let released = released.count();
    assert!((500..=506).contains(&released), "{released}");
    assert_eq!(landing.end(80, at(11_000)), 50);
    landing.set_mode(LandingMode::Off);
    assert!((0..1000).all(|_| landing.release(u64::MAX, at(0))));
    assert_eq!(landing.end(80, at(0)), 80);
}

#[test]
fn the_operator_ends_as_many_as_fit() {
    let mut landing = auto();
    assert_eq!(landing.end(500, at(5000)), 100);
    assert_eq!(landing.end(400, at(6000)), 0);
    for _ in 0..30 {
        landing.login_began(at(6500));
        landing.created(0, Some(at(40)), at(6540));
        landing.login_over();
    }
    assert_eq!(landing.end(400, at(7000)), 30);
}
