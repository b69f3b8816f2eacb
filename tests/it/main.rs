//! Everything that needs real sockets or the file system, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop right there"
)]

mod accesslog;
mod activation;
mod attributes;
mod blame;
mod cli;
mod clients;
mod config;
mod connecting;
mod cross_origin;
mod cuts;
mod dashboard;
mod demo;
mod discovery;
mod docs;
mod drain;
mod dual_stack;
mod failures;
mod files;
mod floods;
mod held;
mod http;
mod http2;
mod kept;
mod kept_flood;
mod landing;
mod layout;
mod membership;
mod monitoring;
mod narration;
mod node_list;
mod node_tls;
mod operator;
mod order;
mod pairs;
mod probing;
mod protocols;
mod proxy_protocol;
mod reconnect_storm;
mod rediscovery;
mod reload;
mod reload_listeners;
mod restarts;
mod rooms;
mod routing;
mod sessions;
mod silence;
mod simulator;
mod snapshot;
mod supply;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod tls;
#[cfg(feature = "top")]
mod top;
#[cfg(feature = "otlp")]
mod traces;
mod unix_sockets;
mod vanished;
mod websocket;

use support::{balancer, process};
