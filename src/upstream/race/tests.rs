//! Connects to several addresses, in memory and on paused time.

use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::transport::{Door, Pipe, set_door};

const LIMIT: Duration = Duration::from_secs(2);
const MILLISECOND: Duration = Duration::from_millis(1);

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 5280).into()
}

/// An address that accepts, for as long as the result is kept.
fn open(number: u8) -> UnboundedReceiver<Pipe> {
    let (sender, accepted) = mpsc::unbounded_channel();
    set_door(address(number), Door::Open(sender));
    accepted
}

fn candidates(numbers: &[u8], resting: usize) -> Candidates {
    Candidates {
        addresses: numbers.iter().map(|number| address(*number)).collect(),
        proven: false,
        resting,
        opening: Opening::default(),
    }
}

/// What a connect came to (`ok` or the error's label), the milliseconds that it took, and what was
/// noted.
async fn connecting(candidates: &Candidates) -> (&'static str, u128, Vec<(SocketAddr, bool)>) {
    let notes = Mutex::new(vec![]);
    let note = |address, works| notes.lock().unwrap().push((address, works));
    let begun = Instant::now();
    let result = connect_any(candidates, LIMIT, note).await;
    let outcome = result.map_or_else(|error| error.label(), |_| "ok");
    let took = (begun.elapsed() + MILLISECOND / 2).as_millis();
    (outcome, took, notes.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_single_address_has_all_the_time_and_nothing_is_noted() {
    let _node = open(1);
    set_door(address(2), Door::Swallows);
    assert_eq!(connecting(&candidates(&[1], 0)).await, ("ok", 0, vec![]));
    let silent = connecting(&candidates(&[2], 0)).await;
    assert_eq!(silent, ("connect_timeout", 2000, vec![]));
    let none = connecting(&candidates(&[], 0)).await;
    assert_eq!(none, ("no_address", 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_next_address_is_tried_after_a_head_start_or_at_a_failure() {
    let _node = open(3);
    set_door(address(1), Door::Swallows);
    set_door(address(2), Door::Shut);
    let worked = (address(3), true);
    let after_silence = connecting(&candidates(&[1, 3], 0)).await;
    assert_eq!(after_silence, ("ok", 250, vec![worked]));
    let after_refusal = connecting(&candidates(&[2, 3], 0)).await;
    assert_eq!(after_refusal, ("ok", 0, vec![(address(2), false), worked]));
    let after_both = connecting(&candidates(&[1, 2, 3], 0)).await;
    assert_eq!(after_both, ("ok", 250, vec![(address(2), false), worked]));
}

#[tokio::test(start_paused = true)]
async fn every_one_of_many_is_tried_within_the_limit() {
    let numbers: Vec<u8> = (1..=16).collect();
    for number in 1..16 {
        set_door(address(number), Door::Swallows);
    }
    let _node = open(16);
    let (outcome, took, _) = connecting(&candidates(&numbers, 0)).await;
    assert_eq!((outcome, took), ("ok", 15 * 125));
    set_door(address(16), Door::Swallows);
    let (outcome, took, notes) = connecting(&candidates(&numbers, 0)).await;
    assert_eq!((outcome, took), ("connect_timeout", 2000));
    assert_eq!(notes.len(), 16);
    assert!(notes.iter().all(|(_, works)| !works));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_more_than_silence_and_comes_soon_where_the_rest_has_failed_lately() {
    set_door(address(1), Door::Shut);
    set_door(address(2), Door::Swallows);
    let (outcome, took, _) = connecting(&candidates(&[1, 2], 0)).await;
    assert_eq!((outcome, took), ("refused", 2000));
    let (outcome, took, notes) = connecting(&candidates(&[1, 2], 1)).await;
    assert_eq!((outcome, took), ("refused", 250));
    assert_eq!(notes, [(address(1), false), (address(2), false)]);
    // One that works again is still found.
    let _node = open(2);
    let (outcome, took, _) = connecting(&candidates(&[1, 2], 1)).await;
    assert_eq!((outcome, took), ("ok", 0));
}

#[tokio::test(start_paused = true)]
async fn the_failure_at_the_address_that_worked_last_is_the_nodes() {
    set_door(address(1), Door::Shut);
    set_door(address(2), Door::Swallows);
    let proven = |numbers| Candidates {
        proven: true,
        ..candidates(numbers, 0)
    };
    // The node is silent where it was; that nothing listens elsewhere does not make it gone.
    let (outcome, took, _) = connecting(&proven(&[2, 1])).await;
    assert_eq!((outcome, took), ("connect_timeout", 2000));
    let (outcome, took, _) = connecting(&proven(&[1, 2])).await;
    assert_eq!((outcome, took), ("refused", 2000));
}
