//! Small models of `src/sessions` that shuttle runs under many interleavings: the order of rids, a pin
//! that is forgotten, and a session that moves.
//!
//! Each model is a few threads that call the product's own functions. shuttle switches between them at
//! each lock and atomic. `Session` is the product's source file, compiled with shuttle's types (`std.rs`);
//! nodes and connections are stand-ins, since a session only stores them.

extern crate bowline_shuttle as std;

mod stand_ins;
use stand_ins::{cluster, upstream};

#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/sessions"]
mod sessions {
    mod pin;
    mod rid_order;
    mod session;
    mod time;

    use pin::Pin;
    pub use pin::Terms;
    pub use rid_order::{Place, Turn};
    pub use session::{Refusal, Session};
    pub use time::Time;

    /// What the table may do with a session.
    impl Session {
        pub fn model(rid: u64) -> Self {
            let node = crate::cluster::NodeId(0);
            let pin = Pin::made("a", node, TERMS, (rid, None), Time::default());
            Self::from_pin(pin, Some(crate::cluster::Epoch::of_number(1)))
        }

        /// Whether the sweep of the table takes it out at this time.
        pub fn is_forgotten(&self, now: Time) -> bool {
            self.forget(false, now).is_some()
        }

        pub fn moves(&self, from: u16, to: u16) -> bool {
            let [from, to] = [from, to].map(crate::cluster::NodeId);
            self.move_to(from, to).is_some()
        }
    }

    const TERMS: Terms = Terms {
        wait: 60,
        inactivity: 60,
        maxpause: 60,
        hold: 1,
        legacy: false,
    };
}

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sessions::{Place, Refusal, Session, Time, Turn};
use shuttle::{future, thread};

/// Interleavings of each model.
const ITERATIONS: usize = 20_000;

fn check(model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(model, ITERATIONS);
}

fn at(seconds: u64) -> Time {
    Time::after(Duration::from_secs(seconds))
}

/// Waits for the turn of a request and writes it, as the proxy does. It does not wait for the 5 ms between
/// two requests: it takes the time at which it may go as the time.
fn write(session: &Session, place: &Place, written: &Mutex<Vec<u64>>, rid: u64) {
    let mut now = at(1);
    loop {
        match session.turn(place, true) {
            Turn::Now => {}
            Turn::Behind(lower) | Turn::Missing(lower) => {
                drop(future::block_on(lower));
                continue;
            }
            Turn::At(_) => unreachable!("the order does not know times"),
            Turn::Away(..) => unreachable!("no client goes away"),
        }
        // The lock stands for the one connection between the step and the note that it was done.
        let mut written = written.lock().expect("no panic");
        match session.go(place, now) {
            Turn::Now => {
                written.push(rid);
                session.sent(place, true, now);
                return;
            }
            Turn::At(later) => now = later,
            Turn::Away(..) => unreachable!("no client goes away"),
            Turn::Behind(lower) | Turn::Missing(lower) => {
                drop(written);
                drop(future::block_on(lower));
            }
        }
    }
}

/// Three requests come in any order, and the node reads them in rid order. It holds all of them until
/// the last is there, so none may wait for the end of another.
fn requests_are_written_in_rid_order() {
    check(|| {
        let session = Arc::new(Session::model(0));
        let written = Arc::new(Mutex::new(Vec::new()));
        let requests = [3, 1, 2].map(|rid| {
            let (session, written) = (Arc::clone(&session), Arc::clone(&written));
            thread::spawn(move || {
                let place = session.begin(rid, None).expect("it is pinned").place;
                write(&session, &place, &written, rid);
                place
            })
        });
        let places = requests.map(|request| request.join().expect("no panic"));
        assert_eq!(*written.lock().expect("no panic"), [1, 2, 3]);
        for place in places {
            place.answered();
            session.end(&place, at(2));
        }
        assert_eq!(session.under_way(), 0);
    });
}

/// The lower of two requests is sent again while the higher one comes, waits, or ends. The higher one
/// waits for it once more if it is not written yet, and neither waits for ever.
fn a_request_that_is_sent_again_keeps_its_order() {
    const AGAIN: u64 = 0;
    check(|| {
        let session = Arc::new(Session::model(0));
        let written = Arc::new(Mutex::new(Vec::new()));
        let requests = [1, 2].map(|rid| {
            let (session, written) = (Arc::clone(&session), Arc::clone(&written));
            thread::spawn(move || {
                let place = session.begin(rid, None).expect("it is pinned").place;
                write(&session, &place, &written, rid);
                if rid == 1 {
                    let mut noted = written.lock().expect("no panic");
                    session.again(&place);
                    noted.push(AGAIN);
                    drop(noted);
                    write(&session, &place, &written, rid);
                }
                session.end(&place, at(2));
            })
        });
        for request in requests {
            request.join().expect("no panic");
        }
        let written = written.lock().expect("no panic");
        let good = [[1, AGAIN, 1, 2], [1, 2, AGAIN, 1]];
        assert!(good.iter().any(|good| *good == **written), "{written:?}");
    });
}

/// A session that is forgotten while a request begins: either the request has it, and it stays, or the
/// request learns that it is gone.
fn a_session_is_not_forgotten_with_a_request_under_way() {
    check(|| {
        let session = Arc::new(Session::model(0));
        let other = Arc::clone(&session);
        // All its time has passed.
        let sweep = thread::spawn(move || other.is_forgotten(at(1000)));
        let begun = session.begin(1, None);
        let during = session.is_pinned();
        let forgotten_before = match &begun {
            Ok(_) => false,
            Err(refusal) => {
                assert_eq!(*refusal, Refusal::Gone);
                true
            }
        };
        let forgotten = sweep.join().expect("no panic");
        assert_eq!(forgotten, forgotten_before);
        assert_eq!(during, !forgotten);
        if let Ok(begun) = begun {
            session.end(&begun.place, at(1000));
            assert!(!session.is_forgotten(at(1001)), "its time counts from here");
            assert!(session.is_forgotten(at(2000)));
        }
    });
}

/// Two requests find the node of their session down, and a third ends. The session moves once, and
/// both learn where it is.
fn a_session_moves_once() {
    check(|| {
        let session = Arc::new(Session::model(0));
        let ends = session.begin(1, None).expect("it is pinned").place;
        let moves = [1, 2].map(|to| {
            let session = Arc::clone(&session);
            thread::spawn(move || (session.moves(0, to), session.node().0))
        });
        session.end(&ends, at(2));
        let moves = moves.map(|moved| moved.join().expect("no panic"));
        let count = moves.iter().filter(|(moved, _)| *moved).count();
        assert_eq!(count, 1, "{moves:?}");
        assert_eq!(moves[0].1, moves[1].1, "{moves:?}");
        assert_eq!(session.under_way(), 0);
    });
}

/// A planted mistake: two steps that the lock of a session does not hold together. shuttle finds it, so
/// the models above can fail.
fn a_planted_race_is_found() {
    eprintln!("a planted race, which panics:");
    let found = std::panic::catch_unwind(|| {
        check(|| {
            let session = Arc::new(Session::model(0));
            let moves = [1, 2].map(|to| {
                let session = Arc::clone(&session);
                thread::spawn(move || {
                    let from = session.node().0;
                    session.moves(from, to)
                })
            });
            let moved = moves.map(|moved| moved.join().expect("no panic"));
            assert_eq!(moved.iter().filter(|moved| **moved).count(), 1);
        });
    });
    assert!(found.is_err());
}

fn main() {
    let models: [(&str, fn()); 5] = [
        (
            "requests are written in rid order",
            requests_are_written_in_rid_order,
        ),
        (
            "a request that is sent again keeps its order",
            a_request_that_is_sent_again_keeps_its_order,
        ),
        (
            "a session is not forgotten with a request under way",
            a_session_is_not_forgotten_with_a_request_under_way,
        ),
        ("a session moves once", a_session_moves_once),
        ("a planted race is found", a_planted_race_is_found),
    ];
    for (name, model) in models {
        let begun = Instant::now();
        model();
        println!("{name}: ok, {:.1?}", begun.elapsed());
    }
}
