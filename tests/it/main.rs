//! Everything that needs real sockets or the file system, in one binary.

mod balancer;
mod clients;
mod config;
mod drain;
mod failures;
mod http;
mod layout;
mod routing;
mod simulator;
