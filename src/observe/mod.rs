//! What people and programs see of a running balancer: metrics, events, the log, and traces.
//!
//! Shows and never decides: the modules that need a count keep it themselves.

pub mod events;
pub mod log;
pub mod metrics;
pub mod traces;
