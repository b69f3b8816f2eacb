//! The life of sessions in the table, on a clock that the test turns.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

mod passing;
mod requests;

use super::*;
use crate::cluster::tests::settings;
use crate::cluster::{PlacementKey, QueryGroup};
use crate::config::Placement;
use crate::sessions::{Addresses, Refusal, Turn};
use tokio::sync::oneshot::error::TryRecvError;

const T1: NodeId = NodeId(0);
const T2: NodeId = NodeId(1);
const TERMS: Terms = Terms {
    wait: 60,
    inactivity: 30,
    maxpause: 120,
    hold: 1,
    legacy: false,
};

fn at(seconds: u64) -> Time {
    Time::after(Duration::from_secs(seconds))
}

struct Table {
    sessions: Sessions,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
}

fn table(limit: usize) -> Table {
    let metrics = Arc::new(Metrics::new());
    let cluster = Arc::new(Cluster::new(&settings(2, Placement::RoundRobin), &metrics));
    let sessions = Sessions::new(limit, Arc::clone(&cluster), Arc::clone(&metrics));
    Table {
        sessions,
        cluster,
        metrics,
    }
}

impl Table {
    fn insert(&self, sid: &str) -> Arc<Session> {
        match self.sessions.insert(sid, T1, TERMS, (1, None), at(0)) {
            Insert::Made(session) => session,
            other => panic!("{other:?}"),
        }
    }

    fn pinned_at(&self, node: NodeId) -> u64 {
        self.cluster.node(node).sessions.get()
    }
}

#[test]
fn a_pin_lives_for_its_inactivity_and_a_grace() {
    let table = table(10);
    table.insert("a");
    table.sessions.sweep(at(35));
    assert!(table.sessions.find("a").is_some());
    table.sessions.sweep(at(36));
    assert!(table.sessions.find("a").is_none());
    assert_eq!(table.metrics.sessions_expired.get(), 1);
    assert_eq!((table.pinned_at(T1), table.sessions.len()), (0, 0));
}

/// It is a credential.
#[test]
fn no_debug_output_has_a_sid() {
    let table = table(10);
    let session = table.insert("a-secret-sid");
    for debug in [format!("{session:?}"), format!("{:?}", table.sessions)] {
        assert!(!debug.contains("secret") && debug.len() > 20, "{debug}");
    }
}

#[test]
fn a_long_poll_keeps_its_session() {
    let table = table(10);
    let session = table.insert("a");
    let poll = session.begin(2, None).unwrap().place;
    table.sessions.sweep(at(1000));
    assert!(table.sessions.find("a").is_some());
    table.sessions.end(&session, &poll, at(1000));
    table.sessions.sweep(at(1035));
    assert!(
        table.sessions.find("a").is_some(),
        "inactivity counts from the answer"
    );
    table.sessions.sweep(at(1036));
    assert!(table.sessions.find("a").is_none());
}

#[test]
fn a_pause_extends_up_to_maxpause() {
    for (asked, lives) in [(100, 105), (10_000, 125), (5, 35)] {
        let table = table(10);
        let session = table.insert("a");
        let pause = session.begin(2, Some(asked)).unwrap().place;
        table.sessions.end(&session, &pause, at(0));
        table.sessions.sweep(at(lives));
        assert!(table.sessions.find("a").is_some(), "pause {asked}");
        table.sessions.sweep(at(lives + 1));
        assert!(table.sessions.find("a").is_none(), "pause {asked}");
    }
}

#[test]
fn a_pause_holds_until_a_later_request() {
    let table = table(10);
    let session = table.insert("a");
    let lives = |until| {
        table.sessions.sweep(at(until));
        table.sessions.find("a").is_some()
    };
    let begin = |rid, pause| session.begin(rid, pause).unwrap().place;
    let [poll, pause] = [begin(2, None), begin(3, Some(100))];
    table.sessions.end(&session, &pause, at(1));
    // The older poll ends after the request that asked for the pause, and is sent once more.
    table.sessions.end(&session, &poll, at(2));
    table.sessions.end(&session, &begin(2, None), at(3));
    assert!(lives(3 + 105));
    table.sessions.end(&session, &begin(4, None), at(110));
    assert!(lives(110 + 35));
    assert!(!lives(110 + 36));
}

#[test]
fn a_terminated_session_leaves_a_short_tombstone() {
    let table = table(10);
    let session = table.insert("a");
    let request = session.begin(2, None).unwrap().place;
    table.sessions.terminate(&session, "none", at(1));
    table.sessions.end(&session, &request, at(1));
    assert_eq!(table.metrics.sessions_terminated.get(), 1);
    assert_eq!(table.pinned_at(T1), 0);
    table.sessions.sweep(at(11));
    assert_eq!(table.sessions.find("a").map(|late| late.node()), Some(T1));
    table.sessions.sweep(at(12));
    assert!(table.sessions.is_empty());
    assert_eq!(table.metrics.sessions_expired.get(), 0);
}

#[test]
fn sessions_that_never_get_past_creation_expire_first_when_the_table_is_nearly_full() {
    let table = table(10);
    let used = table.insert("used");
    let request = used.begin(2, None).unwrap().place;
    table.sessions.end(&used, &request, at(0));
    for number in 0..7 {
        table.insert(&number.to_string());
    }
    table.sessions.sweep(at(30));
    assert_eq!(
        table.sessions.len(),
        8,
        "there is room: all stay as promised"
    );
    table.insert("one more");
    table.sessions.sweep(at(10));
    assert_eq!(table.sessions.len(), 9, "each has ten seconds");
    table.sessions.sweep(at(11));
    assert_eq!(table.sessions.len(), 1);
    assert!(table.sessions.find("used").is_some());
    assert_eq!(table.metrics.sessions_expired.get(), 8);
}

#[test]
fn a_node_that_answers_late_requests_knows_better_than_a_tombstone() {
    let table = table(10);
    let session = table.insert("a");
    table.sessions.terminate(&session, "none", at(1));
    let request = session.begin(2, None).unwrap();
    assert!(request.late);
    table.sessions.prove(&session, session.node(), true);
    table.sessions.end(&session, &request.place, at(2));
    table.sessions.sweep(at(37));
    assert!(session.is_pinned());
    assert_eq!(table.pinned_at(T1), 1);
}

#[test]
fn an_answer_to_an_earlier_request_does_not_undo_the_end() {
    let table = table(10);
    let session = table.insert("a");
    assert!(!session.begin(2, None).unwrap().late);
    table.sessions.terminate(&session, "none", at(1));
    table.sessions.prove(&session, session.node(), false);
    assert!(!session.is_pinned());
    assert_eq!(table.pinned_at(T1), 0);
}

#[tokio::test]
async fn a_connection_is_kept_only_where_its_session_lives() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = [listener.as_ref().unwrap().local_addr().unwrap()];
    let open = || crate::upstream::Connection::open(&address, Duration::from_secs(20));
    let table = table(10);
    let session = table.insert("a");
    session.keep_idle(Box::new(open().await.unwrap()), T1);
    assert!(session.take_idle().is_some());
    session.keep_idle(Box::new(open().await.unwrap()), T2);
    assert!(session.take_idle().is_none(), "to another node");
    session.keep_idle(Box::new(open().await.unwrap()), T1);
    table.sessions.reassign(&session, T1, T2);
    assert!(session.take_idle().is_none(), "the session moved");
    session.keep_idle(Box::new(open().await.unwrap()), T2);
    table.sessions.terminate(&session, "none", at(1));
    assert!(session.take_idle().is_none(), "the session is over");
    session.keep_idle(Box::new(open().await.unwrap()), T2);
    assert!(session.take_idle().is_none(), "it was over");
}

#[test]
fn the_first_pin_of_a_sid_wins() {
    let table = table(10);
    table.insert("a");
    match table.sessions.insert("a", T2, TERMS, (1, None), at(0)) {
        Insert::Taken(owner) => assert_eq!(owner, T1),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (
            table.pinned_at(T1),
            table.pinned_at(T2),
            table.sessions.len()
        ),
        (1, 0, 1)
    );
}

#[test]
fn a_sid_is_given_to_one_client_only() {
    let table = table(10);
    let session = table.insert("a");
    let taken_from = |node| {
        let insert = table.sessions.insert("a", node, TERMS, (1, None), at(0));
        matches!(insert, Insert::Taken(owner) if owner == session.node())
    };
    assert!(taken_from(T1) && taken_from(T2));
    table.sessions.reassign(&session, T1, T2);
    assert!(taken_from(T1) && taken_from(T2), "the session moved");
    table.sessions.terminate(&session, "none", at(1));
    assert!(taken_from(T1) && taken_from(T2), "the session is over");
}

#[test]
fn a_full_table_takes_no_more() {
    let table = table(1);
    table.insert("a");
    assert!(matches!(
        table.sessions.insert("b", T1, TERMS, (1, None), at(0)),
        Insert::Full
    ));
    assert!(table.sessions.find_or_provisional("b", T1, at(0)).is_none());
    assert!(table.sessions.find_or_provisional("a", T1, at(0)).is_some());
}

#[test]
fn an_provisional_session_leaves_no_trace() {
    let table = table(10);
    let first = table.sessions.find_or_provisional("a", T2, at(0)).unwrap();
    let second = table.sessions.find_or_provisional("a", T1, at(0)).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "its requests find each other");
    let [one, other] = [&first, &second].map(|session| session.begin(2, None).unwrap().place);
    table.sessions.terminate(&first, "none", at(1));
    table.sessions.end(&first, &one, at(1));
    assert!(
        table.sessions.find("a").is_some(),
        "another request is under way"
    );
    table.sessions.end(&second, &other, at(1));
    assert!(table.sessions.is_empty());
    assert_eq!(table.pinned_at(T2), 0);
    assert_eq!(first.begin(3, None).err(), Some(Refusal::Gone));
}

#[test]
fn a_proven_session_is_a_pin() {
    let table = table(10);
    let session = table.sessions.find_or_provisional("a", T2, at(0)).unwrap();
    let request = session.begin(2, None).unwrap().place;
    table.sessions.prove(&session, session.node(), false);
    table.sessions.prove(&session, session.node(), false);
    table.sessions.end(&session, &request, at(1));
    assert_eq!((table.pinned_at(T2), table.sessions.len()), (1, 1));
}

#[test]
fn only_the_first_of_two_requests_moves_a_session() {
    let table = table(10);
    let session = table.insert("a");
    assert!(table.sessions.reassign(&session, T1, T2));
    assert!(!table.sessions.reassign(&session, T1, T2));
    assert_eq!((table.pinned_at(T1), table.pinned_at(T2)), (0, 1));
    assert_eq!(table.cluster.node(T1).reassigned.get(), 1);
}

#[test]
fn an_address_stays_tied_for_its_time_to_live() {
    let addresses = Addresses::new(Duration::from_secs(60), 1);
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)).into();
    addresses.tie(client, T2, at(0));
    assert_eq!(addresses.find(client, at(50)), Some(T2));
    addresses.sweep(at(110));
    assert_eq!(
        addresses.find(client, at(110)),
        Some(T2),
        "a request renews it"
    );
    let other = IpAddr::V4(Ipv4Addr::LOCALHOST).into();
    addresses.tie(other, T1, at(110));
    assert_eq!(addresses.find(other, at(110)), None, "bounded");
    addresses.sweep(at(171));
    assert_eq!(addresses.find(client, at(171)), None);
}

#[test]
fn a_table_of_rooms_ties_no_address() {
    let rooms = Addresses::new(Duration::from_secs(60), 10).for_rooms();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST).into();
    let room = PlacementKey::Query(QueryGroup::of("room=tea", "room").unwrap());
    rooms.tie(client, T1, at(0));
    rooms.tie(room, T2, at(0));
    assert_eq!(
        (rooms.find(client, at(1)), rooms.find(room, at(1))),
        (None, Some(T2))
    );
}

#[test]
fn a_node_that_lost_its_sessions_loses_those_that_it_had_made_before() {
    let table = table(10);
    let detector = &table.cluster.node(T1).restart_detector;
    let (old, moved, ended) = (
        table.insert("old"),
        table.insert("moved"),
        table.insert("ended"),
    );
    table.sessions.reassign(&moved, T1, T2);
    table.sessions.reassign(&moved, T2, T1);
    table.sessions.terminate(&ended, "none", at(1));
    let elsewhere = table.sessions.insert("b", T2, TERMS, (1, None), at(0));
    detector.broke(detector.epoch(), tokio::time::Instant::now());
    let since = detector.epoch();
    let new = table.insert("new");
    assert_eq!(table.sessions.lose(T1, since, at(10)), 1);
    assert!(old.is_lost());
    assert_eq!(old.begin(2, None).err(), Some(Refusal::Lost));
    for session in [&moved, &ended, &new] {
        assert!(!session.is_lost());
    }
    assert!(matches!(elsewhere, Insert::Made(session) if session.is_pinned()));
    assert_eq!(table.pinned_at(T1), 2);
    assert_eq!(table.cluster.node(T1).metrics.dropped.get(), 1);
    // As long as its client might have stayed away, and no longer.
    table.sessions.sweep(at(10 + 120 + 5));
    assert!(table.sessions.find("old").is_some());
    table.sessions.sweep(at(10 + 120 + 6));
    assert!(table.sessions.find("old").is_none());
}

#[test]
fn a_lost_session_that_its_node_knows_after_all_is_a_pin_again() {
    let table = table(10);
    let detector = &table.cluster.node(T1).restart_detector;
    let session = table.insert("a");
    session.begin(2, None).unwrap();
    detector.broke(detector.epoch(), tokio::time::Instant::now());
    assert_eq!(table.sessions.lose(T1, detector.epoch(), at(1)), 1);
    table.sessions.prove(&session, session.node(), false);
    assert!(session.is_pinned());
    assert_eq!(table.pinned_at(T1), 1);
    assert_eq!(table.sessions.lose(T1, detector.epoch(), at(1)), 0);
}

#[test]
fn who_waits_for_a_lower_rid_goes_when_the_session_is_over() {
    let table = table(10);
    for lost in [false, true] {
        let session = table.insert(if lost { "a" } else { "b" });
        let request = session.begin(3, None).unwrap().place;
        let Turn::Missing(mut lower) = session.turn(&request, true) else {
            panic!("2 comes first");
        };
        if lost {
            let detector = &table.cluster.node(T1).restart_detector;
            detector.broke(detector.epoch(), tokio::time::Instant::now());
            assert_eq!(table.sessions.lose(T1, detector.epoch(), at(1)), 1);
        } else {
            table.sessions.terminate(&session, "none", at(1));
        }
        assert!(
            lower.try_recv() == Err(TryRecvError::Closed),
            "it may ask again"
        );
        assert!(matches!(session.turn(&request, true), Turn::Now));
    }
}

/// Does two things to each session at the same moment, and says whether all is counted where it is.
fn counted_after(
    pinned: bool,
    one: impl Fn(&Sessions, &Session) + Sync,
    other: impl Fn(&Sessions, &Session) + Sync,
) {
    const ROUNDS: usize = 10_000;
    let table = table(ROUNDS);
    let session = |number: usize| match pinned {
        true => table.insert(&number.to_string()),
        false => {
            let provisional = |sid: &str| table.sessions.find_or_provisional(sid, T1, at(0));
            provisional(&number.to_string()).unwrap()
        }
    };
    let sessions: Vec<_> = (0..ROUNDS).map(session).collect();
    let arrived = AtomicUsize::new(0);
    let each = |act: &(dyn Fn(&Sessions, &Session) + Sync)| {
        for (number, session) in sessions.iter().enumerate() {
            arrived.fetch_add(1, Ordering::Relaxed);
            let mut looks = 0_u32;
            while arrived.load(Ordering::Relaxed) < 2 * (number + 1) {
                // On one processor the other comes only when this one lets it.
                looks += 1;
                if looks.is_multiple_of(1_000) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            act(&table.sessions, session);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| each(&one));
        scope.spawn(|| each(&other));
    });
    for node in [T1, T2] {
        let here = |session: &&Arc<Session>| session.is_pinned() && session.node() == node;
        let expected = sessions.iter().filter(here).count();
        assert_eq!(usize::try_from(table.pinned_at(node)), Ok(expected));
    }
}

#[test]
fn a_session_that_moves_while_it_ends_is_counted_nowhere() {
    counted_after(
        true,
        |sessions, session| assert!(sessions.reassign(session, T1, T2)),
        |sessions, session| assert!(sessions.terminate(session, "none", at(1))),
    );
}

#[test]
fn a_session_that_moves_while_it_is_proven_is_counted_once() {
    counted_after(
        false,
        |sessions, session| assert!(sessions.reassign(session, T1, T2)),
        |sessions, session| sessions.prove(session, session.node(), false),
    );
}

#[test]
fn a_session_that_the_operator_ends_refuses_its_next_request_and_answers_the_one_before() {
    let table = table(10);
    let session = table.insert("a");
    let begun = session.begin(2, None).unwrap();
    let held = session.summary(at(10)).unwrap();
    assert_eq!((held.under_way, held.idle, held.expires), (1, 0, None));
    assert!(table.sessions.close(&session, at(10)));
    assert!(!table.sessions.close(&session, at(10)), "once");
    assert_eq!(table.pinned_at(T1), 0);
    assert_eq!(session.summary(at(10)), None);
    assert_eq!(session.begin(3, None).err(), Some(Refusal::Closed));
    // The answer that its node still gives does not bring it back.
    table.sessions.prove(&session, T1, false);
    table.sessions.end(&session, &begun.place, at(20));
    assert_eq!(table.pinned_at(T1), 0);
    assert_eq!(session.begin(3, None).err(), Some(Refusal::Closed));
    table.sessions.sweep(at(10 + 120 + 6));
    assert!(table.sessions.is_empty());
}

#[test]
fn a_quiet_session_is_idle_since_its_last_answer() {
    let table = table(10);
    let session = table.insert("a");
    assert_eq!(session.summary(at(7)).unwrap().idle, 7);
    let begun = session.begin(2, None).unwrap();
    table.sessions.end(&session, &begun.place, at(20));
    let idle = session.summary(at(25)).unwrap();
    assert_eq!((idle.under_way, idle.idle), (0, 5));
    assert_eq!(idle.expires, Some(20 + 30 + 5));
}
