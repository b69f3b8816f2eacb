//! A BOSH cluster in one process: simulated nodes and a small client, for the demo, the tests and
//! the benchmarks, and the demo's show itself. It owns every simulated wire; nothing of the
//! balancer imports it.

pub mod client;
mod crowd;
pub mod node;
mod show;
#[cfg(test)]
mod tests;

pub use show::{Key, Keys, Show, Summary};
