//! What is held for any bytes, one module for each fuzz target. A check panics where Bowline and a
//! second, simple reading disagree.
//!
//! The targets call these; so does `cargo test` in the main package, for each file below `seeds/`
//! (`src/lib.rs` includes this folder there).

pub mod address;
pub mod answer;
pub mod config;
pub mod frames;
pub mod head;
pub mod parsers;
pub mod proxy_header;
pub mod request;
pub mod snapshot;

mod exchange;
#[cfg(test)]
mod seeds;
mod xml;
