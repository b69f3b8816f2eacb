//! The client's side: accepting, connections, who the client is, what a request head may look
//! like, and the form of an answer in HTTP.
//!
//! Owns everything of HTTP towards the client, and no decision about sessions: a POST on a BOSH
//! path becomes a [`proxy::Ask`](crate::proxy::Ask), and what comes back is written out. hyper
//! parses every request; while a request is held at its node nothing of hyper stays (`connection`).

mod accept;
mod alarm;
mod answer;
mod body;
mod client;
mod connection;
mod cors;
mod crowd;
mod drain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod node_list;
mod scan;
mod service;
mod wire;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use accept::accept;
pub use crowd::relieve;
pub use drain::Drain;

use crate::config::Settings;
use crate::limits::{Clients, Connections, Files};
use crate::proxy::Proxy;
use crowd::Crowd;

/// What all client connections share.
#[derive(Debug)]
pub struct Edge {
    proxy: Arc<Proxy>,
    settings: Settings,
    cors: cors::Policy,
    node_list: Option<node_list::NodeList>,
    drain: Arc<Drain>,
    /// One permit for each client connection.
    places: Arc<Semaphore>,
    clients: Clients,
    /// Connections of each client.
    connections: Arc<Connections>,
    /// What request bodies may take.
    bodies: body::Memory,
    files: Files,
    crowd: Crowd,
}

impl Edge {
    /// The client's side of `proxy`.
    pub fn new(proxy: Arc<Proxy>, settings: Settings, drain: Arc<Drain>, files: Files) -> Self {
        let places = settings.limits.connections.min(Semaphore::MAX_PERMITS);
        let each = settings.limits.connections_per_client;
        Self {
            cors: cors::Policy::new(&settings.cors),
            node_list: node_list::NodeList::new(&settings),
            clients: Clients::new(&settings),
            connections: Arc::new(Connections::new(each)),
            bodies: body::Memory::new(settings.limits.body_memory),
            files,
            crowd: Crowd::new(),
            proxy,
            settings,
            drain,
            places: Arc::new(Semaphore::new(places)),
        }
    }
}
