//! A BOSH cluster in one process: simulated nodes and a small client, for the demo, the tests and
//! the benchmarks. It owns every simulated wire; nothing of the balancer itself imports it.

pub mod client;
pub mod node;
