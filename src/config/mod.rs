//! The configuration: one YAML file in, checked settings out.
//!
//! Owns what a valid configuration is and the words that say what is wrong with an invalid one.
//! Opens no socket, and reads no file but the one it is given.

mod settings;

pub use settings::*;
