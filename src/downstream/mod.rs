//! The client's side: listeners, connections, who the client is, and the form of an answer in HTTP.
//!
//! Owns everything of HTTP towards the client, and no decision about sessions: a POST on a BOSH
//! path becomes a [`proxy::BoshRequest`](crate::proxy::BoshRequest), and what comes back is written out.

mod answer_fields;
mod bind;
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
mod listener_slot;
mod load_shedding;
mod node_list;
mod opening;
mod proxy_protocol;
mod tls;
mod websocket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

pub use bind::{ListeningSocket, SocketFile, bind_tcp};
pub use client::client_address;
pub use drain::Drain;
pub use listener::{Listener, accept};
pub use listener_slot::ListenerSlot;
pub use load_shedding::relieve;

use crate::config::{Limits, Settings};
use crate::limits::{Clients, Connections, Files};
use crate::proxy::{BoshRequest, Handled, Proxy};
use body_budget::BodyBudget;
use load_shedding::LoadShedding;

/// Changes how many permits there are. Permits that are in use are taken back as they come free, in front
/// of those who wait.
fn resize(permits: &Arc<Semaphore>, from: usize, to: usize) {
    let (from, to) = (
        from.min(Semaphore::MAX_PERMITS),
        to.min(Semaphore::MAX_PERMITS),
    );
    if to >= from {
        permits.add_permits(to - from);
        return;
    }
    let owed = from - to - permits.forget_permits(from - to);
    if let (1.., Ok(owed)) = (owed, u32::try_from(owed)) {
        let permits = Arc::clone(permits);
        tokio::spawn(async move {
            if let Ok(owed) = permits.acquire_many_owned(owed).await {
                owed.forget();
            }
        });
    }
}

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
    load_shedding: Arc<LoadShedding>,
    /// Other settings serve newcomers: connections end with their next answer.
    retired: AtomicBool,
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
            load_shedding: Arc::new(LoadShedding::new()),
            retired: AtomicBool::new(false),
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

    /// The same client side for the newcomers from now on, with other settings. What connections have
    /// open counts on; [`set_limits`](Self::set_limits) changes how much that may be.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        Self {
            proxy: Arc::clone(&self.proxy),
            handler: self.handler,
            cors: cors::Policy::new(&settings.cors, &settings.bosh.answer_headers),
            node_list: node_list::NodeList::new(&settings),
            drain: Arc::clone(&self.drain),
            places: Arc::clone(&self.places),
            handshakes: Arc::clone(&self.handshakes),
            clients: self.clients.with_settings(&settings),
            connections: Arc::clone(&self.connections),
            bodies: Arc::clone(&self.bodies),
            files: self.files,
            load_shedding: Arc::clone(&self.load_shedding),
            retired: AtomicBool::new(false),
            settings,
        }
    }

    /// Takes the limits of these settings for all connections, in place of its own. Nothing that is open
    /// is cut: beyond a lower limit newcomers wait.
    pub fn set_limits(&self, new: &Limits) {
        let old = &self.settings.limits;
        resize(&self.places, old.connections, new.connections);
        resize(&self.handshakes, old.handshakes, new.handshakes);
        self.connections.set_most(new.connections_per_client);
        self.bodies.set_most(new.body_memory);
    }

    /// Has each connection that it serves end with its next answer, so that its client's next one is
    /// served by other settings. HTTP/1.1 says `connection: close`, HTTP/2 GOAWAY.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.drain.wake_idle();
    }

    /// Whether answers close their connections.
    fn is_closing(&self) -> bool {
        self.drain.lets_go() || self.is_retired()
    }

    /// Whether newcomers are served by other settings.
    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
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
