//! The certificates of all listeners, and the look at their files every second.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::acceptor::{Acceptor, Change};
use super::files::LoadError;
use crate::config::Listen;
use crate::observe::events::{Event, EventKind};
use crate::observe::metrics::Metrics;

/// How often the files are read. A rename, a write and a symlink that is swapped all look alike.
const EVERY: Duration = Duration::from_secs(1);

/// The certificates of all listeners.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// One for each listener, in their order; none for a plain one. A reload exchanges the list.
    acceptors: Arc<ArcSwap<Acceptors>>,
}

/// One for each listener, in their order; none for a plain one.
pub type Acceptors = Vec<Option<Arc<Acceptor>>>;

impl Certificates {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(listeners: &[Listen]) -> Result<Self, LoadError> {
        let certificates = Self::default();
        certificates.replace(certificates.prepare(listeners)?);
        Ok(certificates)
    }

    /// Reads the files of the listeners that are new or have others. What the rest uses stays, with the
    /// keys of its tickets.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn prepare(&self, listeners: &[Listen]) -> Result<Acceptors, LoadError> {
        let acceptor = |listen: &Listen| {
            let Some(tls) = &listen.tls else {
                return Ok(None);
            };
            let known = self
                .encrypted()
                .into_iter()
                .find(|one| one.is_of(listen, tls));
            known
                .map_or_else(|| Acceptor::load(listen, tls).map(Arc::new), Ok)
                .map(Some)
        };
        listeners.iter().map(acceptor).collect()
    }

    /// Takes these in place of what is in use.
    pub fn replace(&self, acceptors: Acceptors) {
        self.acceptors.store(Arc::new(acceptors));
    }

    /// One for each listener, in their order; none for a plain one.
    pub fn acceptors(&self) -> Acceptors {
        self.acceptors.load().to_vec()
    }

    /// What is amiss as of `now`, a sentence each.
    pub fn reasons(&self, now: SystemTime) -> Vec<String> {
        let encrypted = self.encrypted();
        encrypted.iter().flat_map(|one| one.reasons(now)).collect()
    }

    /// Looks at the files now. Says how many listeners use others from now on.
    pub fn look(&self) -> usize {
        let encrypted = self.encrypted();
        let looked = encrypted.iter().map(|acceptor| acceptor.look());
        looked.filter(|change| *change == Change::Exchanged).count()
    }

    /// Shows when the certificates expire.
    pub fn show(&self, metrics: &Metrics) {
        metrics.tls.forget_expiry();
        for acceptor in self.encrypted() {
            for certificate in acceptor.certificates() {
                let file = certificate.file.to_string_lossy();
                metrics
                    .tls
                    .set_expiry(&acceptor.listener, &file, certificate.not_after);
            }
        }
    }

    /// Looks at the files every second; `add` takes the events. Never returns.
    pub async fn watch(self, metrics: Arc<Metrics>, add: impl Fn(Event)) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for acceptor in self.encrypted() {
                // A file may lie on a network.
                let looking = Arc::clone(&acceptor);
                let looked = tokio::task::spawn_blocking(move || looking.look()).await;
                let Ok(change) = looked else { continue };
                if change != Change::Nothing {
                    add(tell(&acceptor, &change, &metrics));
                    self.show(&metrics);
                }
            }
        }
    }

    fn encrypted(&self) -> Vec<Arc<Acceptor>> {
        self.acceptors.load().iter().flatten().cloned().collect()
    }
}

/// Logs a change and counts it. Returns the event.
fn tell(acceptor: &Acceptor, change: &Change, metrics: &Metrics) -> Event {
    let listener = &acceptor.listener;
    let text = match change {
        Change::Nothing => String::new(),
        Change::Exchanged => {
            metrics.tls.reloads.inc("ok");
            info!(%listener, "new certificates are in use");
            format!("listener {listener} uses new certificates")
        }
        Change::Refused(why) => {
            metrics.tls.reloads.inc("failed");
            warn!(%listener, %why, "new certificates cannot be used, the old ones stay");
            format!("listener {listener} keeps its old certificates: {why}")
        }
        Change::Restored => {
            info!(%listener, "the files are again those of the certificates in use");
            format!("the files of listener {listener} are again those of its certificates")
        }
    };
    Event::new(EventKind::Certificates, SystemTime::now(), text)
}
