//! What a case measured, and what must hold of it.

use std::fmt::Display;

/// The findings of one case.
pub(super) struct Report {
    holds: bool,
}

impl Report {
    pub(super) fn begin(name: &str) -> Self {
        println!("== {name}");
        Self { holds: true }
    }

    /// A figure.
    pub(super) fn figure(&self, what: &str, value: impl Display) {
        println!("   {what}: {value}");
    }

    /// Something that must hold.
    pub(super) fn must(&mut self, what: &str, holds: bool) {
        println!("   {} {what}", if holds { "ok    " } else { "BROKEN" });
        self.holds &= holds;
    }

    /// Whether everything held.
    pub(super) fn end(self) -> bool {
        self.holds
    }
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> String {
    #[allow(
        clippy::cast_precision_loss,
        reason = "one digit behind the point is shown"
    )]
    let mib = bytes as f64 / (1024.0 * 1024.0);
    format!("{mib:.1} MiB")
}

/// What 99 of 100 requests between two looks were at most delayed by, by the balancer's own buckets.
pub(super) fn p99(before: &[(f64, f64)], after: &[(f64, f64)]) -> String {
    let counts: Vec<(f64, f64)> = before
        .iter()
        .zip(after)
        .map(|(old, new)| (new.0, new.1 - old.1))
        .collect();
    let all = counts.last().map_or(0.0, |(_, count)| *count);
    let bound = counts.iter().find(|(_, count)| *count >= 0.99 * all);
    bound.map_or_else(String::new, |(bound, _)| {
        format!("p99 at most {} ms", bound * 1000.0)
    })
}
