//! Everything that needs real sockets or the file system, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop right there"
)]

mod balancer;
mod cli;
mod clients;
mod config;
mod drain;
mod failures;
mod http;
mod layout;
mod monitoring;
mod operator;
mod probing;
mod routing;
mod simulator;
mod stampede;
mod supply;
