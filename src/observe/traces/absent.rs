//! No traces: the same functions, and nothing in them.

use std::io;

use super::{SpanEnd, Stage};
use crate::config;
use crate::http1::Fields;

/// The span that a request belongs to.
#[derive(Debug, Clone, Default)]
pub struct Parent(());

impl Parent {
    /// What the head of a request says. The peer must be trusted.
    pub const fn of(_: Fields<'_>) -> Self {
        Self(())
    }
}

/// Where traces go.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// Starts them, where there are any.
    ///
    /// # Errors
    /// None.
    pub const fn start(_: Option<&config::Traces>) -> io::Result<Self> {
        Ok(Self)
    }

    /// The trace of a request that begins now.
    pub const fn begin(&self, _: &Parent) -> Trace {
        Trace
    }

    /// Sends what still waits.
    pub async fn flush(&self) {}
}

/// One request's trace.
#[derive(Debug)]
pub struct Trace;

impl Trace {
    /// Whether anything is noted.
    pub const fn is_on(&self) -> bool {
        false
    }

    /// The request is at another stage, at `node` if there is one.
    pub const fn enters<'a>(&self, _: Stage, _: impl FnOnce() -> Option<&'a str> + Copy) {}

    /// The request has ended.
    pub const fn end(&self, _: &SpanEnd<'_>) {}
}
