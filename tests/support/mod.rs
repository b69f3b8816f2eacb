//! The harness of all suites: a balancer in this process or in one of its own, waiting for
//! conditions, metrics, temporary files, raw connections. The simulated nodes and the client are
//! `bowline::demo`.
//!
//! Each suite includes this folder as a module, with `#[path]`.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop right there"
)]

pub(crate) mod admin;
pub(crate) mod balancer;
pub(crate) mod chat;
pub(crate) mod folder;
pub(crate) mod http2;
pub(crate) mod log;
pub(crate) mod logfmt;
pub(crate) mod metrics;
pub(crate) mod node_front;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod waiting;

/// Why the harness could not do its work.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
