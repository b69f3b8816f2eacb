//! Shows what discovery finds: in the metrics, in `/health`, in the events and in the log.

use std::sync::PoisonError;
use std::time::SystemTime;

use tracing::{info, warn};

use super::AdminState;
use crate::observe::events::{Event, EventKind};

impl AdminState {
    /// Shows that discovery changed the nodes like this.
    pub fn discovered(&self, changed: &[String]) {
        let changed = changed.join(", ");
        info!(%changed, "discovery found other nodes");
        self.add_discovery(format!("discovery: {changed}"));
    }

    /// Shows that discovery fails, for this reason, or does so no longer.
    pub fn discovery_failed(&self, why: Option<&str>) {
        let failure = self.discovery_failure.lock();
        failure
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&why.map(str::to_owned));
        self.metrics.discovery_ok.set(i64::from(why.is_none()));
        match why {
            Some(why) => {
                warn!(%why, "discovery fails, and the nodes stay as they are");
                self.add_discovery(format!(
                    "discovery fails, and the nodes stay as they are: {why}"
                ));
            }
            None => {
                info!("discovery works again");
                self.add_discovery("discovery works again".to_owned());
            }
        }
    }

    /// Why discovery fails; none if it does not.
    pub(super) fn discovery_failure(&self) -> Option<String> {
        let failure = self.discovery_failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add_discovery(&self, text: String) {
        let event = Event::new(EventKind::Discovery, SystemTime::now(), text);
        self.cluster.events.add(event);
    }
}
