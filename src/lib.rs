//! Bowline: a sticky-session HTTP load balancer for BOSH clusters.
//!
//! BOSH (XEP-0124, XEP-0206) carries an XMPP stream over HTTP. Every request of a session must
//! reach the node that knows the session, so a balancer has to read what it forwards. Bowline
//! reads the wrapper of each request and answer, learns each sid, pins the session to its node,
//! watches the nodes' health, and gives a failed session's next request to a survivor.
//!
//! The modules stand in floors, and a module imports only from floors below its own
//! (docs/architecture.md; `tests/it/layout.rs` holds it):
//!
//! ```text
//! 8  cli        run, check, demo, status, drain; exit codes, logging
//! 7  demo       a cluster in one process; the simulated node
//! 6  server     starts everything; owns the drain
//! 5  admin      health, metrics and nodes over HTTP
//! 5  digest     sums of moved sessions and of the balancer's own answers, for the log
//! 5  downstream accept, connections, who the client is, limits, CORS
//! 4  proxy      one request: read, route, turn, send, learn, answer
//! 4  snapshot   pins and operator states in a file, across restarts
//! 3  health     probes, rise and fall
//! 3  sessions   pins, turns, expiry
//! 3  limits     rates of clients, unknown sids, connections, open files
//! 2  cluster    nodes, their states, placement
//! 2  discovery  which nodes there are, from a file or the DNS
//! 2  tls        certificates of listeners and their reload
//! 1  handover   listening sockets from a service manager or from the process before
//! 1  observe    metrics, events, the log, and traces: shown, and never decided by
//! 1  upstream   one HTTP/1.1 exchange with a node
//! 1  websocket  handshake and frames of WebSocket, as bytes
//! 0  http1      heads, framing and chunks of HTTP/1.1, as bytes
//! 0  bosh       reading and writing wrappers
//! 0  config     YAML to checked settings
//! 0  timers     many short waits on one timer
//! 0  transport  sockets, pipes in memory, PROXY headers; TLS over them
//! ```

// They panic where nothing can be written.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// So that what the fuzz targets check is held by `cargo test` too.
#[cfg(test)]
extern crate self as bowline;
#[cfg(test)]
#[path = "../tests/fuzz/checks/lib.rs"]
#[allow(unreachable_pub, reason = "a crate of its own for the targets")]
mod fuzz;
// Whole clusters in memory, which only unit tests can have.
#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod simulation;

pub mod admin;
pub mod bosh;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod digest;
pub mod discovery;
pub mod downstream;
pub mod handover;
pub mod health;
pub mod http1;
pub mod limits;
pub mod observe;
pub mod proxy;
pub mod server;
pub mod sessions;
pub mod snapshot;
pub mod timers;
pub mod tls;
pub mod transport;
pub mod upstream;
pub mod websocket;
