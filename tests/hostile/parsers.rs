//! The corpora through two parsers: what Bowline takes for a request, hyper takes for the same one.

use crate::corpus::{Expect, Piece, Words, cases};

#[path = "../fuzz/checks/parsers.rs"]
#[allow(
    unreachable_pub,
    reason = "it belongs to the fuzz targets, a crate of its own"
)]
mod check;

#[test]
fn what_bowline_accepts_hyper_reads_alike() {
    let words = Words {
        sid: "S".to_owned(),
        rid: 7,
        victim: "V".to_owned(),
    };
    let (mut held, mut read) = (0, 0);
    for case in cases(include_str!("requests.txt")) {
        let pieces = words
            .fill(&case.script)
            .into_iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::Pause | Piece::Fin => Vec::new(),
            });
        let bytes = pieces.collect::<Vec<_>>().concat();
        let requests = check::requests(&bytes).len();
        let checked = std::panic::catch_unwind(|| check::check(&bytes));
        assert!(checked.is_ok(), "{}", case.name);
        held += 1;
        read += requests;
        let passes = |expect: &Expect| *expect == Expect::Pass;
        let least = case
            .outcomes
            .iter()
            .map(|outcome| outcome.answers.iter().filter(|e| passes(e)).count());
        assert!(
            requests >= least.min().unwrap_or(0),
            "{} is refused",
            case.name
        );
    }
    assert!(held > 400 && read > 100, "{held} cases, {read} requests");
}
