//! One look at a balancer: its health, what happened since the last look, and what it answered itself.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::News;
use crate::admin::report::{Health, SCHEMA};
use crate::cli::ask::{AskError, Whom, ask};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a look found, or why there is no answer.
pub(super) type Looked = Result<Found, String>;

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The URL that was asked.
    pub(super) url: String,
    pub(super) health: Health,
    /// Whether it is another process than at the last look: nothing known of it holds any more.
    pub(super) is_new: bool,
    /// What happened since the last look, oldest first.
    pub(super) events: Vec<Happened>,
    /// Answers of the balancer's own since its start, by cause.
    pub(super) rejects: Vec<(String, u64)>,
    /// When it was found.
    pub(super) at: Instant,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Happened {
    id: u64,
    /// When, as RFC 3339.
    pub(super) when: String,
    /// What, in words.
    pub(super) text: String,
}

/// `/events`.
#[derive(Debug, Deserialize)]
struct EventPage {
    started: String,
    events: Vec<Happened>,
}

/// Looks again and again.
pub(super) struct Looker {
    whom: Whom,
    /// When the process started that was seen last.
    started: String,
    /// The last event that was seen.
    last: u64,
}

impl Looker {
    /// The first look.
    ///
    /// # Errors
    /// There is no answer to work with.
    pub(super) async fn start(whom: &Whom) -> Result<(Self, Looked), AskError> {
        let mut looker = Self {
            whom: whom.clone(),
            started: String::new(),
            last: 0,
        };
        let found = looker.look().await?;
        Ok((looker, Ok(found)))
    }

    /// Looks until there is no one to show it to.
    pub(super) async fn run(mut self, send: Sender<News>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let looked = self.look().await.map_err(|error| error.to_string());
            if send.send(News::Looked(Box::new(looked))).await.is_err() {
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<Found, AskError> {
        let reply = ask(&self.whom, "/health", None).await?;
        let health: Health = reply.json()?;
        if health.schema != SCHEMA {
            let why = format!("its schema is {}, {SCHEMA} is known here", health.schema);
            return Err(AskError::Foreign(reply.url, why));
        }
        let is_new = health.started != self.started;
        if is_new {
            self.last = 0;
        }
        let path = format!("/events?since={}", self.last);
        let page: EventPage = ask(&self.whom, &path, None).await?.json()?;
        // A restart between the two: the next look takes all of it.
        let events = if page.started == health.started {
            self.started.clone_from(&page.started);
            page.events
        } else {
            Vec::new()
        };
        self.last = events.last().map_or(self.last, |event| event.id);
        let metrics = ask(&self.whom, "/metrics", None).await?;
        Ok(Found {
            url: reply.url,
            health,
            is_new,
            events,
            rejects: rejects(&String::from_utf8_lossy(&metrics.body)),
            at: Instant::now(),
        })
    }
}

/// The counts of a page of metrics that are not zero.
fn rejects(page: &str) -> Vec<(String, u64)> {
    let counts = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("bowline_rejects_total{cause=\"")?;
        let (cause, count) = rest.split_once("\"} ")?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some((cause.to_owned(), count))
    });
    counts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_are_read() {
        let page = "# TYPE bowline_rejects counter\nbowline_rejects_total{cause=\"full\"} 0\n\
                    bowline_rejects_total{cause=\"malformed\"} 12\nbowline_other 1\n\
                    bowline_rejects_total{cause=\"x\"} y\n";
        assert_eq!(rejects(page), [("malformed".to_owned(), 12)]);
    }
}
