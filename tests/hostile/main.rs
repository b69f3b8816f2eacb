//! Hostile input, as raw bytes over real sockets: what clients may send to smuggle, to be seen
//! differently or to use things up, and what broken nodes may answer.
//!
//! The cases are lines of `requests.txt`, `bodies.txt` and `nodes.txt`; each of these says at its
//! top how a line is written. `cases.rs` and `nodes.rs` run them. Behind each case stand a node that
//! keeps every byte that reached it (`node.rs`), a judge that reads those bytes as several lenient
//! servers would (`readers.rs`, `invariants.rs`), and another session whose next request must get its own
//! answer, on the same client connection where that is still open, and on another (`world.rs`).
//! The other files hold the threats of `docs/security.md` that are more than one exchange, each test
//! named after its threat.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop right there"
)]

mod admin;
mod cases;
mod client;
mod corpus;
mod http2;
mod invariants;
mod leaks;
mod node;
mod nodes;
mod parsers;
mod readers;
#[path = "../support/mod.rs"]
mod support;
mod threats;
mod world;
