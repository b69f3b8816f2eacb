//! `bowline drain NODE... --wait`: waits until the nodes are empty, and ends what is left at a deadline.
//!
//! All it does goes over the admin listener, so that it can be stopped at any moment: the nodes stay in
//! `drain`, and no further session is ended.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ask::{AskError, Change, Whom, ask, change};
use super::operate;
use super::{complain, exit};
use crate::admin::report::Health;
use crate::admin::seconds_of;
use crate::admin::sessions::SessionPage;
use crate::cluster::OperatorState;
use crate::config::{one_line, parse_duration};

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks from one line to the next where the output is no terminal, and from one question for the end of
/// idle sessions to the next.
const SELDOM: u32 = 10;
/// How long the admin listener may be away, as for a restart.
const AWAY: Duration = Duration::from_secs(30);

/// How long to wait, and what follows.
#[derive(Debug, clap::Args)]
pub struct Waiting {
    /// Wait until the nodes have no sessions, showing how many are left.
    #[arg(long)]
    wait: bool,
    /// End the sessions that are left after this time, idle ones first: their clients log in again at
    /// other nodes. Such as 30m.
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    deadline: Option<Duration>,
    /// Sessions of each node to end in a second after the deadline; otherwise as many as the other nodes
    /// log in without delay.
    #[arg(long, value_name = "SESSIONS", requires = "deadline",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
}

impl Waiting {
    /// How many sessions of a node to end at a time, as the admin listener takes it.
    fn limit(&self) -> String {
        self.rate
            .map_or_else(|| "auto".to_owned(), |rate| rate.to_string())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text);
    parsed.ok_or_else(|| "a whole number with the unit ms, s, m or h is wanted".to_owned())
}

/// Sets the nodes to `drain`, and waits if that is wanted.
#[must_use]
pub fn drain(nodes: &[String], force: bool, waiting: &Waiting, whom: &Whom) -> ExitCode {
    super::block_on(async {
        let done = async {
            let (code, names) = operate::set(nodes, OperatorState::Drain, force, whom).await?;
            match names {
                Some(names) if waiting.wait => Progress::new(names).run(waiting, whom).await,
                _ => Ok(code),
            }
        };
        done.await.unwrap_or_else(|failure: AskError| {
            complain(&failure);
            failure.code()
        })
    })
}

/// What the nodes still have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    sessions: u64,
    held: u64,
    tunnels: u64,
}

impl Left {
    const fn is_nothing(&self) -> bool {
        self.sessions == 0 && self.held == 0 && self.tunnels == 0
    }
}

/// The answer to the end of some sessions.
#[derive(Debug, Deserialize)]
struct Ended {
    #[serde(rename = "ended")]
    _ended: u64,
}

/// The wait for some nodes.
struct Progress {
    names: Vec<String>,
    /// When the last idle session is forgotten if its client stays away.
    idle_until: Option<u64>,
    /// Whether the nodes' tunnels are being ended.
    in_maint: bool,
}

impl Progress {
    const fn new(names: Vec<String>) -> Self {
        Self {
            names,
            idle_until: None,
            in_maint: false,
        }
    }

    async fn run(mut self, waiting: &Waiting, whom: &Whom) -> Result<ExitCode, AskError> {
        let deadline = waiting.deadline.map(|span| Instant::now() + span);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut answered) = (0_u32, Instant::now());
        let mut line = Line::new();
        loop {
            ticks.tick().await;
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let looked = self
                .look(looks, late.then_some(waiting.limit()), whom)
                .await;
            let left = match looked {
                Ok(Some(left)) => left,
                Ok(None) => {
                    line.end();
                    complain(&"a node is in service again: no session of it is ended");
                    return Ok(exit::DEGRADED.into());
                }
                Err(AskError::Unavailable(..)) if answered.elapsed() < AWAY => continue,
                Err(error) => {
                    line.end();
                    return Err(error);
                }
            };
            answered = Instant::now();
            let empty = left.is_nothing();
            let text = self.words(&left, deadline, late);
            if !line.show(&text, empty || looks.is_multiple_of(SELDOM)) {
                return Ok(exit::IO.into());
            }
            if empty {
                line.end();
                return Ok(exit::OK);
            }
            looks = looks.wrapping_add(1);
        }
    }

    /// What is left; none if a node is in service again. With a `limit`, it first ends that number of
    /// sessions of each node.
    async fn look(
        &mut self,
        looks: u32,
        limit: Option<String>,
        whom: &Whom,
    ) -> Result<Option<Left>, AskError> {
        let health: Health = ask(whom, "/health", None).await?.json()?;
        let nodes = health.nodes.iter();
        let nodes: Vec<_> = nodes
            .filter(|node| self.names.contains(&node.name))
            .collect();
        if nodes.iter().any(|node| node.state == "ready") {
            return Ok(None);
        }
        let left = nodes.iter().fold(Left::default(), |left, node| Left {
            sessions: left.sessions + node.sessions,
            held: left.held + node.held,
            tunnels: left.tunnels + node.tunnels,
        });
        if let Some(limit) = limit {
            for node in nodes.iter().filter(|node| node.sessions > 0) {
                let path = format!("/sessions?node={}&limit={limit}", node.name);
                let reply = change(whom, &path, Change::Delete).await?;
                if reply.status != 503 {
                    reply.json::<Ended>()?;
                }
            }
            // Only maint ends a tunnel.
            if left.sessions == 0 && left.tunnels > 0 && !self.in_maint {
                self.in_maint = true;
                operate::set(&self.names, OperatorState::Maint, true, whom).await?;
            }
        } else if looks.is_multiple_of(SELDOM) {
            self.idle_until = None;
            for node in nodes.iter().filter(|node| node.sessions > 0) {
                let path = format!("/sessions?node={}&limit=0", node.name);
                let reply = ask(whom, &path, None).await?;
                if reply.status != 200 {
                    continue;
                }
                let page: SessionPage = reply.json()?;
                let until = page.idle_until.as_deref().and_then(seconds_of);
                self.idle_until = self.idle_until.max(until);
            }
        }
        Ok(Some(left))
    }

    /// The line for what is left.
    fn words(&self, left: &Left, deadline: Option<Instant>, late: bool) -> String {
        let names = self.names.join(", ");
        if left.is_nothing() {
            return format!("{names}: no session left");
        }
        let Left {
            sessions,
            held,
            tunnels,
        } = left;
        let count = |count: &u64, what: &str| {
            let s = if *count == 1 { "" } else { "s" };
            format!("{count} {what}{s}")
        };
        let mut parts = vec![
            format!("{} left", count(sessions, "session")),
            format!("{} held", count(held, "request")),
        ];
        if *tunnels > 0 {
            parts.push(count(tunnels, "tunnel"));
        }
        if late {
            parts.push("ending them".to_owned());
        } else {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.map_or(0, |now| now.as_secs());
            if let Some(until) = self.idle_until {
                let span = Duration::from_secs(until.saturating_sub(now));
                parts.push(format!("idle ones end within {}", span_words(span)));
            }
            if let Some(deadline) = deadline {
                let span = deadline.saturating_duration_since(Instant::now());
                parts.push(format!("deadline in {}", span_words(span)));
            }
        }
        format!("{names}: {}", parts.join(", "))
    }
}

/// A span in its two largest units.
fn span_words(span: Duration) -> String {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// One line that is written again and again on a terminal; elsewhere a line now and then.
struct Line {
    terminal: bool,
    last: String,
}

impl Line {
    fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            last: String::new(),
        }
    }

    /// Shows `text`. Elsewhere than on a terminal only if it is `due` and not the last one. False if it
    /// cannot be written.
    fn show(&mut self, text: &str, due: bool) -> bool {
        let text = one_line(text);
        let mut out = io::stdout();
        let written = if self.terminal {
            write!(out, "\r\u{1b}[K{text}").and_then(|()| out.flush())
        } else if due && text != self.last {
            writeln!(out, "{text}")
        } else {
            Ok(())
        };
        self.last = text;
        written.is_ok()
    }

    /// Leaves the line.
    fn end(&self) {
        if self.terminal && !self.last.is_empty() {
            let _ = writeln!(io::stdout());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_left() {
        let progress = Progress::new(vec!["t1".into(), "t2".into()]);
        let left = |sessions, held, tunnels| Left {
            sessions,
            held,
            tunnels,
        };
        let words = |left, late| progress.words(&left, None, late);
        assert_eq!(words(left(0, 0, 0), false), "t1, t2: no session left");
        assert_eq!(
            words(left(1, 2, 0), false),
            "t1, t2: 1 session left, 2 requests held"
        );
        assert_eq!(
            words(left(12, 1, 1), true),
            "t1, t2: 12 sessions left, 1 request held, 1 tunnel, ending them"
        );
    }

    #[test]
    fn spans() {
        let words = |seconds| span_words(Duration::from_millis(seconds));
        assert_eq!(words(0), "0s");
        assert_eq!(words(58_001), "59s");
        assert_eq!(words(250_000), "4m10s");
        assert_eq!(words(7_260_000), "2h01m");
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert!(duration("30").is_err());
    }
}
