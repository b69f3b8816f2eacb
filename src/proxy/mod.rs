//! One request: read its wrapper, find its session, wait for its turn, send it, read the response, answer.
//!
//! Owns the decisions of a request's life and nothing of HTTP towards the client: `downstream` hands in
//! a body and a few checked facts ([`BoshRequest`]), and gets either an [`Answer`] at once or an
//! [`Exchange`] to be waited for. An exchange is a boxed future that holds only what the answer
//! will need, since a held poll is the normal state of a client. Dropping it ends the request at its node.

//!
//! This file only names the steps. `route` reads the wrapper; `create` and `session_request` run the two
//! kinds of requests; `attempt` is one try at one node; `retry` says what follows a failure. `websocket`
//! chooses the node of a WebSocket and opens it.

mod access_log;
mod answer;
mod attempt;
mod connect;
mod create;
mod deadline;
mod exchange;
mod landing;
mod lookup;
mod node_response;
mod preflight;
mod protocol;
mod reject;
mod release;
mod request;
mod request_record;
mod retry;
mod retry_policy;
mod route;
mod session_request;
mod shared;
mod termination_state;
mod websocket;

pub use access_log::{AccessLogger, TARGET};
pub use answer::Answer;
pub use exchange::Exchange;
pub use protocol::{HttpVersion, Protocol, TlsVersion};
pub use reject::{Cause, Row};
pub use request::{BoshRequest, request_for_node};
pub use request_record::{Delivered, Delivery, Reply, RequestRecord};
pub use route::Handled;
pub use shared::{Background, Proxy};
pub use websocket::{NodeEnd, NodeTunnel, Tunnel, TunnelEnd, UpgradeRequest, Upgraded, Upgrading};
