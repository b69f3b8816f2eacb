//! Kept answers: found by their request only, dropped in time, within the budget.

use super::*;

fn kept(budget: usize) -> KeptAnswers {
    KeptAnswers::new(budget, KeptMetrics::default())
}

fn answer(body: &str) -> KeptAnswer {
    KeptAnswer {
        content_type: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        fields: None,
    }
}

fn asked(kept: &KeptAnswers, rid: u64, body: &str) -> Asked {
    let hash = kept.hash(body.as_bytes());
    Asked {
        rid,
        hash,
        is_poll: false,
    }
}

fn body_of(kept: &KeptAnswers, owner: usize, mut slot: Slot, asked: Asked) -> Option<String> {
    let found = kept.ask(owner, &mut slot, asked)?;
    Some(String::from_utf8(found.body.to_vec()).unwrap())
}

#[test]
fn only_the_same_request_of_the_same_session_finds_an_answer() {
    let kept = kept(1 << 20);
    let mut slot = 0;
    let first = asked(&kept, 7, "a");
    kept.keep(64, &mut slot, first, answer("one"));
    assert_eq!(body_of(&kept, 64, slot, first).as_deref(), Some("one"));
    for other in [asked(&kept, 7, "b"), asked(&kept, 8, "a")] {
        assert_eq!(body_of(&kept, 64, slot, other), None);
    }
    assert_eq!(body_of(&kept, 128, slot, first), None);
}

/// A poll that was closed at its node, while the request behind it was answered.
#[test]
fn a_poll_below_a_kept_answer_is_empty() {
    let kept = kept(1 << 20);
    let mut slot = 0;
    kept.keep(64, &mut slot, asked(&kept, 8, "x"), answer("later"));
    let poll = Asked {
        is_poll: true,
        ..asked(&kept, 7, "x")
    };
    let empty = body_of(&kept, 64, slot, poll).unwrap();
    assert!(!empty.contains("later"));
    assert_eq!(body_of(&kept, 64, slot, asked(&kept, 7, "x")), None);
    let next = Asked { rid: 9, ..poll };
    assert_eq!(body_of(&kept, 64, slot, next), None);
}

#[test]
fn the_last_two_are_kept_until_a_later_rid_comes() {
    let kept = kept(1 << 20);
    let mut slot = 0;
    let all: Vec<_> = (1..=3).map(|rid| asked(&kept, rid, "x")).collect();
    for one in &all {
        kept.keep(64, &mut slot, *one, answer(&one.rid.to_string()));
    }
    assert_eq!(body_of(&kept, 64, slot, all[0]), None);
    assert!(body_of(&kept, 64, slot, all[1]).is_some());
    let later = |rid| asked(&kept, rid, "y");
    assert!(kept.ask(64, &mut slot, later(4)).is_none());
    assert_eq!(body_of(&kept, 64, slot, all[1]), None);
    assert!(body_of(&kept, 64, slot, all[2]).is_some());
    assert!(kept.ask(64, &mut slot, later(5)).is_none());
    assert_eq!(slot, 0, "a session without answers has no entry");
    let (answers, bytes) = kept.metrics.now();
    assert_eq!((answers, bytes), (0, 0));
}

/// Sessions come and go at random, and forget that they lost their answers. The budget holds, the counts
/// agree, and the least recently served one goes first.
#[test]
fn the_budget_holds_and_the_oldest_session_loses_its_answers() {
    let budget = SHARDS * 8 * 1024;
    let kept = kept(budget);
    let mut slots = vec![0; 1000];
    let mut rng = fastrand::Rng::with_seed(7);
    for step in 0..50_000_u64 {
        let who = rng.usize(..slots.len());
        let owner = (who + 1) * 256;
        match rng.u8(..8) {
            0 => kept.release(owner, &mut slots[who]),
            1 | 2 => {
                let asked = asked(&kept, rng.u64(..step + 1), "y");
                assert!(kept.ask(owner, &mut slots[who], asked).is_none());
            }
            _ => {
                let body = "y".repeat(rng.usize(..2000));
                let asked = asked(&kept, step, "x");
                kept.keep(owner, &mut slots[who], asked, answer(&body));
                if body.len() < 1000 {
                    assert!(
                        kept.ask(owner, &mut slots[who], asked).is_some(),
                        "the newest stays"
                    );
                }
            }
        }
    }
    let shards = kept.shards.each_ref().map(|shard| shard.lock().unwrap());
    let sums = shards.map(|shard| {
        let used = shard.entries.iter().filter(|entry| entry.owner != 0);
        let bytes: usize = used.clone().map(Entry::bytes).sum();
        assert_eq!(bytes, shard.bytes);
        assert!(bytes <= budget / SHARDS);
        (used.map(Entry::count).sum::<usize>(), bytes)
    });
    let all = sums
        .iter()
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!(kept.metrics.now(), all);
    assert!(kept.metrics.evicted.get() > 0);
}
