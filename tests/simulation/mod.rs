//! The balancer on virtual time: whole clusters in one thread, with faults, from a seed.
//!
//! Everything of Bowline is the real thing, from the client's bytes (`downstream`) through
//! `proxy`, `sessions`, `cluster` and `health` to the bytes for the node; only the sockets are pipes in
//! memory (`src/transport/pipe.rs`), and tokio's clock jumps to the next timer whenever nothing can
//! run. So an hour of a cluster takes a moment, and a seed repeats it to the byte.
//!
//! ```text
//! world    one seed: its nodes, faults, clients, and the end of it all
//! node     a simulated node: sessions, held requests, faults
//! client   a simulated client: what it does, and what it holds of its answers
//! trace     what happened, and the invariants (as in tests/system/chaos/invariants.rs)
//! ```
//!
//! `SIMULATION_SEEDS=A..B cargo test --lib simulation -- --nocapture` runs other seeds.

mod client;
mod node;
mod order;
mod tests;
mod trace;
mod world;
