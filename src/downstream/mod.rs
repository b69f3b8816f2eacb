//! The client's side: listeners, connections, who the client is, and the form of an answer in HTTP.
//!
//! Owns everything of HTTP towards the client, and no decision about sessions: a POST on a BOSH
//! path becomes a [`proxy::BoshRequest`](crate::proxy::BoshRequest), and what comes back is written out.

mod answer_fields;
mod body_budget;
mod client;
mod cors;
mod drain;
mod h1;
mod h2;
mod handler;
mod idle;
mod io;
mod listener;
mod load_shedding;
mod node_list;
mod opening;
mod tls;
mod websocket;

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

pub use client::client_address;
pub use drain::Drain;
pub use listener::{Listener, accept};
pub use load_shedding::relieve;

use crate::config::Settings;
use crate::limits::{Clients, Connections, Files};
use crate::proxy::{BoshRequest, Handled, Proxy};
use body_budget::BodyBudget;
use load_shedding::LoadShedding;

/// What takes the requests that are for nodes: [`Proxy::begin`].
pub type Handler = fn(&Arc<Proxy>, &BoshRequest<'_>) -> Handled;

/// What all client connections share.
pub struct Downstream {
    proxy: Arc<Proxy>,
    handler: Handler,
    settings: Settings,
    cors: cors::Policy,
    node_list: Option<node_list::NodeList>,
    drain: Arc<Drain>,
    /// One permit for each client connection.
    places: Arc<Semaphore>,
    /// One permit for each TLS handshake.
    handshakes: Arc<Semaphore>,
    clients: Clients,
    /// Connections of each client.
    connections: Arc<Connections>,
    /// What request bodies may take.
    bodies: Arc<BodyBudget>,
    files: Files,
    load_shedding: LoadShedding,
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream").finish_non_exhaustive()
    }
}

impl Downstream {
    /// The client's side of `proxy`.
    pub fn new(proxy: Arc<Proxy>, settings: Settings, drain: Arc<Drain>, files: Files) -> Self {
        let places = settings.limits.connections.min(Semaphore::MAX_PERMITS);
        let each = settings.limits.connections_per_client;
        Self {
            cors: cors::Policy::new(&settings.cors, &settings.bosh.answer_headers),
            node_list: node_list::NodeList::new(&settings),
            clients: Clients::new(&settings),
            connections: Arc::new(Connections::new(each)),
            handshakes: Arc::new(Semaphore::new(settings.limits.handshakes)),
            bodies: Arc::new(BodyBudget::new(settings.limits.body_memory)),
            files,
            load_shedding: LoadShedding::new(),
            proxy,
            handler: Proxy::begin,
            settings,
            drain,
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The same with another handler.
    #[must_use]
    pub fn with_handler(self, handler: Handler) -> Self {
        Self { handler, ..self }
    }

    /// One without nodes.
    #[cfg(test)]
    fn for_tests() -> Arc<Self> {
        use crate::{cluster::Cluster, observe::metrics::Metrics};
        let settings = Settings::for_nodes(Vec::new());
        let metrics = Arc::new(Metrics::new());
        let cluster = Arc::new(Cluster::new(&settings, &metrics));
        let proxy = Proxy::new(&settings, cluster, metrics).expect("no traces are sent");
        let files = Files::raise(1, 1, 1);
        Arc::new(Self::new(Arc::new(proxy), settings, Arc::default(), files))
    }
}
