//! The client's side: accepting, connections, who the client is, what a request head may look
//! like, and the form of an answer in HTTP.
//!
//! Owns everything of HTTP towards the client, and no decision about sessions: a POST on a BOSH
//! path becomes a [`proxy::Ask`](crate::proxy::Ask), and what comes back is written out. hyper
//! parses every request; while a request is held at its node nothing of hyper stays (`connection`).

mod accept;
mod answer;
mod body;
mod client;
mod connection;
mod cors;
mod drain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod head_timer;
mod service;
mod wire;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use accept::accept;
pub use drain::Drain;

use crate::config::Settings;
use crate::proxy::Proxy;

/// What all client connections share.
#[derive(Debug)]
pub struct Edge {
    proxy: Arc<Proxy>,
    settings: Settings,
    drain: Arc<Drain>,
    /// One permit for each client connection.
    places: Arc<Semaphore>,
}

impl Edge {
    /// The client's side of `proxy`.
    pub fn new(proxy: Arc<Proxy>, settings: Settings, drain: Arc<Drain>) -> Self {
        let places = settings.limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            proxy,
            settings,
            drain,
            places: Arc::new(Semaphore::new(places)),
        }
    }
}
