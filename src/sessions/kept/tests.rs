//! Kept answers: found by their request only, dropped in time, within the budget.

use super::*;

fn kept(budget: usize) -> KeptAnswers {
    KeptAnswers::new(budget, KeptMetrics::default())
}

fn answer(body: &str) -> KeptAnswer {
    KeptAnswer {
        body: Bytes::copy_from_slice(body.as_bytes()),
        head: None,
    }
}

fn asked(kept: &KeptAnswers, rid: u64, body: &str) -> Asked {
    let hash = kept.hash(body.as_bytes());
    Asked {
        rid,
        hash,
        is_poll: false,
        ack: 0,
    }
}

fn keep(kept: &KeptAnswers, owner: usize, slot: &mut Slot, asked: Asked, body: &str) {
    kept.keep(owner, slot, (asked.rid, asked.hash), answer(body));
}

/// How many answers there are, and what they take.
fn counts(kept: &KeptAnswers) -> (usize, usize) {
    kept.measure();
    kept.metrics.now()
}

fn body_of(kept: &KeptAnswers, owner: usize, mut slot: Slot, asked: Asked) -> Option<String> {
    let found = kept.ask(owner, &mut slot, (asked, 0))?;
    Some(String::from_utf8(found.body.to_vec()).unwrap())
}

#[test]
fn only_the_same_request_of_the_same_session_finds_an_answer() {
    let kept = kept(1 << 20);
    let mut slot = 0;
    let first = asked(&kept, 7, "a");
    keep(&kept, 64, &mut slot, first, "one");
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
    keep(&kept, 64, &mut slot, asked(&kept, 8, "x"), "later");
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
        keep(&kept, 64, &mut slot, *one, &one.rid.to_string());
    }
    assert_eq!(body_of(&kept, 64, slot, all[0]), None);
    assert!(body_of(&kept, 64, slot, all[1]).is_some());
    let later = |slot: &mut Slot, rid| {
        let asked = asked(&kept, rid, "y");
        let arrived = asked.arrived(2, Some(rid - 1));
        assert!(kept.ask(64, slot, (asked, arrived)).is_none());
    };
    later(&mut slot, 4);
    assert_eq!(body_of(&kept, 64, slot, all[1]), None);
    assert!(body_of(&kept, 64, slot, all[2]).is_some());
    later(&mut slot, 5);
    assert_eq!(slot, 0, "a session without answers has no entry");
    assert_eq!(counts(&kept), (0, 0));
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
                let arrived = asked.arrived(2, None);
                assert!(kept.ask(owner, &mut slots[who], (asked, arrived)).is_none());
            }
            _ => {
                let body = "y".repeat(rng.usize(..2000));
                let asked = asked(&kept, step, "x");
                keep(&kept, owner, &mut slots[who], asked, &body);
                if body.len() < 1000 {
                    assert!(
                        kept.ask(owner, &mut slots[who], (asked, 0)).is_some(),
                        "the newest stays"
                    );
                }
            }
        }
    }
    let sums = kept.shards.each_ref().map(|shard| {
        let shard = shard.lock().unwrap();
        let used = shard.entries.iter().filter(|entry| entry.owner != 0);
        let bytes: usize = used.clone().map(Entry::bytes).sum();
        assert_eq!(bytes, shard.bytes);
        assert!(bytes <= budget / SHARDS);
        (used.map(Entry::count).sum::<usize>(), bytes)
    });
    let all = sums
        .iter()
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!(counts(&kept), all);
    assert!(kept.metrics.evicted.get() > 0);
}

/// XEP-0124 §9.2: the client says up to which rid it has the answers. §11: it has two requests under way,
/// and one more to pause or terminate, so that a rid far ahead shows nothing.
#[test]
fn an_ack_and_a_rid_within_the_window_show_what_has_arrived() {
    let asked = |rid, ack| Asked {
        rid,
        ack,
        hash: 0,
        is_poll: false,
    };
    for ((rid, ack), requests, last, arrived) in [
        ((12, 0), 2, Some(11), 10),
        ((12, 0), 2, None, 10),
        ((14, 0), 2, Some(11), 12),
        ((15, 0), 2, Some(11), 0),
        ((12, 0), 3, Some(11), 9),
        ((12, 11), 2, Some(11), 11),
        ((12, 8), 2, Some(11), 8),
        ((99, 11), 2, Some(11), 11),
        ((12, 12), 2, Some(11), 10),
        ((12, 99), 2, Some(11), 10),
        ((1, 0), 2, Some(11), 0),
    ] {
        let request = asked(rid, ack);
        assert_eq!(request.arrived(requests, last), arrived, "{request:?}");
    }
}

/// It would push all others out of its shard, and then itself.
#[test]
fn an_answer_that_has_no_room_is_not_kept() {
    let kept = kept(SHARDS * 1000);
    assert!(kept.may_keep(700) && !kept.may_keep(900));
    assert!(!self::kept(0).may_keep(0));
    assert!(!self::kept(1 << 30).may_keep(LARGEST + 1));
}

#[test]
fn fields_of_the_head_count() {
    use crate::http1::WantedFields;
    let wanted = WantedFields {
        names: vec!["x-long".to_owned()],
        cors: false,
    };
    let long = "y".repeat(4000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: {long}\r\n\r\n");
    let head = crate::http1::ResponseHead::parse(head.as_bytes(), &wanted).unwrap();
    let with_fields = KeptAnswer {
        head: Some(Box::new(KeptHead {
            content_type: None,
            fields: head.fields,
        })),
        ..answer("")
    };
    assert!(with_fields.bytes() > 4000, "{}", with_fields.bytes());
}

/// An entry is two lines of a processor's cache.
#[test]
#[cfg(target_pointer_width = "64")]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), 128);
}
