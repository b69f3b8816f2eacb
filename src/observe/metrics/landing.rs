//! The metrics of landing control.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of sessions whose node is gone, and that wait to log in elsewhere.
#[derive(Debug, Clone, Default)]
pub struct LandingMetrics {
    /// Requests of such sessions that wait now.
    pub waiting: Gauge,
    /// Sessions that were released.
    pub released: Counter,
}

impl LandingMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let what =
            "Requests of sessions whose node is gone, held until a survivor has room for a login";
        registry.register("landing_waiting", what, metrics.waiting.clone());
        let what = "Sessions whose node is gone that were released to a survivor";
        registry.register("landing_released", what, metrics.released.clone());
        metrics
    }
}
