//! Keys, and what becomes of the choice and of a question when the balancer changes.

use serde_json::json;
use tokio::time::Duration;

use super::*;

/// A look at nodes with these names and states.
pub(in super::super) fn found(nodes: &[(&str, &str, &str)]) -> Found {
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(name, state, verdict)| {
            json!({
                "name": name, "address": "a:1", "resolved": [], "state": state, "state_since": null,
                "verdict": verdict, "since": "2026-03-01T07:00:00Z", "weight": 1, "share": 1.0,
                "falls": 0, "penalty_seconds": 0.0, "sessions": 1204, "held": 980,
                "creations_per_second": 4.25, "error_share_1m": 0.015, "error_share_5m": null,
                "p50_ms": 1.21, "p99_ms": 12345.6, "last_failure": null,
            })
        })
        .collect();
    let health = json!({
        "schema": 1, "status": "degraded", "reasons": ["node t2 is down"], "draining": false,
        "version": "1.2.3", "started": "2026-02-27T07:00:00Z", "now": "2026-03-01T09:00:15Z",
        "sessions": 2408, "held": 1960, "connections": 3000, "nodes": nodes,
    });
    Found {
        url: "http://127.0.0.1:9280".to_owned(),
        health: serde_json::from_value(health).unwrap(),
        is_new: false,
        events: Vec::new(),
        rejects: vec![
            ("unknown_session".to_owned(), 7),
            ("malformed".to_owned(), 120),
        ],
        at: Instant::now(),
    }
}

pub(in super::super) fn event(text: &str) -> Happened {
    serde_json::from_value(json!({ "id": 1, "when": "2026-03-01T08:58:10Z", "text": text }))
        .unwrap()
}

const THREE: [(&str, &str, &str); 3] = [
    ("t1", "ready", "up"),
    ("t2", "ready", "down"),
    ("t3", "drain", "up"),
];

fn state() -> State {
    let mut state = State::new(false);
    state.looked(Ok(found(&THREE)));
    state
}

fn chosen(state: &State) -> &str {
    state.node().map_or("", |node| &node.name)
}

#[test]
fn arrows_choose_a_node_and_stop_at_the_ends() {
    let mut state = state();
    for (key, name) in [
        (Key::Up, "t1"),
        (Key::Down, "t2"),
        (Key::Letter('j'), "t3"),
        (Key::Down, "t3"),
        (Key::Letter('k'), "t2"),
        (Key::First, "t1"),
        (Key::Last, "t3"),
        (Key::PageUp, "t1"),
        (Key::PageDown, "t3"),
    ] {
        assert_eq!(state.key(key), None);
        assert_eq!(chosen(&state), name, "{key:?}");
    }
}

#[test]
fn a_change_needs_a_yes() {
    for (letter, to) in [('d', OperatorState::Drain), ('m', OperatorState::Maint)] {
        let mut state = state();
        assert_eq!(state.key(Key::Letter(letter)), None);
        assert_eq!(state.asked, Some(("t1".to_owned(), to)));
        let wanted = state.key(Key::Letter('y'));
        assert_eq!(wanted, Some(Wanted::Change("t1".to_owned(), to)));
        assert_eq!(state.asked, None);
    }
    for no in [
        Key::Letter('n'),
        Key::Escape,
        Key::Down,
        Key::Letter('q'),
        Key::Letter('d'),
    ] {
        let mut state = state();
        state.key(Key::Letter('d'));
        assert_eq!(state.key(no), None, "{no:?}");
        assert_eq!(
            (state.asked.as_ref(), chosen(&state)),
            (None, "t1"),
            "{no:?}"
        );
    }
    let mut state = state();
    state.key(Key::Letter('r'));
    assert_eq!(state.asked, None, "it is ready already");
    assert_eq!(state.said.as_deref(), Some("t1 is already in ready"));
}

#[test]
fn q_and_ctrl_c_end_it() {
    assert_eq!(state().key(Key::Letter('q')), Some(Wanted::End));
    let mut state = state();
    state.key(Key::Letter('d'));
    assert_eq!(state.key(Key::Interrupt), Some(Wanted::End));
    assert_eq!(
        State::new(false).key(Key::Letter('d')),
        None,
        "there is no node"
    );
}

#[test]
fn the_choice_stays_with_its_node() {
    let mut state = state();
    state.key(Key::Down);
    state.key(Key::Letter('m'));
    state.looked(Ok(found(&[THREE[2], THREE[1]])));
    assert_eq!(chosen(&state), "t2");
    assert!(state.asked.is_some());
    state.looked(Ok(found(&THREE[..1])));
    assert_eq!(chosen(&state), "t1");
    assert_eq!(state.asked, None, "its node is gone");
    state.looked(Ok(found(&[])));
    assert_eq!(chosen(&state), "");
}

#[test]
fn a_lost_balancer_is_known_since_its_first_failure() {
    let mut state = state();
    state.looked(Err("refused".to_owned()));
    let since = state.lost.as_ref().map(|(_, since)| *since);
    state.looked(Err("reset".to_owned()));
    assert_eq!(state.lost, since.map(|since| ("reset".to_owned(), since)));
    assert_eq!(state.nodes().len(), 3, "what was known stays");
    state.looked(Ok(found(&THREE)));
    assert_eq!(state.lost, None);
}

#[test]
fn events_are_bounded_and_those_of_another_process_go() {
    let mut state = state();
    for number in 0..EVENTS + 5 {
        let mut next = found(&THREE);
        next.events = vec![event(&format!("event {number}"))];
        state.looked(Ok(next));
    }
    assert_eq!(state.events.len(), EVENTS);
    assert_eq!(state.events[0].text, format!("event {}", EVENTS + 4));
    let mut other = found(&THREE);
    (other.is_new, other.events) = (true, vec![event("started")]);
    state.looked(Ok(other));
    assert_eq!(state.events, [event("started")]);
}

#[test]
fn rejects_are_counted_between_two_looks() {
    let mut state = state();
    let mut next = found(&THREE);
    let last = state.found.as_ref().unwrap().at;
    next.at = last + Duration::from_secs(2);
    next.rejects[1].1 += 5;
    state.looked(Ok(next));
    assert!((state.rejects_per_second - 2.5).abs() < 0.001);
}
