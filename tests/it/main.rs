//! Everything that needs real sockets or the file system, in one binary.

mod config;
mod layout;
mod simulator;
