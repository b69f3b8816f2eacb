//! What has to be looked at from time to time, for the history: samples of each node, and the sizes
//! of tables.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{MissedTickBehavior, interval};

use super::{AdminState, history};

/// Takes a sample every [`history::EVERY`]. Never returns.
pub(super) async fn run(state: Arc<AdminState>) {
    let mut tick = interval(history::EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    state.measure().await;
    loop {
        let now = tick.tick().await;
        let (cluster, metrics) = (&state.cluster, &state.metrics);
        state
            .history
            .sample(cluster, metrics, now, SystemTime::now());
        state.measure().await;
    }
}
