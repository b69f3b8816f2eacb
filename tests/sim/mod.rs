//! The balancer on virtual time: whole clusters in one thread, with faults, from a seed.
//!
//! Everything of Bowline is real, from the client's bytes (`downstream`) through `proxy`, `sessions`,
//! `cluster` and `health` to the bytes for the node. Only the sockets are pipes in memory
//! (`src/transport/pipe.rs`), and tokio's clock jumps to the next timer when nothing can run. A seed
//! repeats its run to the byte.
//!
//! ```text
//! plan        what a seed draws: faults, habits of nodes, settings, clients
//! world       runs a plan
//! node        a simulated node
//! client      a simulated client, which checks its answers
//! wire        messages and stanzas from bytes
//! history     what happened, and what a fault excuses
//! invariants  what must hold
//! stanzas     the checker: every stanza exactly once and in order
//! trace       a digest of a run, and a line for each event
//! shrink      the smallest part of a plan that breaks the same invariant
//! landing     a node with many sessions dies: how its clients log in at the others
//! order       one session on virtual time: rid order and requests that stay unanswered
//! ```
//!
//! `tests/sim/run` runs seeds; README.md says how.

mod client;
mod history;
mod invariants;
mod landing;
mod node;
mod order;
mod plan;
mod shrink;
mod stanzas;
mod tests;
mod trace;
mod wire;
mod world;
