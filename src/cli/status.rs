//! `bowline status`: how a running balancer and its nodes are, as a table or as JSON.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::ask::{AskError, Reply, Whom, ask};
use super::{complain, exit};
use crate::admin::report::{Health, NodeHealth, SCHEMA, Status, Verdict};
use crate::admin::seconds_of;
use crate::config::one_line;

/// Shows the state. The exit code tells it too: 0 ok, 1 degraded, 2 down.
#[must_use]
pub fn status(json: bool, watch: bool, whom: &Whom) -> ExitCode {
    super::block_on(async {
        let shown = if watch {
            self::watch(json, whom).await
        } else {
            let reply = ask(whom, "/health", None).await;
            reply.and_then(|reply| show(&reply, json, ""))
        };
        shown.unwrap_or_else(|failure| {
            complain(&failure);
            failure.code()
        })
    })
}

/// From one look to the next, with `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Moves to the first line of a terminal and clears what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows the state again and again. On a terminal each page takes the place of the last one. A balancer
/// that does not answer for a while, as during a restart, is waited for.
async fn watch(json: bool, whom: &Whom) -> Result<ExitCode, AskError> {
    let terminal = io::stdout().is_terminal();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = if terminal { CLEAR } else { "" };
    loop {
        ticks.tick().await;
        match ask(whom, "/health", None).await {
            Ok(reply) => {
                if show(&reply, json, before)? == exit::IO.into() {
                    return Ok(exit::IO.into());
                }
            }
            Err(failure @ AskError::Unavailable(..)) => complain(&failure),
            Err(failure) => return Err(failure),
        }
        if !terminal {
            // A blank line parts the pages.
            before = if json { "" } else { "\n" };
        }
    }
}

/// Shows an answer behind the text `before`.
fn show(reply: &Reply, json: bool, before: &str) -> Result<ExitCode, AskError> {
    let health: Health = reply.json()?;
    if health.schema != SCHEMA {
        let why = format!("its schema is {}, {SCHEMA} is known here", health.schema);
        return Err(AskError::Foreign(reply.url.clone(), why));
    }
    let mut out = io::stdout();
    let colours = out.is_terminal() && env::var_os("NO_COLOR").is_none();
    let mut text = before.as_bytes().to_vec();
    if json {
        text.extend_from_slice(&reply.body);
    } else {
        text.extend_from_slice(page(&health, &reply.url, colours).as_bytes());
    }
    // In one piece, so that a terminal does not flicker.
    let written = out.write_all(&text);
    if written.and_then(|()| out.flush()).is_err() {
        return Ok(exit::IO.into());
    }
    Ok(match health.status {
        Status::Ok => exit::OK,
        Status::Degraded => exit::DEGRADED.into(),
        Status::Down => exit::DOWN.into(),
    })
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// A cell: its text, and the colour that it has on a terminal.
struct Cell(String, Option<&'static str>);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), None)
    }
}

/// The whole page.
fn page(health: &Health, url: &str, colours: bool) -> String {
    let (word, colour) = match health.status {
        Status::Ok => ("ok", GREEN),
        Status::Degraded => ("degraded", YELLOW),
        Status::Down => ("DOWN", RED),
    };
    let age = |time: &str| age(time, &health.now);
    let mut page = format!(
        "{}: {} sessions, {} requests held, {} client connections\n\
         Bowline {} at {url}, started {} ago\n",
        painted(word, Some(colour), colours),
        health.sessions,
        health.held,
        health.connections,
        one_line(&health.version),
        age(&health.started),
    );
    for reason in &health.reasons {
        page.push_str(&format!("  - {}\n", one_line(reason)));
    }
    page.push('\n');
    let mut rows = vec![HEAD.map(Cell::from).into()];
    rows.extend(health.nodes.iter().map(|node| row(node, &age)));
    page.push_str(&table(&rows, colours));
    let failed = health.nodes.iter().filter_map(|node| {
        let failure = node.last_failure.as_ref()?;
        Some((node, failure))
    });
    let width = health.nodes.iter().map(|node| bounded(&node.name).len());
    let width = width.max().unwrap_or(0);
    for (number, (node, failure)) in failed.enumerate() {
        if number == 0 {
            page.push_str("\nLast failures:\n");
        }
        let name = bounded(&node.name);
        let (when, what) = (age(&failure.when), one_line(&failure.what));
        page.push_str(&format!("  {name:width$}  {when:>6} ago  {what}\n"));
    }
    page
}

const HEAD: [&str; 11] = [
    "NODE", "STATE", "PROBES", "SINCE", "SESSIONS", "HELD", "NEW/S", "ERR1M", "ERR5M", "P50MS",
    "P99MS",
];
/// Columns from the left that hold words.
const WORDS: usize = 3;
/// The longest word of a table, in characters: that of a node's name. Every row is as wide.
const LONGEST_WORD: usize = 64;

/// A word of the answer for a table, cut if it is none of Bowline's.
fn bounded(text: &str) -> String {
    one_line(&text.chars().take(LONGEST_WORD).collect::<String>())
}

fn row(node: &NodeHealth, age: &dyn Fn(&str) -> String) -> Vec<Cell> {
    let colour = (node.state != "ready").then_some(YELLOW);
    let (verdict, shade) = match node.verdict {
        Verdict::Up => ("up", Some(GREEN)),
        Verdict::Silent => ("SILENT", Some(YELLOW)),
        Verdict::HeldBack => ("held back", Some(YELLOW)),
        Verdict::Down => ("DOWN", Some(RED)),
        Verdict::Unknown => ("unknown", Some(YELLOW)),
    };
    let mut state = bounded(&node.state);
    if node.backup {
        state.push_str(" backup");
    }
    let none = || "-".to_owned();
    let share =
        |share: Option<f64>| share.map_or_else(none, |share| format!("{:.1}%", share * 100.0));
    let ms = |ms: Option<f64>| ms.map_or_else(none, |ms| format!("{ms:.1}"));
    vec![
        bounded(&node.name).into(),
        Cell(state, colour),
        Cell(verdict.to_owned(), shade),
        node.since.as_deref().map_or_else(none, age).into(),
        node.sessions.to_string().into(),
        node.held.to_string().into(),
        format!("{:.1}", node.creations_per_second).into(),
        share(node.error_share_1m).into(),
        share(node.error_share_5m).into(),
        ms(node.p50_ms).into(),
        ms(node.p99_ms).into(),
    ]
}

/// Rows with their columns below each other: words to the left, numbers to the right.
fn table(rows: &[Vec<Cell>], colours: bool) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].0.len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut table = String::new();
    for row in rows {
        for (column, (Cell(text, colour), width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - text.len());
            let text = painted(text, *colour, colours);
            let cell = if column < WORDS {
                text + &gap
            } else {
                gap + &text
            };
            if column > 0 {
                table.push_str("  ");
            }
            table.push_str(&cell);
        }
        let used = table.trim_end_matches(' ').len();
        table.truncate(used);
        table.push('\n');
    }
    table
}

fn painted(text: &str, colour: Option<&str>, colours: bool) -> String {
    match colour {
        Some(colour) if colours => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        _ => text.to_owned(),
    }
}

/// How long `time` was before `now`, in the two largest units.
pub(super) fn age(time: &str, now: &str) -> String {
    let (Some(time), Some(now)) = (seconds_of(time), seconds_of(now)) else {
        return "-".into();
    };
    let age = Duration::from_secs(now.saturating_sub(time)).as_secs();
    match (age / 86_400, age / 3600 % 24, age / 60 % 60, age % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, verdict: Verdict, state: &str) -> NodeHealth {
        let text = format!(
            "{{\"name\":\"{name}\",\"address\":\"{name}:5280\",\"resolved\":[],\
             \"state\":\"{state}\",\"state_since\":null,\"verdict\":\"up\",\
             \"since\":\"2026-03-01T07:00:00Z\",\"weight\":1,\"share\":1.0,\"falls\":0,\
             \"penalty_seconds\":0.0,\"sessions\":1204,\"held\":980,\
             \"creations_per_second\":4.25,\"error_share_1m\":0.015,\"error_share_5m\":null,\
             \"p50_ms\":1.21,\"p99_ms\":null,\"last_failure\":null,\"unknown\":1}}"
        );
        NodeHealth {
            verdict,
            ..serde_json::from_str(&text).expect("a later version may say more")
        }
    }

    fn health() -> Health {
        let mut down = node("tigase-2", Verdict::Down, "maint");
        down.last_failure = Some(crate::admin::report::LastFailure {
            what: "the connection was refused".into(),
            when: "2026-03-01T08:58:10Z".into(),
        });
        Health {
            schema: SCHEMA,
            status: Status::Degraded,
            reasons: vec!["node tigase-2 is down".into()],
            draining: false,
            network_suspected: false,
            version: "1.2.3".into(),
            started: "2026-02-27T07:00:00Z".into(),
            now: "2026-03-01T09:00:15Z".into(),
            sessions: 2408,
            held: 1960,
            connections: 3000,
            load: crate::admin::report::Load::default(),
            nodes: vec![
                node("t1", Verdict::Up, "ready"),
                down,
                node("t3", Verdict::Silent, "ready"),
                node("t4", Verdict::HeldBack, "ready"),
            ],
        }
    }

    #[test]
    fn the_page_to_the_letter() {
        let expected = "\
degraded: 2408 sessions, 1960 requests held, 3000 client connections
Bowline 1.2.3 at http://x:1, started 2d02h ago
  - node tigase-2 is down

NODE      STATE  PROBES     SINCE  SESSIONS  HELD  NEW/S  ERR1M  ERR5M  P50MS  P99MS
t1        ready  up         2h00m      1204   980    4.2   1.5%      -    1.2      -
tigase-2  maint  DOWN       2h00m      1204   980    4.2   1.5%      -    1.2      -
t3        ready  SILENT     2h00m      1204   980    4.2   1.5%      -    1.2      -
t4        ready  held back  2h00m      1204   980    4.2   1.5%      -    1.2      -

Last failures:
  tigase-2   2m05s ago  the connection was refused
";
        assert_eq!(page(&health(), "http://x:1", false), expected);
        let painted = page(&health(), "http://x:1", true);
        assert!(painted.contains("\u{1b}[31mDOWN\u{1b}[0m"), "{painted}");
        let plain = painted.split('\u{1b}').map(|part| {
            part.strip_prefix('[')
                .map_or(part, |part| part.split_once('m').unwrap().1)
        });
        assert_eq!(plain.collect::<String>(), expected);
    }

    #[test]
    fn ages() {
        let age = |time| age(time, "2026-03-01T09:00:15Z");
        assert_eq!(age("2026-03-01T09:00:15Z"), "0s");
        assert_eq!(age("2026-03-01T09:00:16Z"), "0s", "another clock");
        assert_eq!(age("2026-03-01T08:59:00Z"), "1m15s");
        assert_eq!(age("2026-02-01T08:59:00Z"), "28d00h");
        assert_eq!(age("soon"), "-");
    }
}
